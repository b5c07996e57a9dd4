"""MaxSim: the sum over a question's tokens of weight × the best match among a page's vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..compress import sign_bits, tokens_to_int8
from ..records import Floats
from .block import Block
from .native import NUMPY, kernel, kernels, scan, threads
from .reference import maxsim, token_matches

__all__ = ["NUMPY", "Block", "kernel", "kernels", "maxsim", "scan", "score_pages", "threads", "token_matches"]


def score_pages(query: Floats, weights: Floats, block: Block, mask: NDArray[np.bool_] | None = None) -> Floats:
    """MaxSim of every page of a block, (p,) float32; NaN for a page without vectors, or one that ``mask`` (p,) leaves
    out.

    ``query`` (t, dim) float32, ``weights`` (t,) float32: a token of weight 0 is not looked at. The tokens are made
    codes, too, each with a scale of its own: that moves a score by some 0.1% of it. Of a block of bits the score is by
    the signs alone: the weight × the share of the dimensions in which the best vector agrees, less that in which it
    does not; it puts pages in an order, and is no MaxSim. Raises ValueError where the dimensions differ, and, but
    for bits, for NaN or infinity.
    """
    if query.ndim != 2 or query.shape[1] != block.dim:
        raise ValueError(f"the question's vectors are {query.shape}, the pages' have {block.dim} dimensions")
    counting = np.flatnonzero(weights)
    factors = weights[counting].astype(np.float64)
    if block.bits:
        return scan(sign_bits(query[counting]), factors / block.dim, block, mask)
    codes, scales = tokens_to_int8(query[counting])
    return scan(codes, factors * scales, block, mask)
