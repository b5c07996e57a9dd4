"""Words for what has no text layer: what is read of a page, and where its words stand.

The networks are loaded on first use, once a process.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from .boxes import area, union
from .records import Box, Page, Word
from .textlayer import is_in_doubt, tells_the_page
from .words import WORD, compose, without_breaks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from .ocr_models import Networks, ReadLine

UNIFORM = 24  # of 255: a picture whose shades differ by less has nothing to read
DPI = 150  # at which a page is read
MIN_SIDE, MAX_SIDE = 1400, 3000  # pixels of the longer side of the picture that is read
GLANCE = 400  # pixels of the longer side of the picture that tells a blank page
LARGE = 0.05  # share of the page from which an image among text is read
FULL_PAGE = 0.8  # share of the page from which an image is the page itself
FULL_TEXT = 0.02  # share of the page that the words of a full text layer cover
MIN_SCORE = 0.5  # confidence below which a line is dropped
SURE = 0.85  # confidence from which a line can tell that the text layer is wrong


class OcrLine(NamedTuple):
    """A line that was read: its text, its box, one box for each match of ``WORD`` in the text, and how sure it is."""

    text: str
    box: Box
    boxes: tuple[Box, ...]
    score: float = 1.0


def read(picture: Image, threads: int = 0) -> list[OcrLine]:
    """The lines of a picture in reading order, boxes in fractions of it. ``threads``: 0 for as many as cores.

    A picture that lies on its side or upside down is read all the same, its boxes where the words stand.
    """
    if _is_uniform(picture):
        return []
    networks = _networks(threads)
    pixels = np.ascontiguousarray(np.asarray(picture.convert("RGB"))[:, :, ::-1])
    quarters, found = 0, networks.detect(pixels)
    if _lies_on_its_side(found):
        pixels = np.ascontiguousarray(np.rot90(pixels))
        quarters, found = 1, networks.detect(pixels)
    lines, upside_down = networks.read(pixels, found)
    quarters += 2 * upside_down
    placed = [_placed(line, pixels.shape[1], pixels.shape[0], upside_down) for line in lines if line.score >= MIN_SCORE]
    ordered = in_reading_order([line for line in placed if line.boxes])
    return [
        line._replace(box=_back(line.box, quarters), boxes=tuple(_back(box, quarters) for box in line.boxes))
        for line in ordered
    ]


def _is_uniform(picture: Image) -> bool:
    shades = np.asarray(picture.convert("L"))
    return int(shades.max()) - int(shades.min()) < UNIFORM


@functools.cache
def _networks(threads: int) -> Networks:
    from .ocr_models import Networks

    return Networks(threads)


def _lies_on_its_side(found: Sequence[NDArray[np.float32]]) -> bool:
    """Whether the lines that stand upright are most of the text on the picture, and more than a few labels."""
    from .ocr_models import is_tall

    lengths = [(float(np.ptp(corners, axis=0).max()), is_tall(corners)) for corners in found]
    tall = [length for length, upright in lengths if upright]
    return len(tall) >= 3 and sum(tall) > 0.6 * sum(length for length, _ in lengths)


def _placed(line: ReadLine, width: int, height: int, upside_down: bool) -> OcrLine:
    """A line with its boxes, in fractions of the picture (``width`` × ``height`` pixels) the right way up."""
    corners = line.corners.astype(np.float64) / (width, height)
    if upside_down:
        corners = 1 - corners
    origin, along, across = corners[0], corners[1] - corners[0], corners[3] - corners[0]

    def box(start: float, end: float) -> Box:
        points = [origin + along * x + across * y for x in (start, end) for y in (0, 1)]
        (x0, y0), (x1, y1) = np.clip(np.min(points, axis=0), 0, 1), np.clip(np.max(points, axis=0), 0, 1)
        return float(x0), float(y0), float(x1), float(y1)

    boxes = tuple(box(start, end) for start, end in _spans(line))
    return OcrLine(" ".join(line.text.split()), box(0, 1), boxes, line.score)


def _spans(line: ReadLine) -> Iterator[tuple[float, float]]:
    """Where along a line each of its words begins and ends."""
    at = line.at
    usual = (at[-1] - at[0]) / (len(at) - 1) if len(at) > 1 else 1.0
    for match in WORD.finditer(line.text):
        first, last = match.start(), match.end() - 1
        half = ((at[last] - at[first]) / (last - first) if last > first else usual) / 2
        start = max(at[first] - half, (at[first - 1] + at[first]) / 2 if first else 0.0)
        end = min(at[last] + half, (at[last] + at[last + 1]) / 2 if last + 1 < len(at) else 1.0)
        yield float(start), float(end)


def _back(box: Box, quarters: int) -> Box:
    """A box of a picture after ``quarters`` turns by 90° to the left → on the picture before."""
    for _ in range(quarters):
        box = 1 - box[3], box[0], 1 - box[1], box[2]
    return box


def in_reading_order(lines: Sequence[OcrLine]) -> list[OcrLine]:
    """Lines by column (a gap from top to bottom with three wide lines or more on either side), then from top to
    bottom, and from left to right where they stand beside each other."""
    if len(lines) < 2:
        return list(lines)
    gutter = _gutter(lines)
    if gutter is not None:
        sides = ([line for line in lines if (line.box[0] < gutter) is left] for left in (True, False))
        return [line for side in sides for line in in_reading_order(side)]
    above, below = _across(lines)
    if above and below:
        return in_reading_order(above) + in_reading_order(below)
    rows: list[list[OcrLine]] = []
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3]):
        last = rows[-1][-1].box if rows else (0.0, -9.0, 0.0, -9.0)
        apart = (line.box[1] + line.box[3] - last[1] - last[3]) / 2
        if apart < 0.3 * min(line.box[3] - line.box[1], last[3] - last[1]):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [_in_one(sorted(row, key=lambda line: line.box[0])) for row in rows]


def _in_one(row: Sequence[OcrLine]) -> OcrLine:
    """Lines that stand beside each other as one."""
    around = functools.reduce(union, [line.box for line in row])
    boxes = tuple(box for line in row for box in line.boxes)
    return OcrLine(" ".join(line.text for line in row), around, boxes, min(line.score for line in row))


def _gutter(lines: Sequence[OcrLine]) -> float | None:
    """Where a gap between two columns of text ends, None where there is none."""
    end = 0.0
    by_left = sorted(lines, key=lambda line: line.box[0])
    for index, line in enumerate(by_left):
        if index and line.box[0] > end + 0.01 and _is_column(by_left[:index]) and _is_column(by_left[index:]):
            return line.box[0]
        end = max(end, line.box[2])
    return None


def _is_column(lines: Sequence[OcrLine]) -> bool:
    widths = sorted(line.box[2] - line.box[0] for line in lines)
    return len(lines) >= 3 and widths[len(widths) // 2] > 0.2


def _across(lines: Sequence[OcrLine]) -> tuple[list[OcrLine], list[OcrLine]]:
    """The lines above and below the first horizontal gap under or over which there are columns."""
    by_top = sorted(lines, key=lambda line: line.box[1])
    end = by_top[0].box[3]
    for index in range(1, len(by_top)):
        gap = by_top[index].box[1] >= end
        if gap and (_gutter(by_top[index:]) is not None or _gutter(by_top[:index]) is not None):
            return by_top[:index], by_top[index:]
        end = max(end, by_top[index].box[3])
    return by_top, []


class Source(Protocol):
    """An opened document. ``locked``: it took a password to open it."""

    pages: int
    renderer: str
    locked: bool

    def content(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Page ``number`` (from 1) without picture, and the boxes of the images on it. Raises DocumentError."""

    def picture(self, number: int, side: int) -> Image:
        """The page as displayed, RGB on white, its longer side ``side`` pixels. Raises DocumentError."""

    def close(self) -> None: ...


