"""The tasks: thin, around ``visrag.steps``. Ids in, nothing out."""

from __future__ import annotations

import random
import time
from pathlib import Path

from celery import Task

from visrag.dispatch import sweep as put_right
from visrag.errors import StoreError
from visrag.inbox import look

from . import metrics
from .app import app, messages, settings
from .process import current

RETRIES = 6  # of a message while the store or the files do not answer; after them the sweep comes back to its piece
LONGEST = 60.0  # seconds between two of them


@app.task(name="visrag.ingest", bind=True)
def ingest(task: Task, piece: str) -> None:
    _run(task, piece)


@app.task(name="visrag.render", bind=True, time_limit=settings.piece_limit + 60)
def render(task: Task, piece: str) -> None:
    _run(task, piece)


@app.task(name="visrag.text", bind=True)
def text(task: Task, piece: str) -> None:
    _run(task, piece)


@app.task(name="visrag.encode", bind=True)
def encode(task: Task, piece: str) -> None:
    _run(task, piece)


@app.task(name="visrag.sweep", acks_late=False)
def sweep() -> None:
    """What dead workers and a forgetful broker have left."""
    here = current()
    try:
        for outcome in put_right(here.store, messages()):
            metrics.observe(outcome)
    finally:
        here.dispatch()
    metrics.observe_load(here.store.load())


@app.task(name="visrag.inbox", acks_late=False)
def inbox() -> None:
    """One look into the inbox."""
    here = current()
    look(here.store, Path(settings.inbox))
    here.dispatch()


def _run(task: Task, name: str) -> None:
    """Do a piece of work, if it is still to be done, and hand out what may follow."""
    try:
        here = current()
        with here.leases.hold(name) as piece:
            if piece is None:
                return
            begun = time.perf_counter()
            outcome = here.do(piece)
            if outcome is not None:
                metrics.observe(outcome, piece.queue, time.perf_counter() - begun)
        here.dispatch()
    except (StoreError, OSError) as error:
        seconds = min(LONGEST, 2.0**task.request.retries) * random.uniform(0.5, 1.5)
        raise task.retry(exc=error, countdown=seconds, max_retries=RETRIES) from error
