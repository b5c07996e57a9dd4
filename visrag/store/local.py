"""An index in a folder: SQLite for documents, pages and full text; segments for vectors; files beside them.

index.db     settings, documents, pages, words, places, full text (FTS5), failures, feedback
vectors/     segments: int8 codes, and bits of them, append-only, memory-mapped
originals/   the documents' files by the hash of their content
images/      page images by the hash of theirs
waiting/     parcels of documents in the queue
writers/     a locked file for each process that writes (empty) and for each file that is being written: what one leaves
             behind is swept when its lock is free
settings.json   a sealed copy of the settings
rebuild/     while the index is repaired, until nothing is damaged: no file is swept
damaged-*/   what a repair took a database's place of: kept, and never read
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from ..compress import from_int8
from ..errors import Damaged, NotFound, NotWritten, StoreError
from ..records import (
    Document,
    EncodedPage,
    Failure,
    Filter,
    Floats,
    Page,
    PageRef,
    PatchVectors,
    Piece,
    QueryVectors,
)
from . import Generation, Query
from .checksums import SINCE, page_holds, seal_settings, settings_hold
from .compaction import compact, sweep
from .damage import COPY, Damage, Found, Told, find_damage, mend, read_copy, tolerant, write_copy
from .database import CURE, Database, mapped, no_room
from .documents import (
    drop,
    read_documents,
    read_failures,
    write_document,
    write_failure,
    write_pages,
    write_state,
)
from .feedback import LocalFeedback
from .files import Files, size_of_files
from .locks import lock_new
from .packing import Block, PackedPage, bits_of, blocks, halves_of, kind_of, pack, unpack_places, unpack_words
from .segments import INT8, Location, SegmentGone, SegmentReader, SegmentWriter, size_of_file
from .tables import PageTable, Rows
from .work import LocalWork, insert_pieces

if TYPE_CHECKING:
    from PIL.Image import Image

FULLTEXT = "fulltext"
WORTH = 64 << 20  # dead bytes for which a compaction is not begun unasked
RETRIES = 5  # times that a search starts again because compaction moved its segments

T = TypeVar("T")


class Current(threading.local):
    """The state of the index that this thread's search sees, while there is one."""

    state: tuple[Connection, PageTable] | None = None


@dataclass(frozen=True, slots=True)
class LegUsage:
    """What an index holds of a leg: pages that have it, their vectors, the bytes of codes, bits and float16."""

    leg: str
    dim: int
    pages: int
    vectors: int
    codes: int
    bits: int
    halves: int


