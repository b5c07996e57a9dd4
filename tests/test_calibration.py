"""Chance levels: the formula by hand, the fit on known points, and the default encoder against a page it never saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_checkpoint

from visrag.calibration import QUESTIONS, TEXTS, Level, calibrate, chance_level
from visrag.encode.text import TextEncoder
from visrag.encode.vision import load_vision
from visrag.records import Leg, Page, PatchVectors, Places, QueryVectors


def test_level_by_hand() -> None:
    assert chance_level((0.1, 0.0), 700) == 0.1
    assert chance_level((-0.04, 0.05), 1) == -0.04
    assert chance_level((-0.04, 0.05), 1000) == pytest.approx(-0.04 + 0.05 * 6.907755)


def test_a_page_without_vectors_has_a_level() -> None:
    assert chance_level((0.2, 0.05), 0) == 0.2


class Counting:
    """An encoder whose best match is known: 0.1 + 0.05·ln(n) for a page of n words, in one dimension of two."""

    def __init__(self, needs_image: bool) -> None:
        self.needs_image = needs_image
        self.legs = (Leg("tokens", "by hand", 2, "f"),)
        self.pages: list[Page] = []

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        self.pages += pages
        encoded = []
        for page in pages:
            count = len(page.text.split())
            vectors = np.full((count, 2), -1.0, np.float32)
            vectors[0] = 0.1 + 0.05 * math.log(count), 1.0
            encoded.append({"tokens": PatchVectors(vectors, Places.of_boxes([], []))})
        return encoded

    def encode_query(self, question: str) -> Mapping[str, QueryVectors]:
        """The second token matches every page at 1, and must not count."""
        vectors = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
        return {"tokens": QueryVectors(vectors, ("a", "[SEP]"), np.array([1.0, 0.0], np.float32))}


def test_the_line_is_found_and_tokens_of_weight_0_do_not_count() -> None:
    a, b = calibrate(Counting(needs_image=False))["tokens"]
    assert (a, b) == pytest.approx((0.1, 0.05), abs=1e-4)


def test_pictures_get_a_level_without_a_slope() -> None:
    encoder = Counting(needs_image=True)
    a, b = calibrate(encoder)["tokens"]
    expected = [0.1 + 0.05 * math.log(len(" ".join(TEXTS[half : half + 5]).split())) for half in (0, 5)]
    assert b == 0.0
    assert a == pytest.approx(sum(expected) / 2, abs=1e-5)
    first, second = (page.image() for page in encoder.pages if page.image is not None)
    assert first.mode == "RGB"
    for picture in (first, second):
        assert picture.height > picture.width
        assert 0.01 < np.mean(np.asarray(picture.convert("L")) < 128) < 0.3  # text stands on them
    assert first.tobytes() != second.tobytes()


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load(device="cpu")


@pytest.fixture(scope="module")
def levels(encoder: TextEncoder) -> Mapping[str, Level]:
    return calibrate(encoder)


def test_slope_of_the_default_encoder(levels: Mapping[str, Level]) -> None:
    assert set(levels) == {"tokens", "windows"}
    assert 0.03 < levels["tokens"][1] < 0.06  # 0.040 on the dev set's pages and another collection's questions


@pytest.mark.parametrize("words", [40, 300, 900])
def test_an_unrelated_page_is_at_its_level(
    words: int, encoder: TextEncoder, levels: Mapping[str, Level], samples: Path
) -> None:
    """The handbook is none of the texts, and has nothing to do with the questions."""
    text = " ".join((samples / "observatory-handbook.md").read_text(encoding="utf-8").split()[:words])
    (page,) = encoder.encode_pages([Page(1, 600, 800, text)])
    vectors = page["tokens"].vectors
    best = []
    for question in QUESTIONS:
        query = encoder.encode_query(question)["tokens"]
        for token, weight in zip(query.vectors, query.weights, strict=True):
            if weight:
                best.append(max(float(token @ vector) for vector in vectors))
    assert len(best) > 100
    assert chance_level(levels["tokens"], len(vectors)) == pytest.approx(np.mean(best), abs=0.05)


def test_a_vision_model_has_no_slope(tmp_path: Path) -> None:
    encoder = load_vision(str(make_checkpoint("ColPaliForRetrieval", tmp_path / "colpali")), device="cpu")
    level, slope = calibrate(encoder)["patches"]
    assert slope == 0.0
    assert -1.0 < level < 1.0
