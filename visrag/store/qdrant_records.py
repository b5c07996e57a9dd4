"""The sidecar of an index on Qdrant: the collection NAME.meta, whose points are records without vectors.

    state       what changes with every commit and removal; the format; where files lie
    settings    the index's settings
    document    a document that can be seen: which generation of it, and which are to be cleaned away
    staged      a generation that is being written, by a process or by the queue
    failure, image      of a page of a generation
    piece       of the work on a generation in the queue (``qdrant_work``)
    feedback    what a reviewer says of a page, of no generation (``qdrant_feedback``)

There are no transactions. A document's record is written in one stroke and is the truth: its generation is what is
seen. ``swap`` replaces a record only if nobody did so since it was read, so that of two commits the second knows of
the first. A record is "pending" until what it replaced is cleaned away: whoever finds it so may do that.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from qdrant_client import models

from ..errors import IndexMismatch, StoreError
from ..records import Document, Failure
from .qdrant_connection import Connection
from .qdrant_forms import (
    PENDING,
    SETTLED,
    Record,
    Staged,
    payload_of_document,
    payload_of_record,
    payload_of_staged,
    read_record,
    read_staged,
)
from .qdrant_points import has_id, is_any, is_value, point_id

FORMAT = 1
EPOCH = 1_735_689_600_000  # 2025, in milliseconds since 1970

_INDEXES = {
    "kind": models.PayloadSchemaType.KEYWORD,
    "generation": models.PayloadSchemaType.INTEGER,
    "name": models.PayloadSchemaType.KEYWORD,
    "content": models.PayloadSchemaType.KEYWORD,
    "stamp": models.PayloadSchemaType.KEYWORD,
    "queue": models.PayloadSchemaType.KEYWORD,
    "state": models.PayloadSchemaType.KEYWORD,
    "turn": models.PayloadSchemaType.FLOAT,
    "until": models.PayloadSchemaType.FLOAT,
}


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What belongs to some generations: the names of page images, the ids of pieces."""

    images: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)


