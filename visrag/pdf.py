"""Reading the pages of one PDF in this process: with pdfium, or with poppler's programs.

A document here gives ``pages``, ``content(number)`` (a Page without picture, and the boxes of the images on it),
``picture(number, side)`` and ``close()``. It may kill its process: ``visrag.render`` runs it in one of its own.
"""

from __future__ import annotations

import functools
import html
import itertools
import re
import subprocess
from collections.abc import Iterator, Sequence
from ctypes import c_double, c_float, c_int, c_uint, c_ushort
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import DocumentError, Reason, UsageError
from .layout import WORD, compose
from .records import Box, Page, Word

if TYPE_CHECKING:
    from PIL.Image import Image

GRID = 64  # the measure of what is drawn has this many cells to a side
MAX_OBJECTS = 20_000  # page objects looked at, forms included
MAX_DEPTH = 6  # forms within forms
MAX_IMAGES = 256  # boxes of images kept
THIN = 3.0  # points: anything drawn thinner is a rule
PLAIN = 0.8  # share of the page: a filled path larger than this is a background
LIGHT = 0.3  # ink, of 1: a rectangle filled in a lighter colour is shading
MAX_SEGMENTS = 5_000  # of a path that is taken apart into subpaths
UNUSABLE = 0.1  # share of characters without meaning that makes a text layer unusable

_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}
_DROPPED = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0xAD, 0xFEFF, 0xFFFF, *range(0xD800, 0xE000)])
_CLEAN = _LIGATURES | _DROPPED
_MEANINGLESS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff\ud800-\udfff]")

Affine = tuple[float, float, float, float, float, float]


class PdfiumDocument:
    """A PDF opened with pdfium. Raises DocumentError: corrupt, or password."""

    renderer = "pdfium"

    def __init__(self, path: Path, document: str, passwords: Sequence[str]) -> None:
        self._name = document
        self._pdf = _open_pdfium(path, document, passwords)
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
            cells, images = _drawn_cells(page.raw, affine, width, height)
        finally:
            page.close()
        drawn = float(cells.mean())
        if not words and any(_area(image) > 0.5 for image in images):
            drawn = 1.0
        return Page(number, width, height, text, words, "text_layer" if words else "none", drawn), images

    def picture(self, number: int, side: int) -> Image:
        """The page as displayed, RGB on white, its longer side ``side`` pixels. Raises DocumentError."""
        page = self._page(number)
        try:
            scale = side / max(page.get_size())
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
        if min(page.get_size()) <= 0:
            page.close()
            raise DocumentError(self._name, number, Reason.CORRUPT, "the page has no area")
        return page


def _open_pdfium(path: Path, document: str, passwords: Sequence[str]) -> Any:
    import pypdfium2
    import pypdfium2.raw as c

    for password in (None, *passwords):
        c.FPDF_LoadMemDocument64(b"none", 4, None)  # some failures leave the last error as it was: make that "format"
        try:
            return pypdfium2.PdfDocument(path, password=password)
        except pypdfium2.PdfiumError as error:
            if error.err_code != c.FPDF_ERR_PASSWORD:
                why = "pdfium cannot open it; the file is damaged or is no PDF"
                raise DocumentError(document, None, Reason.CORRUPT, why) from error
    raise wrong_password(document, bool(passwords))


def wrong_password(document: str, tried: bool) -> DocumentError:
    """The error for an encrypted document, without a word of what was tried."""
    what = "is encrypted and none of the passwords given opens it" if tried else "is encrypted"
    return DocumentError(document, None, Reason.PASSWORD, f"{what}: give its password with --password")


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


