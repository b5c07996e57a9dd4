"""MaxSim in numpy: exact to float32's rounding, and the oracle of every faster path.

Nothing is ever padded: a page whose best match is negative keeps it. A page without vectors has no score (NaN).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..blas import one_blas_thread
from ..records import Floats, Ints

CHUNK_VALUES = 1200 * 384  # components turned to float32 at a time: 1.8 MB, which stays in a core's cache


@dataclass(frozen=True, slots=True)
class Block:
    """The int8 codes of p pages, lying anywhere in one buffer (a memory-mapped segment).

    ``buffer`` (bytes,) int8. Page i has ``counts[i]`` vectors of ``dim`` codes, row after row, that begin at byte
    ``offsets[i]``; its vectors are ``scales[i]`` × codes. ``offsets`` int64, ``counts`` int64, ``scales`` float32,
    each (p,).
    """

    buffer: NDArray[np.int8]
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    scales: Floats
    dim: int


def score_pages(query: Floats, weights: Floats, block: Block) -> Floats:
    """MaxSim of every page of a block, (p,) float32; NaN for a page without vectors.

    ``query`` (t, dim) float32, ``weights`` (t,) float32: a token of weight 0 is not looked at. Memory is bounded
    whatever the number and the length of the pages. BLAS rounds by where a page stands in a chunk, so the scores of
    equal pages may differ by 1e-6 of them. Raises ValueError where the dimensions differ.
    """
    if query.ndim != 2 or query.shape[1] != block.dim:
        raise ValueError(f"the question's vectors are {query.shape}, the pages' have {block.dim} dimensions")
    counting = np.flatnonzero(weights)
    best = np.full((len(counting), len(block.counts)), -np.inf, np.float32)
    tokens = np.ascontiguousarray(query[counting], np.float32)
    with one_blas_thread():
        _scan(tokens, block, best)
    empty = block.counts == 0
    best[:, empty] = 0.0
    total = np.sum(weights[counting, None].astype(np.float64) * best, axis=0)
    scores: Floats = (total * block.scales).astype(np.float32)
    scores[empty] = np.nan
    return scores


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


def _scan(tokens: Floats, block: Block, best: Floats) -> None:
    """Raise ``best`` (t, p) to each token's greatest product with the codes of each page."""
    if not len(tokens):
        return
    rows = max(1, CHUNK_VALUES // max(1, block.dim))
    chunk = np.empty((rows, block.dim), np.float32)
    for pieces in _chunks(block.counts, rows):
        starts, pages, filled = [], [], 0
        for page, first, count in pieces:
            offset = int(block.offsets[page]) + first * block.dim
            codes = block.buffer[offset : offset + count * block.dim]
            chunk[filled : filled + count] = codes.reshape(count, block.dim)
            starts.append(filled)
            pages.append(page)
            filled += count
        products = tokens @ chunk[:filled].T
        found = np.maximum.reduceat(products, starts, axis=1)
        best[:, pages] = np.maximum(best[:, pages], found)


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