def new_generation() -> int:
    """Milliseconds and a random part: later ones are greater, on clocks that agree, and two never are the same."""
    return (time.time_ns() // 1_000_000 - EPOCH) << 22 | secrets.randbits(22)


class Records:
    """The records of one index."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.collection = connection.address.collection + ".meta"

    # The collection

    def exist(self) -> bool:
        return bool(self._connection.call("collection_exists", collection_name=self.collection))

    def make(self) -> None:
        """Make the collection, which is there once it has its state."""
        self._connection.make(
            self.collection,
            1,
            _INDEXES,
            # Every point may lack its vectors; not every server takes a collection that has none.
            vectors_config={"none": models.VectorParams(size=1, distance=models.Distance.DOT, on_disk=True)},
        )
        state = {"kind": "state", "format": FORMAT, "version": secrets.token_hex(8), "files": ""}
        self.insert([(point_id("state"), state)])

    def state(self) -> dict[str, Any]:
        """Raises IndexMismatch where it was made by a newer version."""
        found = self.get(point_id("state"))
        if found is None:
            raise StoreError(
                f"{self._connection.address.url} is not an index: its collection was made by something else"
            )
        if found["format"] > FORMAT:
            raise IndexMismatch(
                f"{self._connection.address.url} was made by a newer version of visrag (format {found['format']}, this "
                f"one reads {FORMAT}): upgrade visrag, or make another index"
            )
        return found

    def changed(self) -> None:
        """Tell readers, after a record has changed and before points go."""
        self.put_fields({"version": secrets.token_hex(8)}, has_id([point_id("state")]))

    def settings(self) -> dict[str, Any]:
        found = self.get(point_id("settings"))
        settings: dict[str, Any] = {} if found is None else json.loads(found["settings"])
        return settings

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        text = json.dumps(settings, ensure_ascii=False)
        self.put([(point_id("settings"), {"kind": "settings", "settings": text})])

    def version(self) -> str:
        """What changes with every commit and removal, after the record and before any point does. So whoever asks for
        it, then for records and hidden generations, then for points, and finds it the same, has seen one state."""
        return str(self.state()["version"])

    def hidden(self) -> set[int]:
        """The generations that are not to be seen: all that are staged, and those that were replaced or removed."""
        pending = models.Filter(must=[is_value("kind", "document"), is_value("state", PENDING)])
        where = models.Filter(should=[is_value("kind", "staged"), pending])
        hidden: set[int] = set()
        shown: set[int] = set()
        for payload in self.scroll(where, ["kind", "generation", "old"]):
            if payload["kind"] == "staged":
                hidden.add(payload["generation"])
            else:
                hidden.update(payload["old"])
                shown.add(payload["generation"])
        return hidden - shown

    # Documents

    def document(self, name: str) -> Record | None:
        return self.named([name]).get(name)

    def named(self, names: Iterable[str]) -> dict[str, Record]:
        """The records of these documents, removed ones included."""
        ids = [point_id("document", name) for name in dict.fromkeys(names)]
        return {record.document.name: record for record in map(read_record, self.get_all(ids))}

    def documents(self) -> list[Record]:
        where = models.Filter(must=[is_value("kind", "document")])
        return [record for record in map(read_record, self.scroll(where)) if not record.removed]

    def pending(self) -> list[Record]:
        where = models.Filter(must=[is_value("kind", "document"), is_value("state", PENDING)])
        return list(map(read_record, self.scroll(where)))

    def swap(self, before: Record | None, after: Record) -> Record | None:
        """Put a record in the place of the one that was read: as it was written, None where another came between."""
        after = replace(after, stamp=secrets.token_hex(8))
        key = point_id("document", after.document.name)
        if before is None:
            self.insert([(key, payload_of_record(after))])
        else:
            self._connection.call(
                "overwrite_payload",
                collection_name=self.collection,
                payload=payload_of_record(after),
                points=models.Filter(must=[has_id([key]), is_value("stamp", before.stamp)]),
                ordering=models.WriteOrdering.STRONG,
            )
        found = self.get(key)
        return after if found is not None and found["stamp"] == after.stamp else None

    def settle(self, record: Record) -> None:
        """Its old generations are cleaned away."""
        where: list[models.Condition] = [
            has_id([point_id("document", record.document.name)]),
            is_value("stamp", record.stamp),
        ]
        if record.removed:
            self.delete(*where)
        else:
            self.put_fields({"state": SETTLED, "old": []}, *where)

    # Generations

    def stage(self, staged: Sequence[Staged]) -> None:
        self.put([(point_id("staged", each.generation), payload_of_staged(each)) for each in staged])

    def staged(self, generation: int) -> Staged | None:
        found = self.get(point_id("staged", generation))
        return None if found is None else read_staged(found)

    def all_staged(self, *where: models.Condition) -> list[Staged]:
        """By generation: the oldest first."""
        found = self.scroll(models.Filter(must=[is_value("kind", "staged"), *where]))
        return sorted(map(read_staged, found), key=lambda staged: staged.generation)

    def staged_with(self, content: str) -> list[Staged]:
        return self.all_staged(is_value("content", content))

    def change_staged(self, generation: int, fields: Mapping[str, Any]) -> None:
        self.put_fields(fields, has_id([point_id("staged", generation)]))

    def describe(self, generation: int, document: Document) -> None:
        self.change_staged(generation, {"document": payload_of_document(document), "content": document.content})

    def unstage(self, generation: int) -> None:
        self.delete(has_id([point_id("staged", generation)]))

    # Failures and images

    def fail(self, generation: int, failures: Iterable[Failure]) -> None:
        self.put(
            [
                (
                    point_id("failure", generation, failure.page or 0),
                    {"kind": "failure", "generation": generation, **asdict(failure), "reason": str(failure.reason)},
                )
                for failure in failures
            ]
        )

    def unfail(self, generation: int, pages: Iterable[int]) -> None:
        ids = [point_id("failure", generation, page) for page in pages]
        if ids:
            self.delete(has_id(ids))

    def failures(self, generations: Iterable[int] | None = None) -> list[tuple[int, Failure]]:
        """Failures with their generations: of these, or of all."""
        more = [] if generations is None else [is_any("generation", generations)]
        fields = ["document", "page", "reason", "message"]
        found = self.scroll(models.Filter(must=[is_value("kind", "failure"), *more]))
        return [(payload["generation"], Failure(*(payload[name] for name in fields))) for payload in found]

    def put_image(self, generation: int, page: int, file: str) -> None:
        payload = {"kind": "image", "generation": generation, "page": page, "file": file}
        self.put([(point_id("image", generation, page), payload)])

    def image(self, generation: int, page: int) -> str | None:
        found = self.get(point_id("image", generation, page))
        return None if found is None else str(found["file"])

    def generations(self, *kinds: str) -> set[int]:
        """Those that records of these kinds are of."""
        where = models.Filter(must=[is_any("kind", kinds)])
        return set(self._connection.counts(self.collection, "generation", where))

    def clean(self, generations: Sequence[int]) -> Leftovers:
        """Delete the failures, images and pieces of generations: what else was theirs."""
        mine: list[models.Condition] = [
            is_any("kind", ["failure", "image", "piece"]),
            is_any("generation", generations),
        ]
        found = Leftovers()
        for payload in self.scroll(models.Filter(must=mine), ["kind", "file", "id"]):
            if payload["kind"] == "image":
                found.images.append(payload["file"])
            elif payload["kind"] == "piece":
                found.pieces.append(payload["id"])
        self.delete(*mine)
        return found

    # Points without vectors

    def get(self, key: str) -> dict[str, Any] | None:
        found = self.get_all([key])
        return found[0] if found else None

    def get_all(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        if not keys:
            return []
        found = self._connection.call(
            "retrieve", collection_name=self.collection, ids=list(keys), with_payload=True, with_vectors=False
        )
        return [point.payload for point in found]

    def scroll(self, where: models.Filter, payload: bool | list[str] = True) -> Iterator[dict[str, Any]]:
        for point in self._connection.scroll(self.collection, where, payload):
            yield point.payload or {}

    def count(self, *where: models.Condition) -> int:
        return self._connection.count(self.collection, models.Filter(must=list(where)))

    def put(self, payloads: Sequence[tuple[str, dict[str, Any]]], update_filter: models.Filter | None = None) -> None:
        """Write records, by id. ``update_filter``: those that are there and not let through stay as they are."""
        points = [models.PointStruct(id=key, vector={}, payload=payload) for key, payload in payloads]
        for start in range(0, len(points), 500):
            self._connection.call(
                "upsert",
                collection_name=self.collection,
                points=points[start : start + 500],
                update_filter=update_filter,
                ordering=models.WriteOrdering.STRONG,
            )

    def insert(self, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Write records; those that are there stay as they are."""
        self.put(payloads, models.Filter(must=[is_value("kind", "none")]))

    def put_fields(self, fields: Mapping[str, Any], *where: models.Condition) -> None:
        """Change some fields of the records that all of the conditions hold for, at this moment."""
        self._connection.call(
            "set_payload",
            collection_name=self.collection,
            payload=dict(fields),
            points=models.Filter(must=list(where)),
            ordering=models.WriteOrdering.STRONG,
        )

    def delete(self, *where: models.Condition) -> None:
        selector = models.FilterSelector(filter=models.Filter(must=list(where)))
        self._connection.call(
            "delete",
            collection_name=self.collection,
            points_selector=selector,
            ordering=models.WriteOrdering.STRONG,
        )
