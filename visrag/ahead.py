"""Rendering ahead of the encoder: processes that read sources, and a bounded queue of what they made."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self, TypeAlias

from .errors import DocumentError
from .records import Page
from .render import Renderer, RenderOptions
from .settings import IngestSettings
from .sources import Source

AHEAD = 48  # rendered pages that may wait for the encoder
AHEAD_WORDS = 100_000  # words on them, above which no further page is added


@dataclass(frozen=True, slots=True)
class Opened:
    """A source was opened."""

    source: Source
    pages: int
    media_type: str
    renderer: str
    locked: bool


@dataclass(frozen=True, slots=True)
class Rendered:
    """A page of a source was read, or failed."""

    source: Source
    page: Page | DocumentError


@dataclass(frozen=True, slots=True)
class Ended:
    """All that can be read of a source was read; ``error``: why it could not be opened."""

    source: Source
    error: DocumentError | None


Message: TypeAlias = Opened | Rendered | Ended | BaseException


class Rendering:
    """Threads that each own a rendering process, and the bounded queue of what they made."""

    def __init__(self, todo: Sequence[Source], settings: IngestSettings, options: RenderOptions) -> None:
        self._todo = iter(todo)
        self._next = threading.Lock()
        self._options = options
        self._made: queue.Queue[Message] = queue.Queue(AHEAD)
        self._words = 0  # on the pages in it
        self._counting = threading.Lock()
        self._stop = threading.Event()
        count = min(settings.jobs, len(todo))
        self._threads = [threading.Thread(target=self._work, name=f"render-{i}", daemon=True) for i in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def next(self, wait: bool) -> Message | None:
        """What was made next; None where nothing is there and ``wait`` is false."""
        try:
            message = self._made.get(block=wait)
        except queue.Empty:
            return None
        self._count(message, -1)
        return message

    def _work(self) -> None:
        try:
            with Renderer() as renderer:
                while not self._stop.is_set():
                    with self._next:
                        source = next(self._todo, None)
                    if source is None:
                        return
                    self._put(self._render(renderer, source))
        except BaseException as error:  # a fault of ours: raised again in the main thread
            self._put(iter([error]))

    def _put(self, messages: Iterator[Message]) -> None:
        for message in messages:
            while not self._stop.is_set():
                if self._words > AHEAD_WORDS:
                    self._stop.wait(0.05)
                    continue
                with suppress(queue.Full):
                    self._made.put(message, timeout=0.1)
                    self._count(message, 1)
                    break
            if self._stop.is_set():
                return

    def _count(self, message: Message, sign: int) -> None:
        if isinstance(message, Rendered) and isinstance(message.page, Page):
            with self._counting:
                self._words += sign * len(message.page.words)

    def _render(self, renderer: Renderer, source: Source) -> Iterator[Message]:
        try:
            document = renderer.pages(source.path, source.name, self._options)
            yield Opened(source, document.pages, document.media_type, document.renderer, document.locked)
            for page in document:
                yield Rendered(source, page)
        except DocumentError as error:
            yield Ended(source, error)
        else:
            yield Ended(source, None)
