"""A model's canary: what it makes of a fixed question and a fixed page, when an index is made and ever after.

Weights have a hash; what a library, a processor's settings or a device make of them has none, as devices and dtypes
round differently. So the vectors themselves are compared, by their cosine.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .encode import Encoder
from .encode.patches import PATCHES, PatchEncoder
from .errors import EncoderError
from .records import Floats, Page, PatchVectors

if TYPE_CHECKING:
    from PIL.Image import Image

QUESTION = "How many visitors did the museum have in 2019, compared with 1987?"
COSINE = 0.999  # a canary's vectors must be at least this near to those of the index, and to themselves in a batch
ROUNDED = 0.99  # to those of a vision model that computed in another dtype, or on another kind of device
ROWS = 16  # patches of the page that an index keeps, evenly spread
SLOW = 1.0  # seconds for a page above which a CPU is said to be slow

log = logging.getLogger("visrag")


def page(number: int) -> Page:
    """The page, for models of text and of pictures. Each number gives another."""
    return Page(number, 595.0, 842.0, QUESTION, image=lambda: _picture(number))


def question_vectors(encoder: Encoder) -> dict[str, Any]:
    """The question's vectors by leg, as lists of numbers."""
    query = encoder.encode_query(QUESTION)
    return {leg.name: np.round(query[leg.name].vectors, 6).tolist() for leg in encoder.legs}


def same_question(encoder: Encoder, kept: Mapping[str, Any], least: float = COSINE) -> bool:
    """Whether an encoder still makes the vectors of the question that ``question_vectors`` found."""
    return all(
        _cosine(np.array(kept[name]), np.array(found)) >= least for name, found in question_vectors(encoder).items()
    )


def least_cosine(arithmetic: str, kept: Mapping[str, Any]) -> float:
    """How near a vision model's vectors must be to those that an index keeps, as ``page_vectors`` found them."""
    return COSINE if kept["arithmetic"] == arithmetic else ROUNDED


def page_vectors(encoder: PatchEncoder) -> dict[str, Any]:
    """What an index keeps of the page's vectors: their number, their grid, some patches, as base64 of float32, in what
    they were computed, and what prepared the picture.

    The page is encoded alone, and together with another: both must give the same vectors. Raises EncoderError where
    they don't, and for NaN or infinity. On a CPU a warning says how slow it is.
    """
    begun = time.perf_counter()
    alone = encoder.encode_in([page(1)], 1)[0][PATCHES]
    seconds = time.perf_counter() - begun
    _, together = (found[PATCHES] for found in encoder.encode_in([page(2), page(1)], 2))
    name, same = encoder.legs[0].encoder, _cosine(alone.vectors, together.vectors)
    if same < COSINE:
        why = "its vectors cannot be trusted here. Try another version of torch or transformers, or another device"
        raise EncoderError(f"{name} gives a page other vectors among others than alone (cosine {same:.4f}): {why}")
    if encoder.device == "cpu" and seconds > SLOW:
        cure = "a GPU, a smaller model or fewer --visual-tokens would make it faster"
        log.warning("%s runs on the CPU: about %.0f s a page; %s", name, seconds, cure)
    return {"arithmetic": encoder.arithmetic, "image_processor": encoder.image_processor, **_kept(alone)}


def same_page(found: Mapping[str, Any], kept: Mapping[str, Any]) -> bool:
    """Whether the page has the vectors of ``kept``, as ``page_vectors`` found both."""
    if (found["vectors"], found["grid"]) != (kept["vectors"], kept["grid"]):
        return False
    return _cosine(_patches(found), _patches(kept)) >= least_cosine(found["arithmetic"], kept)


def _kept(found: PatchVectors) -> dict[str, Any]:
    cells = found.places.vectors[found.places.vectors >= 0]
    chosen = cells[np.linspace(0, len(cells) - 1, ROWS).round().astype(int)]
    patches = base64.b64encode(found.vectors[chosen].astype("<f4").tobytes()).decode()
    return {"vectors": len(found.vectors), "grid": list(found.places.grid or ()), "patches": patches}


def _patches(kept: Mapping[str, Any]) -> Floats:
    return np.frombuffer(base64.b64decode(kept["patches"]), "<f4")


def _cosine(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """Of all their numbers; -1 where they are not as many."""
    if one.shape != other.shape:
        return -1.0
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other)))


def _picture(number: int) -> Image:
    """An A4 page at 150 dpi in integers, the same everywhere: what looks like lines of text, a coloured chart and a
    photograph. Larger than any model takes, so that how it is made smaller counts, too."""
    from PIL import Image

    y, x = np.mgrid[0:1754, 0:1240]
    pixels = np.full((1754, 1240, 3), 255, np.uint8)
    written = (x * x * 3 + (y // 26) * 977 * number + x * 31) % 251 < 90
    margins = (x > 120) & (x < 1120) & (y > 120) & (y < 900)
    pixels[written & margins & (y % 26 < 13)] = 20
    chart = (x > 120) & (x < 600) & (y > 960)
    pixels[chart & (y > 1700 - (x // 60) * (37 + 11 * number) % 700)] = (31, 119, 180)
    photograph = (x > 660) & (x < 1120) & (y > 960) & (y < 1640)
    shades = np.stack([(x * number) % 256, (x + y) % 256, (x * y // 97) % 256], axis=-1)
    pixels[photograph] = shades[photograph]
    return Image.fromarray(pixels)
