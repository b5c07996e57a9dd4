"""The whole write path: files → pages → vectors → index.

Rendering processes run ahead of the encoder by a bounded number of pages, and the encoder ahead of the index by
two batches; a document becomes visible when its last page is in. What fails is recorded with its reason, and the rest
goes on.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from .ahead import Ended, Opened, Rendered, Rendering, Woken
from .batcher import Batcher, Encoded
from .encoders import BATCH, Encoders, render_options, settings_hash
from .errors import (
    Damaged,
    DocumentError,
    EncoderError,
    FileChanged,
    NotFound,
    NotWritten,
    PageRefused,
    Reason,
    StoreError,
)
from .kinds import sha256_of
from .memory import peak_memory
from .records import Document, EncodedPage, Failure, Leg, Page, PageRef
from .settings import IngestSettings
from .sources import Source
from .store import Generation, Store

BATCH_WORDS = 50_000  # words on the pages encoded together, above which no further page is added
ENDING = 15.0  # seconds that a batch is given to end, where the run is stopped amid it
AT_ONCE = 2  # batches with the encoder: one in the model, one prepared


class Progress(Protocol):
    """What is told of an ingest while it runs."""

    def start(self, size: int) -> None:
        """``size``: bytes of all files that will be read."""

    def page(self, source: Source, pages: int) -> None:
        """One more of the source's ``pages`` is done."""

    def finish(self, source: Source) -> None:
        """A source is done, whatever came of it."""


class Silent:
    """A Progress that tells nobody."""

    def start(self, size: int) -> None: ...
    def page(self, source: Source, pages: int) -> None: ...
    def finish(self, source: Source) -> None: ...


@dataclass(slots=True)
class Summary:
    """What an ingest did. ``pages``: indexed in this run; ``unchanged``: documents that were in the index already."""

    documents: int = 0
    pages: int = 0
    unchanged: int = 0
    removed: int = 0
    seconds: float = 0.0
    peak_memory_mb: int = 0
    failures: list[Failure] = field(default_factory=list)


def ingest(
    store: Store,
    encoders: Encoders,
    sources: Sequence[Source],
    settings: IngestSettings,
    tags: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    again: bool = False,
) -> Summary:
    """Bring the sources into the index. ``tags``: of these documents; None keeps those that they have.

    ``again``: also sources that are in the index unchanged.
    """
    with peak_memory() as peak:
        run = _Run(store, encoders, settings, tags, progress or Silent())
        summary = run.run(sources, again)
        if run.replaces:
            with suppress(StoreError):  # the disk is full, or something damaged: the documents are in all the same
                store.compact(worth=True)
    summary.peak_memory_mb = peak.megabytes
    return summary