def with_ocr(source: Source, number: int, always: bool, threads: int) -> Page:
    """Page ``number`` of a document with the words of its text layer and those that OCR adds.

    A page is read whole where it has no text layer, or one in doubt that OCR finds to be wrong (``always``: every
    page). Else OCR reads the images that cover 5% of the page or more (those that touch count as one), except one
    over the whole page under a full text layer, and adds the words that no word of the text layer covers.
    """
    page, images = source.content(number)
    merged = _merged(images)
    whole = always or not page.words
    if not page.words and _is_uniform(source.picture(number, GLANCE)):
        return page
    if whole or is_in_doubt(page.text, scan=any(area(box) >= FULL_PAGE for box in merged)):
        lines = read(source.picture(number, reading_side(page)), threads)
        if whole or not tells_the_page(page.text, "\n".join(line.text for line in lines if line.score >= SURE)):
            text, words = without_breaks(*compose((line.text, line.boxes) for line in lines))
            return replace(page, text=text, words=words, text_source="ocr" if words else "none")
    boxes = _to_read(page, merged)
    if not boxes:
        return page
    picture = source.picture(number, reading_side(page))
    added = list(_uncovered([line for box in boxes for line in _read_area(picture, box, threads)], page.words))
    if not added:
        return page
    text, words = without_breaks(*compose(added))
    at = len(page.text) + 1
    moved = tuple(Word(word.text, word.start + at, word.boxes) for word in words)
    return replace(page, text=f"{page.text}\n{text}", words=page.words + moved, text_source="both")


