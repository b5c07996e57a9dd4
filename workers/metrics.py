"""What Prometheus is told. Counted in every process of a worker, served by its first one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from billiard import current_process
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess, start_http_server, values

from visrag.errors import UsageError
from visrag.queue import STEPS
from visrag.records import Load, QueueName
from visrag.settings import QueueSettings
from visrag.steps import Outcome
from visrag.store.remote import Downloads

from .app import settings as _settings

log = logging.getLogger("visrag")

_folder: Downloads | None = None
if _settings.metrics_port and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    _folder = Downloads().__enter__()  # removed by the next worker, if this one is killed
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_folder.folder)
    # A process that takes another's place counts on in its files. (And where flower is installed, Celery has imported
    # prometheus_client before the variable was set.)
    values.ValueClass = values.MultiProcessValue(lambda: getattr(current_process(), "index", "main"))

_rendered = Counter("visrag_pages_rendered_total", "Pages read.")
_encoded = Counter("visrag_pages_encoded_total", "Pages encoded.", ["step"])
_failed = Counter("visrag_pages_failed_total", "Pages and documents that failed.", ["reason"])
_documents = Counter("visrag_documents_total", "Documents that left the queue.", ["state"])
_seconds = Histogram(
    "visrag_step_seconds", "Time of a piece of work.", ["step"], buckets=(0.05, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
)
_fill = Histogram(
    "visrag_batch_fill", "Pages of a batch by those that it had room for.", buckets=(0.1, 0.25, 0.5, 0.75, 1)
)
_pieces = Gauge(
    "visrag_queue_pieces",
    "Pieces of work, when this worker last swept.",
    ["step", "state"],
    multiprocess_mode="mostrecent",
)
_waiting = Gauge("visrag_queue_pages", "Pages of these pieces.", ["step"], multiprocess_mode="mostrecent")


def observe_batch(pages: int, room: int) -> None:
    _fill.observe(pages / max(pages, room))


def observe(outcome: Outcome, step: QueueName | None = None, seconds: float = 0.0) -> None:
    """What came of a step, or (None) of the sweep."""
    if step == "render":
        _rendered.inc(outcome.pages)
    elif step in ("text", "encode"):
        _encoded.labels(step).inc(outcome.pages)
    for failure in outcome.failures:
        _failed.labels(failure.reason).inc()
    if outcome.document is not None:
        log.info("%s: %s", outcome.document.name, outcome.document.state)
        _documents.labels(outcome.document.state).inc()
    if step is not None:
        _seconds.labels(step).observe(seconds)


def observe_load(load: Mapping[QueueName, Load]) -> None:
    for step in STEPS:
        found = load.get(step, Load())
        for state in ("waiting", "sent", "held"):
            _pieces.labels(step, state).set(getattr(found, state))
        _waiting.labels(step).set(found.pages)


def serve(settings: QueueSettings) -> None:
    """Answer at the port, if there is one. Raises UsageError where it is taken."""
    if not settings.metrics_port:
        return
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        where = f"{settings.metrics_host}:{settings.metrics_port}"
        raise UsageError(f"VISRAG_METRICS_PORT: nothing can be served at {where} ({error.strerror})") from error


def close() -> None:
    """Of the first process: remove what it counted in."""
    if _folder is not None:
        _folder.__exit__()
