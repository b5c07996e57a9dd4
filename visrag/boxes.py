"""Boxes on a page as displayed, and the affine maps that lead to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from .records import Box

Affine: TypeAlias = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f): the point (x, y) goes to (a x + c y + e, b x + d y + f)."""

WHOLE_PAGE: Box = (0.0, 0.0, 1.0, 1.0)


def after(first: Affine, then: Affine) -> Affine:
    """The affine map that does ``first`` and then ``then``."""
    a, b, c, d, e, f = first
    p, q, r, s, t, u = then
    return a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s, e * p + f * r + t, e * q + f * s + u


def placed(affine: Affine, left: float, bottom: float, right: float, top: float) -> Box:
    """A rectangle in user space → its box on the page as displayed (not cut to it)."""
    a, b, c, d, e, f = affine
    x0, x1 = a * left + c * bottom + e, a * right + c * top + e
    y0, y1 = b * left + d * bottom + f, b * right + d * top + f
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def cut(box: Box) -> Box | None:
    """The part of a box that is on the page, None if its centre is not."""
    if not (0 <= (box[0] + box[2]) / 2 <= 1 and 0 <= (box[1] + box[3]) / 2 <= 1):
        return None
    return max(0.0, box[0]), max(0.0, box[1]), min(1.0, box[2]), min(1.0, box[3])


def cut_to(box: Box, frame: Box) -> Box | None:
    """The part of a box that lies in another, None if there is none."""
    x0, y0, x1, y1 = max(box[0], frame[0]), max(box[1], frame[1]), min(box[2], frame[2]), min(box[3], frame[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def area(box: Box) -> float:
    """The share of the page that a box covers."""
    return (box[2] - box[0]) * (box[3] - box[1])


def same_line(one: Box, other: Box) -> bool:
    """Whether two boxes share more than half the height of the lower one."""
    overlap = min(one[3], other[3]) - max(one[1], other[1])
    return overlap > 0.5 * min(one[3] - one[1], other[3] - other[1])


def union(one: Box, other: Box) -> Box:
    """The box around two."""
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def around(points: Sequence[tuple[float, float]]) -> Box:
    """The box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
