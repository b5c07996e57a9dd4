"""Rendering ahead of the encoder: processes that read sources, and a bounded queue of what they made."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Self, TypeAlias

from .errors import DocumentError
from .records import Page
from .render import OpenedDocument, Renderer, RenderOptions
from .settings import IngestSettings
from .sources import Source

AHEAD = 48  # rendered pages that may wait for the encoder
PIECE = 16  # pages of a document that a process reads before others may have the next
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


@dataclass(frozen=True, slots=True)
class Woken:
    """There may be something else to do (``Rendering.wake``)."""


Message: TypeAlias = Opened | Rendered | Ended | Woken | BaseException


@dataclass(slots=True)
class _Document:
    """A source that is read: pieces of it that nobody has begun, and how many pages are still to come."""

    source: Source
    pieces: deque[range]
    left: int


class Rendering:
    """Threads that each own a rendering process, and the bounded queue of what they made.

    A thread reads a document to its end; one that finds no other document helps with the longest. So the pages of a
    document may come in any order.
    """

    def __init__(self, todo: Sequence[Source], settings: IngestSettings, options: RenderOptions) -> None:
        self._todo = deque(todo)
        self._opening = 0  # documents of which the pages are not known yet
        self._reading: list[_Document] = []
        self._turn = threading.Condition()
        self._options = options
        self._made: queue.Queue[Message] = queue.Queue(AHEAD)
        self._words = 0  # on the pages in it
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._renderers = [Renderer() for _ in range(settings.jobs if todo else 0)]
        self._threads = [
            threading.Thread(target=self._work, args=(renderer,), name=f"render-{i}", daemon=True)
            for i, renderer in enumerate(self._renderers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End at once: what is being read is given up."""
        self._stop.set()
        for renderer in self._renderers:
            renderer.stop()
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

    def wake(self) -> None:
        """Let ``next`` return, if it waits."""
        with suppress(queue.Full):  # then it does not wait
            self._made.put_nowait(Woken())

    def _work(self, renderer: Renderer) -> None:
        try:
            with renderer:
                while (found := self._take()) is not None:
                    if isinstance(found, Source):
                        self._read(renderer, found)
                    elif not self._help(renderer, found):
                        return
        except BaseException as error:  # a fault of ours: raised again in the main thread
            self._put(error)

    def _take(self) -> Source | _Document | None:
        """A source to read, else a document to help with; None where there is nothing more to do."""
        with self._turn:
            while not self._stop.is_set():
                if self._todo:
                    self._opening += 1
                    return self._todo.popleft()
                self._reading = [document for document in self._reading if document.pieces]
                if self._reading:
                    return max(self._reading, key=lambda document: len(document.pieces))
                if not self._opening:
                    return None
                self._turn.wait(0.1)
        return None

    def _read(self, renderer: Renderer, source: Source) -> None:
        """Open a source, let others help with it, and read it to its end."""
        document = None
        try:
            opened = renderer.pages(source.path, source.name, self._options)
            self._put(Opened(source, opened.pages, opened.media_type, opened.renderer, opened.locked))
            starts = range(1, opened.pages + 1, PIECE)
            first, *others = [range(start, min(start + PIECE, opened.pages + 1)) for start in starts] or [range(0)]
            document = _Document(source, deque(others), opened.pages)
        except DocumentError as error:
            self._put(Ended(source, error))
        finally:
            with self._turn:
                self._opening -= 1
                self._reading += [document] if document is not None else []
                self._turn.notify_all()
        if document is not None:
            self._pages(opened, document, first)
            if not opened.pages:
                self._put(Ended(source, None))

    def _help(self, renderer: Renderer, document: _Document) -> bool:
        """Read pages of a document that another thread reads: whether it could be opened here, too."""
        try:
            opened = renderer.pages(document.source.path, document.source.name, self._options)
        except DocumentError:
            return False
        self._pages(opened, document)
        return True

    def _pages(self, opened: OpenedDocument, document: _Document, first: range = range(0)) -> None:
        """Read the ``first`` pages of a document, and others as long as there are some that nobody has begun. Whoever
        has the last one ends it."""
        for page in opened.read(chain(first, self._numbers(document))):
            self._put(Rendered(document.source, page))
            with self._turn:
                document.left -= 1
                last = not document.left
            if last:
                self._put(Ended(document.source, None))
            if self._stop.is_set():
                return

    def _numbers(self, document: _Document) -> Iterator[int]:
        while not self._stop.is_set():
            with self._turn:
                if not document.pieces:
                    return
                piece = document.pieces.popleft()
            yield from piece

    def _put(self, message: Message) -> None:
        """Waits while the queue is full, or holds too many words; not once all is to end."""
        while not self._stop.is_set():
            if self._words > AHEAD_WORDS:
                self._stop.wait(0.05)
                continue
            with suppress(queue.Full):
                self._made.put(message, timeout=0.1)
                self._count(message, 1)
                return

    def _count(self, message: Message, sign: int) -> None:
        if isinstance(message, Rendered) and isinstance(message.page, Page):
            with self._counting:
                self._words += sign * len(message.page.words)
