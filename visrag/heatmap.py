"""Token scores on their places → heat over the page.

Works from what the index stores (a question's vectors, a page's vectors and places): no page is encoded again.
Three steps: ``token_maps`` gives each token's similarity to each place; ``question_map`` their maximum over the
tokens that count; ``cell_map`` paints a map onto a raster. A ``Scale`` is made once a question and serves all its
maps, so that a map in which nothing stands out looks flat. ``weights`` (t,) say which tokens count: 0 for
markers, punctuation and, as the caller sees fit, stop words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .blas import one_blas_thread
from .errors import UsageError
from .fulltext import terms
from .records import Floats, PatchVectors, Places, QueryVectors, Region

if TYPE_CHECKING:
    from PIL.Image import Image

SPAN = 0.25  # a scale spans at least this much similarity: less than that is no evidence (cosine)
GAMMA = 1.5  # heat rises slower than similarity, which calms the noise of weak matches
OUTLINE = (36, 66, 166)  # of regions: blue, far from every colour of the heat


def token_maps(query: QueryVectors, patch: PatchVectors) -> Floats:
    """The similarity of each query token to each place's vector, (t, m) float32; NaN where a place has none."""
    rows = patch.places.vectors
    with one_blas_thread():
        similarities = query.vectors @ patch.vectors.T
    if not len(patch.vectors):
        return np.full((len(query.vectors), len(rows)), np.nan, np.float32)
    maps: Floats = np.where(rows >= 0, similarities[:, np.maximum(rows, 0)], np.nan).astype(np.float32)
    return maps


def question_map(maps: Floats, weights: Floats) -> Floats:
    """The maximum of ``maps`` (t, m) over the tokens with a weight above 0: (m,). NaN for places without a vector."""
    counted = maps[weights > 0]
    if not len(counted):
        return np.full(maps.shape[1], np.nan, np.float32)
    best: Floats = counted.max(axis=0)
    return best


@dataclass(frozen=True, slots=True)
class TokenMaps:
    """A page's token maps: ``values`` (t, m) on their ``places``, and the ``content`` (t,): 1 for the tokens that say
    what is asked for, 0 for markers, prompts, punctuation and stop words. ``own``: those of the question itself."""

    tokens: tuple[str, ...]
    places: Places
    values: Floats
    weights: Floats
    content: Floats
    own: range

    @classmethod
    def of(cls, query: QueryVectors, patch: PatchVectors) -> TokenMaps:
        """The maps of a question on a page."""
        tokens = tuple(token.removeprefix("##").lstrip("▁Ġ ") for token in query.tokens)
        own = query.own if query.own is not None else range(len(tokens))
        telling = np.array([i in own and bool(terms(token)) for i, token in enumerate(tokens)])
        counted = query.weights > 0
        content = counted & telling if (counted & telling).any() else counted
        return cls(tokens, patch.places, token_maps(query, patch), query.weights, content.astype(np.float32), own)

    def only(self, token: str) -> Floats:
        """1 for the tokens that are ``token``, or else a part of it, (t,). Raises UsageError where there is none."""
        wanted = token.casefold()
        known = [name.casefold() for name in self.tokens]
        chosen = np.array([name == wanted for name in known])
        if not chosen.any():
            chosen = np.array([len(name) > 1 and name in wanted for name in known])
        chosen &= self.weights > 0
        if not chosen.any():
            counted = dict.fromkeys(name for name, weight in zip(known, self.weights, strict=True) if weight > 0)
            raise UsageError(f"the question has no token {token}; it has: {', '.join(counted)}")
        return chosen.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Scale:
    """The similarities that are drawn as no heat (``low``) and as full heat (``high``)."""

    low: float
    high: float

    @classmethod
    def of(cls, maps: Floats, weights: Floats, best: float | None = None) -> Scale:
        """From the page's typical match (the median of the question's map) to the question's best match.

        ``maps`` (t, m). ``best``: the best match over all pages shown together, where they shall share a scale.
        """
        values = question_map(maps, weights)
        values = values[~np.isnan(values)]
        low = float(np.median(values)) if len(values) else 0.0
        high = best if best is not None else float(values.max(initial=low))
        return cls(low, max(high, low + SPAN))

    def heat(self, values: Floats) -> Floats:
        """Similarities of any shape → heat, 0 to 1; 0 for NaN."""
        share = np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0) ** GAMMA
        heat: Floats = np.nan_to_num(share, nan=0.0).astype(np.float32)
        return heat


