"""RapidOCR's networks: a picture → its lines of text.

The models (PP-OCRv6 small, and a classifier of upside-down lines) come in RapidOCR's wheel and run in ONNX Runtime.
Nothing is ever downloaded. What RapidOCR does around them is done here in less time: the picture is made smaller for
the detector, a line is cut out at the recogniser's height and read at its own width, and whether a picture is upside
down is asked of a few lines of it. The constants not chosen here are RapidOCR's.

A corner array is (4, 2) float32, pixels: top left, top right, bottom right, bottom left of a line as it is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DETECT_SCALE, DETECT_SIDE = 0.85, 1280  # the detector sees the picture at this scale, or this longer side if larger
MARGIN, UNIFORM = 24, 24  # pixels around what is on a picture; of 255: rows and columns that differ by less are empty
INK, SURE = 0.3, 0.5  # probability from which a pixel is text, and mean over an area from which it is a line
GROWTH = 1.6  # a line's margin is this times its area / perimeter: the detector is trained on shrunk lines
CANDIDATES = 1000  # areas of a picture that may be lines
HEIGHT = 48  # pixels of a line for the recogniser and the classifier
WIDTHS = 32  # the recogniser's widths are multiples of it
WIDEST = 3200  # pixels of a line for the recogniser: longer ones are squeezed
TURN_WIDTH = 192  # pixels of a line for the classifier
TALL = 1.5  # height over width from which a line is read from top to bottom or from bottom to top
ASKED = 7  # lines that tell whether a picture is upside down
TURNED = 0.9  # the classifier's probability from which a line is upside down


class ReadLine(NamedTuple):
    """A line that was read. ``at``: where along the line each character of the text has its middle, 0 to 1."""

    text: str
    score: float
    at: NDArray[np.float64]
    corners: NDArray[np.float32]


class Networks:
    """The detector, the classifier and the recogniser on ``threads`` threads, 0 for as many as cores."""

    def __init__(self, threads: int) -> None:
        import onnxruntime  # type: ignore[import-untyped]
        import rapidocr

        # memory goes back after each run: pages differ in size, and an arena would keep room for the largest
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        folder = Path(rapidocr.__file__).parent / "models"

        def session(name: str) -> Any:
            return onnxruntime.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])

        self._detector = session("PP-OCRv6_det_small.onnx")
        self._classifier = session("ch_ppocr_mobile_v2.0_cls_mobile.onnx")
        self._recogniser = session("PP-OCRv6_rec_small.onnx")
        characters = self._recogniser.get_modelmeta().custom_metadata_map["character"].splitlines()
        self._characters = ["", *characters, " "]
        self.alphabet = frozenset(self._characters)

    def detect(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """The corners of the lines of a picture, (height, width, 3), in no order."""
        import cv2

        scale = min(1.0, max(DETECT_SCALE, DETECT_SIDE / max(pixels.shape)))
        left, top, right, bottom = _filled(pixels)
        part = pixels[top:bottom, left:right]
        height, width = part.shape[:2]
        size = max(32, round(width * scale / 32) * 32), max(32, round(height * scale / 32) * 32)
        small = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        back = np.array([width / size[0], height / size[1]], np.float32)
        found = _areas(_run(self._detector, _normalised(small)[None])[0, 0])
        return [corners * back + np.array([left, top], np.float32) for corners in found]

    def read(self, pixels: NDArray[np.uint8], found: Sequence[NDArray[np.float32]]) -> tuple[list[ReadLine], bool]:
        """The lines of a picture, in the order of ``found``, and whether it is upside down."""
        upright = [corners for corners in found if not is_tall(corners)]
        turned = self._is_upside_down(pixels, sorted(upright, key=lambda corners: -_sides(corners)[0])[:ASKED])
        lines = []
        for corners in found:
            if is_tall(corners):
                lines.append(max((self._line(pixels, np.roll(corners, k, axis=0)) for k in (1, 3)), key=_score))
            else:
                lines.append(self._line(pixels, np.roll(corners, 2, axis=0) if turned else corners))
        return lines, turned

    def _is_upside_down(self, pixels: NDArray[np.uint8], asked: Sequence[NDArray[np.float32]]) -> bool:
        """Whether the classifier says so of most of these lines, and the first is the surer read that way."""
        if not asked:
            return False
        batch = np.zeros((len(asked), 3, HEIGHT, TURN_WIDTH), np.float32)
        for row, corners in zip(batch, asked, strict=True):
            strip = _normalised(_strip(pixels, corners, TURN_WIDTH))
            row[:, :, : strip.shape[2]] = strip
        if (_run(self._classifier, batch)[:, 1] > TURNED).sum() <= len(asked) / 2:
            return False
        ways = [self._line(pixels, np.roll(asked[0], k, axis=0)).score for k in (0, 2)]
        return ways[1] > ways[0]

    def _line(self, pixels: NDArray[np.uint8], corners: NDArray[np.float32]) -> ReadLine:
        """The text between four corners."""
        strip = _normalised(_strip(pixels, corners, WIDEST))
        width = strip.shape[2]
        padded = np.zeros((1, 3, HEIGHT, -(-width // WIDTHS) * WIDTHS), np.float32)
        padded[0, :, :, :width] = strip
        chances = _run(self._recogniser, padded)[0]  # (steps, characters)
        best = chances.argmax(axis=1)
        steps = np.flatnonzero((best != 0) & (best != np.concatenate(([0], best[:-1]))))
        text = [self._characters[index] for index in best[steps]]
        score = float(chances[steps, best[steps]].mean()) if len(steps) else 0.0
        return ReadLine("".join(text), score, (steps + 0.5) / len(best) * padded.shape[3] / width, corners)


def _filled(pixels: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is on a picture, and a margin: the detector need not see the rest."""
    import cv2

    bounds = []
    for axis, size in ((0, pixels.shape[1]), (1, pixels.shape[0])):
        contrast = cv2.reduce(pixels, axis, cv2.REDUCE_MAX) - cv2.reduce(pixels, axis, cv2.REDUCE_MIN)
        filled = np.flatnonzero(contrast.reshape(size, -1).max(axis=1) >= UNIFORM)
        first, last = (filled[0], filled[-1]) if len(filled) else (0, size)
        bounds.append((max(0, int(first) - MARGIN), min(size, int(last) + MARGIN)))
    (left, right), (top, bottom) = bounds
    return left, top, right, bottom


