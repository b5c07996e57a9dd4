"""Queue: documents for workers on any number of machines. The store keeps the work, Celery and Redis its messages."""

from __future__ import annotations

import multiprocessing.util
import os
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .dispatch import Dispatch
from .errors import BrokerError, MissingExtra, NotFound, UsageError
from .records import Job, Load, Order, Piece, QueueName
from .settings import IngestSettings, QueueSettings
from .sources import Source, find_sources
from .steps import options_of
from .store import Store
from .store.opening import open_store
from .store.remote import Downloads, is_url

if TYPE_CHECKING:
    from celery import Celery

FEEDERS = 6  # threads that bring pages to one encoder
STEPS: tuple[QueueName, ...] = ("ingest", "render", "text", "encode")


@dataclass(frozen=True, slots=True)
class Status:
    """``documents`` by state, those in the queue too; ``queues``: what there is to do, by step; ``jobs``: the documents
    in the queue, the oldest first."""

    documents: Mapping[str, int]
    queues: Mapping[QueueName, Load]
    jobs: Sequence[Job]

    def as_dict(self) -> dict[str, Any]:
        """The status as ``visrag status --json`` prints it."""
        return {
            "documents": dict(self.documents),
            "queues": {
                name: {"waiting": load.waiting, "sent": load.sent, "held": load.held, "pages": load.pages}
                for name, load in self.queues.items()
            },
            "working": [
                {
                    "document": job.order.name,
                    "pages": job.document.pages,
                    "indexed": job.document.indexed,
                    "failed": job.document.failed,
                    "queued": job.queued,
                }
                for job in self.jobs
                if job.document.media_type
            ],
        }


