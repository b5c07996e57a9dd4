"""int8 and back: the error's bounds, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from visrag.compress import from_int8, to_int8
from visrag.maxsim import maxsim


def test_by_hand():
    codes, scale = to_int8(np.array([[1.27, -0.64], [0.004, 0.006]], np.float32))
    assert scale == pytest.approx(0.01)
    assert codes.tolist() == [[127, -64], [0, 1]]
    np.testing.assert_allclose(from_int8(codes, scale), [[1.27, -0.64], [0, 0.01]], rtol=1e-6)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 5), st.integers(1, 9)),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_no_component_is_off_by_more_than_half_a_step(vectors):
    codes, scale = to_int8(vectors)
    assert codes.shape == vectors.shape
    assert codes.min(initial=0) >= -127
    error = np.abs(from_int8(codes, scale).astype(np.float64) - vectors)
    assert error.max(initial=0) <= scale / 2 * (1 + 1e-4) or np.abs(vectors).max() < 1e-35


def test_zeros_and_values_too_small_to_divide_by_are_zero():
    for value in (0.0, 1e-44):
        codes, scale = to_int8(np.full((2, 3), value, np.float32))
        assert not codes.any()
        assert np.isfinite(scale)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_is_refused_naming_the_vector(bad):
    vectors = np.zeros((4, 3), np.float32)
    vectors[2, 1] = bad
    with pytest.raises(ValueError, match="vector 2 of 4"):
        to_int8(vectors)
    with pytest.raises(ValueError, match=r"\(n, dim\)"):
        to_int8(vectors[0])


def test_maxsim_of_20_tokens_over_int8_stays_close_with_outlying_dimensions():
    rng = np.random.default_rng(0)
    shape = np.ones(384)
    shape[:3] = 6
    for _ in range(5):
        query, page = (rng.standard_normal((n, 384)) * shape for n in (20, 600))
        query, page = ((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (query, page))
        weights = np.ones(20, np.float32)
        stored = from_int8(*to_int8(page))
        assert maxsim(query, weights, stored) == pytest.approx(maxsim(query, weights, page), abs=0.025)
