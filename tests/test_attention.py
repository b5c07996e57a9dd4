"""Attention within parts of a sequence: each part is as it would be alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from visrag.encode.attention import attention

HEADS, DIM = 3, 8


def sequence(n: int) -> list[torch.Tensor]:
    return [torch.randn(1, HEADS, n, DIM, generator=torch.Generator().manual_seed(seed)) for seed in (n, n + 1, n + 2)]


@pytest.mark.parametrize(
    "lengths", [[7], [4, 4, 4], [4, 2, 4, 1, 2], [1, 1, 5], [16, 16, 8, 16, 8, 4, 16, 0, 3], [2] * 40 + [3] * 40]
)
def test_each_part_attends_to_itself_alone(lengths: list[int]) -> None:
    rows = sequence(sum(lengths))
    ends = torch.tensor([sum(lengths[:i]) for i in range(len(lengths) + 1)], dtype=torch.int32)
    alone, start = [], 0
    for length in filter(None, lengths):
        part = [each[:, :, start : start + length] for each in rows]
        alone.append(scaled_dot_product_attention(*part, scale=0.3).transpose(1, 2))
        start += length
    for _ in range(2):  # the second layer has the lengths already
        found, _none = attention(None, *rows, None, scaling=0.3, cu_seq_lens_q=ends, is_causal=False, dropout=0.0)
        torch.testing.assert_close(found, torch.cat(alone, dim=1))


def test_without_parts_it_is_the_plain_one() -> None:
    rows = sequence(9)
    found, _ = attention(None, *rows, None)
    torch.testing.assert_close(found, scaled_dot_product_attention(*rows).transpose(1, 2))