def _box(affine: Affine, left: float, bottom: float, right: float, top: float) -> Box:
    """A rectangle in user space → its box on the page as displayed (not cut to it)."""
    a, b, c, d, e, f = affine
    x0, x1 = a * left + c * bottom + e, a * right + c * top + e
    y0, y1 = b * left + d * bottom + f, b * right + d * top + f
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _cut(box: Box) -> Box | None:
    """The part of a box that is on the page, None if its centre is not."""
    if not (0 <= (box[0] + box[2]) / 2 <= 1 and 0 <= (box[1] + box[3]) / 2 <= 1):
        return None
    return max(0.0, box[0]), max(0.0, box[1]), min(1.0, box[2]), min(1.0, box[3])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


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
        meaningless = len(_MEANINGLESS.findall(text))
        if meaningless > UNUSABLE * max(1, len(text) - text.count(" ")):
            return "", ()
        return _assemble(text, _PdfiumRects(textpage, affine, text))
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
            whole = _box(self._affine, left.value, bottom.value, right.value, top.value)
            if whole[0] >= whole[2] or whole[1] >= whole[3]:
                whole = self._loose(first, last)
            box = _cut(whole)
            if box is None:
                continue
            if boxes and _same_line(boxes[-1], box):
                box = _union(boxes.pop(), box)
            boxes.append(box)
        return tuple(boxes)

    def _loose(self, first: int, last: int) -> Box:
        """The box of the characters' cells, for fonts that do not know the boxes of their glyphs."""
        c, cell = self._c, self._cell
        boxes = [
            _box(self._affine, cell.left, cell.bottom, cell.right, cell.top)
            for index in range(first, last + 1)
            if c.FPDFText_GetLooseCharBox(self._textpage, index, cell)
        ]
        return functools.reduce(_union, boxes) if boxes else (-1.0, -1.0, -1.0, -1.0)


def _same_line(one: Box, other: Box) -> bool:
    overlap = min(one[3], other[3]) - max(one[1], other[1])
    return overlap > 0.5 * min(one[3] - one[1], other[3] - other[1])


def _union(one: Box, other: Box) -> Box:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _assemble(text: str, boxes_of: _PdfiumRects) -> tuple[str, tuple[Word, ...]]:
    """Clean text and its words, from the text as pdfium gives it."""
    pieces: list[str] = []
    words: list[Word] = []
    at, gap, end = 0, "", 0
    for match in WORD.finditer(text):
        between = text[end : match.start()]
        gap = "\n" if "\n" in between or gap == "\n" else " " if between or gap else ""
        end = match.end()
        word = _joined(match.group(), text).translate(_CLEAN)
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
    """A word without the hyphens of line ends (U+FFFE in pdfium's text), unless they belong to it: where it has
    others, stands with it elsewhere on the page, or does not go on in lower case."""
    while "\ufffe" in word:
        before, after = word.split("\ufffe", 1)
        hyphenated = f"{before}-{after}"
        keep = "-" in before or not after[:1].islower() or not before[-1:].isalpha() or hyphenated in text
        word = hyphenated if keep else before + after
    return word


def _drawn_cells(page: Any, affine: Affine, width: float, height: float) -> tuple[NDArray[np.bool_], tuple[Box, ...]]:
    """The measure of what is drawn, and the boxes of images that cover 0.05% of the page or more.

    The page is cut into 64 × 64 cells; a cell counts when its centre lies in the bounding box (cut by the clip
    paths) of an image, a shading or a subpath; smaller ones count for the cell they lie in. Cells that touch are
    then filled up to the rectangle around them, so that a chart of thin lines counts as a whole. Not counted: text;
    subpaths thinner than 3 points (rules, underlining) or over more than 80% of the page (backgrounds); those
    without a slanted or curved side that are only outlined (frames, borders of tables), filled in a light colour
    (the shading of rows), or wider than 60% of the page and lower than 12% (banners). At most 20,000 objects are
    looked at, forms in forms to a depth of 6.
    """
    import pypdfium2.raw as c

    cells = np.zeros((GRID, GRID), np.bool_)
    images: list[Box] = []
    thin = THIN / width, THIN / height
    for item, kind, to_page in _objects(page, affine):
        box = _bounds(item, kind, to_page, affine)
        if box is None:
            continue
        if kind == c.FPDF_PAGEOBJ_IMAGE and _area(box) >= 0.0005 and len(images) < MAX_IMAGES:
            images.append(box)
        for x0, y0, x1, y1 in _drawn_parts(item, box, to_page, thin) if kind == c.FPDF_PAGEOBJ_PATH else [box]:
            cells[_span(y0, y1), _span(x0, x1)] = True
    return _filled(cells), tuple(images)


