"""What a process that works on the queue holds, and a piece of work done with it: its step, and what its failure costs.

Shared by the workers of Celery and the queue without a broker.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack

from .batcher import Stopped
from .errors import StoreError
from .leases import Leases
from .records import Piece
from .render import Renderer
from .settings import QueueSettings
from .steps import ATTEMPTS, Encode, Outcome, encode_pages, give_up, open_document, render_pages, wanted_legs
from .store import Store
from .store.opening import open_store
from .store.remote import Downloads

FAULTS = 3  # pieces that may fail in a row before a process that encodes ends

log = logging.getLogger("visrag")


class Worker:
    """The store, the rendering process and the leases of one process. ``stopping``: whether it shall end.

    ``encode`` is to be set before a piece of "text" or "encode" is done. Raises UsageError, MissingExtra, StoreError.
    """

    encode: Encode

    def __init__(self, settings: QueueSettings, stopping: Callable[[], bool]) -> None:
        self._settings, self._stopping = settings, stopping
        self._kept = ExitStack()
        self.store: Store = open_store(settings.index, create=True)
        self._kept.callback(self.store.close)
        self.renderer = self._kept.enter_context(Renderer())
        self.downloads = self._kept.enter_context(Downloads())
        self.leases = Leases(self.store, settings.lease, settings.piece_limit)
        self._kept.callback(self.leases.close)
        self._faults = 0

    def close(self) -> None:
        self._kept.close()

    def do(self, piece: Piece) -> Outcome | None:
        """Do a piece that is held: what came of it, None where nothing was done.

        What does not lie in the piece, StoreError and OSError, is raised, and the piece given back. The rest costs it
        an attempt, and it comes again when its lease has run out.
        """
        try:
            return self._step(piece)
        except Stopped:
            self._let_go(piece)
            return None
        except (StoreError, OSError):
            self._let_go(piece)
            raise
        except Exception as error:  # a fault of ours or of a library
            log.exception("%s: failed (attempt %d)", piece.id, piece.attempts)
            self._fault(piece)
            return give_up(self.store, piece, str(error)) if piece.attempts >= ATTEMPTS else None

    def _step(self, piece: Piece) -> Outcome | None:
        own = self._settings.own
        if piece.queue == "ingest":
            if wanted_legs(self.store, self._settings.models) is None:  # who has these models is yet to come
                self._let_go(piece)
                return None
            return open_document(self.store, piece, self.renderer, own, self.downloads)
        if piece.queue == "render":
            return render_pages(self.store, piece, self.renderer, own, self._stopping)
        outcome = encode_pages(self.store, piece, self.encode)
        self._faults = 0
        return outcome

    def _let_go(self, piece: Piece) -> None:
        try:
            self.store.give_back(piece.id, self.leases.holder)
        except (StoreError, OSError) as error:
            log.warning("%s: could not be given back (%s); it will be when its time is up", piece.id, error)

    def _fault(self, piece: Piece) -> None:
        """A step failed for no reason of its piece's. Where encoding does so again and again, the device may be broken
        for this process: it ends, to be started anew."""
        if piece.queue not in ("text", "encode"):
            return
        self._faults += 1
        if self._faults >= FAULTS:
            log.critical("%d pieces failed one after the other, this process ends", self._faults)
            os._exit(70)
