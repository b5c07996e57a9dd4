"""Reading the pages of one PDF with poppler's programs."""

from __future__ import annotations

import html
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .boxes import WHOLE_PAGE, cut
from .drawn import GRID, inked
from .errors import DocumentError, Reason, UsageError
from .pdf import decrypted
from .records import Box, Page
from .words import clean, compose, is_usable, split_box, without_breaks

if TYPE_CHECKING:
    from PIL.Image import Image


class PopplerDocument:
    """A PDF read with poppler's programs. Raises DocumentError: corrupt, or password; UsageError without poppler.

    poppler takes a password from its command line only, where whoever may list the machine's processes could read it:
    so it is given none, but a copy without encryption, made by pdfium, that lies in memory.
    """

    renderer = "poppler"

    def __init__(self, path: Path, document: str, passwords: Sequence[str]) -> None:
        self._path, self._name = str(path), document
        self._copy: BinaryIO | None = None
        pages = self._count()
        if pages is None:
            self._copy = decrypted(path, document, passwords)
            self._path = f"/proc/{os.getpid()}/fd/{self._copy.fileno()}"
            pages = self._count()
        if pages is None:
            raise self._corrupt(None, "poppler cannot open it; the file is damaged or is no PDF")
        self.pages = pages
        self.locked = self._copy is not None

    def content(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Page ``number`` (from 1), and the box of the whole page if much of it is drawn. Raises DocumentError.

        poppler lists no objects: ``drawn`` is the share of the 64 × 64 cells of a small picture that are inked by
        more than half, words excepted.
        """
        width, height, lines = self._lines(number)
        text, words = without_breaks(*compose(lines))
        if not is_usable(text):
            text, words = "", ()
        drawn = inked(self.picture(number, 4 * GRID), words)
        images = (WHOLE_PAGE,) if drawn > 0.5 else ()
        return Page(number, width, height, text, words, "text_layer" if words else "none", drawn), images

    def picture(self, number: int, side: int) -> Image:
        """The page as displayed, RGB on white, its longer side ``side`` pixels. Raises DocumentError."""
        import pdf2image
        from pdf2image.exceptions import PDFPageCountError, PDFSyntaxError

        try:
            pictures = pdf2image.convert_from_path(
                self._path, first_page=number, last_page=number, size=side, use_cropbox=True
            )
        except (PDFPageCountError, PDFSyntaxError) as error:
            raise self._corrupt(number) from error
        if not pictures:
            raise self._corrupt(number)
        picture: Image = pictures[0].convert("RGB")
        return picture

    def close(self) -> None:
        """Let go of the copy."""
        if self._copy is not None:
            self._copy.close()

    def _count(self) -> int | None:
        """How many pages it has, None if it asks for a password."""
        from pdf2image import pdfinfo_from_path
        from pdf2image.exceptions import PDFInfoNotInstalledError, PDFPageCountError

        try:
            pages = int(pdfinfo_from_path(self._path)["Pages"])
        except PDFInfoNotInstalledError:
            raise UsageError("poppler is not installed: apt-get install poppler-utils") from None
        except PDFPageCountError as error:
            if "password" in str(error).lower():
                return None
            raise self._corrupt(None, "poppler cannot open it; the file is damaged or is no PDF") from None
        if pages < 1:
            raise self._corrupt(None, "has no pages")
        return pages

    def _size(self, number: int) -> tuple[float, float]:
        """Width and height of a page as displayed, in points."""
        from pdf2image import pdfinfo_from_path

        info = pdfinfo_from_path(self._path, first_page=number, last_page=number)
        sizes = [str(value) for key, value in info.items() if re.fullmatch(r"Page +\d+ size", key)]
        turns = [int(value) for key, value in info.items() if re.fullmatch(r"Page +\d+ rot", key)]
        found = re.match(r"([\d.e+]+) x ([\d.e+]+)", sizes[0]) if sizes else None
        if found is None or not turns or float(found[1]) <= 0 or float(found[2]) <= 0:
            raise self._corrupt(number)
        width, height = float(found[1]), float(found[2])
        return (height, width) if turns[0] % 180 else (width, height)

    def _lines(self, number: int) -> tuple[float, float, list[tuple[str, list[Box]]]]:
        """A page's width, height and lines, each with the boxes of its words."""
        width, height = self._size(number)
        command = ["pdftotext", "-bbox-layout", "-cropbox", "-f", str(number), "-l", str(number), self._path, "-"]
        done = subprocess.run(command, capture_output=True, check=False)
        lines = []
        for line in re.findall(r"<line .*?</line>", done.stdout.decode("utf-8", "replace"), re.DOTALL):
            words: list[tuple[str, Box]] = []
            for x0, y0, x1, y1, text in re.findall(_BBOX_WORD, line):
                box = cut((float(x0) / width, float(y0) / height, float(x1) / width, float(y1) / height))
                shown = " ".join(clean(html.unescape(text)).split())
                if box is not None and shown:
                    words.append((shown, box))
            if words:
                lines.append((" ".join(text for text, _ in words), [b for word in words for b in split_box(*word)]))
        return width, height, lines

    def _corrupt(self, number: int | None, why: str = "poppler cannot read the page") -> DocumentError:
        return DocumentError(self._name, number, Reason.CORRUPT, why)


_BBOX_WORD = r'<word xMin="([-\d.e]+)" yMin="([-\d.e]+)" xMax="([-\d.e]+)" yMax="([-\d.e]+)">(.*?)</word>'
