"""Whether torch.compile pays for the models of encode.py: the vision tower compiled, the whole model, and neither."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from encode_stages import batch_of, forward, module_of, seconds, towers

from visrag.records import Page

SHAPES = 4  # of pages that are tried, at most: dynamo compiles a function for 8 shapes, and then no more


def compiled(encoder: Any, processor: Any, pages: Sequence[Page], batch: int, device: str, mode: str) -> dict[str, Any]:
    """Milliseconds a page of the whole model, by what of it is compiled, over batches of pages of one shape each.

    ``shapes``: how many shapes. ``graphs``: compiled for them, as the code breaks into parts and recompiles.
    ``seconds``: the first pass over all shapes. ``differs``: vectors from those of the model as it is, at most.
    ``failed``: why it could not be compiled.
    """
    model = module_of(encoder)
    batches = [{name: value.to(device) for name, value in one.items()} for one in by_shape(processor, pages, batch)]
    found: dict[str, Any] = {"shapes": len(batches), "mode": mode}
    plain = [forward(model, inputs) for inputs in batches]
    rounds = 5 if device.startswith("cuda") else 1

    def all_shapes() -> list[torch.Tensor]:
        return [forward(model, inputs).clone() for inputs in batches]  # CUDA graphs write where they wrote before

    def measure() -> float:
        return seconds(all_shapes, device, rounds) / (batch * len(batches)) * 1000

    found["eager"] = measure()
    for name, parts in (("vision tower", towers(model)), ("whole model", [model])):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        for part in parts:
            part.compile(mode=mode, dynamic=False)
        try:
            found[name] = compiled_once(all_shapes, plain) | {"ms": measure()}
        except Exception as error:  # what cannot be compiled costs no other
            found[name] = {"failed": f"{type(error).__name__}: {str(error)[:160]}"}
        finally:
            for part in parts:
                part._compiled_call_impl = None
    return found


def compiled_once(work: Callable[[], list[torch.Tensor]], plain: Sequence[torch.Tensor]) -> dict[str, Any]:
    begun = time.perf_counter()
    made = work()
    differs = max(float((a.float() - b.float()).abs().max()) for a, b in zip(made, plain, strict=True))
    taken = time.perf_counter() - begun
    return {"seconds": taken, "differs": differs, "graphs": torch._dynamo.utils.counters["stats"]["unique_graphs"]}


def by_shape(processor: Any, pages: Sequence[Page], batch: int) -> list[dict[str, Any]]:
    """A batch of each shape that a processor makes of the pages, of one page again and again."""
    found: dict[Any, dict[str, Any]] = {}
    for page in pages:
        features = batch_of(processor, page, batch)
        found.setdefault(tuple((name, value.shape) for name, value in sorted(features.items())), features)
        if len(found) == SHAPES:
            break
    return list(found.values())
