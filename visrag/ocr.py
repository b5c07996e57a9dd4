"""Words for what has no text layer: OCR with RapidOCR, whose models come in its wheel.

Nothing is ever downloaded: the models are named by their paths. The engine is loaded on first use, once a process.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from .boxes import WHOLE_PAGE, area, union
from .records import Box, Page, Word
from .words import WORD, compose, split_box

if TYPE_CHECKING:
    from PIL.Image import Image

UNIFORM = 24  # of 255: a picture whose shades differ by less has nothing to read
DPI = 150  # at which a page is read
MIN_SIDE, MAX_SIDE = 1400, 3000  # pixels of the longer side of the picture that is read
GLANCE = 400  # pixels of the longer side of the picture that tells a blank page
LARGE = 0.05  # share of the page from which an image among text is read
FULL_PAGE = 0.8  # share of the page from which an image is the page itself
FULL_TEXT = 0.02  # share of the page that the words of a full text layer cover
MIN_SCORE = 0.5  # RapidOCR's confidence below which a line is dropped


class OcrLine(NamedTuple):
    """A line that was read: its text, its box, and one box for each match of ``WORD`` in the text."""

    text: str
    box: Box
    boxes: tuple[Box, ...]


def read(picture: Image, threads: int = 0) -> list[OcrLine]:
    """The lines of a picture in reading order, boxes in fractions of it. ``threads``: 0 for as many as cores."""
    if _is_uniform(picture):
        return []
    result = _engine(threads)(np.asarray(picture.convert("RGB"))[:, :, ::-1])
    if result.txts is None or result.boxes is None:
        return []
    found = result.word_results if len(result.word_results or ()) == len(result.txts) else [()] * len(result.txts)
    width, height = picture.size
    lines = []
    for text, corners, items in zip(result.txts, result.boxes, found, strict=True):
        clean = " ".join(text.split())
        box = _around(corners, width, height)
        boxes = tuple(_word_boxes(clean, box, [(item[0], _around(item[2], width, height)) for item in items]))
        if boxes:
            lines.append(OcrLine(clean, box, boxes))
    return in_reading_order(lines)


def _is_uniform(picture: Image) -> bool:
    shades = np.asarray(picture.convert("L"))
    return int(shades.max()) - int(shades.min()) < UNIFORM


@functools.cache
def _engine(threads: int) -> Any:
    """RapidOCR on ``threads`` threads."""
    logging.getLogger("RapidOCR").disabled = True
    import rapidocr

    models = Path(rapidocr.__file__).parent / "models"
    return rapidocr.RapidOCR(
        params={
            "Global.log_level": "critical",
            "Global.text_score": MIN_SCORE,
            "Global.max_side_len": 4000,
            "Global.return_word_box": True,
            "EngineConfig.onnxruntime.intra_op_num_threads": threads or -1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.model_path": str(models / "PP-OCRv6_det_small.onnx"),
            "Cls.model_path": str(models / "ch_ppocr_mobile_v2.0_cls_mobile.onnx"),
            "Rec.model_path": str(models / "PP-OCRv6_rec_small.onnx"),
            "Rec.rec_batch_num": 1,  # a batch is padded to its longest line: 1 is the fastest on a CPU
        }
    )


def _around(corners: Any, width: int, height: int) -> Box:
    """The box around a quadrilateral of pixels, in fractions, cut to the picture."""
    points = np.asarray(corners, np.float64).reshape(-1, 2) / (width, height)
    (x0, y0), (x1, y1) = np.clip(points.min(axis=0), 0, 1), np.clip(points.max(axis=0), 0, 1)
    return float(x0), float(y0), float(x1), float(y1)


def _word_boxes(text: str, box: Box, items: Sequence[tuple[str, Box]]) -> Iterator[Box]:
    """One box for each word of a line, from RapidOCR's boxes of its pieces; where these are not the line's, from
    the words' shares of its characters."""
    owner = [piece for piece, (piece_text, _) in enumerate(items) for _ in "".join(piece_text.split())]
    exact = "".join(piece_text for piece_text, _ in items).split() == ["".join(text.split())]
    if exact:
        at = 0
        for match in WORD.finditer(text):
            pieces = [items[piece][1] for piece in owner[at : at + len(match.group())]]
            at += len(match.group())
            yield functools.reduce(union, pieces)
    elif (box[3] - box[1]) > 1.5 * (box[2] - box[0]):  # upright
        turned = split_box(text, (box[1], box[0], box[3], box[2]))
        yield from ((x0, y0, x1, y1) for y0, x0, y1, x1 in turned)
    else:
        yield from split_box(text, box)


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
    return OcrLine(" ".join(line.text for line in row), around, tuple(box for line in row for box in line.boxes))


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

    A page without a text layer (``always``: every page) is read whole. Else OCR reads the images that cover 5% of
    the page or more (those that touch count as one), except one over the whole page under a full text layer,
    and adds the words that no word of the text layer covers.
    """
    page, images = source.content(number)
    whole = always or not page.words
    boxes = [WHOLE_PAGE] if whole else _to_read(page, images)
    if not boxes or (not page.words and _is_uniform(source.picture(number, GLANCE))):
        return page
    picture = source.picture(number, _side(page))
    lines = [line for box in boxes for line in _read_area(picture, box, threads)]
    if whole:
        text, words = compose((line.text, line.boxes) for line in lines)
        return replace(page, text=text, words=words, text_source="ocr" if words else "none")
    added = list(_uncovered(lines, page.words))
    if not added:
        return page
    text, words = compose(added)
    at = len(page.text) + 1
    moved = tuple(Word(word.text, word.start + at, word.boxes) for word in words)
    return replace(page, text=f"{page.text}\n{text}", words=page.words + moved, text_source="both")


def _side(page: Page) -> int:
    """The longer side in pixels at which a page is read: 150 dpi, within bounds."""
    return round(min(max(max(page.width, page.height) / 72 * DPI, MIN_SIDE), MAX_SIDE))


def _to_read(page: Page, images: Sequence[Box]) -> list[Box]:
    """The areas of images, among the words of a text layer, that are worth reading."""
    text = sum(area(box) for word in page.words for box in word.boxes)
    large = [box for box in _merged(images) if area(box) >= LARGE]
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
    for text, box, boxes in read(picture.crop((left, top, right, bottom)), threads):
        placed = [(x + b[0] * wide, y + b[1] * high, x + b[2] * wide, y + b[3] * high) for b in (box, *boxes)]
        yield OcrLine(text, placed[0], tuple(placed[1:]))


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
