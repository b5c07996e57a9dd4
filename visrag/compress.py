"""Vectors → int8 codes and back; → bits.

A page's vectors in one leg become ``codes`` int8 and one ``scale``: vector ≈ scale × code, with
scale = the page's greatest absolute component / 127, symmetric (no zero point).

Why one scale a page is right for MaxSim:

- dot(q, vector) ≈ scale × dot(q, code), and the scale is positive. So within a page the greatest dot of codes
  is the greatest dot of vectors: a kernel takes the maximum over integers and multiplies once at its end.
- The scale is multiplied back in before pages are compared. So a score is in the units of the vectors, and no
  page gains or loses by its scale: what remains is rounding, of mean 0 and at most scale / 2 a component.
- Nothing is clipped, so vectors of any length (weighted, pooled) and of any shape of values go through.

The mean error of one dot product, 20 questions' tokens against pages of 600 random unit vectors of 384 dimensions
(gauss), and the same with three dimensions 6 times as large, as encoders have them (outlier):

    scale                            gauss     outlier
    1/127 for all                    0.00182   0.00182
    5/√dim/127 for all, clipped      0.00046   0.02538
    the page's maximum / 127         0.00043   0.00132    ← this module
    each vector's maximum / 127      0.00029   0.00062

A scale for each vector is the most exact, but then the greatest integer is not the greatest product.

On SciFact (the default model, 5,183 passages, 300 questions) this costs 0.0004 nDCG@10: 0.7192 → 0.7188.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .records import Floats

Codes = NDArray[np.int8]

LARGEST = 127
LANES = 8  # vectors whose bits lie side by side


def to_int8(vectors: Floats) -> tuple[Codes, float]:
    """``vectors`` (n, dim) → codes (n, dim) int8 in −127…127, and their scale, a float32's value.

    Raises ValueError where a vector holds NaN or infinity; the caller knows which page it is.
    """
    if vectors.ndim != 2:
        raise ValueError(f"vectors must be (n, dim), not {vectors.shape}")
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ValueError(f"vector {row} of {len(vectors)} holds NaN or infinity")
    largest = float(np.abs(vectors).max(initial=0.0))
    scale = np.float32(largest / LARGEST)
    if scale < np.finfo(np.float32).tiny:  # all zero, or too near to it to divide by
        return np.zeros(vectors.shape, np.int8), 1.0
    codes = np.rint(vectors / scale)
    return np.clip(codes, -LARGEST, LARGEST).astype(np.int8), float(scale)


def from_int8(codes: Codes, scale: float) -> Floats:
    """The vectors that ``to_int8`` stored, (n, dim) float32."""
    return codes.astype(np.float32) * np.float32(scale)


def to_float16(vectors: Floats) -> NDArray[np.float16]:
    """The vectors, little-endian. Raises ValueError for a component beyond 65,504."""
    with np.errstate(over="ignore"):
        found = vectors.astype("<f2")
    if not np.isfinite(found).all():
        raise ValueError("a vector holds NaN, infinity or what is too large for float16")
    return found


def tokens_to_int8(query: Floats) -> tuple[Codes, Floats]:
    """A question's tokens (t, dim) → codes (t, dim) int8, and a scale for each, (t,) float32: a token's best match is
    looked for by itself. Raises ValueError for NaN or infinity."""
    if not np.isfinite(query).all():
        raise ValueError("the question's vectors hold NaN or infinity")
    largest = np.abs(query).max(axis=1, initial=0.0)
    scales: Floats = (largest / np.float32(LARGEST)).astype(np.float32)
    small = scales < np.finfo(np.float32).tiny  # all zero, or too near to it to divide by
    scales[small] = 1.0
    return np.rint(query / scales[:, None]).astype(np.int8), scales


def words_of(dim: int) -> int:
    """How many words of 64 bits the signs of so many dimensions take."""
    return -(-dim // 64)


def sign_bits(vectors: Floats | Codes) -> NDArray[np.uint64]:
    """(n, dim) → (n, words): bit i of a vector (bit i mod 64 of word i div 64) is 1 where component i is above 0.

    The bits of two vectors that differ estimate their angle: cos ≈ 1 − 2 × differing / dim for what is spread over
    all dimensions. (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002, for random
    projections; here the dimensions are the encoder's own.)
    """
    packed = np.packbits(vectors > 0, axis=1, bitorder="little")
    found = np.zeros((len(packed), 8 * words_of(vectors.shape[1])), np.uint8)
    found[:, : packed.shape[1]] = packed
    return found.view("<u8").astype(np.uint64, copy=False)


def to_bits(codes: Codes) -> NDArray[np.int8]:
    """The sign bits of a page's codes as the kernel scans them, flat: of LANES vectors the first words, then the second
    ones; where vectors are missing from the last LANES, the page's first stands for them."""
    bits = sign_bits(codes)
    filled = np.concatenate([bits, np.repeat(bits[:1], -len(bits) % LANES, axis=0)])
    turned = filled.reshape(-1, LANES, bits.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(turned).view(np.int8).reshape(-1)