def _drawn_parts(path: Any, box: Box, to_page: Affine, thin: tuple[float, float]) -> list[Box]:
    """The boxes of the subpaths of a path that count as drawn; ``box`` is that of the path, cut by its clips."""
    import pypdfium2.raw as c

    def counts(part: Box) -> bool:
        return part[2] - part[0] >= thin[0] and part[3] - part[1] >= thin[1] and _area(part) <= PLAIN

    count = c.FPDFPath_CountSegments(path)
    if not counts(box):
        return []
    if count > MAX_SEGMENTS or (count > 6 and _area(box) < 0.002):
        return [box]
    solid = _is_solid(path)
    found = []
    for part, straight in _subpaths(path, count, to_page):
        cut = max(part[0], box[0]), max(part[1], box[1]), min(part[2], box[2]), min(part[3], box[3])
        banner = cut[2] - cut[0] > 0.6 and cut[3] - cut[1] < 0.12
        if counts(cut) and not (straight and (banner or not solid)):
            found.append(cut)
    return found


def _is_solid(path: Any) -> bool:
    """Whether a path is filled, and not in a light colour."""
    import pypdfium2.raw as c

    fill, stroke = c_int(), c_int()
    red, green, blue, alpha = c_uint(), c_uint(), c_uint(), c_uint()
    if not c.FPDFPath_GetDrawMode(path, fill, stroke) or not fill.value:
        return False
    if not c.FPDFPageObj_GetFillColor(path, red, green, blue, alpha):
        return True
    return (255 * 3 - red.value - green.value - blue.value) / (255 * 3) * alpha.value / 255 >= LIGHT


def _subpaths(path: Any, count: int, to_page: Affine) -> Iterator[tuple[Box, bool]]:
    """For each subpath the box around its points, and whether all its sides are upright or level."""
    import pypdfium2.raw as c

    matrix, x, y = c.FS_MATRIX(), c_float(), c_float()
    c.FPDFPageObj_GetMatrix(path, matrix)
    a, b, p, q, e, f = _after((matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f), to_page)
    points: list[tuple[float, float]] = []
    straight = True
    for index in range(count):
        segment = c.FPDFPath_GetPathSegment(path, index)
        kind = c.FPDFPathSegment_GetType(segment)
        if points and kind == c.FPDF_SEGMENT_MOVETO:
            yield _around(points), straight
            points, straight = [], True
        c.FPDFPathSegment_GetPoint(segment, x, y)
        point = a * x.value + p * y.value + e, b * x.value + q * y.value + f
        if points and straight:
            across, down = abs(point[0] - points[-1][0]), abs(point[1] - points[-1][1])
            straight = kind != c.FPDF_SEGMENT_BEZIERTO and min(across, down) < 0.002
        points.append(point)
    if points:
        yield _around(points), straight