def cell_map(values: Floats, places: Places, height: int, width: int, *, smooth: bool = False) -> Floats:
    """``values`` (m,) painted on their places: (height, width) float32, NaN where none lies.

    Where places overlap the largest value shows. Every place takes up at least one cell. ``smooth`` interpolates
    between the centres of a grid's cells; it changes nothing for boxes.
    """
    if smooth and places.grid is not None and not np.isnan(values).any():
        return _bilinear(values.reshape(places.grid), height, width)
    canvas = np.full((height, width), np.nan, np.float32)
    corners = np.rint(places.boxes() * np.array([width, height, width, height], np.float32)).astype(int)
    lefts = np.minimum(corners[:, 0], width - 1)
    tops = np.minimum(corners[:, 1], height - 1)
    rights = np.maximum(corners[:, 2], lefts + 1)
    bottoms = np.maximum(corners[:, 3], tops + 1)
    order = np.argsort(values, kind="stable")  # the largest is painted last; NaN sorts to the end
    for i in order[: len(values) - int(np.isnan(values).sum())]:
        canvas[tops[i] : bottoms[i], lefts[i] : rights[i]] = values[i]
    return canvas


def _bilinear(grid: Floats, height: int, width: int) -> Floats:
    def taps(cells: int, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
        at = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
        first = at.astype(np.intp)
        return first, np.minimum(first + 1, cells - 1), (at - first).astype(np.float32)

    row, below, down = taps(grid.shape[0], height)
    col, after, right = taps(grid.shape[1], width)
    rows = grid[row] * (1 - down)[:, None] + grid[below] * down[:, None]
    result: Floats = (rows[:, col] * (1 - right) + rows[:, after] * right).astype(np.float32)
    return result


@cache
def colours() -> NDArray[np.uint8]:
    """The colour of heat 0 to 255, (256, 3) RGB: white over yellow to orange, lightness falling evenly (OKLab)."""
    share = np.linspace(0.0, 1.0, 256)
    chroma = np.interp(share, (0, 0.35, 1), (0.0, 0.12, 0.19))
    hue = np.radians(np.interp(share, (0, 0.35, 1), (100, 95, 48)))
    lab = np.stack([1.0 - 0.29 * share, chroma * np.cos(hue), chroma * np.sin(hue)])
    lms = np.array([[1, 0.3963378, 0.2158038], [1, -0.1055613, -0.0638542], [1, -0.0894842, -1.2914855]]) @ lab
    rgb = np.array(
        [[4.0767417, -3.3077116, 0.2309699], [-1.2684380, 2.6097574, -0.3413194], [-0.0041961, -0.7034186, 1.7076147]]
    ) @ (lms**3)
    rgb = np.clip(rgb, 0.0, 1.0)
    srgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    result: NDArray[np.uint8] = np.rint(srgb.T * 255).astype(np.uint8)
    return result


def overlay(image: Image, values: Floats, places: Places, scale: Scale, regions: Sequence[Region] = ()) -> Image:
    """The page's picture (RGB) with the heat of ``values`` (m,) over it and the regions outlined and numbered.

    Heat is laid on like a marker pen (multiplied), so that text stays as dark as it was; where the page itself is dark
    it shines a little.
    """
    from PIL import Image as images
    from PIL import ImageFilter

    picture = image.convert("RGB")
    heat = scale.heat(cell_map(values, places, picture.height, picture.width, smooth=True))
    colour = colours()[np.rint(heat * 255).astype(np.uint8)].astype(np.float32)
    page = np.asarray(picture, np.float32)
    ground = picture.convert("L").filter(ImageFilter.BoxBlur(max(2, picture.width // 30)))
    dark = np.clip(0.6 - np.asarray(ground, np.float32) / 255, 0.0, 1.0)
    shine = (dark * heat)[:, :, None]
    mixed = page * (colour / 255) * (1 - shine) + colour * shine
    result = images.fromarray(np.rint(mixed).astype(np.uint8))
    _outline(result, regions)
    return result


def _outline(picture: Image, regions: Sequence[Region]) -> None:
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    line = max(1, round(min(width, height) / 350))
    font = ImageFont.load_default(size=9 * line)
    for number, region in enumerate(regions, 1):
        x0, y0, x1, y1 = (value * side for value, side in zip(region.box, (width, height) * 2, strict=True))
        frame = (max(0, x0 - 2 * line), max(0, y0 - 2 * line), min(width, x1 + 2 * line), min(height, y1 + 2 * line))
        draw.rounded_rectangle(frame, radius=3 * line, outline=OUTLINE, width=line)
        left = frame[0] - 13 * line if frame[0] >= 13 * line else frame[0]
        tag = (left, frame[1], left + 12 * line, frame[1] + 12 * line)
        draw.rounded_rectangle(tag, radius=2 * line, fill=OUTLINE)
        middle = ((tag[0] + tag[2]) / 2, (tag[1] + tag[3]) / 2)
        draw.text(middle, str(number), fill="white", font=font, anchor="mm")
