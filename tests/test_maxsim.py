"""MaxSim against numbers worked by hand, and against float64; every path of the kernel that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from visrag.compress import sign_bits, to_bits, tokens_to_int8
from visrag.maxsim import Block, kernels, maxsim, reference, scan, score_pages, token_matches
from visrag.maxsim.native import threads_for, why_numpy

PATHS = kernels()


def block_of(pages, scales=None, gap=0, bits=False):
    """Pages of int8 codes (n, dim) in two buffers in turn, ``gap`` bytes of 127 before each."""
    dim = pages[0].shape[1]
    parts, offsets, ends = ([], []), [], [0, 0]
    for i, page in enumerate(pages):
        data = (to_bits(page) if bits else page.reshape(-1)) if len(page) else np.zeros(0, np.int8)
        parts[i % 2].extend([np.full(gap, 127, np.int8), data])
        offsets.append(ends[i % 2] + gap)
        ends[i % 2] += gap + len(data)
    buffers = tuple(np.concatenate([np.zeros(0, np.int8), *found]) for found in parts)
    counts = np.array([len(page) for page in pages], np.int64)
    scales = np.ones(len(pages)) if scales is None else np.asarray(scales)
    segment = np.arange(len(pages), dtype=np.int64) % 2
    return Block(buffers, segment, np.array(offsets, np.int64), counts, scales.astype(np.float32), dim, bits)


def products(tokens, page):
    """Sums of products of codes, (t, n), in integers."""
    return tokens.astype(np.int64) @ page.T.astype(np.int64)


def differing(tokens, page):
    """Dimensions in which signs differ, (t, n)."""
    return ((tokens > 0)[:, None, :] != (page > 0)[None, :, :]).sum(axis=2)


def oracle(query, weights, pages, scales):
    """float64: (p,), NaN for a page without vectors."""
    scores = []
    for page, scale in zip(pages, scales, strict=True):
        found = query.astype(np.float64) @ page.astype(np.float64).T * float(scale)
        scores.append(float(weights @ found.max(axis=1)) if len(page) else np.nan)
    return np.array(scores)


def wide(rows):
    """Small numbers in 8 dimensions, the rest 0, which every path takes."""
    found = np.zeros((len(rows), 8), np.asarray(rows).dtype)
    found[:, : np.shape(rows)[1]] = rows
    return found


QUERY = wide(np.array([[1, 0], [0, 1], [1, 1]], np.float32))
ONES = np.ones(3, np.float32)


def page_of(*rows):
    return wide(np.array(rows, np.int8))


def test_by_hand():
    page = page_of([2, -1], [-3, 4])  # products: [2, -3], [-1, 4], [1, 1]
    assert score_pages(QUERY, ONES, block_of([page], [0.5])) == pytest.approx([0.5 * (2 + 4 + 1)])
    assert maxsim(QUERY, ONES, page.astype(np.float32)) == 7
    best, where = token_matches(QUERY, page.astype(np.float32))
    assert best.tolist() == [2, 4, 1]
    assert where.tolist() == [0, 1, 0]  # of equals the first


def test_weights_multiply_and_weight_zero_does_not_count():
    page = page_of([2, -1], [-3, 4])
    weights = np.array([2, 0, -1], np.float32)
    assert score_pages(QUERY, weights, block_of([page])) == pytest.approx([2 * 2 - 1])
    assert score_pages(QUERY, ONES * 0, block_of([page])).tolist() == [0]


def test_negative_similarities_survive_beside_a_longer_page():
    pages = [page_of([-5, -5]), page_of(*[[-9, -9]] * 8), page_of([-5, -5])]
    assert score_pages(QUERY[:1], ONES[:1], block_of(pages)) == pytest.approx([-5, -9, -5])


def test_a_page_without_vectors_has_no_score_and_disturbs_no_other():
    empty, page = np.zeros((0, 8), np.int8), page_of([-5, -5])
    scores = score_pages(QUERY[:1], ONES[:1], block_of([empty, page, empty, page, empty]))
    assert scores == pytest.approx([np.nan, -5, np.nan, -5, np.nan], nan_ok=True)
    assert np.isnan(maxsim(QUERY, ONES, np.zeros((0, 8), np.float32)))
    with pytest.raises(ValueError, match="no matches"):
        token_matches(QUERY, np.zeros((0, 8), np.float32))


def test_no_pages_and_no_tokens():
    block = block_of([page_of([1, 1])])
    none = Block(block.buffers, block.segment[:0], block.offsets[:0], block.counts[:0], block.scales[:0], 8)
    assert score_pages(QUERY, ONES, none).shape == (0,)
    assert score_pages(QUERY[:0], ONES[:0], block).tolist() == [0]


def test_a_mask_leaves_pages_out():
    pages = [page_of([n, 0]) for n in (1, 2, 3)]
    mask = np.array([True, False, True])
    scores = score_pages(QUERY[:1], ONES[:1], block_of(pages), mask)
    assert scores == pytest.approx([1, np.nan, 3], nan_ok=True)


def test_signs_score_by_the_share_of_dimensions_that_agree():
    page = np.array([[1, -1, 1, -1, 1, -1, 1, -1], [1, 1, 1, 1, 1, 1, 1, -1]], np.int8)
    query = np.array([[0.2, 0.1, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]], np.float32)  # agrees in 4 and in 7 of 8
    assert score_pages(query, ONES[:1], block_of([page], bits=True)) == pytest.approx([(7 - 1) / 8])


def test_what_is_refused():
    block = block_of([page_of([1, 1])])
    with pytest.raises(ValueError, match="8 dimensions"):
        score_pages(np.ones((3, 4), np.float32), ONES, block)
    with pytest.raises(ValueError, match="NaN or infinity"):
        score_pages(np.full((1, 8), np.inf, np.float32), ONES[:1], block)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("segment", "offset", "count"), [(0, 1, 1), (0, -1, 1), (0, 0, 2), (1, 0, 1), (2, 0, 1), (-3, 0, 1), (0, 0, 2**60)]
)
def test_a_page_outside_of_its_segment_is_an_error(path, segment, offset, count):
    one = np.ones(1, np.int64)
    buffers = (np.ones(8, np.int8), np.ones(0, np.int8))
    block = Block(buffers, segment * one, offset * one, count * one, np.ones(1, np.float32), 8)
    with pytest.raises((IndexError, MemoryError)):
        scan(np.ones((1, 8), np.int8), np.ones(1), block, path=path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dim", [1984, 1992, 4096])
def test_bits_that_all_differ_are_counted(path, dim):
    """31, 32 and 64 words: 8 × 31 is what a byte can count to."""
    page = np.ones((9, dim), np.int8)
    page[4, :3] = -1
    best = np.zeros((1, 1), np.int32)
    scan(sign_bits(-np.ones((1, dim), np.int8)), np.ones(1), block_of([page], bits=True), best=best, path=path)
    assert best.tolist() == [[dim - 3]]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dim", [8, 16, 24, 64, 72, 96, 128, 136, 320, 384, 1032, 1040])
@pytest.mark.parametrize("tokens", [1, 2, 4, 5, 6, 11, 12, 13, 20, 25])
def test_every_path_gives_the_oracles_integers(path, dim, tokens):
    rng = np.random.default_rng(dim * tokens)
    counts = [0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 127, 128, 129, 300]
    pages = [rng.integers(-128, 128, (n, dim)).astype(np.int8) for n in counts]
    query = rng.integers(-127, 128, (tokens, dim)).astype(np.int8)
    query[0] = rng.choice([-127, 127], dim)  # the greatest sums that there are
    pages[2][0], pages[3][0] = np.where(query[0] > 0, 127, -128), np.where(query[0] > 0, -128, 127)
    factors, scales = rng.standard_normal(tokens), rng.random(len(pages))
    for bits, block, match in (
        (False, block_of(pages, scales), lambda page: products(query, page).max(axis=1)),
        (True, block_of(pages, scales, bits=True), lambda page: differing(query, page).min(axis=1)),
    ):
        best = np.zeros((len(pages), tokens), np.int32)
        scores = scan(sign_bits(query) if bits else query, factors, block, best=best, path=path)
        assert np.isnan(scores[0])
        for found, score, page, scale in list(zip(best, scores, pages, block.scales, strict=True))[1:]:
            expected = match(page)
            np.testing.assert_array_equal(found, expected)
            values = dim - 2 * expected if bits else expected
            tolerance = 1e-5 * float(abs(values * factors).sum() * scale) + 1e-6
            assert score == pytest.approx(float((values @ factors) * scale), abs=tolerance)


@pytest.mark.parametrize(
    ("bits", "vectors", "several"),
    [(False, 15_625, False), (False, 15_626, True), (True, 100_000, False), (True, 100_001, True)],
)
def test_several_threads_for_what_takes_one_of_them_long(bits, vectors, several, monkeypatch):
    """10 tokens of 128 dimensions: of so many vectors 20,000,000 products of codes, or 2,000,000 words of bits."""
    monkeypatch.setattr("visrag.maxsim.native.threads", lambda: 3)
    none, one = np.zeros(1, np.int64), np.ones(1, np.float32)
    block = Block((), none, none, np.array([vectors]), one, 128, bits)
    tokens = np.ones((10, 128), np.int8)
    assert threads_for(sign_bits(tokens) if bits else tokens, block) == (3 if several else 1)


@settings(max_examples=120, deadline=None)
@given(
    counts=st.lists(st.integers(0, 70), min_size=1, max_size=30),
    tokens=st.integers(0, 30),
    dim=st.sampled_from([1, 8, 24, 130, 136, 200]),
    path=st.sampled_from(PATHS),
    threads=st.integers(1, 3),
    gap=st.integers(0, 65),
    bits=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape_equals_numpy(counts, tokens, dim, path, threads, gap, bits, seed):
    rng = np.random.default_rng(seed)
    pages = [rng.integers(-128, 128, (n, dim)).astype(np.int8) for n in counts]
    query = rng.integers(-127, 128, (tokens, dim)).astype(np.int8)
    asked = sign_bits(query) if bits else query
    mask = rng.random(len(pages)) < 0.8 if seed % 2 else None
    block = block_of(pages, rng.random(len(pages)), gap, bits)
    factors = rng.standard_normal(tokens)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "CHUNK_VALUES", (1 + seed % 50) * dim)
        for name in (path, "numpy"):
            best = np.full((len(pages), tokens), -1, np.int32)
            found[name] = scan(asked, factors, block, mask, best, name, threads), best
    scored = ~np.isnan(found["numpy"][0])
    assert scored.tolist() == [len(page) > 0 and (mask is None or bool(mask[i])) for i, page in enumerate(pages)]
    np.testing.assert_array_equal(found[path][1][scored], found["numpy"][1][scored])
    np.testing.assert_allclose(found[path][0], found["numpy"][0], rtol=1e-5, atol=1e-3 * dim)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    tokens=st.integers(1, 9),
    dim=st.sampled_from([1, 8, 24, 130]),
    rows=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_scores_are_near_those_of_float64(counts, tokens, dim, rows, seed):
    rng = np.random.default_rng(seed)
    pages = [rng.integers(-127, 128, (n, dim)).astype(np.int8) for n in counts]
    scales = rng.random(len(pages)).astype(np.float32)
    query = rng.standard_normal((tokens, dim)).astype(np.float32)
    weights = rng.standard_normal(tokens).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "CHUNK_VALUES", rows * dim)
        found = score_pages(query, weights, block_of(pages, scales))
        for page in pages:
            if len(page):
                best, where = token_matches(query, page.astype(np.float32))
                sums = query.astype(np.float64) @ page.T.astype(np.float64)
                np.testing.assert_allclose(best, sums.max(axis=1), rtol=1e-4, atol=1e-3)
                np.testing.assert_allclose(sums[np.arange(tokens), where], best, rtol=1e-4, atol=1e-3)
    # a token's component is off by half its scale at most; a code is at most 127
    off = float(np.abs(weights) @ np.abs(query).max(axis=1)) / 127 / 2 * 127 * dim
    assert (np.abs(found - oracle(query, weights, pages, scales))[[n > 0 for n in counts]] <= off + 1e-3).all()
    assert found.dtype == np.float32


def test_tokens_become_codes_each_by_its_own_scale():
    codes, scales = tokens_to_int8(np.array([[1.27, -0.635, 0.004], [0, 0, 0], [-254, 1, 0]], np.float32))
    assert codes.tolist() == [[127, -64, 0], [0, 0, 0], [-127, 0, 0]]  # 63.5 and 0.5 go to the even one
    assert scales == pytest.approx([0.01, 1.0, 2.0])


def test_a_token_too_near_to_zero_to_divide_by_is_zero():
    codes, scales = tokens_to_int8(np.array([[1e-44, -1e-44], [254, 0]], np.float32))
    assert codes.tolist() == [[0, 0], [127, 0]]
    assert scales.tolist() == [1, 2]


def test_bits_lie_in_groups_of_eight():
    codes = np.full((9, 65), -1, np.int8)
    codes[0, 0] = codes[1, 63] = codes[8, 64] = 1
    words = to_bits(codes).view(np.uint64).reshape(2, 2, 8)
    assert words[0, 0].tolist() == [1, 2**63, 0, 0, 0, 0, 0, 0]
    assert words[0, 1].tolist() == [0] * 8
    assert words[1, 0].tolist() == [0, 1, 1, 1, 1, 1, 1, 1]  # the first vector fills what is left over
    assert words[1, 1].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("path", [*PATHS, ""])
def test_the_environment_forces_a_path(path):
    code = "from visrag.maxsim import kernel, threads; print(kernel(), threads())"
    environment = {**os.environ, "VISRAG_KERNEL": path, "VISRAG_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [path or PATHS[0], "3"]


def test_why_it_is_numpy(monkeypatch):
    monkeypatch.delenv("VISRAG_KERNEL", raising=False)
    assert "this processor" in why_numpy() or len(PATHS) == 1
    monkeypatch.delattr("visrag.maxsim._kernel", raising=False)
    monkeypatch.setitem(sys.modules, "visrag.maxsim._kernel", None)  # as where none was built
    assert why_numpy() == "there was no C compiler at install"
    monkeypatch.setenv("VISRAG_KERNEL", "numpy")
    assert why_numpy() == "VISRAG_KERNEL asks for it"


@pytest.mark.parametrize(("name", "value"), [("VISRAG_KERNEL", "avx1024"), ("VISRAG_THREADS", "0")])
def test_an_environment_that_cannot_be_followed_is_refused(name, value):
    code = "from visrag.maxsim import kernel, threads; kernel(), threads()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, name: value}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"UsageError: {name}={value}: " in done.stderr.replace("visrag.errors.", "")


def test_numpy_has_its_threads_back_afterwards():
    def threads():
        return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    before = threads()
    rng = np.random.default_rng(0)
    block = block_of([rng.integers(-127, 128, (300, 64)).astype(np.int8) for _ in range(20)])
    query = rng.integers(-127, 128, (8, 64)).astype(np.int8)
    expected = scan(query, np.ones(8), block, path="numpy")
    results = []
    running = [
        threading.Thread(target=lambda: results.append(scan(query, np.ones(8), block, path="numpy"))) for _ in range(4)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert threads() == before
    assert len(results) == 4
    for found in results:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no compiler")
def test_the_kernel_is_built_where_there_is_a_compiler():
    assert len(PATHS) > 1
