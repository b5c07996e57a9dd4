"""What a page's way to the index is made of, for encode.py: each stage alone; the GPU's idle share; and checks."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from encode_models import VISION
from encode_pages import read

from visrag.encode.patches import PATCHES
from visrag.records import Document, EncodedPage, Page
from visrag.store.local import LocalStore

QUESTIONS = (
    "What was the capital expenditure in 2018?",
    "Which region had the highest revenue in the last quarter?",
    "How many visitors did the museum have, compared with the previous year?",
    "average price of a tram contract",
    "forecast of the hospital's energy costs",
    "Table of staff and training by station",
    "total net margin, north and south",
    "Does the board plan to increase the rent?",
    "safety audit of the harbour",
    "interest on the school's roof loan",
)
ROUNDS = 5
TOGETHER = 8  # pages at once, of checks
WITHIN = 2e-2  # what a number of a vector may change by in bfloat16, with a page's company


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def seconds(work: Callable[[], Any], device: str, rounds: int = ROUNDS) -> float:
    """Of the work, the median of rounds after one that warms up."""
    taken = [once(work, device) for _ in range(rounds + 1)]
    return statistics.median(taken[1:])


def once(work: Callable[[], Any], device: str) -> float:
    synchronise(device)
    begun = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begun


def module_of(encoder: Any) -> Any:
    """The model of transformers or colpali-engine in an encoder of visrag, whatever the encoder calls it."""
    from torch import nn

    for value in vars(encoder).values():
        if isinstance(value, nn.Module):
            found = [part for part in value.modules() if type(part).__name__.startswith("Col")]
            if found:
                return found[0]
    raise LookupError(f"{type(encoder).__name__} holds no model")


def towers(model: Any) -> list[Any]:
    """The parts of a model that its vision is made of, but for parts of those."""
    return [
        part
        for name, part in model.named_modules()
        if name.split(".")[-1] in VISION and not {*name.split(".")[:-1]} & {*VISION}
    ]


def batch_of(processor: Any, page: Page, size: int) -> dict[str, Any]:
    """What a processor makes of a page, as a batch of so many."""
    import torch

    assert page.image is not None
    one = processor.process_images([page.image()])
    return {name: torch.cat([value] * size) for name, value in one.items() if hasattr(value, "shape")}


def forward(model: Any, inputs: dict[str, Any]) -> Any:
    """The vectors (b, t, dim) of a batch, by a model of transformers or colpali-engine."""
    import torch

    with torch.no_grad():  # at tensors of inference_mode dynamo stops
        made = model(**inputs)
    return made if isinstance(made, torch.Tensor) else made.embeddings


class Tower:
    """The seconds that a model's vision tower and its projection take, while this is entered."""

    def __init__(self, model: Any, device: str) -> None:
        self.seconds = 0.0
        self._model, self._device, self._begun = model, device, 0.0
        self._hooks: list[Any] = []

    def __enter__(self) -> Tower:
        for part in towers(self._model):
            self._hooks += [part.register_forward_pre_hook(self._start), part.register_forward_hook(self._end)]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _start(self, *_: Any) -> None:
        synchronise(self._device)
        self._begun = time.perf_counter()

    def _end(self, *_: Any) -> None:
        synchronise(self._device)
        self.seconds += time.perf_counter() - self._begun


def stages(
    encoder: Any, processor: Any, files: Sequence[Path], pages: Sequence[Page], batch: int, device: str
) -> dict[str, float]:
    """Milliseconds a page of each stage alone. On the device a batch of pages of one shape."""
    import torch

    found: dict[str, float] = {}
    some = list(pages[:8])
    found["render"] = seconds(lambda: list(read(files, len(some))), "cpu", 3) / len(some)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found["preprocess"] = seconds(lambda: [processor.process_images([page.image()]) for page in some], "cpu", 3)  # type: ignore[misc]
    found["preprocess"] /= len(some)
    torch.set_num_threads(threads)
    features = batch_of(processor, pages[0], batch)
    found["to the device"] = seconds(lambda: {k: v.to(device) for k, v in features.items()}, device) / batch
    model = module_of(encoder)
    inputs = {name: value.to(device) for name, value in features.items()}

    vision, whole = [], []
    for _ in range(1 + (ROUNDS if device.startswith("cuda") else 1)):
        with Tower(model, device) as tower:
            whole.append(once(lambda: forward(model, inputs), device))
        vision.append(tower.seconds)
    found["vision tower"] = statistics.median(vision[1:]) / batch
    found["language model"] = statistics.median(whole[1:]) / batch - found["vision tower"]
    vectors = forward(model, inputs)
    found["from the device"] = seconds(lambda: vectors.float().cpu().numpy(), device) / batch
    found["store"] = stored(encoder, encoder.encode_pages(some), some)
    return {name: value * 1000 for name, value in found.items()}