def ingest_texts(store: Store, encoders: Encoders, texts: Mapping[str, str], progress: Progress) -> None:
    """Bring passages into the index, by name: each a document of one page, without places. Those that are in it
    already are left as they are."""
    settings = settings_hash(_legs(encoders), IngestSettings())
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    known = {document.name: (document.content, document.settings) for document in store.documents()}
    todo = [name for name in texts if known.get(name) != (hashes[name], settings)]
    sources = {name: Source(Path(name), name, len(texts[name])) for name in todo}
    progress.start(sum(source.size for source in sources.values()))
    for start in range(0, len(todo), 2 * BATCH):
        names = todo[start : start + 2 * BATCH]
        pages = [Page(1, 0.0, 0.0, texts[name], text_source="text_layer") for name in names]
        for name, page, legs in zip(names, pages, encoders.text.encode_pages(pages), strict=True):
            generation = store.begin(Document(name, hashes[name], settings, "text/plain", pages=1))
            store.add_pages(generation, [EncodedPage(page, legs, encoders.chance(legs))])
            store.commit(generation, 1)
            progress.page(sources[name], 1)
            progress.finish(sources[name])


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pages with the encoder, and the documents that end with them, or with a batch before."""

    pages: list[tuple[Source, Page]]
    ending: list[tuple[Source, DocumentError | None]]
    encoded: Future[Encoded]


class _Run:
    """One ingest: the documents that are open, the pages that wait for the encoder, and those that it has."""

    def __init__(
        self,
        store: Store,
        encoders: Encoders,
        settings: IngestSettings,
        tags: Mapping[str, str] | None,
        progress: Progress,
    ) -> None:
        self._store = store
        self._encoders = encoders
        self._settings = settings
        self._tags = tags
        self._progress = progress
        self._settings_hash = settings_hash(_legs(encoders), settings)
        self._contents: dict[str, str] = {}
        self._open: dict[str, tuple[Generation, int]] = {}
        self._locked: set[str] = set()  # documents of which the pictures are kept
        self._waiting: list[tuple[Source, Page]] = []
        self._ending: list[tuple[Source, DocumentError | None]] = []
        self._batches: deque[_Batch] = deque()
        self._stamps: dict[str, tuple[int, int] | None] = {}
        self.replaces = False  # whether documents of the index are read again
        self.summary = Summary()

    def run(self, sources: Sequence[Source], again: bool) -> Summary:
        begun = time.monotonic()
        todo = [source for source in sources if self._changed(source) or again]
        self.summary.unchanged = len(sources) - len(todo)
        self._progress.start(sum(source.size for source in todo))
        options = render_options(self._settings, self._encoders.vision is not None)
        batcher = Batcher(self._encoders)
        with Rendering(todo, self._settings, options) as rendering:
            try:
                self._consume(rendering, batcher, len(todo))
            finally:
                batcher.stop(wait=ENDING)
                for generation, _ in self._open.values():
                    self._store.abandon(generation)
        self.summary.seconds = time.monotonic() - begun
        return self.summary

    def _changed(self, source: Source) -> bool:
        """Whether a source is not in the index as it is now. Takes its hash."""
        content = ""
        self._stamps[source.name] = _stamp(source.path)
        with suppress(OSError):
            content = sha256_of(source.path)
        self._contents[source.name] = content
        known = self._store.document(source.name)
        if known is None or known.state == "ingesting":
            return True
        locked = known.state == "failed" and bool(self._settings.passwords)
        tags = known.tags if self._tags is None else self._tags
        same = (known.content, known.settings, known.tags) == (content, self._settings_hash, tags)
        self.replaces |= not same or locked
        return not same or locked

    def _consume(self, rendering: Rendering, batcher: Batcher, count: int) -> None:
        while self.summary.documents < count:
            match rendering.next(wait=bool(self._batches) or not (self._waiting or self._ending)):
                case None:  # nothing is rendered, and the encoder has nothing
                    self._submit(rendering, batcher)
                case Woken():
                    pass
                case Opened(source, pages, kind, renderer, locked):
                    self._begin(source, pages, kind, renderer)
                    if locked:
                        self._locked.add(source.name)
                case Rendered(source, Page() as page):
                    self._waiting.append((source, page))
                case Rendered(source, DocumentError() as error):
                    self._fail(source, error)
                    self._progress.page(source, self._open[source.name][1])
                case Ended(source, error):
                    self._ending.append((source, error))
                case BaseException() as error:
                    raise error
            words = sum(len(page.words) for _, page in self._waiting)
            if len(self._waiting) >= self._encoders.batch or words >= BATCH_WORDS:
                self._submit(rendering, batcher)
            while self._batches and (len(self._batches) > AT_ONCE or self._batches[0].encoded.done()):
                self._add_batch()

    def _submit(self, rendering: Rendering, batcher: Batcher) -> None:
        """Hand the pages that wait to the encoder."""
        waiting, self._waiting = self._waiting, []
        ending, self._ending = self._ending, []
        encoded = batcher.submit([page for _, page in waiting], self._settings.route)
        self._batches.append(_Batch(waiting, ending, encoded))
        encoded.add_done_callback(lambda _: rendering.wake())

    def _begin(self, source: Source, pages: int, media_type: str, renderer: str) -> None:
        known = self._store.document(source.name) if self._tags is None else None
        document = Document(
            name=source.name,
            content=self._contents[source.name],
            settings=self._settings_hash,
            media_type=media_type,
            tags=known.tags if known is not None else self._tags or {},
            pages=pages,
            path=source.origin or str(source.path.resolve()).encode("utf-8", "replace").decode(),
            renderer=renderer,
        )
        self._open[source.name] = (self._store.begin(document), pages)

    def _fail(self, source: Source, error: DocumentError) -> None:
        generation, _ = self._open[source.name]
        with suppress(NotWritten):  # ``_end`` says so
            self._store.fail(generation, error.page, error.reason, error.message)
        self.summary.failures.append(Failure(source.name, error.page, error.reason, error.message))

    def _end(self, source: Source, error: DocumentError | None) -> None:
        """End a document, all of whose pages are in: make it visible, unless somebody has removed it meanwhile."""
        try:
            self._show(source, error)
        except NotWritten:
            del self._open[source.name]
            why = "was removed from the index while it was read: ingest it again if it shall be there"
            self.summary.failures.append(Failure(source.name, None, Reason.MISSING, why))
        self.summary.documents += 1
        self._progress.finish(source)

    def _show(self, source: Source, error: DocumentError | None) -> None:
        """Make a document visible.

        One that was there and can't be read now, because its file has gone or with the same content, stays as it was;
        also one of the same content and settings that would lose pages.
        """
        if error is None and not self._keep(source):
            self._store.abandon(self._open.pop(source.name)[0])
            why = "was changed or removed while it was read: ingest it again"
            error = DocumentError(source.name, None, Reason.MISSING, why)
        if error is not None and error.reason is Reason.MISSING:
            self._contents[source.name] = ""  # there is no original to keep
        known = self._store.document(source.name)
        same = known is not None and known.indexed > 0 and self._contents[source.name] in ("", known.content)
        if error is not None and same:
            self.summary.failures.append(Failure(source.name, None, error.reason, error.message))
        elif error is None and self._loses(source, known):
            self._stay(source)
        else:
            self._commit(source, error)

    def _loses(self, source: Source, known: Document | None) -> bool:
        """Whether pages have failed now that the index has, of the same content and settings."""
        if known is None or (known.content, known.settings) != (self._contents[source.name], self._settings_hash):
            return False
        failed = [failure.page for failure in self.summary.failures if failure.document == source.name]
        return any(page is not None and self._has(PageRef(source.name, page)) for page in failed)

    def _has(self, page: PageRef) -> bool:
        """Whether the index has a page, be it damaged."""
        with suppress(Damaged):
            try:
                self._store.page(page)
            except NotFound:
                return False
        return True

    def _stay(self, source: Source) -> None:
        """Leave a document as it was, and say so where its pages' failures are told."""
        self._store.abandon(self._open.pop(source.name)[0])
        stays = "the document stays as it was"
        self.summary.failures = [
            replace(each, message=f"{each.message}; {stays}") if each.document == source.name else each
            for each in self.summary.failures
        ]

    def _commit(self, source: Source, error: DocumentError | None) -> None:
        if source.name not in self._open:
            self._begin(source, 0, "", "")
        if error is not None:
            self._fail(source, error)
            self._keep(source)
        generation, pages = self._open[source.name]
        self.summary.pages += self._store.commit(generation, pages).indexed
        del self._open[source.name]

    def _keep(self, source: Source) -> bool:
        """Keep a document's file; false where it was changed while it was read."""
        if not self._contents[source.name]:
            return True
        if self._stamps[source.name] != _stamp(source.path):
            return False
        try:
            self._store.put_original(source.path, self._contents[source.name], self._settings.link)
        except (FileChanged, FileNotFoundError):
            return False
        return True

    def _add_batch(self) -> None:
        """Store the oldest batch that the encoder has, once it is done, and end the documents that end with it."""
        batch = self._batches.popleft()
        by_source: dict[Source, list[EncodedPage]] = {}
        for (source, page), found in zip(batch.pages, batch.encoded.result(), strict=True):
            if isinstance(found, EncoderError):
                self._fail(source, DocumentError(source.name, page.number, Reason.ENCODER, str(found)))
            else:
                by_source.setdefault(source, []).append(found)
        for source, pages in by_source.items():
            self._add(source, pages)
        for source, _ in batch.pages:
            self._progress.page(source, self._open[source.name][1])
        for source, error in batch.ending:
            self._end(source, error)

    def _add(self, source: Source, pages: Sequence[EncodedPage]) -> None:
        """Store pages of a source; one that cannot be stored has failed."""
        generation, _ = self._open[source.name]
        try:
            self._store.add_pages(generation, pages)
            if source.name in self._locked:
                self._keep_pictures(generation, [encoded.page for encoded in pages])
        except PageRefused as error:
            self._fail(source, DocumentError(source.name, error.page, Reason.ENCODER, error.message))
            self._add(source, [encoded for encoded in pages if encoded.page.number != error.page])
        except NotWritten:  # ``_end`` says so
            pass

    def _keep_pictures(self, generation: Generation, pages: Sequence[Page]) -> None:
        """For pages whose picture cannot be made again."""
        for page in pages:
            if page.image is not None:
                self._store.put_image(generation, page.number, page.image())


def _stamp(path: Path) -> tuple[int, int] | None:
    """A file's size and time of change, None where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _legs(encoders: Encoders) -> list[Leg]:
    return [leg for encoder in encoders for leg in encoder.legs]
