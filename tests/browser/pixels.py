"""What a screenshot shows, measured without asking the page: colours of heat, frames of regions, marks."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from planted import MARKS, Box

Pixels = NDArray[np.int16]  # (height, width, 3), RGB
Mask = NDArray[np.bool_]  # (height, width)

LARGEST = 100  # pixels: a mark's side at most


def pixels(png: bytes) -> Pixels:
    """A PNG as numbers."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int16)


def strong(shown: Pixels) -> Mask:
    """Where there is much heat: orange, from (249, 199, 92) at a half of it to (252, 116, 14); also at letters."""
    red, green, blue = np.moveaxis(shown, 2, 0)
    return np.asarray((red > 110) & (red - blue > 0.58 * red) & (green < 0.83 * red) & (green > 0.3 * red))


def warm(shown: Pixels) -> Mask:
    """Where there is any heat that an eye sees: yellow to orange."""
    red, _, blue = np.moveaxis(shown, 2, 0)
    return np.asarray((red > 110) & (red - blue > 0.16 * red))


def outline(shown: Pixels) -> Mask:
    """Where a region's frame is: (36, 66, 166)."""
    return np.asarray(np.abs(shown - np.array([36, 66, 166])).max(axis=2) < 30)


def ink(shown: Pixels) -> Mask:
    """Where letters are."""
    return np.asarray(shown.max(axis=2) < 110)


def inside(mask: Mask, box: Box) -> Mask:
    """The part of a mask in a box of the screen."""
    left, top, right, bottom = (round(edge) for edge in box)
    return mask[max(top, 0) : bottom, max(left, 0) : right]


def grown(box: Box, by: float) -> Box:
    """A box of the screen, larger on all sides."""
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def without(mask: Mask, box: Box) -> Mask:
    """A mask without what is in a box of the screen."""
    left, top, right, bottom = (round(edge) for edge in box)
    rest = mask.copy()
    rest[max(top, 0) : bottom, max(left, 0) : right] = False
    return rest


def framed(mask: Mask, box: Box, reach: float) -> bool:
    """Whether a frame surrounds a box: on each side, no farther off than ``reach``, a line along four fifths of it."""
    left, top, right, bottom = box
    above = inside(mask, (left, top - reach, right, top)).mean(axis=1)
    below = inside(mask, (left, bottom, right, bottom + reach)).mean(axis=1)
    before = inside(mask, (left - reach, top, left, bottom)).mean(axis=0)
    after = inside(mask, (right, top, right + reach, bottom)).mean(axis=0)
    return all(float(side.max(initial=0)) >= 0.8 for side in (above, below, before, after))


def mapping(shown: Pixels) -> Callable[[Box], Box]:
    """How user space lies on the screenshot, by the marks in it: a box there → the box here."""
    found = {colour: _middle(shown, colour) for colour in MARKS}
    return affine({MARKS[colour]: found[colour] for colour in MARKS})


def affine(points: Mapping[tuple[float, float], tuple[float, float]]) -> Callable[[Box], Box]:
    """The affine map that takes three points there to three points here, for boxes."""
    there = np.array([[x, y, 1.0] for x, y in points])
    matrix = np.linalg.solve(there, np.array(list(points.values())))  # (3, 2)

    def mapped(box: Box) -> Box:
        corners = np.array([[box[0], box[1], 1.0], [box[2], box[3], 1.0]]) @ matrix
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    return mapped


def _middle(shown: Pixels, colour: str) -> tuple[float, float]:
    """The middle of a mark, in pixels from the left and the top."""
    wanted = np.array([255 * float(part) for part in colour.split()])
    rows, columns = np.nonzero(np.abs(shown - wanted).max(axis=2) < 70)
    assert len(rows) >= 9, f"the mark {colour} is not in the screenshot"
    assert np.ptp(rows) < LARGEST, f"the mark {colour} is in more than one place"
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5