class Queue:
    """Documents on their way into an index. A context manager.

    ``broker``: a Redis URL; ``index``: a folder or a qdrant:// URL, made if it is not there. None: what the environment
    says (``visrag.settings.QueueSettings``).
    """

    def __init__(self, broker: str | None = None, index: str | Path | None = None) -> None:
        self.settings = QueueSettings.from_environment(broker=broker, index=None if index is None else str(index))
        self._app = celery_app(self.settings)
        self.store: Store = open_store(self.settings.index, create=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._app.close()
        self.store.close()

    def ingest(
        self, *paths: str | Path, tags: Mapping[str, str] | None = None, settings: IngestSettings | None = None
    ) -> list[str]:
        """Put files, folders or URLs of them into the queue: the documents' names.

        A file that is in the queue already, and has not changed since, stays where it is. Raises UsageError,
        StoreError, BrokerError; with the last, the documents are in the queue and the workers will find them.
        """
        settings = settings or IngestSettings()
        if settings.passwords:
            raise UsageError("passwords do not go through the queue: give them to the workers, VISRAG_PASSWORDS")
        options = options_of(settings)
        known = {job.order.name: job for job in self.store.jobs()}
        sources = find_sources(paths)
        if settings.link and any(is_url(source.uri) for source in sources):
            raise UsageError("files elsewhere cannot be linked, as pages are read from them later: leave --link out")
        orders = [Order(source.name, source.uri, options, tags) for source in sources]
        self.store.enqueue(
            [
                order
                for order, source in zip(orders, sources, strict=True)
                if not _waits(known.get(order.name), order, source)
            ]
        )
        self.dispatch()
        return [order.name for order in orders]

    def dispatch(self) -> None:
        """Hand out what may be. Raises BrokerError."""
        errors: list[Exception] = []

        def send(piece: Piece) -> None:
            try:
                send_piece(self._app, piece)
            except Exception as error:
                errors.append(error)
                raise

        Dispatch(self.store, send, self.settings.models, self.settings.waiting_pages)()
        if errors:
            raise BrokerError(
                f"the broker cannot be reached ({errors[0]}): start Redis, or name it by --broker or VISRAG_BROKER; "
                "what was queued is not lost"
            )

    def status(self) -> Status:
        """What is in the queue and in the index, from the store."""
        return read_status(self.store)

    def wait(self, names: Sequence[str] | None = None, interval: float = 0.5) -> None:
        """Until these documents, or all, have left the queue."""
        wanted = None if names is None else set(names)
        while any(wanted is None or job.order.name in wanted for job in self.store.jobs()):
            time.sleep(interval)

    def revoke(self, name: str) -> None:
        """Take a document out of the queue; what was indexed of it before stays. Raises NotFound."""
        revoke(self.store, name)


def read_status(store: Store) -> Status:
    """What is in the queue and in the index."""
    jobs = store.jobs()
    states = Counter(dict.fromkeys(("queued", "working", "indexed", "partial", "failed"), 0))
    states.update("working" if job.document.media_type else "queued" for job in jobs)
    states.update(document.state for document in store.documents() if document.state != "ingesting")
    return Status(states, store.load(), jobs)


def revoke(store: Store, name: str) -> None:
    """Take a document out of the queue. Raises NotFound."""
    found = [job.generation for job in store.jobs() if job.order.name == name]
    if not found:
        raise NotFound(f"no document {name} is in the queue")
    for generation in found:
        store.abandon(generation)


def work(steps: Sequence[str], processes: int | None, log_level: str, given: Mapping[str, object]) -> None:
    """Run a worker for these steps, until it is told to end. ``given``: settings in place of the environment's."""
    if len({step in ("text", "encode") for step in steps}) > 1:
        raise UsageError("ingest and render run in processes, text and encode in threads: start a worker for each")
    celery_app(QueueSettings.from_environment())  # or MissingExtra
    told = {name: int(value) if isinstance(value, bool) else value for name, value in given.items() if value}
    os.environ.update({f"VISRAG_{name.upper()}": str(value) for name, value in told.items()})
    threads = steps[0] in ("text", "encode")
    count = processes or (FEEDERS if threads else min(4, os.cpu_count() or 1))
    options = {
        "--queues": ",".join(steps),
        "--pool": "threads" if threads else "prefork",
        "--concurrency": str(count),
        "--hostname": f"{'-'.join(steps)}-{os.getpid()}@%h",
        "--loglevel": log_level,
    }
    with Downloads() as temporary:  # what libraries put into it goes with it, even after a kill -9
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary.folder)
        from workers.app import app

        flags = [part for option in options.items() for part in option]
        try:
            app.worker_main(["worker", *flags, "--without-gossip", "--without-mingle"])
        finally:
            multiprocessing.util._run_finalizers()  # type: ignore[attr-defined]  # they clean up in the folder


def celery_app(settings: QueueSettings) -> Celery:
    """The Celery application, for those who send and those who work. Raises MissingExtra."""
    try:
        from celery import Celery
        from kombu.entity import Queue as Messages
    except ImportError:
        raise MissingExtra("The queue", "queue") from None
    app = Celery("visrag", broker=settings.broker, set_as_current=False)
    app.conf.update(
        task_queues=[Messages(name, routing_key=name) for name in (*STEPS, "sweep", "inbox")],
        task_default_queue="ingest",
        task_create_missing_queues=False,
        task_ignore_result=True,
        task_acks_late=True,
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0.1, "interval_max": 0.5},
        broker_connection_timeout=5,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": settings.visibility,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "queue_order_strategy": "round_robin",
        },
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
        task_send_sent_event=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        enable_utc=True,
    )
    return app


def send_piece(app: Celery, piece: Piece) -> None:
    """Say that a piece can be claimed."""
    app.send_task(f"visrag.{piece.queue}", args=[piece.id], queue=piece.queue)


def _waits(job: Job | None, order: Order, source: Source) -> bool:
    """Whether a file is in the queue as it is asked for, and was not changed since, as far as can be seen."""
    if job is None or job.order != order:
        return False
    if is_url(source.uri):
        return True
    try:
        return source.path.stat().st_ctime < job.queued
    except OSError:
        return False
