"""Attention within parts of one long sequence, those of equal length together.

The vision towers of the Qwen families put all patches of a batch into one sequence, in which each page attends to
itself alone, or each window of one. Without flash-attention transformers (5.23) computes every part by a call of its
own, and waits for the device in every layer to learn the lengths: with ColQwen2.5 some 1,300 calls a page. Here parts
of one length are a batch, the lengths are asked for once, and SDPA computes the same.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

NAME = "visrag_flash"  # where "flash" is in the name, transformers hands over the sequence whole, and where parts end


@dataclass(frozen=True, slots=True)
class _Parts:
    """``groups``: how many parts there are of which length. ``order`` (n,): the sequence's rows group by group, and
    ``back`` (n,) from there; None where they lie so already."""

    groups: tuple[tuple[int, int], ...]
    order: torch.Tensor | None
    back: torch.Tensor | None


def attend_together(model: Any) -> None:
    """Let a model's vision tower attend so, where it is one that is told where parts end, and would take SDPA."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention)
    for module in model.modules():
        parted = {"cu_seqlens", "position_embeddings"} <= set(inspect.signature(type(module).forward).parameters)
        if parted and hasattr(module, "config") and module.config._attn_implementation == "sdpa":
            module.config._attn_implementation = NAME


def keep_nothing(model: Any) -> None:
    """Let a model keep no keys and values: they are for tokens to come, and there are none."""
    for module in model.modules():
        if hasattr(getattr(module, "config", None), "use_cache"):
            module.config.use_cache = False


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Of (1, heads, n, d) each, all parts of which attend to themselves: (1, n, heads, d).

    ``cu_seq_lens_q`` (parts + 1,): where parts end, from 0 to n; None for one part.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    parts = _Parts(((1, query.shape[2]),), None, None) if cu_seq_lens_q is None else _parts(cu_seq_lens_q)
    rows = [each[0].transpose(0, 1) for each in (query, key, value)]  # (n, heads, d)
    if parts.order is not None:
        rows = [each.index_select(0, parts.order) for each in rows]
    found, start = [], 0
    for count, length in parts.groups:
        end = start + count * length
        q, k, v = (each[start:end].view(count, length, *each.shape[1:]).transpose(1, 2) for each in rows)
        found.append(scaled_dot_product_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1))
        start = end
    whole = torch.cat(found) if len(found) > 1 else found[0]
    if parts.back is not None:
        whole = whole.index_select(0, parts.back)
    return whole.unsqueeze(0), None


def _parts(ends: torch.Tensor) -> _Parts:
    """What is known of parts, found once for all layers that are given the same tensor."""
    import torch

    known: _Parts | None = getattr(ends, "_visrag_parts", None)
    if known is not None:
        return known
    at = ends.cpu().numpy()
    lengths = np.diff(at)
    sizes, counts = np.unique(lengths[lengths > 0], return_counts=True)
    groups = tuple(zip(counts.tolist(), sizes.tolist(), strict=True))
    if len(groups) == 1:
        found = _Parts(groups, None, None)
    else:
        starts = [at[:-1][lengths == size] for size in sizes]
        each = [(some[:, None] + np.arange(size)).ravel() for some, size in zip(starts, sizes, strict=True)]
        order = np.concatenate(each)
        moved = (torch.from_numpy(rows).to(ends.device) for rows in (order, np.argsort(order)))
        found = _Parts(groups, *moved)
    ends._visrag_parts = found  # type: ignore[attr-defined]
    return found
