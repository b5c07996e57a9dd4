"""Pages for encode.py: PDFs with text, a table and a chart on each page, and pages read from PDFs as visrag does."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pdfs import A4, pdf_bytes, rectangle, text

from visrag.pdf import PdfiumDocument
from visrag.records import Page
from visrag.render import RenderOptions

LETTER = (612.0, 792.0)
SIZES = (A4, LETTER, A4, (A4[1], A4[0]))  # of documents in turn; one in four is landscape
DOCUMENT = 16  # pages of a document
VOCABULARY = """
revenue cost region transport capital expenditure passengers energy museum visitors quarter growth market share
north south east west forecast budget station tram harbour water heating roof school hospital rent interest loan
annual report table figure compared previous year increase decrease percent thousand million average total net
gross margin supply demand contract supplier delivery index price volume staff training safety audit board plan
"""
WORDS = VOCABULARY.split()


def drawn(number: int, size: tuple[float, float], changed: bool = False) -> str:
    """A page's content stream, by its number; ``changed``: one line of its text is another."""
    width, height = size
    rng = random.Random(number)
    lines = [" ".join(rng.choices(WORDS, k=int(width // 48))) for _ in range(int(height * 0.45 // 13))]
    if changed:
        lines[len(lines) // 2] = " ".join(random.Random(-1 - number).choices(WORDS, k=int(width // 48)))
    parts = [text(50, height - 60, f"{number}. {' '.join(rng.choices(WORDS, k=4)).capitalize()}", 18)]
    parts += [text(50, height - 90 - 13 * row, line, 10) for row, line in enumerate(lines)]
    top = height - 110 - 13 * len(lines)
    for row in range(7):
        y = top - 16 * row
        parts.append(rectangle(50, y - 4, width * 0.45, 0.5, "0.4 0.4 0.4"))
        cells = [rng.choice(WORDS), *(f"{rng.uniform(1, 9999):,.1f}" for _ in range(3))]
        parts += [text(54 + width * 0.11 * column, y, cell, 9) for column, cell in enumerate(cells)]
    left, base = width * 0.58, top - 110
    for bar in range(9):
        colour = f"{rng.random():.2f} {rng.random():.2f} {rng.random():.2f}"
        parts.append(rectangle(left + bar * width * 0.038, base, width * 0.028, rng.uniform(10, 110), colour))
    return "".join(parts)


def make_pdfs(folder: Path, pages: int) -> list[Path]:
    """Documents of so many pages together."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for document, first in enumerate(range(0, pages, DOCUMENT)):
        size = SIZES[document % len(SIZES)]
        contents = [drawn(number, size) for number in range(first, min(first + DOCUMENT, pages))]
        files.append(folder / f"{document:04}.pdf")
        files[-1].write_bytes(pdf_bytes(contents, size))
    return files


def near_duplicates(folder: Path, pages: int) -> list[Path]:
    """As ``make_pdfs``, all in portrait; the last tenth of the pages are the first ones, but for a line of each."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = pages - pages // 10
    contents = [drawn(number % whole, A4, changed=number >= whole) for number in range(pages)]
    (folder / "duplicates.pdf").write_bytes(pdf_bytes(contents, A4))
    return [folder / "duplicates.pdf"]


def read(files: Sequence[Path], most: int | None = None) -> Iterator[Page]:
    """The files' pages with their words, rendered in memory, in one process."""
    left = most if most is not None else sys.maxsize
    for file in files:
        document = PdfiumDocument(file, file.name, ())
        for number in range(1, min(document.pages, left) + 1):
            page, _ = document.content(number)
            picture = document.picture(number, RenderOptions().image_side)
            yield replace(page, image=partial(_same, picture))
        left -= min(document.pages, left)
        document.close()


def _same(picture: Any) -> Any:
    return picture


def pictures(pages: Sequence[Page]) -> list[Any]:
    return [page.image() for page in pages if page.image is not None]
