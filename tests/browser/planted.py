"""Documents whose every word is where the tests put it, with three coloured marks to measure a screenshot by."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pikepdf
from pdfs import pdf_bytes, rectangle, text, write
from reportlab.pdfbase.pdfmetrics import stringWidth

Box = tuple[float, float, float, float]  # left, bottom, right, top in user space; left, top, right, bottom on a screen

WORD = "walrus"  # on its page it stands alone
AWAY = "xylophone"  # stands on no page
QUESTION = f"the {WORD}, and a {AWAY}?"
SIZE = 20.0  # points
AT = (255.0, 430.0)  # the beginning of the word's baseline
X_HEIGHT = 0.52  # of Helvetica, in shares of its size

MARK = 12.0  # points, the side of a mark
MARKS = {  # colour: where the middle of a mark of it lies in user space
    "1 0 1": (200.0, 385.0),
    "0 1 1": (390.0, 385.0),
    "0 1 0": (200.0, 500.0),
}
PROSE = ("Costs of the northern region fell again.", "Every ledger was closed in the third quarter.")


@dataclass(frozen=True, slots=True)
class Turned:
    """A document with the word on its only page, which is turned and cropped."""

    name: str
    rotate: int = 0
    crop: Box | None = None


TURNED = (
    Turned("upright.pdf"),
    Turned("rotated.pdf", rotate=90),
    Turned("cropped.pdf", crop=(120.0, 250.0, 520.0, 700.0)),
    Turned("rotated-cropped.pdf", rotate=270, crop=(120.0, 250.0, 520.0, 700.0)),
)


def word_box() -> Box:
    """The word from its baseline to the height of its small letters, in user space."""
    x, y = AT
    return x, y, x + stringWidth(WORD, "Helvetica", SIZE), y + X_HEIGHT * SIZE


def planted(turned: Turned) -> bytes:
    """The page of A4."""
    marks = "".join(rectangle(x - MARK / 2, y - MARK / 2, MARK, MARK, colour) for colour, (x, y) in MARKS.items())
    prose = "".join(text(140, 640 - 24 * line, words) for line, words in enumerate(PROSE))
    return pdf_bytes([marks + prose + text(*AT, WORD, SIZE)], rotate=turned.rotate, crop=turned.crop)


def story(lines: Sequence[str]) -> bytes:
    """A PDF with a page for each line, which stands 700 points above its page's foot."""
    return pdf_bytes([text(72, 700, line, 16) for line in lines])


def locked(lines: Sequence[str]) -> bytes:
    """A PDF that opens with a password only."""
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(story(lines))) as pdf:
        pdf.save(out, encryption=pikepdf.Encryption(user="sesame", owner="sesame"))
    return out.getvalue()


def torn(lines: Sequence[str], page: int) -> bytes:
    """A PDF one of whose pages cannot be read."""
    data = story(lines)
    start = -1
    for _ in range(page):
        start = data.index(b"<< /Type /Page /Parent", start + 1)
    return data[:start] + b"null %/Page    /Parent" + data[start + 22 :]


def write_planted(folder: Path) -> list[Path]:
    """All of ``TURNED`` as files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [write(folder / turned.name, planted(turned)) for turned in TURNED]
