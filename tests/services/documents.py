"""Documents for the queue, made here: of any number of pages, broken, locked."""

from __future__ import annotations

import random
from pathlib import Path

from pdfs import pdf_bytes, text, write

WORDS = [
    "annual", "report", "of", "the", "northern", "region", "with", "costs", "revenue", "passengers", "trams",
    "depots", "orchards", "and", "telescopes", "measured", "by", "year", "quarter", "month", "season", "growth",
    "decline", "budget", "forecast", "margin", "interest", "pension", "salary", "rent", "water", "heat", "light",
    "timber", "steel", "glass", "river", "bridge", "harbour", "station", "platform", "ticket", "fare", "night",
    "morning", "weather",
]  # fmt: skip


def paper(path: Path, pages: int, lines: int = 20, seed: int = 0) -> Path:
    """A PDF whose pages have so many lines of ten words, and say which they are."""
    chance = random.Random(f"{path.name} {seed}")
    contents = []
    for page in range(1, pages + 1):
        said = [f"{path.stem} page {page} of {pages}"]
        said += [" ".join(chance.choices(WORDS, k=10)) for _ in range(lines - 1)]
        contents.append("".join(text(50, 790 - 16 * i, line, 10) for i, line in enumerate(said)))
    return write(path, pdf_bytes(contents))


def incomplete(path: Path) -> Path:
    """A PDF of three pages, of which the second is not there."""
    data = pdf_bytes([text(72, 700, f"page {number} of an incomplete document") for number in (1, 2, 3)])
    return write(path, data.replace(b"[10 0 R 12 0 R 14 0 R]", b"[10 0 R 98 0 R 14 0 R]"))


def broken(path: Path) -> Path:
    """Not a PDF after its first bytes."""
    return write(path, b"%PDF-1.7\n" + random.Random(path.name).randbytes(2000))


def locked(path: Path, password: str, pages: int = 2) -> Path:
    """A PDF that opens only with a password."""
    import pikepdf

    plain = paper(path.with_suffix(".plain"), pages)
    with pikepdf.open(plain) as document:
        document.save(path, encryption=pikepdf.Encryption(owner=password, user=password))
    plain.unlink()
    return path
