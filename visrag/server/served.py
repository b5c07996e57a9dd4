"""The collections that a server serves: an index each, its uploads, and who does the work of its queue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol, Self

from ..alone import Alone
from ..errors import BrokerError, NotFound, StoreError, UsageError
from ..ids import document_id
from ..index import Index
from ..queue import Queue
from ..records import Document, Failure, Filter, Job, Order
from ..store import Store
from ..uploads import Uploads, retry_order
from .schemas import CollectionInfo, DocumentInfo, FailureInfo, State
from .settings import ServerSettings

SHOWN = 5  # failures of a document in a list

log = logging.getLogger("visrag")


class Workers(Protocol):
    """Who does the work of a queue: the server's own process, or Celery's."""

    def wake(self) -> None: ...
    def close(self) -> None: ...


class Celery:
    """Workers behind a broker. What a broker that is down is not told, the workers' sweep finds."""

    def __init__(self, broker: str, index: str) -> None:
        self._queue = Queue(broker, index)
        self._woken = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self._closed = True
        self._woken.set()
        self._thread.join(5.0)
        self._queue.close()

    def _run(self) -> None:
        while self._woken.wait() and not self._closed:
            self._woken.clear()
            try:
                self._queue.dispatch()
            except (BrokerError, StoreError) as error:
                log.error("%s", error)


class Collection:
    """An index that is served. Opened at once, so that what is wrong with it is said at the start."""

    def __init__(self, name: str, index: str, settings: ServerSettings) -> None:
        self.name = name
        self._kept = ExitStack()
        wanted = settings.models
        here = Index(index, text=wanted.text, vision=wanted.vision, device=wanted.device)
        self.index = self._kept.enter_context(here)
        self.store: Store = self.index.open(create=settings.ingest)
        self.index.load()
        self._ordering = threading.Lock()
        self._uploads = Uploads(index) if settings.ingest else None
        self._workers: Workers | None = None
        if settings.ingest and settings.broker:
            self._workers = Celery(settings.broker, index)
        elif settings.ingest:
            self._workers = Alone(index, wanted, passwords=settings.passwords, memory=settings.memory)
        if self._workers is not None:
            self._kept.callback(self._workers.close)

    def close(self) -> None:
        self._kept.close()

    @property
    def uploads(self) -> Uploads:
        """Raises UsageError where no documents are taken."""
        if self._uploads is None:
            raise UsageError(f"the collection {self.name} takes no documents here: the server runs with --no-ingest")
        return self._uploads

    def info(self, ingest: bool) -> CollectionInfo:
        documents = [document for document in self.store.documents() if document.state != "ingesting"]
        pages = self.store.page_count(Filter())
        return CollectionInfo(
            name=self.name, documents=len(documents), pages=pages, ingest=ingest and self._uploads is not None
        )

    def documents(self) -> list[DocumentInfo]:
        """All, those in the queue too, by name."""
        failures: dict[str, list[Failure]] = {}
        for failure in self.store.failures():
            failures.setdefault(failure.document, []).append(failure)
        found = {document.name: _of_document(document, failures.get(document.name, [])[:SHOWN])
                 for document in self.store.documents()}  # fmt: skip
        found.update({job.order.name: _of_job(job) for job in self.store.jobs()})
        return [found[name] for name in sorted(found)]

    def jobs(self) -> list[DocumentInfo]:
        """The documents in the queue, the oldest first."""
        return [_of_job(job) for job in self.store.jobs()]

    def document(self, name: str) -> DocumentInfo:
        """Raises NotFound."""
        job = next((job for job in self.store.jobs() if job.order.name == name), None)
        if job is not None:
            return _of_job(job)
        found = self.store.document(name)
        if found is None:
            raise NotFound(f"the collection {self.name} holds no document {name}")
        return _of_document(found, self.store.failures(name))

    def enqueue(self, orders: Sequence[Order]) -> list[DocumentInfo]:
        """Put documents into the queue. They are there, whatever happens, when this returns."""
        with self._ordering:
            self.store.enqueue(orders)
        infos = [_in_queue(order) for order in orders]
        self._wake()
        return infos

    def retry(self, name: str) -> DocumentInfo:
        """Put a document into the queue once more. Raises NotFound where its file is not kept, UsageError."""
        with self._ordering:  # or an upload of the same name that comes meanwhile would be lost
            order = retry_order(self.store, self.uploads, name)
            self.store.enqueue([order])
        self._wake()
        return _in_queue(order)

    def remove(self, name: str) -> None:
        """Remove a document, out of the queue too. Raises NotFound."""
        if self._uploads is None:
            raise UsageError(f"the collection {self.name} is only read here: the server runs with --no-ingest")
        waiting = [job.generation for job in self.store.jobs() if job.order.name == name]
        for generation in waiting:
            self.store.abandon(generation)
        try:
            self.store.remove(name)
        except NotFound:
            if not waiting:
                raise

    def _wake(self) -> None:
        if self._workers is not None:
            self._workers.wake()

    def sweep(self) -> None:
        """Delete uploaded files that no document in the queue needs any more."""
        if self._uploads is not None:
            self._uploads.sweep(lambda: [job.order.uri for job in self.store.jobs()])


class Served:
    """All collections of a server. A context manager."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._kept = ExitStack()
        self.collections: dict[str, Collection] = {}

    def __enter__(self) -> Self:
        try:
            for name, index in self.settings.collections.items():
                self.collections[name] = Collection(name, index, self.settings)
                self._kept.callback(self.collections[name].close)
        except BaseException:
            self._kept.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.close()


def _of_document(document: Document, failures: Sequence[Failure]) -> DocumentInfo:
    state: State = "working" if document.state == "ingesting" else document.state
    return _info(document, state, document.tags, failures)


def _of_job(job: Job) -> DocumentInfo:
    opened = bool(job.document.media_type)
    return _info(job.document, "working" if opened else "queued", job.document.tags or job.order.tags or {}, [])


def _in_queue(order: Order) -> DocumentInfo:
    return _info(Document(order.name, "", "", ""), "queued", order.tags or {}, [])


def _info(document: Document, state: State, tags: Mapping[str, str], failures: Sequence[Failure]) -> DocumentInfo:
    return DocumentInfo(
        id=document_id(document.name),
        document=document.name,
        state=state,
        pages=document.pages,
        indexed=document.indexed,
        failed=document.failed,
        tags=dict(tags),
        media_type=document.media_type,
        content=document.content,
        settings=document.settings,
        renderer=document.renderer,
        failures=[FailureInfo(page=f.page, reason=str(f.reason), message=f.message) for f in failures],
    )