def _filled(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells with each group of touching ones filled up to the rectangle around it."""
    left = {(int(row), int(col)) for row, col in np.argwhere(cells)}
    filled = cells.copy()
    while left:
        group = [left.pop()]
        for row, col in group:
            near = {(row + i, col + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            group.extend(near)
        rows, cols = zip(*group, strict=True)
        filled[min(rows) : max(rows) + 1, min(cols) : max(cols) + 1] = True
    return filled


def _around(points: Sequence[tuple[float, float]]) -> Box:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _span(low: float, high: float) -> slice:
    """The cells whose centres lie between two fractions; at least the one in which the middle lies."""
    first, last = round(low * GRID), round(high * GRID)
    if first >= last:
        first = min(GRID - 1, int((low + high) / 2 * GRID))
        last = first + 1
    return slice(first, last)


def _objects(page: Any, affine: Affine) -> Iterator[tuple[Any, int, Affine]]:
    """(object, its kind, its space → fractions of the page) for what may be drawn, in the order of drawing."""
    import pypdfium2.raw as c

    left = MAX_OBJECTS
    matrix = c.FS_MATRIX()
    stack: list[tuple[Iterator[Any], Affine]] = [
        ((c.FPDFPage_GetObject(page, i) for i in range(c.FPDFPage_CountObjects(page))), affine)
    ]
    while stack and left:
        items, to_page = stack[-1]
        item = next(items, None)
        left -= 1
        if item is None:
            stack.pop()
            continue
        kind = c.FPDFPageObj_GetType(item)
        if kind == c.FPDF_PAGEOBJ_FORM and len(stack) <= MAX_DEPTH and c.FPDFPageObj_GetMatrix(item, matrix):
            inner = _after((matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f), to_page)
            count = c.FPDFFormObj_CountObjects(item)
            stack.append(((c.FPDFFormObj_GetObject(form, i) for form in [item] for i in range(count)), inner))
        elif kind in (c.FPDF_PAGEOBJ_IMAGE, c.FPDF_PAGEOBJ_PATH, c.FPDF_PAGEOBJ_SHADING):
            yield item, kind, to_page


def _after(first: Affine, then: Affine) -> Affine:
    """The affine map that does ``first`` and then ``then``."""
    a, b, c, d, e, f = first
    p, q, r, s, t, u = then
    return a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s, e * p + f * r + t, e * q + f * s + u


def _bounds(item: Any, kind: int, to_page: Affine, page_affine: Affine) -> Box | None:
    """The part of the page that an object may paint; None if it lies beside it."""
    import pypdfium2.raw as c

    left, bottom, right, top = c_float(), c_float(), c_float(), c_float()
    if not c.FPDFPageObj_GetBounds(item, left, bottom, right, top):
        return None
    box = _box(to_page, left.value, bottom.value, right.value, top.value)
    if kind != c.FPDF_PAGEOBJ_PATH or _area(box) > 0.01:
        for clip in _clips(item, page_affine):
            box = max(box[0], clip[0]), max(box[1], clip[1]), min(box[2], clip[2]), min(box[3], clip[3])
    box = max(box[0], 0.0), max(box[1], 0.0), min(box[2], 1.0), min(box[3], 1.0)
    return box if box[0] <= box[2] and box[1] <= box[3] else None


def _clips(item: Any, affine: Affine) -> Iterator[Box]:
    """The bounding boxes of the clip paths of an object (those of up to 8 paths of up to 64 segments)."""
    import pypdfium2.raw as c

    clip = c.FPDFPageObj_GetClipPath(item)
    x, y = c_float(), c_float()
    for path in range(min(8, c.FPDFClipPath_CountPaths(clip) if clip else 0)):
        count = c.FPDFClipPath_CountPathSegments(clip, path)
        if not 2 <= count <= 64:
            continue
        points = []
        for index in range(count):
            c.FPDFPathSegment_GetPoint(c.FPDFClipPath_GetPathSegment(clip, path, index), x, y)
            points.append((x.value, y.value))
        yield _box(affine, *_around(points))


class PopplerDocument:
    """A PDF read with poppler's programs. Raises DocumentError: corrupt, or password; UsageError without poppler."""

    renderer = "poppler"

    def __init__(self, path: Path, document: str, passwords: Sequence[str]) -> None:
        self._path, self._name, self._password = str(path), document, ""
        self.pages = self._open(passwords)

    def content(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Page ``number`` (from 1), and the box of the whole page if much of it is drawn. Raises DocumentError.

        poppler lists no objects: ``drawn`` is the share of the 64 × 64 cells of a small picture that are inked by
        more than half, words excepted.
        """
        width, height, lines = self._lines(number)
        text, words = compose(lines)
        if len(_MEANINGLESS.findall(text)) > UNUSABLE * max(1, len(text)):
            text, words = "", ()
        drawn = _inked(self.picture(number, 4 * GRID), words)
        images = ((0.0, 0.0, 1.0, 1.0),) if drawn > 0.5 else ()
        return Page(number, width, height, text, words, "text_layer" if words else "none", drawn), images

    def picture(self, number: int, side: int) -> Image:
        """The page as displayed, RGB on white, its longer side ``side`` pixels. Raises DocumentError."""
        import pdf2image
        from pdf2image.exceptions import PDFPageCountError, PDFSyntaxError

        try:
            pictures = pdf2image.convert_from_path(
                self._path, first_page=number, last_page=number, size=side, use_cropbox=True, userpw=self._password
            )
        except (PDFPageCountError, PDFSyntaxError) as error:
            raise self._unreadable(number) from error
        if not pictures:
            raise self._unreadable(number)
        picture: Image = pictures[0].convert("RGB")
        return picture

    def close(self) -> None:
        """Nothing is held open."""

    def _open(self, passwords: Sequence[str]) -> int:
        from pdf2image import pdfinfo_from_path
        from pdf2image.exceptions import PDFInfoNotInstalledError, PDFPageCountError

        for password in ("", *passwords):
            try:
                pages = int(pdfinfo_from_path(self._path, userpw=password)["Pages"])
            except PDFInfoNotInstalledError:
                raise UsageError("poppler is not installed: apt-get install poppler-utils") from None
            except PDFPageCountError as error:
                if "password" in str(error).lower():
                    continue
                why = "poppler cannot open it; the file is damaged or is no PDF"
                raise DocumentError(self._name, None, Reason.CORRUPT, why) from None
            if pages < 1:
                raise DocumentError(self._name, None, Reason.CORRUPT, "has no pages")
            self._password = password
            return pages
        raise wrong_password(self._name, bool(passwords))

    def _size(self, number: int) -> tuple[float, float]:
        """Width and height of a page as displayed, in points."""
        from pdf2image import pdfinfo_from_path

        info = pdfinfo_from_path(self._path, userpw=self._password, first_page=number, last_page=number)
        sizes = [str(value) for key, value in info.items() if re.fullmatch(r"Page +\d+ size", key)]
        turns = [int(value) for key, value in info.items() if re.fullmatch(r"Page +\d+ rot", key)]
        found = re.match(r"([\d.]+) x ([\d.]+)", sizes[0]) if sizes else None
        if found is None or not turns or float(found[1]) <= 0 or float(found[2]) <= 0:
            raise self._unreadable(number)
        width, height = float(found[1]), float(found[2])
        return (height, width) if turns[0] % 180 else (width, height)

    def _lines(self, number: int) -> tuple[float, float, list[tuple[str, list[Box]]]]:
        """A page's width, height and lines, each with the boxes of its words."""
        width, height = self._size(number)
        command = ["pdftotext", "-bbox-layout", "-cropbox", "-f", str(number), "-l", str(number), "-upw"]
        done = subprocess.run([*command, self._password, self._path, "-"], capture_output=True, check=False)
        lines = []
        for line in re.findall(r"<line .*?</line>", done.stdout.decode("utf-8", "replace"), re.DOTALL):
            words: list[tuple[str, Box]] = []
            for x0, y0, x1, y1, text in re.findall(_BBOX_WORD, line):
                box = _cut((float(x0) / width, float(y0) / height, float(x1) / width, float(y1) / height))
                clean = " ".join(html.unescape(text).translate(_CLEAN).split())
                if box is not None and clean:
                    words.append((clean, box))
            if words:
                lines.append((" ".join(text for text, _ in words), [b for word in words for b in split_box(*word)]))
        return width, height, lines

    def _unreadable(self, number: int) -> DocumentError:
        return DocumentError(self._name, number, Reason.CORRUPT, "poppler cannot read the page")


_BBOX_WORD = r'<word xMin="([-\d.e]+)" yMin="([-\d.e]+)" xMax="([-\d.e]+)" yMax="([-\d.e]+)">(.*?)</word>'


def split_box(text: str, box: Box) -> Iterator[Box]:
    """The boxes of the words of a text that fills ``box``, each as wide as its share of the characters."""
    wide = box[2] - box[0]
    for match in WORD.finditer(text):
        yield box[0] + wide * match.start() / len(text), box[1], box[0] + wide * match.end() / len(text), box[3]


def _inked(picture: Image, words: Sequence[Word]) -> float:
    """The share of the cells of a picture that differ by more than half from its commonest shade, words excepted."""
    shades = np.asarray(picture.convert("L").resize((4 * GRID, 4 * GRID)))
    ink = np.abs(shades.astype(np.int16) - np.bincount(shades.ravel()).argmax()) > 40
    for word in words:
        for x0, y0, x1, y1 in word.boxes:
            ink[int(y0 * 4 * GRID) : int(y1 * 4 * GRID) + 1, int(x0 * 4 * GRID) : int(x1 * 4 * GRID) + 1] = False
    return float((ink.reshape(GRID, 4, GRID, 4).mean(axis=(1, 3)) > 0.5).mean())
