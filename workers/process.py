"""What one process of a Celery worker holds: that of ``visrag.working``, the models, and how pieces are handed out."""

from __future__ import annotations

import atexit
import gc
import os
import threading

from visrag.batcher import Batcher
from visrag.dispatch import Dispatch
from visrag.models import Models
from visrag.queue import send_piece
from visrag.settings import QueueSettings
from visrag.working import Worker

from . import metrics
from .app import STOPPING, app, settings


class Process(Worker):
    """Opened on the first piece, so that what is forked from it shares nothing. ``load`` is for threads only."""

    def __init__(self, settings: QueueSettings) -> None:
        super().__init__(settings, lambda: STOPPING[0] == 1)
        self.dispatch = Dispatch(
            self.store, lambda piece: send_piece(app, piece), settings.models, settings.waiting_pages
        )
        self._batcher: Batcher | None = None

    def load(self, vision: bool) -> None:
        """Load the models. Raises IndexMismatch, EncoderError."""
        atexit.register(gc.freeze)  # as the command line does
        self._batcher = Batcher(Models(settings.wanted).for_ingest(self.store, vision), metrics.observe_batch)
        self.encode = self._batcher.encode

    def stop(self) -> None:
        """Give back what is not begun."""
        if self._batcher is not None:
            self._batcher.stop()


_lock = threading.Lock()
_current: tuple[int, Process] | None = None


def current() -> Process:
    """This process's; made where there is none, or only that of the process which it was forked from."""
    global _current  # noqa: PLW0603
    with _lock:
        if _current is None or _current[0] != os.getpid():
            _current = os.getpid(), Process(settings)
        return _current[1]


def stop() -> None:
    """This process shall end, and has pieces perhaps."""
    if _current is not None and _current[0] == os.getpid():
        _current[1].stop()


def close() -> None:
    global _current  # noqa: PLW0603
    with _lock:
        if _current is not None and _current[0] == os.getpid():
            _current[1].close()
            _current = None
