"""What every encoder of patches must show, whatever library is under it: cases for test_vision and test_colpali."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from visrag.canary import page_vectors, same_page
from visrag.encode.patches import PATCHES, PatchEncoder
from visrag.records import Page, PatchVectors, QueryVectors

PORTRAIT = (300, 400)  # width, height in pixels
LANDSCAPE = (400, 200)
SIZES = (PORTRAIT, LANDSCAPE, (280, 280), PORTRAIT, (200, 500), LANDSCAPE, (420, 90), (90, 420), PORTRAIT, (310, 260))


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Blocks of random colours."""
    width, height = size
    colours = np.random.default_rng(seed).integers(0, 256, (max(1, height // 20), max(1, width // 20), 3), np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def page(image: Image.Image, number: int = 1) -> Page:
    return Page(number, float(image.width), float(image.height), image=lambda: image)


def encode(encoder: PatchEncoder, image: Image.Image) -> PatchVectors:
    return encoder.encode_pages([page(image)])[0][PATCHES]


def placed(vectors: PatchVectors) -> np.ndarray:
    """The patches (rows, cols, dim)."""
    assert vectors.places.grid is not None
    return vectors.vectors[vectors.places.vectors].reshape(*vectors.places.grid, -1)


def maxsim(query: QueryVectors, vectors: PatchVectors) -> float:
    best = (query.vectors.astype(np.float64) @ vectors.vectors.T).max(axis=1)
    return float(best @ query.weights)


def check_one_is_many(encoder: PatchEncoder) -> None:
    """A page's vectors are the same alone and among pages of other shapes, and come back in order."""
    images = [picture(size, seed) for seed, size in enumerate(SIZES)]
    together = encoder.encode_in([page(image, number) for number, image in enumerate(images, 1)], 2)
    for image, vectors in zip(images, together, strict=True):
        alone = encode(encoder, image)
        assert vectors[PATCHES].places.grid == alone.places.grid
        np.testing.assert_array_equal(vectors[PATCHES].places.vectors, alone.places.vectors)
        np.testing.assert_allclose(vectors[PATCHES].vectors, alone.vectors, rtol=0, atol=1e-5)


def check_painted_cell(encoder: PatchEncoder, size: tuple[int, int]) -> None:
    """Where one cell of the picture is painted over, the vector that changes most is the one placed there."""
    image = picture(size)
    before = encode(encoder, image)
    assert before.places.grid is not None
    rows, cols = before.places.grid
    boxes = before.places.boxes().reshape(rows, cols, 4)
    for row, col in {(1, cols - 2), (rows - 2, 1), (rows // 2, cols // 2), (0, 0)}:
        painted = image.copy()
        x0, y0, x1, y1 = boxes[row, col] * np.array([*size, *size])
        ImageDraw.Draw(painted).rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), fill=(255, 0, 255))
        change = np.linalg.norm(placed(encode(encoder, painted)) - placed(before), axis=-1)
        assert np.unravel_index(change.argmax(), change.shape) == (row, col)


def check_patch_wins_at_its_place(encoder: PatchEncoder, size: tuple[int, int]) -> None:
    """A question that is a patch's own vector wins there, and its box holds that cell's middle."""
    vectors = encode(encoder, picture(size))
    assert vectors.places.grid is not None
    rows, cols = vectors.places.grid
    row, col = 1, cols - 2
    winner = (vectors.vectors @ placed(vectors)[row, col]).argmax()
    (place,) = np.flatnonzero(vectors.places.vectors == winner)
    x0, y0, x1, y1 = vectors.places.boxes()[place]
    assert x0 < (col + 0.5) / cols < x1
    assert y0 < (row + 0.5) / rows < y1


def check_question(encoder: PatchEncoder, augmentation: str, times: int = 10) -> None:
    """All tokens count; the question's own stand between prompt and augmentation."""
    question = "capital expenditure in 2018?"
    query = encoder.encode_query(question)[PATCHES]
    assert query.vectors.dtype == np.float32
    assert query.vectors.shape == (len(query.tokens), encoder.legs[0].dim)
    np.testing.assert_array_equal(query.weights, np.ones(len(query.tokens), np.float32))
    np.testing.assert_allclose(np.linalg.norm(query.vectors, axis=1), 1.0, atol=1e-5)
    assert query.tokens.count(augmentation) == times
    assert query.own is not None
    own = [query.tokens[i] for i in query.own]
    assert "".join(token for token in own if token != "' '") == question.replace(" ", "")
    assert augmentation not in own


def check_bfloat16(load: Callable[[], PatchEncoder], monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 a batch twice gives the same bits; alone, among others, and in float32 nearly the same vectors."""
    images = [picture(PORTRAIT, seed) for seed in range(4)]
    pages = [page(image, number) for number, image in enumerate(images, 1)]
    exact = [found[PATCHES].vectors for found in load().encode_in(pages, 1)]
    monkeypatch.setenv("VISRAG_DTYPE", "bfloat16")
    encoder = load()
    once, again, alone = ([found[PATCHES].vectors for found in encoder.encode_in(pages, n)] for n in (4, 4, 1))
    for one, other, single, right in zip(once, again, alone, exact, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, single, rtol=0, atol=2e-2)
        assert cosine(one, right) > 0.999
        assert not np.array_equal(one, right)


def check_canary(load: Callable[[], PatchEncoder], changes: dict[str, Any]) -> None:
    """The canary's page is the same when the model is loaded again, and another with each of these changes to the
    image processor."""
    kept = page_vectors(load())
    assert same_page(page_vectors(load()), kept)
    for name, value in changes.items():
        encoder = load()
        images = encoder._processor.image_processor
        assert getattr(images, name) != value
        setattr(images, name, value)
        assert not same_page(page_vectors(encoder), kept), name


def check_attention_calls(encoder: PatchEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of one shape attend in as many calls as one page does."""
    attend, calls = torch.nn.functional.scaled_dot_product_attention, [0]

    def counted(*rows: Any, **options: Any) -> Any:
        calls[0] += 1
        return attend(*rows, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    pages = [page(picture(PORTRAIT, seed), seed) for seed in range(4)]
    encoder.encode_in(pages[:1], 1)
    alone, calls[0] = calls[0], 0
    encoder.encode_in(pages, 4)
    assert calls[0] == alone > 0


def check_nothing_is_cached(encoder: PatchEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values are for tokens to come, and there are none."""

    def update(*_: Any, **__: Any) -> Any:
        raise AssertionError("keys and values were kept")

    monkeypatch.setattr("transformers.cache_utils.Cache.update", update)
    encode(encoder, picture(PORTRAIT))
    encoder.encode_query("capital expenditure in 2018?")


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other)))
