"""What is damaged in a local index: every row, block and file against its checksum."""

from __future__ import annotations

import io
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Literal, NamedTuple, TypeAlias

from ..errors import Damaged
from ..kinds import sha256_of
from .checksums import (
    VERDICT,
    VERDICTS_SINCE,
    page_holds,
    read_facts,
    restore_facts,
    seal_rows,
    seal_settings,
    seal_verdicts,
    sealed,
    settings_hold,
    typed,
    unsealed,
)
from .database import Database, mapped
from .documents import reindex
from .files import put
from .locks import try_lock
from .packing import kind_of
from .segments import ALIGN, HEADERS, SegmentReader, mend_header, size_of_file

WORK = "rebuild"  # a folder that is there from when a database is made anew until nothing is damaged
COPY = "settings.json"
DATABASE = "index.db"
# In the order of what belongs to what, with the columns that a table's rows are in the order of.
TABLES = {
    "state": "id", "generations": "id", "tags": "generation, key", "pages": "id", "page_texts": "page", "legs": "id",
    "segments": "id", "page_vectors": "leg, page", "places": "rowid", "failures": "rowid", "originals": "rowid",
    "images": "rowid", "jobs": "generation", "pieces": "rowid",
    "feedback": "review, question, document, page, reviewer",
}  # fmt: skip
NAMED = 20  # of what SQLite finds in its structure

Kind: TypeAlias = Literal[
    "database", "settings", "fulltext", "document", "segment", "page", "original", "image", "verdict"
]
Told: TypeAlias = Callable[[str, int, int], None]  # the document, bytes that were read of so many of it


class Damage(NamedTuple):
    """What is damaged: which ``file``, under the index's folder, what of it, and whose it is."""

    kind: Kind
    file: str
    message: str
    document: str | None = None
    page: int | None = None
    leg: str | None = None

    @property
    def where(self) -> tuple[object, ...]:
        """What tells one damage from another, whatever is said of it."""
        return self.kind, self.file if self.kind != "page" else "", self.document, self.page, self.leg


@dataclass(slots=True)
class Found:
    """What was looked at, what of it is damaged, the files that nothing needs, and what could not be looked at."""

    documents: int = 0
    pages: int = 0
    damage: list[Damage] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Row(NamedTuple):
    """A visible document. ``facts``: from its sealed copy where that is whole."""

    generation: int
    name: str
    facts: dict[str, Any]


def find_damage(folder: Path, database: Database, start: Callable[[int], None] | None = None, told: Told | None = None,
) -> Found:  # fmt: skip
    """Read the whole of an index. ``start`` is told how many bytes will be read, ``told`` what of them was."""
    found = Found()
    try:
        with tolerant(database) as connection:
            _check_structure(connection, found)
            if not settings_hold(connection):
                message = "the settings of the index are not as they were written"
                found.damage.append(Damage("settings", DATABASE, message))
            if database.version >= VERDICTS_SINCE:
                _check_verdicts(connection, found)
        _check_fulltext(database, found)
        with tolerant(database) as connection:
            documents = _documents(connection, found)
            if start is not None:
                start(_bytes(folder, connection, documents))
            _check_segments(folder, connection, found)
            for row in documents:
                if _check_document(folder, connection, row, told):
                    found.damage += _check_again(folder, database, row)
        with tolerant(database) as connection:
            _find_orphans(folder, connection, found)
    except Damaged as error:
        if not any(damage.kind == "database" for damage in found.damage):
            found.damage.append(Damage("database", DATABASE, str(error)))
    return found


@contextmanager
def tolerant(database: Database) -> Iterator[Connection]:
    """A connection that reads, and gives a text that is no UTF-8 too."""
    with database.read() as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        try:
            yield connection
        finally:
            connection.text_factory = str


def _check_structure(connection: Connection, found: Found) -> None:
    for (message,) in connection.execute(f"PRAGMA integrity_check({NAMED})"):
        if "FTS5" in message:  # which SQLite looks at since 3.44
            found.damage.append(Damage("fulltext", DATABASE, message))
        elif message != "ok":
            found.damage.append(Damage("database", DATABASE, message))
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchmany(NAMED):
        message = f"row {row} of {table} belongs to none of {parent}"
        found.damage.append(Damage("database", DATABASE, message))
    for table in TABLES:
        for column in text_columns(connection, table):
            count = connection.execute(f"SELECT count(*) FROM {table} WHERE typeof({column}) = 'blob'").fetchone()[0]
            if count:
                message = f"{count} values of {column} in {table} are bytes, not texts"
                found.damage.append(Damage("database", DATABASE, message))


