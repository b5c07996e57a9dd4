"""What is scored: the vectors of pages, as int8 codes or as bits, where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import Floats

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Block:
    """The vectors of p pages, lying anywhere in some buffers (memory-mapped segments).

    Page i lies in ``buffers[segment[i]]`` (bytes,) int8 from byte ``offsets[i]`` on; its ``counts[i]`` vectors of
    ``dim`` dimensions are ``scales[i]`` × codes, row after row; of ``bits``, as ``compress.to_bits`` packs them.
    ``segment``, ``offsets``, ``counts`` int64, ``scales`` float32, each (p,).
    """

    buffers: tuple[NDArray[np.int8], ...]
    segment: Numbers
    offsets: Numbers
    counts: Numbers
    scales: Floats
    dim: int
    bits: bool = False