def reading_side(page: Page) -> int:
    """The longer side in pixels at which a page is read: 150 dpi, within bounds."""
    return round(min(max(max(page.width, page.height) / 72 * DPI, MIN_SIDE), MAX_SIDE))


def _to_read(page: Page, images: Sequence[Box]) -> list[Box]:
    """The areas of images (none touches another), among the words of a text layer, that are worth reading."""
    text = sum(area(box) for word in page.words for box in word.boxes)
    large = [box for box in images if area(box) >= LARGE]
    return [box for box in large if not (area(box) >= FULL_PAGE and text >= FULL_TEXT)]


def _merged(boxes: Sequence[Box]) -> list[Box]:
    """Boxes, those that touch replaced by the box around them."""
    merged: list[Box] = []
    for box in boxes:
        grown = box
        while touching := [other for other in merged if _touch(other, grown)]:
            merged = [other for other in merged if other not in touching]
            grown = functools.reduce(union, touching, grown)
        merged.append(grown)
    return merged


def _touch(one: Box, other: Box) -> bool:
    near = 0.002
    across = one[0] <= other[2] + near and other[0] <= one[2] + near
    return across and one[1] <= other[3] + near and other[1] <= one[3] + near


def _read_area(picture: Image, part: Box, threads: int) -> Iterator[OcrLine]:
    """The lines in one area of a page's picture, boxes in fractions of the page."""
    width, height = picture.size
    left, top = int(part[0] * width), int(part[1] * height)
    right, bottom = max(left + 1, round(part[2] * width)), max(top + 1, round(part[3] * height))
    wide, high = (right - left) / width, (bottom - top) / height
    x, y = left / width, top / height
    for text, box, boxes, score in read(picture.crop((left, top, right, bottom)), threads):
        placed = [(x + b[0] * wide, y + b[1] * high, x + b[2] * wide, y + b[3] * high) for b in (box, *boxes)]
        yield OcrLine(text, placed[0], tuple(placed[1:]), score)


def _uncovered(lines: Sequence[OcrLine], words: Sequence[Word]) -> Iterator[tuple[str, list[Box]]]:
    """The lines without the words of which the boxes of the text layer cover 30% or more."""
    layer = np.asarray([box for word in words for box in word.boxes], np.float64).reshape(-1, 4)
    for line in lines:
        kept: list[tuple[str, Box]] = []
        for match, box in zip(WORD.finditer(line.text), line.boxes, strict=True):
            across = np.minimum(layer[:, 2], box[2]) - np.maximum(layer[:, 0], box[0])
            down = np.minimum(layer[:, 3], box[3]) - np.maximum(layer[:, 1], box[1])
            if (across.clip(0) * down.clip(0)).sum() < 0.3 * area(box):
                kept.append((match.group(), box))
        if kept:
            text = line.text if len(kept) == len(line.boxes) else " ".join(word for word, _ in kept)
            yield text, [box for _, box in kept]
