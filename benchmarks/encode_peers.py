"""What else encodes pages with the models of encode.py: MultiVectorEncoder, and colpali-engine's own loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from encode_models import Model, checkpoint

from visrag.encode.checkpoint import pick_device

PAYS = 1.03  # a batch size that is not so many times as fast as the best before it does not pay
Encode = Callable[[Sequence[Any], int], Any]  # pictures, batch size → vectors on the CPU


def by_sentence_transformers(model: Model, root: Path, layers: int | None, device: str) -> Encode:
    from sentence_transformers import MultiVectorEncoder

    folder = checkpoint(model, root, layers, device)
    encoder = MultiVectorEncoder(str(folder), device=device, model_kwargs={"dtype": pick_device(device)[1]})
    return lambda pictures, size: encoder.encode_document(
        list(pictures), batch_size=size, convert_to_numpy=True, show_progress_bar=False
    )


def by_colpali_engine(model: Model, root: Path, layers: int | None, device: str) -> Encode:
    import colpali_engine.models
    import torch

    folder = checkpoint(model, root, layers, device, engine=True)
    made, processor = model.engine(1, model.tokens)
    loaded = getattr(colpali_engine.models, type(made).__name__).from_pretrained(folder, dtype=pick_device(device)[1])
    for part in loaded.modules():
        if hasattr(part, "tie_weights"):
            part.tie_weights()
    loaded = loaded.to(device).eval()
    processor = type(processor).from_pretrained(folder)

    def encode(pictures: Sequence[Any], size: int) -> list[np.ndarray[Any, Any]]:
        found = []
        for first in range(0, len(pictures), size):
            batch = processor.process_images(list(pictures[first : first + size])).to(device)
            with torch.inference_mode():
                vectors = loaded(**batch).float().cpu()
            found += [page.numpy() for page in vectors]
        return found

    return encode


PEERS = {"sentence-transformers": by_sentence_transformers, "colpali-engine": by_colpali_engine}


def peers(model: Model, root: Path, layers: int | None, device: str) -> Iterator[tuple[str, Encode | str]]:
    """Each peer's name, and how it encodes or why it does not."""
    for name, load in PEERS.items():
        if find_spec(name.replace("-", "_")) is None:
            yield name, f"is not installed: pip install {name}"
            continue
        if load is by_sentence_transformers and model.native is None:
            yield name, "does not load this family"
            continue
        try:
            encode: Encode | str = load(model, root, layers, device)
        except Exception as error:  # whatever a peer does wrong costs no other
            encode = f"cannot: {type(error).__name__}: {str(error)[:160]}"
        yield f"{name} {version(name)}", encode


def best_size(encode: Encode, pictures: Sequence[Any], most: int) -> tuple[int, dict[int, float]]:
    """The batch size with the most pages a second, of 1, 2, 4, … until two in a row don't pay or memory ends."""
    rates: dict[int, float] = {}
    worse, size = 0, 1
    while size <= min(most, len(pictures)) and worse < 2:
        some = pictures[: max(2 * size, min(32, len(pictures)))]
        try:
            encode(some[:size], size)
            begun = time.perf_counter()
            encode(some, size)
        except (MemoryError, RuntimeError) as error:
            if rates and "memory" in str(error):
                break
            raise
        rate = len(some) / (time.perf_counter() - begun)
        worse = 0 if rate > PAYS * max(rates.values(), default=0.0) else worse + 1
        rates[size] = rate
        size *= 2
    return max(rates, key=lambda key: rates[key]), rates


def rate(encode: Encode, pictures: Sequence[Any], size: int, rounds: int) -> float:
    """Pages a second, the median of the rounds."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        encode(pictures, size)
        taken.append(time.perf_counter() - begun)
    return len(pictures) / statistics.median(taken)