def stored(encoder: Any, vectors: Sequence[Any], pages: Sequence[Page]) -> float:
    """Seconds a page of making int8 codes and bits, and of writing them: documents of 32 pages, with their commits."""
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore.open(Path(folder) / "index", create=True)
        store.write_settings({"legs": [asdict(leg) for leg in encoder.legs]})
        encoded = [
            EncodedPage(Page(number, 595.0, 842.0, page.text, page.words), legs, {PATCHES: 0.0})
            for number, (page, legs) in enumerate(
                ((pages[i % len(pages)], vectors[i % len(pages)]) for i in range(32)), 1
            )
        ]
        taken = []
        for number in range(5):
            begun = time.perf_counter()
            name = f"{number}.pdf"
            generation = store.begin(Document(name, name, "", "application/pdf", pages=32, path=name))
            store.add_pages(generation, encoded)
            store.commit(generation, 32)
            taken.append((time.perf_counter() - begun) / 32)
        store.close()
    return statistics.median(taken[1:])


def bound(found: dict[str, float], jobs: int) -> str:
    """Which stage is the longest, where rendering has ``jobs`` processes and every other stage one of its own."""
    on_device = ("to the device", "vision tower", "language model", "from the device")
    ways = {
        f"rendering in {jobs} processes": found["render"] / jobs,
        "preprocessing on one thread": found["preprocess"],
        "the model": sum(found[name] for name in on_device),
        "storing": found["store"],
    }
    slowest = max(ways, key=lambda name: ways[name])
    need = ", ".join(f"{name} {1000 / taken:.3g}" for name, taken in ways.items())
    threads = found["preprocess"] / ways["the model"]
    processes = found["render"] / ways["the model"]
    return (
        f"pages/s: {need}. Bound by {slowest}. To keep up with the model: {processes:.1f} rendering processes, "
        f"{threads:.1f} preprocessing threads"
    )


# The GPU's idle share


@contextmanager
def idle_share(device: str) -> Iterator[dict[str, float]]:
    """Fills in "idle", the share of the time in which no kernel ran."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    found: dict[str, float] = {}
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        synchronise(device)
        begun = time.perf_counter()
        yield found
        synchronise(device)
        wall = time.perf_counter() - begun
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset"))
    )
    busy, until = 0.0, float("-inf")
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    found["idle"] = 1.0 - busy / 1e6 / wall


# Checks


def checks(encoder: Any, pages: Sequence[Page], device: str) -> dict[str, Any]:
    """Whether the same pages give the same bits again; pages alone and ``TOGETHER``; rankings by both. Over random
    weights pages are more alike than over trained ones, so that less turns two of them around."""
    together = encoded(encoder, pages, TOGETHER)
    again = encoded(encoder, pages[: 4 * TOGETHER], TOGETHER)
    alone = encoded(encoder, pages, 1)
    cosines = [
        (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        for a, b in zip(alone, together, strict=True)
    ]
    orders = []
    for question in QUESTIONS:
        query = encoder.encode_query(question)[PATCHES].vectors
        orders.append([scores(query, vectors, device) for vectors in (alone, together)])
    tops = [[np.argsort(-found, kind="stable") for found in pair] for pair in orders]
    gaps = [np.diff(np.sort(one)) for one, _ in orders]
    largest = max(float(np.abs(a - b).max()) for a, b in zip(alone, together, strict=True))
    same_order = sum(bool((one == other).all()) for one, other in tops)
    return {
        "same_bits": all(np.array_equal(a, b) for a, b in zip(again, together, strict=False)),
        "within": largest <= WITHIN,
        "ranking_unchanged": same_order == len(QUESTIONS),
        "largest": largest,
        "cosine": min(float(found.min()) for found in cosines),
        "pages": len(pages),
        "questions": len(QUESTIONS),
        "same_ten": sum(bool((one[:10] == other[:10]).all()) for one, other in tops),
        "same_order": same_order,
        "score_moved": max(float(np.abs(one - other).max()) for one, other in orders),
        "score_gap": float(np.median(np.concatenate(gaps))) if len(pages) > 1 else float("nan"),
    }


def encoded(encoder: Any, pages: Sequence[Page], size: int) -> list[np.ndarray[Any, Any]]:
    """The pages' vectors, so many pages at once: a size that is still searched for would give other bits."""
    return [found[PATCHES].vectors for found in encoder.encode_in(pages, size)]


def scores(query: np.ndarray[Any, Any], pages: Sequence[np.ndarray[Any, Any]], device: str) -> np.ndarray[Any, Any]:
    """MaxSim in float32."""
    import torch

    asked = torch.from_numpy(query).to(device)
    found = [(asked @ torch.from_numpy(page).to(device).T).amax(dim=1).sum() for page in pages]
    return torch.stack(found).cpu().numpy()
