"""Small PDFs for tests, as raw bytes: every colour and word is where the test put it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

A4 = (595.0, 842.0)


def pdf_bytes(
    contents: Sequence[str],
    size: tuple[float, float] = A4,
    rotate: int = 0,
    crop: tuple[float, float, float, float] | None = None,
    objects: Sequence[bytes] = (),
    resources: str = "",
) -> bytes:
    """A PDF with one page for each content stream, and the font /F1 (Helvetica).

    ``crop`` in user space (left, bottom, right, top). ``objects`` get the numbers from 10 on; ``resources`` is
    added to each page's resource dictionary.
    """
    first = 10 + len(objects)
    numbers = [first + 2 * index for index in range(len(contents))]
    kids = " ".join(f"{number} 0 R" for number in numbers)
    body: dict[int, bytes] = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: f"<< /Type /Pages /Kids [{kids}] /Count {len(contents)} >>".encode(),
        3: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    }
    body.update({10 + index: data for index, data in enumerate(objects)})
    cropped = "" if crop is None else f"/CropBox [{' '.join(map(str, crop))}]"
    for number, content in zip(numbers, contents, strict=True):
        body[number] = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] {cropped} /Rotate {rotate}"
            f" /Resources << /Font << /F1 3 0 R >> {resources} >> /Contents {number + 1} 0 R >>"
        ).encode()
        body[number + 1] = stream(content.encode("latin-1"))
    return _file(body)


def stream(data: bytes, entries: str = "") -> bytes:
    """A stream object."""
    return f"<< /Length {len(data)} {entries} >>\nstream\n".encode() + data + b"\nendstream"


def image(pixels: bytes, width: int, height: int) -> bytes:
    """An image object of RGB pixels."""
    entries = f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB"
    return stream(pixels, f"{entries} /BitsPerComponent 8")


def text(x: float, y: float, words: str, size: float = 12) -> str:
    """Words from a point of the baseline on."""
    return f"BT /F1 {size} Tf {x} {y} Td ({words}) Tj ET\n"


def rectangle(x: float, y: float, width: float, height: float, colour: str = "1 0 0") -> str:
    """A filled rectangle; ``colour`` as in "1 0 0"."""
    return f"{colour} rg {x} {y} {width} {height} re f 0 g\n"


def write(path: Path, data: bytes) -> Path:
    """Write a file, return its path."""
    path.write_bytes(data)
    return path


def _file(body: dict[int, bytes]) -> bytes:
    out = b"%PDF-1.7\n"
    offsets = {}
    for number, data in sorted(body.items()):
        offsets[number] = len(out)
        out += f"{number} 0 obj\n".encode() + data + b"\nendobj\n"
    start, count = len(out), max(body) + 1
    out += f"xref\n0 {count}\n0000000000 65535 f \n".encode()
    for number in range(1, count):
        entry = f"{offsets[number]:010d} 00000 n \n" if number in offsets else "0000000000 65535 f \n"
        out += entry.encode()
    return out + f"trailer << /Size {count} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
