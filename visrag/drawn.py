"""The measure of what is drawn on a page, beside its text: by the objects that pdfium lists, or by a picture's ink."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ctypes import c_float, c_int, c_uint
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .boxes import Affine, after, area, around, placed
from .records import Box, Word

if TYPE_CHECKING:
    from PIL.Image import Image

DRAWN_THRESHOLD = 0.02
"""A page is drawn, and not only text, if its ``drawn`` is above this."""

GRID = 64  # the measure of what is drawn has this many cells to a side
MAX_OBJECTS = 20_000  # page objects looked at, forms included
MAX_DEPTH = 6  # forms within forms
MAX_IMAGES = 256  # boxes of images kept
THIN = 3.0  # points: anything drawn thinner is a rule
PLAIN = 0.8  # share of the page: a filled path larger than this is a background
LIGHT = 0.3  # ink, of 1: a rectangle filled in a lighter colour is shading
MAX_SEGMENTS = 5_000  # of a path that is taken apart into subpaths


def measure(page: Any, affine: Affine, width: float, height: float) -> tuple[float, tuple[Box, ...]]:
    """The share of a pdfium page that is drawn, and the boxes of images that cover 0.05% of it or more.

    ``affine``: user space → fractions of the page; ``width``, ``height``: in points. The page is cut into 64 × 64
    cells, and the share is that of the cells that count: those whose centre lies in the bounding box (cut by the
    clip paths) of an image, a shading or a subpath; smaller ones count for the cell they lie in. Cells that touch
    are then filled up to the rectangle around them, so that a chart of thin lines counts as a whole. Not counted:
    text; subpaths thinner than 3 points (rules, underlining) or over more than 80% of the page (backgrounds); those
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
        if kind == c.FPDF_PAGEOBJ_IMAGE and area(box) >= 0.0005 and len(images) < MAX_IMAGES:
            images.append(box)
        for x0, y0, x1, y1 in _drawn_parts(item, box, to_page, thin) if kind == c.FPDF_PAGEOBJ_PATH else [box]:
            cells[_span(y0, y1), _span(x0, x1)] = True
    return float(_filled(cells).mean()), tuple(images)


def _drawn_parts(path: Any, box: Box, to_page: Affine, thin: tuple[float, float]) -> list[Box]:
    """The boxes of the subpaths of a path that count as drawn; ``box`` is that of the path, cut by its clips."""
    import pypdfium2.raw as c

    def counts(part: Box) -> bool:
        return part[2] - part[0] >= thin[0] and part[3] - part[1] >= thin[1] and area(part) <= PLAIN

    count = c.FPDFPath_CountSegments(path)
    if not counts(box):
        return []
    if count > MAX_SEGMENTS or (count > 6 and area(box) < 0.002):
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
    a, b, p, q, e, f = after((matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f), to_page)
    points: list[tuple[float, float]] = []
    straight = True
    for index in range(count):
        segment = c.FPDFPath_GetPathSegment(path, index)
        kind = c.FPDFPathSegment_GetType(segment)
        if points and kind == c.FPDF_SEGMENT_MOVETO:
            yield around(points), straight
            points, straight = [], True
        c.FPDFPathSegment_GetPoint(segment, x, y)
        point = a * x.value + p * y.value + e, b * x.value + q * y.value + f
        if points and straight:
            across, down = abs(point[0] - points[-1][0]), abs(point[1] - points[-1][1])
            straight = kind != c.FPDF_SEGMENT_BEZIERTO and min(across, down) < 0.002
        points.append(point)
    if points:
        yield around(points), straight


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
            inner = after((matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f), to_page)
            count = c.FPDFFormObj_CountObjects(item)
            stack.append(((c.FPDFFormObj_GetObject(form, i) for form in [item] for i in range(count)), inner))
        elif kind in (c.FPDF_PAGEOBJ_IMAGE, c.FPDF_PAGEOBJ_PATH, c.FPDF_PAGEOBJ_SHADING):
            yield item, kind, to_page


def _bounds(item: Any, kind: int, to_page: Affine, page_affine: Affine) -> Box | None:
    """The part of the page that an object may paint; None if it lies beside it."""
    import pypdfium2.raw as c

    left, bottom, right, top = c_float(), c_float(), c_float(), c_float()
    if not c.FPDFPageObj_GetBounds(item, left, bottom, right, top):
        return None
    box = placed(to_page, left.value, bottom.value, right.value, top.value)
    if kind != c.FPDF_PAGEOBJ_PATH or area(box) > 0.01:
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
        yield placed(affine, *around(points))


def inked(picture: Image, words: Sequence[Word]) -> float:
    """The share of the cells of a picture that differ by more than half from its commonest shade, words excepted."""
    shades = np.asarray(picture.convert("L").resize((4 * GRID, 4 * GRID)))
    ink = np.abs(shades.astype(np.int16) - np.bincount(shades.ravel()).argmax()) > 40
    for word in words:
        for x0, y0, x1, y1 in word.boxes:
            ink[int(y0 * 4 * GRID) : int(y1 * 4 * GRID) + 1, int(x0 * 4 * GRID) : int(x1 * 4 * GRID) + 1] = False
    return float((ink.reshape(GRID, 4, GRID, 4).mean(axis=(1, 3)) > 0.5).mean())
