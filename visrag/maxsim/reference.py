"""MaxSim in numpy: the oracle of the kernel's paths, and what is taken where there is none of them.

Nothing is ever padded: a page whose best match is negative keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..blas import one_blas_thread
from ..compress import LANES, words_of
from ..records import Floats, Ints
from .block import Block

CHUNK_VALUES = 1200 * 384  # components turned to float32 at a time: 1.8 MB, which stays in a core's cache
EXACT = 2**24 // 128**2  # dimensions up to which sums of products of codes are exact in float32


def best_matches(
    tokens: NDArray[np.int8] | NDArray[np.uint64], block: Block, mask: NDArray[np.bool_] | None = None
) -> Ints:
    """Each token's best match among each page's vectors, (p, t) int32; 0 for a page without vectors, or masked out.

    ``tokens`` (t, dim) int8: the greatest sum of products with the codes. ``tokens`` (t, words) uint64: the least
    number of bits that differ. Memory is bounded whatever the number and the length of the pages. Raises IndexError
    for a page that lies outside of its buffer.
    """
    asked = block.counts if mask is None else np.where(mask, block.counts, 0)
    found = np.zeros((len(asked), len(tokens)), np.int32)
    if not len(tokens):
        return found
    if block.bits:
        for page in np.flatnonzero(asked).tolist():
            found[page] = _least(tokens.view(np.uint64), block, page)
    else:
        with one_blas_thread():
            _greatest(tokens.view(np.int8), block, asked, found)
    return found


def maxsim(query: Floats, weights: Floats, vectors: Floats) -> float:
    """MaxSim of one page: ``query`` (t, dim), ``weights`` (t,), ``vectors`` (n, dim), float32. NaN where n is 0."""
    if len(vectors) == 0:
        return float("nan")
    best, _ = token_matches(query, vectors)
    return float(weights.astype(np.float64) @ best)


def token_matches(query: Floats, vectors: Floats) -> tuple[Floats, Ints]:
    """Each token's best match, (t,) float32, and the row of ``vectors`` (n, dim) that gave it, (t,) int32.

    Of equals the first. Raises ValueError where the page has no vectors.
    """
    if len(vectors) == 0:
        raise ValueError("a page without vectors has no matches")
    best = np.full(len(query), -np.inf, np.float32)
    where = np.zeros(len(query), np.int32)
    rows = max(1, CHUNK_VALUES // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), rows):
        with one_blas_thread():
            products = np.asarray(query @ vectors[start : start + rows].T, np.float32)
        found = products.argmax(axis=1)
        values = products[np.arange(len(query)), found]
        better = values > best
        best[better], where[better] = values[better], (found + start)[better]
    return best, where


def _greatest(tokens: NDArray[np.int8], block: Block, counts: NDArray[np.int64], found: Ints) -> None:
    """Fill ``found`` (p, t) with each token's greatest sum of products with the codes of each page."""
    dim = block.dim
    exact = np.float32 if dim <= EXACT else np.float64
    own = tokens.astype(exact)
    rows = max(1, CHUNK_VALUES // max(1, dim))
    chunk = np.empty((rows, dim), exact)
    found[counts > 0] = np.iinfo(np.int32).min
    for pieces in _chunks(counts, rows):
        starts, pages, filled = [], [], 0
        for page, first, count in pieces:
            chunk[filled : filled + count] = _bytes(block, page, first * dim, count * dim).reshape(count, dim)
            starts.append(filled)
            pages.append(page)
            filled += count
        products = own @ chunk[:filled].T
        best = np.maximum.reduceat(products, starts, axis=1).T.astype(np.int32)
        found[pages] = np.maximum(found[pages], best)


def _least(tokens: NDArray[np.uint64], block: Block, page: int) -> Ints:
    """Each token's least number of bits that differ from one of a page's vectors, (t,)."""
    words = words_of(block.dim)
    groups = -(-int(block.counts[page]) // LANES)
    bits = _bytes(block, page, 0, groups * words * LANES * 8).copy().view(np.uint64).reshape(groups, words, LANES)
    least = [np.bitwise_count(bits ^ token[:, None]).sum(axis=1, dtype=np.int32).min() for token in tokens]
    return np.array(least, np.int32)


def _bytes(block: Block, page: int, first: int, length: int) -> NDArray[np.int8]:
    start = int(block.offsets[page]) + first
    found: NDArray[np.int8] = block.buffers[block.segment[page]][start : start + length]
    if start < 0 or len(found) < length:
        raise IndexError(f"page {page} lies outside of its segment")
    return found


def _chunks(counts: NDArray[np.int64], rows: int) -> Iterator[list[tuple[int, int, int]]]:
    """Cut pages into lists of (page, first vector, count) of at most ``rows`` vectors; a page once in a list."""
    pieces: list[tuple[int, int, int]] = []
    room = rows
    for page, count in enumerate(counts.tolist()):
        first = 0
        while first < count:
            taken = min(room, count - first)
            pieces.append((page, first, taken))
            first, room = first + taken, room - taken
            if room == 0:
                yield pieces
                pieces, room = [], rows
    if pieces:
        yield pieces