class LocalStore(LocalWork, LocalFeedback):
    """The Store of one machine. Any number of processes may read and write; each object serves several threads."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database
        self._files = Files(folder, database)
        self._vectors = folder / "vectors"
        self._segments = SegmentReader(self._vectors)
        self._table: PageTable | None = None
        self._settings: tuple[str, dict[str, Any]] = ("", {})
        self._reading = threading.Lock()
        self._current = Current()
        self._appending = threading.Lock()
        self._appender: SegmentWriter | None = None
        self._writer_lock: int | None = None
        self._writer = os.urandom(8).hex()

    @classmethod
    def open(cls, path: str | Path, create: bool = False, clean: bool = True, held: bool = False) -> Self:
        """Open the index in a folder; ``create`` makes one that is not there. What killed processes left is swept
        (``clean``). ``held``: that the caller is in ``database.alone``.

        Raises StoreError (not an index, not readable, on a network file system), Damaged and IndexMismatch (a newer
        version).
        """
        folder = Path(path)
        store = cls(folder, Database(folder / "index.db", create, held))
        try:
            with mapped(folder):
                if store._database.writable:
                    store._files.make_folders()
                    store._vectors.mkdir(exist_ok=True)
                    try:
                        store._copy_settings()
                        if clean:
                            sweep(folder, store._database, store._files)
                    except StoreError as error:
                        if not no_room(error, folder):  # else there is room for it another time
                            raise
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Drop what was begun and not committed, and close all files."""
        with self._appending:
            if self._appender is not None:
                self._appender.close()
                self._appender = None
            if self._writer_lock is not None:
                try:
                    with self._database.write() as connection:
                        connection.execute("DELETE FROM generations WHERE writer = ? AND NOT visible", (self._writer,))
                finally:
                    (self.folder / "writers" / self._writer).unlink(missing_ok=True)
                    os.close(self._writer_lock)
                    self._writer_lock = None
            self._segments.keep(set())
            self._table = None
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Settings

    def settings(self) -> dict[str, Any]:
        with self._database.read() as connection:
            text = connection.execute("SELECT settings FROM state").fetchone()[0]
            if text != self._settings[0]:  # chance levels and canaries take a while to parse
                if self._database.version >= SINCE and not settings_hold(connection):
                    raise Damaged(f"{self._database.path}: its settings are damaged: {CURE}")
                self._settings = text, json.loads(text)
        return self._settings[1]

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        text = json.dumps(settings, ensure_ascii=False)
        with self._database.write() as connection:
            connection.execute("UPDATE state SET settings = ?", (text,))
            seal_settings(connection)
            with mapped(self.folder / COPY):
                write_copy(self.folder, text)

    def _halves(self) -> bool:
        """Whether vectors are kept as float16, too."""
        return bool(self.settings().get("float16"))

    def _copy_settings(self) -> None:
        """Write the copy anew where it is missing, damaged, or of settings that are no more."""
        with tolerant(self._database) as connection:
            whole = _to_be_copied(self.folder, connection) is None
        if not whole:
            with self._database.write() as connection:  # in the order of the settings
                if (text := _to_be_copied(self.folder, connection)) is not None:
                    write_copy(self.folder, text)

    # Writing

    def begin(self, document: Document) -> Generation:
        self._enlist()
        with self._database.write(durable=False) as connection:
            return write_document(connection, document, self._writer)

    def _enlist(self) -> None:
        """Be among those that write: what this process leaves when it is killed is then swept."""
        with mapped(self.folder), self._appending:
            if self._writer_lock is None and self._database.writable:
                self._writer_lock = lock_new(self.folder / "writers" / self._writer)

    def add_pages(self, generation: Generation, pages: Sequence[EncodedPage]) -> None:
        with self._database.read() as connection:
            name = self._staged(connection, generation)
        packed = [pack(name, page, self._halves()) for page in pages]
        with self._appended(packed) as written, self._database.write(durable=False) as connection:
            self._staged(connection, generation)
            write_pages(connection, generation, name, packed, written)

    def fail(self, generation: Generation, page: int | None, reason: str, message: str) -> None:
        with self._database.write(durable=False) as connection:
            self._staged(connection, generation)
            write_failure(connection, generation, page, str(reason), message)

    def commit(self, generation: Generation, pages: int) -> Document:
        """As the protocol says. The document's vectors, then its rows, are on the disk when this returns."""
        with mapped(self._vectors), self._appending:
            if self._appender is not None:
                self._appender.sync()
                self._appender.release()
        with self._database.write() as connection:
            name = self._staged(connection, generation)
            unused = drop(connection, name)
            document = write_state(connection, generation, name, pages)
            self._changed(connection)
        self._files.delete_unused(*unused)
        self.tidy()
        return document

    def abandon(self, generation: Generation) -> None:
        with self._database.write() as connection:
            content = connection.execute(
                "SELECT content FROM generations WHERE id = ? AND NOT visible", (generation,)
            ).fetchone()
            images = [
                file for (file,) in connection.execute("SELECT file FROM images WHERE generation = ?", (generation,))
            ]
            connection.execute("DELETE FROM generations WHERE id = ? AND NOT visible", (generation,))
        if content is not None:
            self._files.delete_unused(content, images)
        self.tidy()

    def remove(self, document: str) -> None:
        """As the protocol says. What is being written of it goes, too: ``commit`` then raises NotWritten."""
        with self._database.write() as connection:
            if connection.execute("SELECT 1 FROM generations WHERE name = ?", (document,)).fetchone() is None:
                raise NotFound(f"the index holds no document {document}")
            unused = drop(connection, document, staged=True)
            self._changed(connection)
        self._files.delete_unused(*unused)
        self.tidy()

    def finish(
        self,
        piece: Piece,
        pages: Sequence[EncodedPage] = (),
        failures: Sequence[Failure] = (),
        follow: Sequence[Piece] = (),
    ) -> int | None:
        """As the protocol says. The vectors are on the disk before the rows that point to them: a power cut may undo
        the rows, and then the piece is to be done again."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT name FROM generations JOIN pieces ON pieces.generation = generations.id WHERE pieces.id = ?",
                (piece.id,),
            ).fetchone()
        if row is None:
            return None
        packed = [pack(row[0], page, self._halves()) for page in pages]
        self._enlist()
        with self._appended(packed) as written:
            if packed and self._appender is not None:
                self._appender.sync()
            with self._database.write(durable=False) as connection:
                key = (piece.id, piece.attempts)
                if not connection.execute("DELETE FROM pieces WHERE id = ? AND attempts = ?", key).rowcount:
                    return None
                write_pages(connection, piece.generation, row[0], packed, written)
                for failure in failures:
                    write_failure(connection, piece.generation, failure.page, failure.reason, failure.message)
                insert_pieces(connection, follow)
                left = connection.execute("SELECT count(*) FROM pieces WHERE generation = ?", (piece.generation,))
                remaining = int(left.fetchone()[0])
        self._drop_parcel(piece)
        return remaining

    def put_original(self, path: Path, content: str, link: bool) -> None:
        self._enlist()
        self._files.put_original(path, content, link)

    def put_image(self, generation: Generation, page: int, image: Image) -> None:
        self._enlist()
        with self._database.read() as connection:
            self._staged(connection, generation)
        self._files.put_image(generation, page, image)

    # Reading

    def documents(self) -> list[Document]:
        with self._database.read() as connection:
            return read_documents(connection)

    def document(self, name: str) -> Document | None:
        with self._database.read() as connection:
            found = read_documents(connection, name)
        return found[0] if found else None

    def failures(self, document: str | None = None) -> list[Failure]:
        with self._database.read() as connection:
            return read_failures(connection, document)

    def page_count(self, filter: Filter) -> int:
        with self._snapshot() as (connection, table):
            return int(table.allowed(connection, filter).sum())

    def original(self, document: str, generation: Generation | None = None) -> Path:
        """As the protocol says: the index's copy, or the file that was linked."""
        return self._files.original(document, generation)

    def image_path(self, page: PageRef) -> Path | None:
        """Where the stored picture of a page is, if one was stored."""
        return self._files.image_path(page)

    # Search

    def steady(self, find: Callable[[], T]) -> T:
        """As the protocol says: again only where compaction has moved segments meanwhile."""
        if self._current.state is not None:
            return find()

        def see() -> T:
            with self._snapshot() as state:
                self._current.state = state
                try:
                    return find()
                finally:
                    self._current.state = None

        return self._again(see)

    def candidates(self, leg: str, query: Query, filter: Filter, n: int) -> list[tuple[PageRef, float]]:
        def find() -> list[tuple[PageRef, float]]:
            with self._snapshot() as (connection, table):
                allowed = table.allowed(connection, filter)
                found = table.leg(connection, leg)
                if not isinstance(query, QueryVectors):
                    scores = _sum_bm25(table, connection, query)
                    rows = np.flatnonzero(allowed & (scores > 0))
                    rows = rows[np.argsort(-scores[rows], kind="stable")[:n]]
                    return _told(table, rows, scores[rows])
            if found is None:
                return []
            positions, scores = found.best(query, np.flatnonzero(allowed[found.rows]), n, self._segments)
            return _told(table, found.rows[positions], scores)

        return self._again(find)

    def score(self, leg: str, query: Query, pages: Sequence[PageRef], exact: bool = False) -> Floats:
        def find() -> Floats:
            scores = np.full(len(pages), np.nan, np.float32)
            with self._snapshot() as (connection, table):
                rows = table.rows(pages)
                found = table.leg(connection, leg)
                if not isinstance(query, QueryVectors):
                    scores[rows >= 0] = _sum_bm25(table, connection, query)[rows[rows >= 0]]
                    return scores
            if found is not None:
                positions = found.find(rows)
                score = found.exact if exact else found.score
                scores[positions >= 0] = score(query, positions[positions >= 0], self._segments)
            return scores

        return self._again(find)

    def term_scores(self, terms: Sequence[str], pages: Sequence[PageRef]) -> Floats:
        scores = np.zeros((len(pages), len(terms)), np.float32)
        with self._snapshot() as (connection, table):
            rows = table.rows(pages)
            for i, term in enumerate(terms):
                column = np.zeros(len(table.pages) + 1, np.float32)  # the last for pages that aren't there
                found, values = table.bm25(connection, term)
                column[found] = values
                scores[:, i] = column[rows]
        return scores

    def chance(self, leg: str, pages: Sequence[PageRef]) -> Floats:
        levels = np.full(len(pages), np.nan, np.float32)
        with self._snapshot() as (connection, table):
            found = table.leg(connection, leg)
            if found is not None:
                positions = found.find(table.rows(pages))
                levels[positions >= 0] = found.codes["chance"][positions[positions >= 0]]
        return levels

    def vectors(self, leg: str, page: PageRef) -> PatchVectors | None:
        """As the protocol says. Raises Damaged, naming the page."""

        def find() -> PatchVectors | None:
            with self._read() as connection:
                rows = connection.execute(
                    "SELECT s.name, v.offset, v.count, l.dim, v.crc, v.scale, p.data FROM generations g "
                    "JOIN pages ON pages.generation = g.id JOIN legs l "
                    "JOIN page_vectors v ON v.leg = l.id AND v.page = pages.id "
                    "JOIN segments s ON s.id = v.segment LEFT JOIN places p ON p.page = pages.id AND p.leg = l.id "
                    "WHERE g.visible AND g.name = ? AND pages.number = ? AND l.name IN (?, ?) ORDER BY p.data ISNULL",
                    (*page, leg, halves_of(leg)),
                ).fetchall()
            if not rows:
                return None
            segment, offset, count, dim, crc, scale, _ = rows[-1]
            try:
                codes = self._segments.block(segment, offset, (count, dim), crc)
                vectors = from_int8(codes, scale) if len(rows) == 1 else codes.view("<f2").astype(np.float32)
                return PatchVectors(vectors, unpack_places(rows[0][-1]))
            except SegmentGone:
                raise
            except Damaged as error:
                raise Damaged(f"{page.document}, page {page.page}: {error}") from error
            except (ValueError, TypeError, zlib.error, struct.error) as error:
                raise self._damaged(page) from error

        return self._again(find)

    def page(self, page: PageRef) -> Page:
        with self._read() as connection:
            row = connection.execute(
                "SELECT p.id, p.width, p.height, p.text_source, p.drawn, t.text, t.words FROM generations g "
                "JOIN pages p ON p.generation = g.id JOIN page_texts t ON t.page = p.id "
                "WHERE g.visible AND g.name = ? AND p.number = ?",
                page,
            ).fetchone()
            if row is None:
                raise NotFound(f"the index holds no page {page.page} of {page.document}")
            if self._database.version >= SINCE and not page_holds(connection, row[0]):
                raise self._damaged(page)
        _, width, height, source, drawn, text, words = row
        return Page(page.page, width, height, text, unpack_words(text, words), source, drawn)

    def _damaged(self, page: PageRef) -> Damaged:
        return Damaged(f"{page.document}, page {page.page}: its rows in {self._database.path} are damaged: {CURE}")

    # Upkeep

    def legs_used(self) -> list[LegUsage]:
        """What the visible pages have in each leg."""
        sql = (
            "SELECT l.name, l.dim, count(*), sum(v.count), sum(v.count * l.dim) FROM generations g "
            "JOIN pages p ON p.generation = g.id JOIN page_vectors v ON v.page = p.id JOIN legs l ON l.id = v.leg "
            "WHERE g.visible GROUP BY l.id ORDER BY l.id"
        )
        with self._database.read() as connection:
            found = {name: numbers for name, *numbers in connection.execute(sql)}
        return [
            LegUsage(name, dim, pages, vectors, codes, *(found.get(of(name), (0,))[-1] for of in (bits_of, halves_of)))
            for name, (dim, pages, vectors, codes) in found.items()
            if kind_of(name) == INT8
        ]

    def bytes_used(self) -> dict[str, int]:
        """The bytes on the disk, by what they are for."""
        with mapped(self.folder):
            found = {"index.db": sum(map(size_of_file, self.folder.glob("index.db*")))}
            folders = ("vectors", "originals", "images", "waiting")
            return found | {name: size_of_files(self.folder / name) for name in folders}

    def compact(self, worth: bool = False) -> int:
        """As the protocol says. Others may search and write meanwhile. ``worth``: only where half of the vectors' bytes
        and 64 MB are dead. Raises StoreError, Damaged."""
        with mapped(self.folder), self._appending:
            if worth and not self._is_worth():
                return 0
            if self._appender is not None:
                self._appender.close()
                self._appender = None
            return compact(self.folder, self._database, self._files)

    def _is_worth(self) -> bool:
        size = size_of_files(self._vectors)
        if size < WORTH:
            return False
        sql = "SELECT total(v.count * l.dim) FROM page_vectors v JOIN legs l ON l.id = v.leg"
        with self._database.read() as connection:
            live = int(connection.execute(sql).fetchone()[0])
        return size - live > max(WORTH, size / 2)

    def check(self) -> list[Damage]:
        """Read everything and compare checksums: what is damaged."""
        return self.find_damage().damage

    def find_damage(self, start: Callable[[int], None] | None = None, told: Told | None = None) -> Found:
        """As ``visrag.store.damage`` says."""
        with mapped(self.folder):
            return find_damage(self.folder, self._database, start, told)

    def mend(self, found: Found) -> None:
        """Make good what can be without reading a document again."""
        mend(self.folder, self._database, found)
        self._segments.keep(set())
        self._table = None

    def mend_original(self, path: Path, content: str) -> None:
        """Write the index's copy of a file anew. Raises FileChanged where ``path`` has another content."""
        self._files.mend_original(path, content)

    def is_linked(self, document: str) -> bool:
        """Whether only the path of a document's file is kept."""
        with self._database.read() as connection:
            sql = "SELECT 1 FROM generations JOIN originals USING (content) WHERE visible AND name = ? AND link NOTNULL"
            return connection.execute(sql, (document,)).fetchone() is not None

    def delete(self, orphans: Sequence[str]) -> None:
        """Delete files, by their paths under the folder, that nothing needs."""
        with mapped(self.folder):
            for path in (self.folder / name for name in orphans):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    @contextmanager
    def _appended(self, packed: Sequence[PackedPage]) -> Iterator[list[list[tuple[Block, Location]]]]:
        """Append the vectors of pages: each one's blocks and where they lie. Until the end no other thread appends."""
        found = [blocks(page) for page in packed]
        with mapped(self._vectors), self._appending:
            if self._appender is None:
                self._appender = SegmentWriter(self._vectors)
            appender = self._appender
            yield [[(block, appender.append(block.data, block.kind)) for block in page] for page in found]

    def _staged(self, connection: Connection, generation: Generation) -> str:
        """The document's name. Raises NotWritten where the generation isn't one that is being written."""
        row = connection.execute("SELECT name FROM generations WHERE id = ? AND NOT visible", (generation,)).fetchone()
        if row is None:
            raise NotWritten(
                f"generation {generation} is not being written: it was committed or abandoned, "
                "or its document was removed"
            )
        return str(row[0])

    def _changed(self, connection: Connection) -> None:
        connection.execute("UPDATE state SET changes = changes + 1")

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[Connection, PageTable]]:
        """One state of the index, that of this thread's search: a connection that sees it, and its table of pages."""
        if self._current.state is not None:
            yield self._current.state
            return
        with self._database.read() as connection:
            changes = connection.execute("SELECT changes FROM state").fetchone()[0]
            table = self._table
            if table is None or table.changes != changes:
                with self._reading:
                    table = self._table
                    if table is None or table.changes != changes:
                        table = self._table = PageTable.read(connection, changes, table)
                        self._segments.keep({name for (name,) in connection.execute("SELECT name FROM segments")})
            yield connection, table

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        """A connection that sees the state of this thread's search."""
        state = self._current.state
        with self._database.read() if state is None else nullcontext(state[0]) as connection:
            yield connection

    def _again(self, find: Callable[[], T]) -> T:
        """Run a search; where compaction has moved its segments meanwhile, run it on the new state. What is part of a
        search is run again with it."""
        for _ in range(RETRIES if self._current.state is None else 0):
            try:
                return find()
            except SegmentGone:
                self._table = None
        return find()


def _to_be_copied(folder: Path, connection: Connection) -> str | None:
    """The settings, if they are whole and their copy is another."""
    if not settings_hold(connection):
        return None
    text = str(connection.execute("SELECT settings FROM state").fetchone()[0])
    return None if text in ("{}", read_copy(folder)) else text


def _sum_bm25(table: PageTable, connection: Connection, terms: Sequence[str]) -> Floats:
    """BM25 of each page, (p,) float32: the sum over the terms."""
    scores = np.zeros(len(table.pages), np.float32)
    for term in terms:
        rows, values = table.bm25(connection, term)
        scores[rows] += values
    return scores


def _told(table: PageTable, rows: Rows, scores: Floats) -> list[tuple[PageRef, float]]:
    return [(table.ref(row), score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]
