"""A text worker whose encoder costs nothing: what is left is the queue and the store. For queue_speed.py --overhead.

    python benchmarks/free_worker.py    # settings from the environment, as for `visrag worker text`

Every page gets the same 500 vectors of 384 dimensions, as many as a page of text has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from visrag.batcher import Batcher
from visrag.encoders import Encoders
from visrag.queue import work
from visrag.records import Leg, Page, PatchVectors, Places, QueryVectors
from workers.process import Process

COUNT, DIM = 500, 384


class FreeEncoder:
    """Gives every page the vectors that it made once."""

    needs_image = False
    legs = (Leg("tokens", "free", DIM, "free"),)

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        vectors = rng.standard_normal((COUNT, DIM)).astype(np.float32)
        boxes = rng.random((COUNT, 4))
        self._page = {"tokens": PatchVectors(vectors, Places.of_boxes(boxes, np.arange(COUNT)))}

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        return [self._page for _ in pages]

    def encode_query(self, question: str) -> Mapping[str, QueryVectors]:
        raise NotImplementedError


def load(process: Process, vision: bool) -> None:
    """In place of the models."""
    encoder = FreeEncoder()
    legs = [asdict(leg) for leg in encoder.legs]
    process.store.write_settings({"format": 1, "models": {"text": "free"}, "legs": legs, "levels": {}, "canaries": {}})
    process._batcher = Batcher(Encoders(encoder, None, {"tokens": (0.0, 0.0)}))


if __name__ == "__main__":
    Process.load = load  # type: ignore[method-assign]
    work(["text"], None, "warning", {})
