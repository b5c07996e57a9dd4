"""MaxSim against numbers worked by hand, and against float64."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from visrag.maxsim import Block, maxsim, reference, score_pages, token_matches


def block_of(pages, scales=None, gap=0):
    """Pages of int8 codes (n, dim) in one buffer, ``gap`` bytes of 127 before each."""
    dim = pages[0].shape[1]
    parts, offsets, end = [], [], 0
    for page in pages:
        parts += [np.full(gap, 127, np.int8), page.reshape(-1)]
        offsets.append(end + gap)
        end += gap + page.size
    counts = np.array([len(page) for page in pages], np.int64)
    scales = np.ones(len(pages)) if scales is None else np.asarray(scales)
    return Block(np.concatenate(parts), np.array(offsets, np.int64), counts, scales.astype(np.float32), dim)


def oracle(query, weights, pages, scales):
    """float64: (p,), NaN for a page without vectors."""
    scores = []
    for page, scale in zip(pages, scales, strict=True):
        products = query.astype(np.float64) @ page.astype(np.float64).T * float(scale)
        scores.append(float(weights @ products.max(axis=1)) if len(page) else np.nan)
    return np.array(scores)


QUERY = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
ONES = np.ones(3, np.float32)


def test_by_hand():
    page = np.array([[2, -1], [-3, 4]], np.int8)  # products: [2, -3], [-1, 4], [1, 1]
    assert score_pages(QUERY, ONES, block_of([page], [0.5])).tolist() == [0.5 * (2 + 4 + 1)]
    assert maxsim(QUERY, ONES, page.astype(np.float32)) == 7
    best, where = token_matches(QUERY, page.astype(np.float32))
    assert best.tolist() == [2, 4, 1]
    assert where.tolist() == [0, 1, 0]  # of equals the first


def test_weights_multiply_and_weight_zero_does_not_count():
    page = np.array([[2, -1], [-3, 4]], np.int8)
    weights = np.array([2, 0, -1], np.float32)
    assert score_pages(QUERY, weights, block_of([page])).tolist() == [2 * 2 - 1]
    assert score_pages(QUERY, ONES * 0, block_of([page])).tolist() == [0]


def test_negative_similarities_survive_beside_a_longer_page():
    negative = np.array([[-5, -5]], np.int8)
    longer = np.array([[-9, -9]] * 8, np.int8)
    scores = score_pages(QUERY[:1], ONES[:1], block_of([negative, longer, negative]))
    assert scores.tolist() == [-5, -9, -5]


def test_a_page_without_vectors_has_no_score_and_disturbs_no_other():
    empty, page = np.zeros((0, 2), np.int8), np.array([[-5, -5]], np.int8)
    scores = score_pages(QUERY[:1], ONES[:1], block_of([empty, page, empty, page, empty]))
    np.testing.assert_array_equal(scores, [np.nan, -5, np.nan, -5, np.nan])
    assert np.isnan(maxsim(QUERY, ONES, np.zeros((0, 2), np.float32)))
    with pytest.raises(ValueError, match="no matches"):
        token_matches(QUERY, np.zeros((0, 2), np.float32))


def test_no_pages_and_no_tokens():
    block = block_of([np.ones((1, 2), np.int8)])
    none = Block(block.buffer, block.offsets[:0], block.counts[:0], block.scales[:0], 2)
    assert score_pages(QUERY, ONES, none).shape == (0,)
    assert score_pages(QUERY[:0], ONES[:0], block).tolist() == [0]


def test_other_dimensions_are_refused():
    with pytest.raises(ValueError, match="2 dimensions"):
        score_pages(np.ones((3, 4), np.float32), ONES, block_of([np.ones((1, 2), np.int8)]))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    tokens=st.integers(1, 9),
    dim=st.sampled_from([1, 8, 24, 130]),
    rows=st.integers(1, 50),
    gap=st.integers(0, 65),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_any_chunk_equals_the_oracle(counts, tokens, dim, rows, gap, seed):
    rng = np.random.default_rng(seed)
    pages = [rng.integers(-127, 128, (n, dim)).astype(np.int8) for n in counts]
    scales = rng.random(len(pages)).astype(np.float32)
    query, weights = (
        rng.standard_normal((tokens, dim)).astype(np.float32),
        rng.standard_normal(tokens).astype(np.float32),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "CHUNK_VALUES", rows * dim)
        found = score_pages(query, weights, block_of(pages, scales, gap))
        for page in pages:
            if len(page):
                best, where = token_matches(query, page.astype(np.float32))
                products = query.astype(np.float64) @ page.T.astype(np.float64)
                np.testing.assert_allclose(best, products.max(axis=1), rtol=1e-4, atol=1e-3)
                np.testing.assert_allclose(products[np.arange(tokens), where], best, rtol=1e-4, atol=1e-3)
    expected = oracle(query, weights, pages, scales)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-3 * np.sqrt(dim))
    assert found.dtype == np.float32


def test_numpy_has_its_threads_back_afterwards():
    def threads():
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    rng = np.random.default_rng(0)
    block = block_of([rng.integers(-127, 128, (300, 64)).astype(np.int8) for _ in range(20)])
    query = rng.standard_normal((8, 64)).astype(np.float32)
    expected = score_pages(query, np.ones(8, np.float32), block)
    results = []
    running = [
        threading.Thread(target=lambda: results.append(score_pages(query, np.ones(8, np.float32), block)))
        for _ in range(4)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert threads() == before
    assert len(results) == 4
    for found in results:
        np.testing.assert_allclose(found, expected, rtol=1e-6)
