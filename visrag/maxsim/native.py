"""MaxSim by the C kernel: which of its paths, and on how many threads.

VISRAG_KERNEL forces a path ("avx512", "avx2", "neon", "numpy"); VISRAG_THREADS sets the threads of a search, which are
as many as the process may use, if it is not set.
"""

from __future__ import annotations

import os
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..records import Floats
from .block import Block
from .reference import best_matches

NUMPY = "numpy"
ALONE, ALONE_BITS = 20_000_000, 2_000_000  # products of codes, words of bits: one thread is as fast as several


@cache
def kernels() -> tuple[str, ...]:
    """The paths that this machine has, the fastest first; "numpy" is one of any."""
    try:
        from ._kernel import names
    except ImportError:  # no compiler when visrag was installed
        return (NUMPY,)
    return (*names(), NUMPY)


@cache
def kernel() -> str:
    """The path that is taken. Raises UsageError for a VISRAG_KERNEL that this machine does not have."""
    forced = os.environ.get("VISRAG_KERNEL", "")
    if forced and forced not in kernels():
        raise UsageError(f"VISRAG_KERNEL={forced}: this machine has {', '.join(kernels())}")
    return forced or kernels()[0]


def why_numpy() -> str:
    """Why ``kernel`` is numpy."""
    if os.environ.get("VISRAG_KERNEL"):
        return "VISRAG_KERNEL asks for it"
    try:
        from ._kernel import names  # noqa: F401
    except ImportError:
        return "there was no C compiler at install"
    return "this processor has none of AVX-512 VNNI, AVX2 and NEON's dot products"


@cache
def threads() -> int:
    """How many threads a search takes. Raises UsageError for a VISRAG_THREADS that is no number from 1 on."""
    given = os.environ.get("VISRAG_THREADS", "")
    if not given:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not given.isdecimal() or int(given) < 1:
        raise UsageError(f"VISRAG_THREADS={given}: must be a number, and at least 1")
    return int(given)


def threads_for(tokens: NDArray[np.int8] | NDArray[np.uint64], block: Block) -> int:
    """How many threads the scan of a block takes: one where others would not make it faster."""
    return threads() if int(block.counts.sum()) * tokens.size > (ALONE_BITS if block.bits else ALONE) else 1


def scan(
    tokens: NDArray[np.int8] | NDArray[np.uint64],
    factors: NDArray[np.float64],
    block: Block,
    mask: NDArray[np.bool_] | None = None,
    best: NDArray[np.int32] | None = None,
    path: str | None = None,
    most: int | None = None,
) -> Floats:
    """For each page the sum over the tokens of factor × best match × the page's scale, (p,) float32.

    ``tokens``: codes (t, dim) int8, or their bits (t, words) uint64; ``factors`` (t,); ``mask`` (p,): which pages are
    scored at all, all where it is None. NaN for one that is not, or has no vectors. ``best`` (p, t) is filled with the
    best matches themselves: the greatest sum of products of codes, or the least number of bits that differ. ``path``
    and ``most`` (threads) stand in for what ``kernel`` and ``threads_for`` say. Raises IndexError for a page that lies
    outside of its buffer.
    """
    path = path or kernel()
    if path == NUMPY or block.dim % 8:
        return _by_numpy(tokens, factors, block, mask, best)
    from ._kernel import score

    scores = np.empty(len(block.counts), np.float32)
    score(
        path, most or threads_for(tokens, block), block.bits, block.dim,
        block.buffers, block.segment, block.offsets, block.counts, block.scales,
        mask, tokens, factors, scores, best,
    )  # fmt: skip
    return scores


def _by_numpy(
    tokens: NDArray[np.int8] | NDArray[np.uint64],
    factors: NDArray[np.float64],
    block: Block,
    mask: NDArray[np.bool_] | None,
    best: NDArray[np.int32] | None,
) -> Floats:
    found = best_matches(tokens, block, mask)
    if best is not None:
        best[:] = found
    matches = block.dim - 2.0 * found if block.bits else found.astype(np.float64)
    scores: Floats = ((matches @ factors) * block.scales).astype(np.float32)
    scores[block.counts == 0] = np.nan
    if mask is not None:
        scores[~mask] = np.nan
    return scores
