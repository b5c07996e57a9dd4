"""The tasks: thin, around ``visrag.steps``. Ids in, nothing out."""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path

from celery import Task

from visrag.batcher import Stopped
from visrag.dispatch import sweep as put_right
from visrag.errors import StoreError
from visrag.inbox import look
from visrag.records import Piece
from visrag.steps import ATTEMPTS, Outcome, encode_pages, give_up, open_document, render_pages, wanted_legs

from . import metrics
from .app import STOPPING, app, messages, settings
from .process import Process, current

RETRIES = 6  # of a message while the store or the files do not answer; after them the sweep comes back to its piece
LONGEST = 60.0  # seconds between two of them

log = logging.getLogger("visrag")


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
            outcome = _do(here, piece)
            if outcome is not None:
                metrics.observe(outcome, piece.queue, time.perf_counter() - begun)
        here.dispatch()
    except (StoreError, OSError) as error:
        seconds = min(LONGEST, 2.0**task.request.retries) * random.uniform(0.5, 1.5)
        raise task.retry(exc=error, countdown=seconds, max_retries=RETRIES) from error


def _do(here: Process, piece: Piece) -> Outcome | None:
    """A piece's step, None where nothing was done. What does not lie in the piece is raised; the rest costs it an
    attempt, and comes again when its lease has run out."""
    try:
        if piece.queue == "ingest":
            if wanted_legs(here.store, settings.models) is None:  # the workers that have these models are yet to come
                _let_go(here, piece)
                return None
            return open_document(here.store, piece, here.renderer, settings.passwords, here.downloads)
        if piece.queue == "render":
            return render_pages(here.store, piece, here.renderer, settings.passwords, lambda: STOPPING[0] == 1)
        outcome = encode_pages(here.store, piece, here.batcher.encode)
        here.faults = 0
        return outcome
    except Stopped:
        _let_go(here, piece)
        return None
    except (StoreError, OSError):
        _let_go(here, piece)
        raise
    except Exception as error:  # a fault of ours or of a library
        log.exception("%s: failed (attempt %d)", piece.id, piece.attempts)
        here.fault()
        return give_up(here.store, piece, str(error)) if piece.attempts >= ATTEMPTS else None


def _let_go(here: Process, piece: Piece) -> None:
    try:
        here.store.give_back(piece.id, here.leases.holder)
    except (StoreError, OSError) as error:
        log.warning("%s: could not be given back (%s); it will be when its time is up", piece.id, error)
