"""Handing out the queue's work, and putting right what went wrong: by workers, each for all.

The store knows what there is to do; a message only says that a piece can be claimed. So a message may be lost, or
come twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from .records import Load, Piece, QueueName
from .steps import ATTEMPTS, PIECE_PAGES, Outcome, end, give_up, wanted_legs
from .store import Store

SENT = 32  # pieces of a step that may be handed out and not yet claimed
LOST = 30.0  # seconds after which a message of which the broker knows nothing counts as lost

log = logging.getLogger("visrag")


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Hands out pieces.

    ``send`` gives a piece's message to the broker; what it raises is logged, as the sweep comes back to it.
    ``models``: that the index must have before documents are opened ("text", "vision"). ``waiting_pages``: rendered
    pages that may wait for the encoders; about that many more are being rendered at most.
    """

    store: Store
    send: Callable[[Piece], None]
    models: Sequence[str] = ("text",)
    waiting_pages: int = 512

    def __call__(self) -> int:
        """Hand out what may be: how many pieces."""
        load = self.store.load()
        pieces = [
            piece
            for queue, found in load.items()
            if found.waiting and (free := room(self.store, queue, load, self.models, self.waiting_pages)) > found.sent
            for piece in self.store.take(queue, free)
        ]
        for piece in pieces:
            try:
                self.send(piece)
            except Exception as error:  # the broker's library has no one root of its errors
                log.warning("the broker took no message (%s); it will be sent again", error)
                for queue in {piece.queue for piece in pieces}:
                    self.store.recall(queue, time.time() + 1)
                break
        return len(pieces)


def room(
    store: Store, queue: QueueName, load: Mapping[QueueName, Load], models: Sequence[str], waiting_pages: int
) -> int:
    """How many pieces of a step may be handed out and not yet claimed. ``load``: the store's; ``models``,
    ``waiting_pages``: as of Dispatch."""
    if queue == "ingest":
        return SENT if wanted_legs(store, models) is not None else 0
    if queue == "render":
        waiting = sum(load[step].pages for step in ("text", "encode") if step in load)
        return max(0, min(SENT, (waiting_pages - waiting) // PIECE_PAGES - load["render"].held))
    return SENT


def sweep(store: Store, messages: Mapping[QueueName, int]) -> list[Outcome]:
    """Put right what dead workers and a broker that forgot have left: what came of it.

    ``messages``: how many wait in the broker, by step. One that was delivered counts as lost if its piece is not
    claimed within ``LOST``; coming twice does no harm. To be followed by a dispatch.
    """
    for queue, load in store.load().items():
        if messages.get(queue, 0) < load.sent and (lost := store.recall(queue, time.time() - LOST)):
            log.warning("%d messages of the step %s were lost; they are sent again", lost, queue)
    return mend(store)


def mend(store: Store) -> list[Outcome]:
    """Put right what dead workers have left, and end what has no piece left: what came of it."""
    outcomes = []
    for piece in store.expire():
        log.warning("%s: its worker has not come back (attempt %d)", piece.id, piece.attempts)
        if piece.attempts >= ATTEMPTS:
            outcomes += _surely(partial(give_up, store, piece))
    for generation in store.unfinished():
        outcomes += _surely(partial(_ended, store, generation))
    store.tidy()
    return outcomes


def _ended(store: Store, generation: int) -> Outcome:
    return Outcome(document=end(store, generation))


def _surely(act: Callable[[], Outcome]) -> list[Outcome]:
    """What came of an act, nothing where it failed: one document must not keep the others waiting."""
    try:
        return [act()]
    except Exception:
        log.exception("the sweep goes on")
        return []
