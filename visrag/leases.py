"""The pieces of work that a process holds: renewed while it works, and no longer than it may."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .records import Piece
from .store import Store

log = logging.getLogger("visrag")


class Leases:
    """The pieces that this process holds. A thread renews them; one that is held for too long ends the process.

    ``seconds``: for which a piece is held at a time; ``limit``: in all. Celery's time limits act only on prefork
    processes, and this on threads, too; whoever looks after the process starts it anew.
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
        if piece is None:
            yield None
            return
        since = self._held[name] = time.monotonic()
        try:
            yield piece
        finally:
            if self._held.get(name) == since:  # and not another thread's, since ours ran out
                del self._held[name]

    def give_back(self) -> None:
        """Let go of all pieces that are held, before this process ends in the middle of them. Raises StoreError."""
        for name in dict(self._held):
            self._store.give_back(name, self.holder)

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
