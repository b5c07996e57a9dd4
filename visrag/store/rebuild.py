"""A damaged index.db → a new one of all rows in it that can be read."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from ..errors import StoreError
from .checksums import seal_settings, unsealed
from .damage import COPY, DATABASE
from .database import Database, in_use, mapped
from .documents import reindex
from .segments import sync_folder

# In the order of what belongs to what, with the columns that a table's rows are in the order of.
TABLES = {
    "state": "id", "generations": "id", "tags": "generation, key", "pages": "id", "page_texts": "page", "legs": "id",
    "segments": "id", "page_vectors": "leg, page", "places": "rowid", "failures": "rowid", "originals": "rowid",
    "images": "rowid", "jobs": "generation", "pieces": "rowid",
    "feedback": "review, question, document, page, reviewer",
}  # fmt: skip
WORK = "rebuild"  # the folder in which it is made
HEADER = 100  # bytes of an SQLite file before its first page (sqlite.org/fileformat.html, 1.3)


def rebuild(folder: Path) -> None:
    """Put a new database in the place of a damaged one. What could not be read is missing from it: checksums tell.

    Nobody may have the index open. Raises StoreError, and then all is as it was.
    """
    path = folder / DATABASE
    with mapped(path):
        if path.exists() and in_use(path):
            raise StoreError(f"{path} is open in another process: end what uses the index, then run this again")
        work = folder / WORK
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        try:
            _rebuild(folder, path, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _rebuild(folder: Path, path: Path, work: Path) -> None:
    new, old = Database(work / "new.db", create=True), work / "old.db"
    try:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{path}{suffix}", f"{old}{suffix}")
        with new.write() as connection:
            connection.execute("DELETE FROM state")
            if old.exists():
                _mend_file(old, connection)
                with closing(sqlite3.connect(old, isolation_level=None)) as damaged:
                    damaged.text_factory = lambda data: data.decode("utf-8", "replace")
                    _copy_rows(damaged, connection)
            _mend_settings(folder, connection)
            reindex(connection)
    finally:
        new.close()
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    (work / "new.db").replace(path)
    sync_folder(folder)


def _mend_file(old: Path, new: sqlite3.Connection) -> None:
    """Write what is the same in every index's file over the old one's: the header, and what the tables are.

    It is a copy, so nothing is lost where that makes things worse.
    """
    size = old.stat().st_size
    length = new.execute("PRAGMA page_size").fetchone()[0]
    head = bytearray(HEADER)
    head[0:24] = b"SQLite format 3\0" + length.to_bytes(2, "big") + bytes([2, 2, 0, 64, 32, 32])
    head[28:32] = (size // length).to_bytes(4, "big")  # and no free pages: nothing is written to it
    head[47] = 4  # the schema's format
    head[59] = 1  # UTF-8
    with old.open("r+b") as file:
        start = file.read(HEADER)
        head[24:28] = head[92:96] = start[24:28]
        head[40:44] = start[40:44]
        file.seek(0)
        file.write(head)
    with suppress(sqlite3.Error), closing(sqlite3.connect(old, isolation_level=None)) as damaged:
        damaged.execute("PRAGMA writable_schema = ON")
        rows = new.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        for name, sql in rows:
            damaged.execute("UPDATE sqlite_master SET sql = ? WHERE name = ? AND sql <> ?", (sql, name, sql))


def _copy_rows(damaged: sqlite3.Connection, new: sqlite3.Connection) -> None:
    damaged.execute("PRAGMA writable_schema = ON")  # so that what it is made of need not all be readable
    for table, order in TABLES.items():
        columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
        marks = ", ".join("?" * len(columns))
        for row in _rows(damaged, table, columns, order):
            with suppress(sqlite3.IntegrityError):  # it belongs to what could not be read, or is there
                new.execute(f"INSERT INTO {table} VALUES ({marks})", row)


def _rows(damaged: sqlite3.Connection, table: str, columns: list[str], order: str) -> Iterator[tuple[object, ...]]:
    """The rows of a table from its beginning as far as they can be read, then from its end."""
    for direction in ("ASC", "DESC"):
        turned = ", ".join(f"{column} {direction}" for column in order.split(", "))
        try:
            yield from damaged.execute(f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED ORDER BY {turned}")
            return
        except sqlite3.Error:
            continue


def _mend_settings(folder: Path, new: sqlite3.Connection) -> None:
    """Take the settings of the copy where the state of the index could not be read."""
    if new.execute("SELECT 1 FROM state").fetchone() is None:
        copy = folder / COPY
        text = unsealed(copy.read_text(encoding="utf-8", errors="replace")) if copy.is_file() else None
        new.execute("INSERT INTO state (id, settings, changes) VALUES (1, ?, 1)", (text or "{}",))
        seal_settings(new)
