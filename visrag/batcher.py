"""Threads that own the models, and batches filled from the pieces of many other threads."""

from __future__ import annotations

import queue
import threading
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
        self._orders: queue.Queue[_Order | None] = queue.Queue()  # None: there will be no more
        self._ordering = threading.Lock()
        self._stopping = False
        for number in range(1 if encoders.vision is None else 2):
            threading.Thread(target=self._run, name=f"encode-{number}", daemon=True).start()

    def encode(self, pages: Sequence[Page], route: Route) -> Encoded:
        """As ``Encoders.encode``. Waits for its turn. Raises Stopped where it does not come."""
        return self.submit(pages, route).result()

    def submit(self, pages: Sequence[Page], route: Route) -> Future[Encoded]:
        """As ``encode``, which waits for this."""
        order = _Order(pages, route)
        with self._ordering:
            if self._stopping:
                order.result.set_exception(Stopped())
            else:
                self._orders.put(order)
        return order.result

    def stop(self) -> None:
        """Encode nothing more but what was begun. The threads end."""
        with self._ordering:
            if not self._stopping:
                self._stopping = True
                self._orders.put(None)

    def _run(self) -> None:
        held: _Order | None = None
        while (first := held or self._orders.get()) is not None:
            batch, held = [first], None
            count = len(first.pages)
            while (order := self._waiting()) is not None:
                count += len(order.pages)
                if order.route != first.route or count > self._encoders.batch:
                    held = order
                    break
                batch.append(order)
            self._encode(batch)
        self._orders.put(None)  # for another thread

    def _waiting(self) -> _Order | None:
        """The next order, None where there is none."""
        try:
            order = self._orders.get_nowait()
        except queue.Empty:
            return None
        if order is None:
            self._orders.put(None)
        return order

    def _encode(self, batch: Sequence[_Order]) -> None:
        pages = [page for order in batch for page in order.pages]
        try:
            if self._stopping:
                raise Stopped
            results = self._encoders.encode(pages, batch[0].route)
        except Exception as error:  # of a library; raised again where the piece was asked for
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
