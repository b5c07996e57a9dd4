"""Threads that own the models, and batches filled from the pieces of many other threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from .encoders import Encoders
from .errors import EncoderError
from .records import EncodedPage, Page
from .settings import Route

Encoded = list[EncodedPage | EncoderError]


@dataclass(slots=True)
class _Order:
    pages: Sequence[Page]
    route: Route
    result: Future[Encoded] = field(default_factory=Future)


class Stopped(Exception):
    """Raised when the worker ends before a piece's turn has come."""


class Batcher:
    """``encode`` is called by any number of threads; what waits is encoded together, up to a batch of pages at once.

    One thread does so, and with a vision model a second, so that the pages of a batch are prepared while those of the
    one before are in the model. ``observe`` is told of each batch: its pages, and how many there could have been.
    """

    def __init__(self, encoders: Encoders, observe: Callable[[int, int], None] | None = None) -> None:
        self._encoders = encoders
        self._observe = observe
        self._orders: deque[_Order] = deque()
        self._turn = threading.Condition()
        self._stopping = False
        count = 1 if encoders.vision is None else 2
        self._threads = [threading.Thread(target=self._run, name=f"encode-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def encode(self, pages: Sequence[Page], route: Route) -> Encoded:
        """As ``Encoders.encode``. Waits for its turn. Raises Stopped where it does not come."""
        return self.submit(pages, route).result()

    def submit(self, pages: Sequence[Page], route: Route) -> Future[Encoded]:
        """As ``encode``, which waits for this."""
        order = _Order(pages, route)
        with self._turn:
            stopped = self._stopping
            if not stopped:
                self._orders.append(order)
                self._turn.notify()
        if stopped:
            order.result.set_exception(Stopped())
        return order.result

    def stop(self, wait: float = 0.0) -> None:
        """Encode nothing more but what was begun. The threads end; ``wait``: for each of them, so many seconds."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()
        for thread in self._threads if wait else ():
            thread.join(wait)

    def _run(self) -> None:
        while batch := self._take():
            self._encode(batch)

    def _take(self) -> list[_Order]:
        """The orders that are encoded together next; none once there will be no more."""
        with self._turn:
            while not self._orders:
                if self._stopping:
                    return []
                self._turn.wait()
            batch = [self._orders.popleft()]
            count = len(batch[0].pages)
            while self._orders and self._orders[0].route == batch[0].route:
                count += len(self._orders[0].pages)
                if count > self._encoders.batch:
                    break
                batch.append(self._orders.popleft())
            return batch

    def _encode(self, batch: Sequence[_Order]) -> None:
        pages = [page for order in batch for page in order.pages]
        try:
            if self._stopping:
                raise Stopped
            results = self._encoders.encode(pages, batch[0].route)
        except BaseException as error:  # whatever it is: raised again where the piece was asked for
            if len(batch) == 1:
                batch[0].result.set_exception(error)
                return
            for order in batch:
                self._encode([order])
            return
        for order in batch:
            order.result.set_result(results[: len(order.pages)])
            del results[: len(order.pages)]
        if self._observe is not None:
            self._observe(len(pages), self._encoders.batch)
