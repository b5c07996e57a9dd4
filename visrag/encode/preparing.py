"""Pages on their way to the model's device, and vectors on their way back, while the model computes others."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..memory import out_of_memory

if TYPE_CHECKING:
    import torch

THREADS = 16  # that prepare pages for a GPU, at most; one core is left to what feeds it
LANCZOS = 1  # PIL's number: on a GPU torchvision has no such filter, and transformers takes another without a word
AHEAD = 2  # pages for each thread that are prepared before they are asked for

Prepared = TypeVar("Prepared")
What = TypeVar("What")


class Preparing:
    """Threads that prepare pages for a model on ``device``, each with a processor of its own: tokenizers are not for
    several threads; torch computes on one core in each. Where the model is on a CPU there is one, as the model takes
    the cores.

    ``dtype``: what the model computes pages in. On a GPU pictures go there in it, by a stream of each thread, and
    processors of torchvision do their work there, but for those that would make other pictures there.
    """

    def __init__(self, processor: Any, device: str, dtype: torch.dtype) -> None:
        self._processor, self._device, self._dtype = processor, device, dtype
        self._gpu = device.startswith("cuda")
        self._count = max(1, min(THREADS, (os.cpu_count() or 1) - 1)) if self._gpu else 1
        self._threads = ThreadPoolExecutor(self._count, "prepare")
        self._own = threading.local()

    def each(self, prepare: Callable[[Any, What], Prepared], what: Iterable[What]) -> Iterator[Prepared]:
        """``prepare(processor, one)`` of each, in order. What it raises is raised here."""
        pending: deque[Future[Prepared]] = deque()
        try:
            for one in what:
                pending.append(self._threads.submit(self._do, prepare, one))
                if len(pending) > AHEAD * self._count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    def to_device(self, features: dict[str, Any]) -> dict[str, Any]:
        """A processor's tensors on the model's device, pictures in its dtype. In a thread of ``each``."""
        return {name: self._moved(value) for name, value in features.items()} if self._gpu else features

    def _moved(self, value: Any) -> Any:
        tensor = value.to(self._dtype) if value.is_floating_point() else value
        try:
            return tensor if tensor.is_cuda else tensor.pin_memory().to(self._device, non_blocking=True)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return tensor  # it goes there with its batch

    def _do(self, prepare: Callable[[Any, What], Prepared], one: What) -> Prepared:
        if not hasattr(self._own, "processor"):
            self._begin()
        with self._own.stream:
            prepared = prepare(self._own.processor, one)
            if self._gpu:
                self._own.stream.stream.synchronize()  # this thread waits, not the device
        return prepared

    def _begin(self) -> None:
        """What a thread needs of its own."""
        import torch
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        torch.get_num_threads()  # at its first question a thread takes the number of all
        threadpool_limits(1, "openmp")  # of this thread; torch.set_num_threads would be for those to come, too
        self._own.processor = deepcopy(self._processor)
        self._own.stream = nullcontext()
        if self._gpu:
            self._own.stream = torch.cuda.stream(torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]
            images = self._own.processor.image_processor
            if getattr(images, "backend", "") == "torchvision" and images.resample != LANCZOS:
                images.device = self._device


@dataclass(frozen=True, slots=True)
class Fetched:
    """A tensor on its way to the host; ``event``: when it is there, None where it is there already."""

    tensor: torch.Tensor
    event: torch.cuda.Event | None

    def wait(self) -> None:
        """Until it is there."""
        if self.event is not None:
            self.event.synchronize()

    def numpy(self) -> NDArray[Any]:
        """The tensor, float32 where it is of floats, once it is there."""
        self.wait()
        found: NDArray[Any] = (self.tensor.float() if self.tensor.is_floating_point() else self.tensor).numpy()
        return np.asarray(found)


def fetch(tensor: torch.Tensor) -> Fetched:
    """Begin to bring a tensor to the host, behind what its device still computes."""
    if not tensor.is_cuda:
        return Fetched(tensor, None)
    import torch

    there = tensor.to("cpu", non_blocking=True)  # into pinned memory
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(tensor.device))
    return Fetched(there, event)


def finish(device: str) -> None:
    """Until a GPU has computed what this thread's stream gave it; of a CPU nothing is awaited."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.current_stream(device).synchronize()
