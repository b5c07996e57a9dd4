"""What one process of a worker holds: the store, the rendering process, the models, and the leases of its pieces."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from visrag.batcher import Batcher
from visrag.dispatch import Dispatch
from visrag.models import Models
from visrag.queue import send_piece
from visrag.records import Piece
from visrag.render import Renderer
from visrag.settings import QueueSettings
from visrag.store import Store
from visrag.store.opening import open_store
from visrag.store.remote import Downloads

from . import metrics
from .app import app, settings

FAULTS = 3  # pieces that may fail in a row before an encoder's process ends

log = logging.getLogger("visrag")


class Process:
    """Opened on the first piece, so that what is forked from it shares nothing. ``load`` is for threads only."""

    def __init__(self, settings: QueueSettings) -> None:
        self._kept = ExitStack()
        self.store: Store = open_store(settings.index, create=True)
        self._kept.callback(self.store.close)
        self.renderer = self._kept.enter_context(Renderer())
        self.downloads = self._kept.enter_context(Downloads())
        self.leases = Leases(self.store, settings.lease, settings.piece_limit)
        self._kept.callback(self.leases.close)
        self.dispatch = Dispatch(
            self.store, lambda piece: send_piece(app, piece), settings.models, settings.waiting_pages
        )
        self._batcher: Batcher | None = None
        self.faults = 0

    def load(self, vision: bool) -> None:
        """Load the models. Raises IndexMismatch, EncoderError."""
        models = Models(settings.text or None, settings.vision or None, settings.device or None)
        self._batcher = Batcher(models.for_ingest(self.store, vision), metrics.observe_batch)

    def fault(self) -> None:
        """A step failed for no reason of its piece's. Of an encoder that does so again and again, the device may be
        broken for this process: it ends, to be started anew."""
        self.faults += 1
        if self._batcher is not None and self.faults >= FAULTS:
            log.critical("%d pieces failed one after the other, this process ends", self.faults)
            os._exit(70)

    @property
    def batcher(self) -> Batcher:
        assert self._batcher is not None, "load() comes first"
        return self._batcher

    def stop(self) -> None:
        """Give back what is not begun."""
        if self._batcher is not None:
            self._batcher.stop()

    def close(self) -> None:
        self._kept.close()


class Leases:
    """The pieces that this process holds. A thread renews them; one that is held for too long ends the process.

    Celery's time limits act only on prefork processes, and this on threads, too; docker or systemd starts it anew.
    """

    def __init__(self, store: Store, seconds: float, limit: float) -> None:
        self._store, self._seconds, self._limit = store, seconds, limit
        self.holder = f"{socket.gethostname()}:{os.getpid()}:{os.urandom(4).hex()}"
        self._held: dict[str, float] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._renew, name="leases", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    @contextmanager
    def hold(self, name: str) -> Iterator[Piece | None]:
        """The piece while it is ours; None where it is done or another's."""
        piece = self._store.claim(name, self.holder, self._seconds)
        if piece is not None:
            self._held[name] = time.monotonic()
        try:
            yield piece
        finally:
            self._held.pop(name, None)

    def _renew(self) -> None:
        while not self._closed.wait(self._seconds / 3):
            held = dict(self._held)
            late = [name for name, since in held.items() if time.monotonic() - since > self._limit]
            if late:
                log.critical("%s: took over %.0f s, this process ends", ", ".join(late), self._limit)
                os._exit(70)
            if not held:
                continue
            try:
                self._store.renew(list(held), self.holder, self._seconds)
            except Exception as error:  # of the store: the next time, perhaps
                log.warning("leases could not be renewed (%s)", error)


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
