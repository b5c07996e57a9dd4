"""Reading the pages of one PDF with pdfium, in this process. It may kill it: see ``visrag.reader``."""

from __future__ import annotations

import functools
import itertools
import os
import unicodedata
from collections.abc import Iterator, Sequence
from ctypes import c_double, c_int, c_ushort
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .boxes import Affine, area, cut, placed, same_line, union
from .drawn import measure
from .errors import DocumentError, Reason, UsageError
from .records import Box, Page, Word
from .words import WORD, clean, is_usable, rejoined, without_breaks

if TYPE_CHECKING:
    from PIL.Image import Image

FAR = 1e7  # points: beyond any page


class PdfiumDocument:
    """A PDF opened with pdfium. Raises DocumentError: corrupt, or password."""

    renderer = "pdfium"

    def __init__(self, path: Path, document: str, passwords: Sequence[str]) -> None:
        self._name = document
        self._pdf, self.locked = _open_pdfium(path, document, passwords)
        self.pages = len(self._pdf)
        if self.pages == 0:
            self._pdf.close()
            raise DocumentError(document, None, Reason.CORRUPT, "has no pages")
        if self._pdf.get_formtype():
            self._pdf.init_forms()

    def content(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Page ``number`` (from 1) and the boxes of its images. Raises DocumentError."""
        page = self._page(number)
        try:
            width, height = page.get_size()
            affine = _to_fractions(page.raw, width, height)
            text, words = _text_layer(page, affine)
            drawn, images = measure(page.raw, affine, width, height)
        finally:
            page.close()
        if not words and any(area(image) > 0.5 for image in images):
            drawn = 1.0
        return Page(number, width, height, text, words, "text_layer" if words else "none", drawn), images

    def picture(self, number: int, side: int) -> Image:
        """The page as displayed, RGB on white, its longer side ``side`` pixels. Raises DocumentError."""
        page = self._page(number)
        try:
            scale = (side - 0.001) / max(page.get_size())  # pdfium rounds up, and a little above is a pixel more
            bitmap = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=False)
            picture: Image = bitmap.to_pil().convert("RGB")
            bitmap.close()
            return picture
        finally:
            page.close()

    def close(self) -> None:
        """Close the file."""
        self._pdf.close()

    def _page(self, number: int) -> Any:
        import pypdfium2

        try:
            page = self._pdf[number - 1]
        except pypdfium2.PdfiumError as error:
            raise DocumentError(self._name, number, Reason.CORRUPT, "pdfium cannot load the page") from error
        if min(page.get_size()) <= 0:  # nothing of it lies within its crop box: it is shown without one, as viewers do
            page.set_cropbox(-FAR, -FAR, FAR, FAR)
        if min(page.get_size()) <= 0:
            page.close()
            raise DocumentError(self._name, number, Reason.CORRUPT, "the page has no area")
        return page


def _open_pdfium(path: Path, document: str, passwords: Sequence[str]) -> tuple[Any, bool]:
    """The document, and whether it took a password. Raises DocumentError."""
    import pypdfium2
    import pypdfium2.raw as c

    for password in (None, *itertools.chain.from_iterable(map(_forms, passwords))):
        c.FPDF_LoadMemDocument64(b"none", 4, None)  # some failures leave the last error as it was: make that "format"
        try:
            return pypdfium2.PdfDocument(path, password=password), password is not None
        except pypdfium2.PdfiumError as error:
            if error.err_code != c.FPDF_ERR_PASSWORD:
                why = "pdfium cannot open it; the file is damaged or is no PDF"
                raise DocumentError(document, None, Reason.CORRUPT, why) from error
    what = "is encrypted and none of the passwords given opens it" if passwords else "is encrypted"
    raise DocumentError(document, None, Reason.PASSWORD, f"{what}: give its password with --password")


def _forms(password: str) -> Iterator[str]:
    """A password as it was given, and as ISO 32000-2 (7.6.4.3.2) has it prepared for AES-256: by SASLprep."""
    yield password
    prepared = unicodedata.normalize("NFKC", password.replace("\xad", ""))
    if prepared != password:
        yield prepared


def decrypted(path: Path, document: str, passwords: Sequence[str]) -> BinaryIO:
    """A copy of an encrypted PDF without its encryption, in memory: a file without a name.

    Raises DocumentError: corrupt, or password; UsageError where the system has no such files.
    """
    import pypdfium2
    import pypdfium2.raw as c

    if not hasattr(os, "memfd_create"):
        raise UsageError("poppler can read encrypted PDFs on Linux only: leave them to pdfium")
    pdf, _ = _open_pdfium(path, document, passwords)
    copy = os.fdopen(os.memfd_create("visrag"), "w+b")
    try:
        pdf.save(copy, flags=c.FPDF_REMOVE_SECURITY)
        copy.flush()
    except pypdfium2.PdfiumError as error:
        copy.close()
        raise DocumentError(document, None, Reason.CORRUPT, "pdfium cannot decrypt it") from error
    finally:
        pdf.close()
    return copy


def _to_fractions(page: Any, width: float, height: float) -> Affine:
    """(a, b, c, d, e, f): the point (x, y) in user space lies at (a x + c y + e, b x + d y + f) of the page as
    displayed, in fractions from the top left."""
    import pypdfium2.raw as c

    def at(x: float, y: float) -> tuple[float, float]:
        c.FPDF_PageToDevice(page, 0, 0, size, size, 0, x, y, left, top)
        return left.value / size, top.value / size

    size, left, top = 1 << 20, c_int(), c_int()
    side = max(width, height)
    (e, f), (x1, y1), (x2, y2) = at(0, 0), at(side, 0), at(0, side)
    return (x1 - e) / side, (y1 - f) / side, (x2 - e) / side, (y2 - f) / side, e, f


def _text_layer(page: Any, affine: Affine) -> tuple[str, tuple[Word, ...]]:
    """The text and words that lie on the page; nothing where there are none or their characters have no meaning."""
    import pypdfium2.raw as c

    textpage = c.FPDFText_LoadPage(page.raw)
    if not textpage:
        return "", ()
    try:
        count = c.FPDFText_CountChars(textpage)
        if count <= 0:
            return "", ()
        buffer = (c_ushort * (2 * count + 2))()
        length = c.FPDFText_GetText(textpage, 0, count, buffer)
        text = bytes(buffer)[: 2 * max(0, length - 1)].decode("utf-16-le", "surrogatepass")
        if not is_usable(text):
            return "", ()
        return without_breaks(*_assemble(text, _PdfiumRects(textpage, affine, text)))
    finally:
        c.FPDFText_ClosePage(textpage)


class _PdfiumRects:
    """The boxes of ranges of a pdfium text page."""

    def __init__(self, textpage: Any, affine: Affine, text: str) -> None:
        import pypdfium2.raw as c

        # pdfium counts in UTF-16: where each character of the text begins, if any takes two units
        self._units: Sequence[int] = range(len(text) + 1)
        if text and max(text) > "\uffff":
            self._units = [0, *itertools.accumulate(1 + (character > "\uffff") for character in text)]
        self._c, self._textpage, self._affine = c, textpage, affine
        self._values = c_double(), c_double(), c_double(), c_double()
        self._cell = c.FS_RECTF()

    def __call__(self, start: int, end: int) -> tuple[Box, ...]:
        """The boxes of text[start:end] on the page, one a line."""
        c, textpage, (left, top, right, bottom) = self._c, self._textpage, self._values
        first = c.FPDFText_GetCharIndexFromTextIndex(textpage, self._units[start])
        last = c.FPDFText_GetCharIndexFromTextIndex(textpage, self._units[end - 1])
        boxes: list[Box] = []
        for index in range(c.FPDFText_CountRects(textpage, first, last - first + 1)):
            c.FPDFText_GetRect(textpage, index, left, top, right, bottom)
            whole = placed(self._affine, left.value, bottom.value, right.value, top.value)
            if whole[0] >= whole[2] or whole[1] >= whole[3]:
                whole = self._loose(first, last)
            box = cut(whole)
            if box is None:
                continue
            if boxes and same_line(boxes[-1], box):
                box = union(boxes.pop(), box)
            boxes.append(box)
        return tuple(boxes)

    def _loose(self, first: int, last: int) -> Box:
        """The box of the characters' cells, for fonts that do not know the boxes of their glyphs."""
        c, cell = self._c, self._cell
        boxes = [
            placed(self._affine, cell.left, cell.bottom, cell.right, cell.top)
            for index in range(first, last + 1)
            if c.FPDFText_GetLooseCharBox(self._textpage, index, cell)
        ]
        return functools.reduce(union, boxes) if boxes else (-1.0, -1.0, -1.0, -1.0)


def _assemble(text: str, boxes_of: _PdfiumRects) -> tuple[str, tuple[Word, ...]]:
    """Clean text and its words, from the text as pdfium gives it."""
    pieces: list[str] = []
    words: list[Word] = []
    at, gap, end = 0, "", 0
    for match in WORD.finditer(text):
        between = text[end : match.start()]
        gap = "\n" if "\n" in between or gap == "\n" else " " if between or gap else ""
        end = match.end()
        word = clean(_joined(match.group(), text))
        boxes = boxes_of(match.start(), end) if word else ()
        if not boxes:
            continue
        if words:
            pieces.append(gap)
            at += len(gap)
        words.append(Word(word, at, boxes))
        pieces.append(word)
        at, gap = at + len(word), ""
    return "".join(pieces), tuple(words)


def _joined(word: str, text: str) -> str:
    """A word without the hyphens of line ends, U+FFFE in pdfium's text, unless they belong to it."""
    while "\ufffe" in word:
        before, after = word.split("\ufffe", 1)
        word = rejoined(before, after, text)
    return word
