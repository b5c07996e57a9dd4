"""The queue of an index on Qdrant: its pieces are records of the sidecar, changed under conditions.

Whoever changes a piece leaves a token on it, under the condition that it is as it was read, and then looks whose token
it is. Where that should fail (a cluster in trouble), a piece is held twice, which does no harm: what is done twice
changes nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from qdrant_client import models

from ..errors import StoreError
from ..records import Document, EncodedPage, Failure, Job, Load, Order, Piece, QueueName
from .qdrant_connection import Connection
from .qdrant_forms import QUEUE, Staged
from .qdrant_points import has_id, is_any, is_value, point_id
from .qdrant_records import Records, new_generation
from .remote import Folder

WAITING, SENT, HELD = "waiting", "sent", "held"
TIES = 200  # pieces of the same turn that are handed out in the order in which they came


class QdrantWork:
    """The part of QdrantStore that is the queue. As the protocol says, unless a method says more."""

    _connection: Connection
    _records: Records
    _files: Folder

    abandon: Callable[[int], None]
    _write_pages: Callable[[Staged, Sequence[EncodedPage]], None]
    _fail: Callable[[int, Sequence[Failure]], None]
    _drop_late: Callable[[Staged], bool]
    _counted: Callable[[Sequence[Staged]], list[Document]]

    def enqueue(self, orders: Sequence[Order]) -> list[int]:
        names = {order.name for order in orders}
        before = [staged for staged in self._queued() if staged.document.name in names]
        now = time.time()
        first = new_generation()
        staged = [
            Staged(first + i, Document(order.name, "", "", "", path=order.uri), QUEUE, order=order, queued=now)
            for i, order in enumerate(orders)
        ]
        self._records.stage(staged)
        self._insert([Piece(each.generation, "ingest") for each in staged])
        latest = {each.document.name: each.generation for each in staged}
        for each in (*before, *staged):
            if latest[each.document.name] != each.generation:
                self.abandon(each.generation)
        return [each.generation for each in staged]

    def job(self, generation: int) -> Job | None:
        staged = self._records.staged(generation)
        return None if staged is None or staged.order is None else self._jobs([staged])[0]

    def jobs(self) -> list[Job]:
        return sorted(self._jobs(self._queued()), key=lambda job: (job.queued, job.generation))

    def describe(self, generation: int, document: Document) -> None:
        self._records.describe(generation, document)
        staged = self._records.staged(generation)
        if staged is None or staged.order is None:
            raise StoreError(f"{document.name}: it was taken out of the queue")

    def load(self) -> dict[QueueName, Load]:
        found: dict[QueueName, Load] = {}
        for payload in self._pieces(payload=["queue", "state", "pages"]):
            load = found.get(payload["queue"], Load())
            one = {payload["state"]: getattr(load, payload["state"]) + 1}
            found[payload["queue"]] = replace(load, pages=load.pages + len(payload["pages"]), **one)
        return found

    def take(self, queue: QueueName, sent: int) -> list[Piece]:
        room = sent - self._records.count(*_of(queue), is_value("state", SENT))
        if room < 1:
            return []
        found = self._first(room + TIES, *_of(queue), is_value("state", WAITING))
        chosen = sorted(found, key=lambda payload: (payload["turn"], payload["serial"]))[:room]
        won = self._change(chosen, {"state": SENT, "sent": time.time()})
        return [_piece(payload) for payload in won]

    def claim(self, piece: str, holder: str, seconds: float) -> Piece | None:
        found = self._records.get(_key(piece))
        now = time.time()
        if found is None or (found["state"] == HELD and found["until"] >= now):
            return None
        held = {"state": HELD, "holder": holder, "until": now + seconds, "attempts": found["attempts"] + 1}
        won = self._change([found], held)
        return _piece(won[0]) if won else None

    def renew(self, pieces: Sequence[str], holder: str, seconds: float) -> None:
        if pieces:
            mine: list[models.Condition] = [
                has_id(map(_key, pieces)),
                is_value("holder", holder),
                is_value("state", HELD),
            ]
            self._records.put_fields({"until": time.time() + seconds}, *mine)

    def give_back(self, piece: str, holder: str) -> None:
        found = self._records.get(_key(piece))
        if found is not None and found["state"] == HELD and found["holder"] == holder:
            self._change([found], {**_FREE, "attempts": found["attempts"] - 1})

    def expire(self) -> list[Piece]:
        late = models.FieldCondition(key="until", range=models.Range(lt=time.time()))
        found = list(self._pieces(is_value("state", HELD), late))
        return [_piece(payload) for payload in self._change(found, _FREE, late)]

    def recall(self, queue: QueueName, before: float) -> int:
        early = models.FieldCondition(key="sent", range=models.Range(lt=before))
        found = list(self._pieces(is_value("queue", queue), is_value("state", SENT), early))
        return len(self._change(found, _FREE))

    def finish(
        self,
        piece: Piece,
        pages: Sequence[EncodedPage] = (),
        failures: Sequence[Failure] = (),
        follow: Sequence[Piece] = (),
    ) -> int | None:
        """As the protocol says, but not at one stroke: pages, failures, the pieces that follow, then the piece goes.
        Until then it can be done again, and writes the same."""
        staged = self._records.staged(piece.generation)
        known = self._records.get(_key(piece.id))
        if staged is None or known is None or known["attempts"] != piece.attempts:
            return None
        self._write_pages(staged, pages)
        self._fail(piece.generation, failures)
        self._insert(follow, instead=piece)
        if self._drop_late(staged):
            return None
        if piece.queue in ("text", "encode"):
            self._files.delete([parcel_name(piece.id)])
        return self._records.count(is_value("kind", "piece"), is_value("generation", piece.generation))

    def unfinished(self) -> list[int]:
        queued = [staged.generation for staged in self._queued()]
        busy = self._records.generations("piece")
        return [generation for generation in queued if generation not in busy]

    def put_parcel(self, piece: Piece, data: bytes) -> None:
        self._files.put(parcel_name(piece.id), data)

    def parcel(self, piece: Piece) -> bytes:
        return self._files.get(parcel_name(piece.id))

    # Inside

    def _queued(self) -> list[Staged]:
        return [staged for staged in self._records.all_staged(is_value("writer", QUEUE)) if staged.order is not None]

    def _jobs(self, staged: Sequence[Staged]) -> list[Job]:
        counted = self._counted(staged)
        return [
            Job(each.generation, each.order, document, each.queued)
            for each, document in zip(staged, counted, strict=True)
            if each.order is not None
        ]

    def _pieces(self, *where: models.Condition, payload: bool | list[str] = True) -> Iterable[dict[str, Any]]:
        return self._records.scroll(models.Filter(must=[is_value("kind", "piece"), *where]), payload)

    def _first(self, n: int, *where: models.Condition) -> list[dict[str, Any]]:
        """The n pieces whose turns come first."""
        points, _ = self._connection.call(
            "scroll",
            collection_name=self._records.collection,
            scroll_filter=models.Filter(must=list(where)),
            order_by=models.OrderBy(key="turn"),
            limit=n,
            with_payload=True,
        )
        return [point.payload for point in points]

    def _insert(self, pieces: Sequence[Piece], instead: Piece | None = None) -> None:
        """Add pieces to do, and take the one away that they follow from. Their turns are counted from the first one
        that is to be done in their step. Those that are there already stay as they are: the same was done before."""
        starts: dict[str, float] = {}
        for queue in {piece.queue for piece in pieces}:
            first = self._first(1, *_of(queue))
            starts[queue] = first[0]["turn"] if first else 0.0
        serial = time.time_ns()
        payloads = [
            (_key(piece.id), _payload(piece, starts[piece.queue], serial + i)) for i, piece in enumerate(pieces)
        ]
        again = [each for each in payloads if instead is not None and each[1]["id"] == instead.id]
        if new := [each for each in payloads if each not in again]:
            self._records.insert(new)
        if again:
            self._records.put(again)
        elif instead is not None:
            self._records.delete(has_id([_key(instead.id)]))

    def _change(
        self, found: Sequence[dict[str, Any]], fields: dict[str, Any], *where: models.Condition
    ) -> list[dict[str, Any]]:
        """Change pieces that are still as they were found: those that were, as they are now."""
        if not found:
            return []
        token = secrets.token_hex(8)
        ids = [_key(payload["id"]) for payload in found]
        unchanged = is_any("stamp", {payload["stamp"] for payload in found})
        self._records.put_fields({**fields, "stamp": token}, has_id(ids), unchanged, *where)
        now = {payload["id"]: payload for payload in self._records.get_all(ids) if payload["stamp"] == token}
        return [now[payload["id"]] for payload in found if payload["id"] in now]


_FREE: dict[str, Any] = {"state": WAITING, "holder": "", "until": 0.0, "sent": 0.0}


def parcel_name(piece: str) -> str:
    """The name of a piece's parcel in the index's files."""
    return f"parcels/{piece.partition('.')[0]}/{piece}"


def _key(piece: str) -> str:
    return point_id("piece", piece)


def _of(queue: QueueName) -> list[models.Condition]:
    return [is_value("kind", "piece"), is_value("queue", queue)]


def _payload(piece: Piece, start: float, serial: int) -> dict[str, Any]:
    return {
        "kind": "piece",
        "id": piece.id,
        "generation": piece.generation,
        "queue": piece.queue,
        "pages": list(piece.pages),
        "turn": start + piece.turn,
        "serial": serial,
        "attempts": piece.attempts,
        "stamp": secrets.token_hex(8),
        **_FREE,
    }


def _piece(payload: dict[str, Any]) -> Piece:
    return Piece(payload["generation"], payload["queue"], tuple(payload["pages"]), payload["turn"], payload["attempts"])