def text_columns(connection: Connection, table: str) -> list[str]:
    """The columns of a table that hold texts. A bit tells SQLite's texts from its bytes."""
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[2] == "TEXT"]


def read_copy(folder: Path) -> str | None:
    """The copy of the settings, None where there is none or it is damaged."""
    path = folder / COPY
    return unsealed(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None


def _check_fulltext(database: Database, found: Found) -> None:
    """FTS5's own check: while documents are being written of its structure only, for their pages are not in it."""
    if not database.writable:
        found.notes.append("full text was not checked: the index cannot be written")
        return
    with database.write() as connection:
        staged = connection.execute(
            "SELECT 1 FROM generations g JOIN pages ON generation = g.id WHERE NOT visible LIMIT 1"
        ).fetchone()
        rank = 0 if staged else 1
        try:
            connection.execute("INSERT INTO fulltext (fulltext, rank) VALUES ('integrity-check', ?)", (rank,))
        except sqlite3.DatabaseError as error:
            found.damage.append(Damage("fulltext", DATABASE, f"full text is not that of the pages ({error})"))


def _check_verdicts(connection: Connection, found: Found) -> None:
    names = ("review", "question", "reviewer", "verdict", "note")
    sql = f"SELECT document, page, {', '.join(names)} FROM feedback WHERE crc <> {VERDICT}"
    for document, page, *values in connection.execute(sql):
        reads = json.dumps(dict(zip(names, map(str, values), strict=True)), ensure_ascii=False)
        message = f"a verdict on it is not as it was written, and reads {reads}: judge the page again"
        found.damage.append(
            Damage("verdict", DATABASE, message, str(document), page if isinstance(page, int) else None)
        )


def _documents(connection: Connection, found: Found) -> list[_Row]:
    rows = []
    for generation, copy in connection.execute("SELECT id, facts FROM generations WHERE visible ORDER BY id"):
        facts = read_facts(connection, generation)
        kept = unsealed(copy)
        if copy is not None and kept != json.dumps(facts):
            what = "name, tags, failures or settings" if kept else "sealed copy of its name, tags and settings"
            facts = json.loads(kept) if kept else facts
            found.damage.append(Damage("document", DATABASE, f"its {what} are not as they were written", facts["name"]))
        count = connection.execute("SELECT count(*) FROM pages WHERE generation = ?", (generation,)).fetchone()[0]
        if count != facts["indexed"]:
            message = f"{count} of its {facts['indexed']} indexed pages are in {DATABASE}"
            found.damage.append(Damage("page", DATABASE, message, facts["name"]))
        found.pages += count
        rows.append(_Row(generation, facts["name"], facts))
    for (name,) in connection.execute("SELECT name FROM generations WHERE NOT visible AND facts IS NOT NULL"):
        found.damage.append(Damage("document", DATABASE, "it is committed, but not visible", name))
    found.documents = len(rows)
    return rows


def _bytes(folder: Path, connection: Connection, documents: list[_Row]) -> int:
    return sum(_size(folder, connection, row) for row in documents)


def _size(folder: Path, connection: Connection, row: _Row) -> int:
    """Bytes that are read of a document: its vectors and its original."""
    sql = (
        "SELECT total(v.count * l.dim) FROM pages p JOIN page_vectors v ON v.page = p.id JOIN legs l ON l.id = v.leg "
        "WHERE p.generation = ?"
    )
    original = folder / "originals" / str(row.facts["content"])
    size = size_of_file(original) if row.facts["content"] and original.is_file() else 0
    return int(connection.execute(sql, (row.generation,)).fetchone()[0]) + size


def _check_segments(folder: Path, connection: Connection, found: Found) -> None:
    """The headers of the segments; what is in them is checked by page."""
    for name, kind in _segments(connection).items():
        path = folder / "vectors" / name
        with suppress(FileNotFoundError):  # its pages are missing then, or have moved
            if _head(path) != HEADERS[kind]:
                found.damage.append(Damage("segment", f"vectors/{name}", "its header is not as it was written"))


def _segments(connection: Connection) -> dict[str, int]:
    """The names of the segments in which there are vectors, and their kinds."""
    sql = (
        "SELECT DISTINCT s.name, l.name FROM segments s JOIN page_vectors v ON v.segment = s.id "
        "LEFT JOIN legs l ON l.id = v.leg"
    )
    return {str(name): kind_of(str(leg)) for name, leg in connection.execute(sql)}


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(ALIGN)


def _check_document(folder: Path, connection: Connection, row: _Row, told: Told | None = None) -> list[Damage]:
    return [*_check_pages(folder, connection, row, told), *_check_files(folder, connection, row, told)]


def _check_again(folder: Path, database: Database, row: _Row) -> list[Damage]:
    """What of a document is damaged while nobody writes: another process may have moved its vectors, or replaced or
    removed it, since its rows were read."""
    with database.write() if database.writable else nullcontext(), tolerant(database) as connection:
        sql = "SELECT 1 FROM generations WHERE id = ? AND visible"
        if connection.execute(sql, (row.generation,)).fetchone() is None:
            return []
        return _check_document(folder, connection, row)


def _check_pages(folder: Path, connection: Connection, row: _Row, told: Told | None) -> Iterator[Damage]:
    reader = SegmentReader(folder / "vectors", headers=False)
    size = _size(folder, connection, row)
    pages = connection.execute("SELECT id, number FROM pages WHERE generation = ? ORDER BY number", (row.generation,))
    for page, noted in pages.fetchall():
        number = noted if isinstance(noted, int) else None
        if not page_holds(connection, page):
            message = "its text, words, places or scores' scale are not as they were written"
            yield Damage("page", DATABASE, message, row.name, number)
        blocks = connection.execute(
            "SELECT l.name, s.name, v.offset, v.count, l.dim, v.crc FROM page_vectors v JOIN legs l ON l.id = v.leg "
            "LEFT JOIN segments s ON s.id = v.segment WHERE v.page = ? ORDER BY l.name",
            (page,),
        )
        for leg, segment, offset, count, dim, crc in blocks.fetchall():
            try:
                reader.block(segment, offset, (count, dim), crc)
            except (Damaged, TypeError, ValueError, OverflowError) as error:
                file = f"vectors/{segment}"
                message = f"its vectors in {leg} cannot be read: {error}"
                yield Damage("page", file, message, row.name, number, leg)
            else:
                if told is not None:
                    told(row.name, count * dim, size)


def _check_files(folder: Path, connection: Connection, row: _Row, told: Told | None) -> Iterator[Damage]:
    """A document's original, if the index has a copy of it, and its pictures."""
    content = row.facts["content"]
    kept = connection.execute("SELECT link FROM originals WHERE content = ?", (content,)).fetchone()
    if kept is not None and kept[0] is None:
        path = folder / "originals" / content
        if message := _wrong(path, content):
            yield Damage("original", f"originals/{content}", message, row.name)
        elif told is not None:
            told(row.name, size_of_file(path), _size(folder, connection, row))
    for page, file in ((page, str(name)) for page, name in row.facts["images"]):
        if message := _wrong(folder / "images" / file, file.partition(".")[0]):
            yield Damage("image", f"images/{file}", message, row.name, page)


def _wrong(path: Path, sha256: str) -> str:
    """What is wrong with a file that is known by its hash, "" for nothing."""
    try:
        same = sha256_of(path) == sha256
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return "" if same else "is not as it was written"


def unneeded_originals(folder: Path, connection: Connection) -> tuple[list[str], list[str]]:
    """The names of the originals that no row needs: those that are whole, and those that are not their names' content.
    Those may be the damaged file of a document whose row is lost, and nobody's but the user's to delete."""
    names = sorted(_names(folder / "originals"))  # before the rows, which are there before their files
    contents = {content for (content,) in connection.execute("SELECT content FROM generations")}
    found: tuple[list[str], list[str]] = [], []
    for name in names:
        if name not in contents:
            found[bool(_wrong(folder / "originals" / name, name))].append(name)
    return found


def _find_orphans(folder: Path, connection: Connection, found: Found) -> None:
    """Files that no row needs and nobody is writing."""
    originals, strange = unneeded_originals(folder, connection)
    for name in strange:
        what = "belongs to no document, and is not what its name says: visrag does not delete it"
        found.notes.append(f"originals/{name}: {what}; look at it, then delete it or move it away")
    images = {file for (file,) in connection.execute("SELECT file FROM images")}
    segments = _segments(connection)
    jobs = {str(generation) for (generation,) in connection.execute("SELECT generation FROM jobs")}
    found.orphans = sorted(
        [f"originals/{name}" for name in originals]
        + [f"images/{name}" for name in _names(folder / "images") if name not in images]
        + [f"vectors/{n}" for n in _names(folder / "vectors") if n not in segments and _free(folder / "vectors" / n)]
        + [f"writers/{name}" for name in _names(folder / "writers") if _free(folder / "writers" / name)]
        + [f"waiting/{name}" for name in _names(folder / "waiting") if name not in jobs]
        + [name for name in (WORK,) if (folder / name).exists()]
    )


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _free(path: Path) -> bool:
    """Whether no process has a file locked, as far as this one may ask."""
    try:
        lock = try_lock(path)
    except OSError:
        return False
    if lock is not None:
        os.close(lock)
    return lock is not None


def mend(folder: Path, database: Database, found: Found) -> None:
    """Make good what can be without reading a document again: settings, documents' facts, segments, full text.

    Settings that are damaged with their copy stay so: nothing says what they were. Verdicts that are damaged go.
    """
    kept = read_copy(folder)
    with database.write() as connection:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        if kept is not None and not settings_hold(connection):
            connection.execute("UPDATE state SET settings = ?", (kept,))
            seal_settings(connection)
        _find_segments(folder, connection)
        for generation, text in connection.execute("SELECT id, facts FROM generations WHERE visible").fetchall():
            facts = unsealed(text)
            if facts is not None and facts != json.dumps(read_facts(connection, generation)):
                restore_facts(connection, generation, json.loads(facts))
            elif text is not None and facts is None and typed(connection, generation):
                connection.execute("UPDATE generations SET facts = NULL WHERE id = ?", (generation,))
        connection.execute("UPDATE OR IGNORE generations SET visible = 1 WHERE NOT visible AND facts IS NOT NULL")
        seal_rows(connection)
        connection.execute(f"DELETE FROM feedback WHERE crc <> {VERDICT}")
        seal_verdicts(connection)
        if any(damage.file == DATABASE for damage in found.damage):
            reindex(connection)  # of the rows as they are, so that a document's terms can be taken out of it
        connection.execute("UPDATE state SET changes = changes + 1")
        connection.text_factory = str
        kinds = _segments(connection)
    for damage in found.damage:
        if damage.kind == "segment" and (kind := kinds.get(Path(damage.file).name)):
            with mapped(folder / damage.file):
                mend_header(folder / damage.file, kind)


def _find_segments(folder: Path, connection: Connection) -> None:
    """Put the names of segments right whose files are there under other ones: those whose blocks all fit."""
    known = _segments(connection)
    others = [name for name in sorted(_names(folder / "vectors")) if name not in known]
    reader = SegmentReader(folder / "vectors", headers=False)
    for row, name in connection.execute("SELECT id, name FROM segments").fetchall():
        blocks = connection.execute(
            "SELECT offset, count, dim, crc FROM page_vectors JOIN legs ON id = leg WHERE segment = ?", (row,)
        ).fetchall()
        if not blocks or (folder / "vectors" / str(name)).exists():
            continue
        for other in others:
            with suppress(Damaged, TypeError, ValueError, OverflowError):
                for offset, count, dim, crc in blocks:
                    reader.block(other, offset, (count, dim), crc)
                connection.execute("UPDATE OR IGNORE segments SET name = ? WHERE id = ?", (other, row))
                break


def write_copy(folder: Path, settings: str) -> None:
    """Write the copy of the settings, which is there whole or not at all."""
    put(io.BytesIO(sealed(settings).encode()), folder / COPY, folder / "writers")