def is_tall(corners: NDArray[np.float32]) -> bool:
    """Whether a line stands upright on the picture."""
    along, across = _sides(corners)
    return across >= TALL * along


def _score(line: ReadLine) -> float:
    return line.score


def _run(session: Any, shown: NDArray[np.float32]) -> NDArray[np.float32]:
    (result,) = session.run(None, {session.get_inputs()[0].name: shown})
    return np.asarray(result, np.float32)


def _normalised(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """(height, width, 3) from 0 to 255 → (3, height, width) from -1 to 1."""
    return np.ascontiguousarray((pixels.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1))


def _sides(corners: NDArray[np.float32]) -> tuple[float, float]:
    """How long a line is along and across."""
    return float(np.linalg.norm(corners[1] - corners[0])), float(np.linalg.norm(corners[3] - corners[0]))


def _strip(pixels: NDArray[np.uint8], corners: NDArray[np.float32], widest: int) -> NDArray[np.uint8]:
    """The rectangle between four corners, (HEIGHT, at most ``widest``, 3)."""
    import cv2

    along, across = _sides(corners)
    width = min(max(1, math.ceil(HEIGHT * along / max(across, 1.0))), widest)
    target = np.array([[0, 0], [width, 0], [0, HEIGHT]], np.float32)
    onto = cv2.getAffineTransform(corners[[0, 1, 3]], target)
    return np.asarray(cv2.warpAffine(pixels, onto, (width, HEIGHT), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _areas(chances: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The corners of the lines on a map of the chance that a pixel is text, (height, width)."""
    import cv2

    ink = cv2.dilate((chances > INK).astype(np.uint8), np.ones((2, 2), np.uint8))
    outlines, _ = cv2.findContours(ink, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    found = []
    for outline in outlines[:CANDIDATES]:
        middle, (one, other), angle = cv2.minAreaRect(outline)
        if min(one, other) < 3 or _mean_within(chances, cv2.boxPoints((middle, (one, other), angle))) < SURE:
            continue
        margin = GROWTH * one * other / (one + other)
        corners = cv2.boxPoints((middle, (one + margin, other + margin), angle))
        left, right = np.split(corners[np.argsort(corners[:, 0], kind="stable")], 2)
        (top_left, bottom_left), (top_right, bottom_right) = (side[np.argsort(side[:, 1])] for side in (left, right))
        found.append(np.array([top_left, top_right, bottom_right, bottom_left], np.float32))
    return found


def _mean_within(chances: NDArray[np.float32], corners: NDArray[Any]) -> float:
    """The mean over a rectangle that may stand askew."""
    import cv2

    height, width = chances.shape
    x0, y0 = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, (width - 1, height - 1))
    x1, y1 = np.clip(np.ceil(corners.max(axis=0)).astype(int), 0, (width - 1, height - 1))
    mask = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.uint8)
    cv2.fillPoly(mask, (corners - (x0, y0)).astype(np.int32)[None], 1)
    return float(cv2.mean(chances[y0 : y1 + 1, x0 : x1 + 1], mask)[0])
