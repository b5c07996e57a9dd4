"""The queue of a local index: documents on their way, the pieces of their work, and what one step hands to the next.

waiting/GENERATION/PIECE    the parcels of a document in the queue
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from sqlite3 import Connection

from ..errors import NotFound, StoreError
from ..records import Document, Job, Load, Order, Piece, QueueName
from .database import Database, mapped
from .documents import write_document, write_tags
from .files import Files

WRITER = ""  # of the generations in the queue, which belong to no process

_JOB = (
    "SELECT g.id, g.name, j.uri, j.options, j.tags, g.content, g.settings, g.media_type, g.pages, "
    "(SELECT count(*) FROM pages p WHERE p.generation = g.id), "
    "(SELECT count(page) FROM failures f WHERE f.generation = g.id), "
    "g.path, g.renderer, j.queued FROM jobs j JOIN generations g ON g.id = j.generation "
)


class LocalWork:
    """The part of LocalStore that is the queue. As the protocol says, unless a method says more."""

    folder: Path
    _database: Database
    _files: Files

    def enqueue(self, orders: Sequence[Order]) -> list[int]:
        contents: list[str] = []
        images: list[str] = []
        with self._database.write() as connection:
            generations = []
            for order in orders:
                _abandon(connection, order.name, contents, images)
                generation = write_document(connection, Document(order.name, "", "", "", path=order.uri), WRITER)
                tags = None if order.tags is None else json.dumps(order.tags)
                row = (generation, order.uri, json.dumps(order.options), tags, time.time())
                connection.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, ?)", row)
                insert_pieces(connection, [Piece(generation, "ingest")])
                generations.append(generation)
        self._files.delete_unused(contents, images)
        return generations

    def job(self, generation: int) -> Job | None:
        with self._database.read() as connection:
            row = connection.execute(_JOB + "WHERE g.id = ?", (generation,)).fetchone()
            return None if row is None else _job(connection, row)

    def jobs(self) -> list[Job]:
        with self._database.read() as connection:
            rows = connection.execute(_JOB + "ORDER BY j.queued, g.id").fetchall()
            return [_job(connection, row) for row in rows]

    def describe(self, generation: int, document: Document) -> None:
        row = (
            document.content, document.settings, document.media_type, document.pages, os.fsencode(document.path),
            document.renderer, generation,
        )  # fmt: skip
        with self._database.write(durable=False) as connection:
            before = connection.execute("SELECT content FROM generations WHERE id = ?", (generation,)).fetchone()
            done = connection.execute(
                "UPDATE generations SET content = ?, settings = ?, media_type = ?, pages = ?, path = ?, renderer = ? "
                "WHERE id = ? AND id IN (SELECT generation FROM jobs)",
                row,
            )
            if not done.rowcount:
                raise StoreError(f"{document.name}: it was taken out of the queue")
            connection.execute("DELETE FROM tags WHERE generation = ?", (generation,))
            write_tags(connection, generation, document.tags)
        if before is not None and before[0] != document.content:
            self._files.delete_unused(before, [])

    def load(self) -> dict[QueueName, Load]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT queue, total(holder IS NULL AND sent IS NULL), total(holder IS NULL AND sent IS NOT NULL), "
                "total(holder IS NOT NULL), total(count) FROM pieces GROUP BY queue"
            ).fetchall()
        return {queue: Load(*map(int, counts)) for queue, *counts in rows}

    def take(self, queue: QueueName, sent: int) -> list[Piece]:
        with self._database.write(durable=False) as connection:
            out = connection.execute(
                "SELECT count(*) FROM pieces WHERE queue = ? AND holder IS NULL AND sent IS NOT NULL", (queue,)
            ).fetchone()[0]
            rows = connection.execute(
                f"SELECT {_PIECE} FROM pieces WHERE queue = ? AND holder IS NULL AND sent IS NULL "
                "ORDER BY turn, rowid LIMIT ?",
                (queue, max(0, sent - out)),
            ).fetchall()
            found = [_piece(row) for row in rows]
            now = time.time()
            connection.executemany("UPDATE pieces SET sent = ? WHERE id = ?", [(now, piece.id) for piece in found])
        return found

    def claim(self, piece: str, holder: str, seconds: float) -> Piece | None:
        now = time.time()
        with self._database.write(durable=False) as connection:
            row = connection.execute(
                "UPDATE pieces SET holder = ?, until = ?, sent = ifnull(sent, ?), attempts = attempts + 1 "
                f"WHERE id = ? AND (holder IS NULL OR until < ?) RETURNING {_PIECE}",
                (holder, now + seconds, now, piece, now),
            ).fetchone()
        return None if row is None else _piece(row)

    def renew(self, pieces: Sequence[str], holder: str, seconds: float) -> None:
        until = time.time() + seconds
        with self._database.write(durable=False) as connection:
            connection.executemany(
                "UPDATE pieces SET until = ? WHERE id = ? AND holder = ?", [(until, piece, holder) for piece in pieces]
            )

    def give_back(self, piece: str, holder: str) -> None:
        with self._database.write(durable=False) as connection:
            connection.execute(
                "UPDATE pieces SET holder = NULL, until = NULL, sent = NULL, attempts = attempts - 1 "
                "WHERE id = ? AND holder = ?",
                (piece, holder),
            )

    def expire(self) -> list[Piece]:
        now = time.time()
        with self._database.read() as connection:
            if connection.execute("SELECT 1 FROM pieces WHERE until < ? LIMIT 1", (now,)).fetchone() is None:
                return []
        with self._database.write(durable=False) as connection:
            rows = connection.execute(
                f"UPDATE pieces SET holder = NULL, until = NULL, sent = NULL WHERE until < ? RETURNING {_PIECE}", (now,)
            ).fetchall()
        return [_piece(row) for row in rows]

    def recall(self, queue: QueueName, before: float) -> int:
        with self._database.write(durable=False) as connection:
            return connection.execute(
                "UPDATE pieces SET sent = NULL WHERE queue = ? AND holder IS NULL AND sent < ?", (queue, before)
            ).rowcount

    def unfinished(self) -> list[int]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT generation FROM jobs WHERE generation NOT IN (SELECT generation FROM pieces)"
            )
            return [generation for (generation,) in rows]

    def put_parcel(self, piece: Piece, data: bytes) -> None:
        path = self._parcel(piece)
        with mapped(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
            part.write_bytes(data)
            part.replace(path)

    def parcel(self, piece: Piece) -> bytes:
        path = self._parcel(piece)
        try:
            with mapped(path.parent):
                return path.read_bytes()
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise NotFound(f"the index keeps no parcel {piece.id}") from error
            raise

    def tidy(self) -> int:
        """As the protocol says: parcels of documents that are not in the queue."""
        waiting = self.folder / "waiting"
        if not waiting.is_dir():
            return 0
        found = [path for path in waiting.iterdir() if path.name.isdigit()]
        if not found:
            return 0
        with self._database.read() as connection:
            known = {str(generation) for (generation,) in connection.execute("SELECT generation FROM jobs")}
        late = [path for path in found if path.name not in known]
        for path in late:
            shutil.rmtree(path, ignore_errors=True)
        return len(late)

    def _parcel(self, piece: Piece) -> Path:
        return self.folder / "waiting" / str(piece.generation) / piece.id

    def _drop_parcel(self, piece: Piece) -> None:
        with suppress(OSError):
            self._parcel(piece).unlink(missing_ok=True)


_PIECE = "generation, queue, pages, turn, attempts"


def insert_pieces(connection: Connection, pieces: Sequence[Piece]) -> None:
    """Add pieces to do; their turns are counted from the first one that is to be done in their step."""
    first = {
        queue: connection.execute("SELECT ifnull(min(turn), 0) FROM pieces WHERE queue = ?", (queue,)).fetchone()[0]
        for queue in {piece.queue for piece in pieces}
    }
    connection.executemany(
        "INSERT OR REPLACE INTO pieces (id, generation, queue, pages, count, turn, attempts) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                piece.id, piece.generation, piece.queue, json.dumps(piece.pages), len(piece.pages),
                first[piece.queue] + piece.turn, piece.attempts,
            )
            for piece in pieces
        ],
    )  # fmt: skip


def _abandon(connection: Connection, name: str, contents: list[str], images: list[str]) -> None:
    """Drop what is in the queue of a document. The files that it used are added to the lists."""
    which = "FROM generations WHERE name = ? AND NOT visible AND writer = ?"
    found = connection.execute(f"SELECT file FROM images WHERE generation IN (SELECT id {which})", (name, WRITER))
    images += [file for (file,) in found.fetchall()]
    dropped = connection.execute(f"DELETE {which} RETURNING content", (name, WRITER))
    contents += [content for (content,) in dropped.fetchall()]


def _piece(row: tuple[int, QueueName, str, float, int]) -> Piece:
    generation, queue, pages, turn, attempts = row
    return Piece(generation, queue, tuple(json.loads(pages)), turn, attempts)


def _job(connection: Connection, row: tuple[object, ...]) -> Job:
    generation, name, uri, options, tags, content, settings, kind, pages, indexed, failed, path, renderer, queued = row
    kept = dict(connection.execute("SELECT key, value FROM tags WHERE generation = ?", (generation,)).fetchall())
    order = Order(name, uri, json.loads(options), None if tags is None else json.loads(tags))  # type: ignore[arg-type]
    document = Document(
        name, content, settings, kind, kept, pages, indexed, failed, "ingesting", os.fsdecode(path), renderer  # type: ignore[arg-type]
    )  # fmt: skip
    return Job(generation, order, document, queued)  # type: ignore[arg-type]
