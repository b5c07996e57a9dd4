"""The Celery application: `celery -A workers.app worker -Q ingest,render -P prefork`, or `visrag worker ingest render`.

Settings come from the environment (``visrag.settings.QueueSettings``). "ingest" and "render" run in prefork processes,
which are recycled; "text" and "encode" in threads of one process, around the batcher that owns the models. Every worker
takes part in the sweep.
"""

from __future__ import annotations

import logging
import mmap
from typing import Any

from celery import bootsteps, signals

from visrag.errors import UsageError, VisragError
from visrag.queue import STEPS, celery_app
from visrag.records import QueueName
from visrag.settings import QueueSettings

settings = QueueSettings.from_environment()
app = celery_app(settings)
app.conf.update(
    include=["workers.tasks"],
    worker_max_tasks_per_child=200,
    worker_max_memory_per_child=1_500_000,  # KiB, without the process that reads documents
)

STOPPING = mmap.mmap(-1, 1)  # shared with the processes that are forked from this one; 1 once the worker shall end
INBOX_INTERVAL = 2.0  # seconds

log = logging.getLogger("visrag")
logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of every request to Qdrant


class Periodic(bootsteps.StartStopStep):
    """Sends the messages "sweep" and, for who watches one, "inbox" from time to time; whichever worker is free acts."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._entries: list[Any] = []

    def start(self, worker: Any) -> None:
        self._repeat(worker, settings.sweep, "sweep")
        if settings.inbox and "ingest" in worker.app.amqp.queues.consume_from:
            self._repeat(worker, INBOX_INTERVAL, "inbox")

    def stop(self, worker: Any) -> None:
        for entry in self._entries:
            entry.cancel()

    def _repeat(self, worker: Any, seconds: float, name: str) -> None:
        def send() -> None:
            try:
                app.send_task(f"visrag.{name}", queue=name, expires=seconds, retry=False)
            except Exception as error:  # the broker's library has no one root of its errors; the next time, perhaps
                log.warning("the broker took no message (%s)", error)

        self._entries += [worker.timer.call_after(0, send), worker.timer.call_repeatedly(seconds, send)]


app.steps["worker"].add(Periodic)


@signals.celeryd_after_setup.connect
def prepare(sender: str, instance: Any, **_: Any) -> None:
    """Check what this worker is to do, and load its models before it says that it is ready."""
    from . import metrics, process

    queues = app.amqp.queues
    steps = set(queues.consume_from)
    forks = instance.pool_cls.__module__.endswith("prefork")
    try:
        if forks and steps & {"text", "encode"}:
            raise UsageError("the steps text and encode run in threads: celery … worker -P threads")
        if not forks and steps & {"ingest", "render"}:
            raise UsageError("the steps ingest and render run in processes: celery … worker -P prefork")
        metrics.serve(settings)
        if not forks:
            process.current().load(vision="encode" in steps)
    except VisragError as error:
        log.critical("%s", error)
        raise SystemExit(2) from error
    queues.select_add("sweep")
    if settings.inbox and "ingest" in steps:
        queues.select_add("inbox")


@signals.worker_shutting_down.connect
def stop(**_: Any) -> None:
    from . import process

    STOPPING[0] = 1
    process.stop()


@signals.worker_process_shutdown.connect
def close_child(**_: Any) -> None:
    from . import process

    process.close()


@signals.worker_shutdown.connect
def close(**_: Any) -> None:
    from . import metrics, process

    process.close()
    metrics.close()


def messages() -> dict[QueueName, int]:
    """How many messages wait in the broker, by step."""
    with app.connection_for_read() as connection:
        return {step: int(connection.default_channel.client.llen(step)) for step in STEPS}
