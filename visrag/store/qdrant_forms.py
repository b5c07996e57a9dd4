"""The records of documents and generations ↔ the payloads of their points."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from ..errors import StoreError
from ..records import Document, Order

QUEUE = "queue"  # the writer of generations in the queue, which belong to no process
PENDING, SETTLED = "pending", "settled"  # the states of a record


@dataclass(frozen=True, slots=True)
class Record:
    """A document that can be seen, or (``removed``) could. ``old``: generations to be cleaned away while ``pending``.
    ``original``: its file's name in the index's files, a path behind "link:", or "". ``stamp``: of this very record."""

    generation: int
    document: Document
    original: str = ""
    old: tuple[int, ...] = ()
    pending: bool = False
    removed: bool = False
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class Staged:
    """A generation that is being written. ``touched``: when its process last did, in seconds since 1970.
    ``order``, ``queued``: of one in the queue."""

    generation: int
    document: Document
    writer: str = QUEUE
    touched: float = 0.0
    original: str = ""
    order: Order | None = None
    queued: float = 0.0


def quoted(path: str) -> str:
    """A path of any bytes as plain text."""
    return quote_from_bytes(os.fsencode(path), safe="/:?&=#+ ")


def unquoted(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(text))


def check_text(*texts: str) -> None:
    """Raises StoreError for what Qdrant cannot keep as text."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise StoreError(f"{text!r}: a text that is not valid Unicode cannot be stored ({error})") from error


def payload_of_document(document: Document) -> dict[str, Any]:
    return {**asdict(document), "path": quoted(document.path)}


def _document(payload: Mapping[str, Any]) -> Document:
    return Document(**{**payload, "path": unquoted(payload["path"])})


def payload_of_record(record: Record) -> dict[str, Any]:
    return {
        "kind": "document",
        "name": record.document.name,
        "generation": record.generation,
        "document": payload_of_document(record.document),
        "original": record.original,
        "old": list(record.old),
        "state": PENDING if record.pending else SETTLED,
        "removed": record.removed,
        "stamp": record.stamp,
    }


def read_record(payload: Mapping[str, Any]) -> Record:
    return Record(
        payload["generation"],
        _document(payload["document"]),
        payload["original"],
        tuple(payload["old"]),
        payload["state"] == PENDING,
        payload["removed"],
        payload["stamp"],
    )


def payload_of_staged(staged: Staged) -> dict[str, Any]:
    return {
        "kind": "staged",
        "name": staged.document.name,
        "generation": staged.generation,
        "content": staged.document.content,
        "document": payload_of_document(staged.document),
        "writer": staged.writer,
        "touched": staged.touched,
        "original": staged.original,
        "order": None if staged.order is None else asdict(staged.order),
        "queued": staged.queued,
    }


def read_staged(payload: Mapping[str, Any]) -> Staged:
    order = payload["order"]
    return Staged(
        payload["generation"],
        _document(payload["document"]),
        payload["writer"],
        payload["touched"],
        payload["original"],
        None if order is None else Order(**order),
        payload["queued"],
    )
