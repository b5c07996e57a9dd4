"""A damaged index.db → a new one of all rows in it that can be read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from .checksums import seal_settings
from .damage import DATABASE, TABLES, WORK, read_copy, text_columns
from .database import Database, mapped, new_database, put_in_place
from .documents import reindex
from .segments import sync_folder

HEADER = 100  # bytes of an SQLite file before its first page (sqlite.org/fileformat.html, 1.3)


def rebuild(folder: Path) -> str:
    """Put a new database in the place of a damaged one: the name of the folder where that is kept, "" for none.

    What could not be read is missing from the new one: checksums tell. The caller is in ``database.alone``, and deletes
    the folder ``WORK`` once nothing is damaged. Raises StoreError, and then all is as it was.
    """
    path, work = folder / DATABASE, folder / WORK
    with mapped(path):
        put_in_place(path)
        work.mkdir(exist_ok=True)
        _empty(work)
        try:
            aside = _rebuild(folder, path, work)
        finally:
            _empty(work)
    return aside


def _empty(work: Path) -> None:
    """Delete what is in a folder, but a new database that is whole."""
    for left in work.iterdir():
        if left != new_database(work.parent / DATABASE):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _rebuild(folder: Path, path: Path, work: Path) -> str:
    old, kept = work / "old.db", work / "kept"
    kept.mkdir()
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            _copy(path.with_name(path.name + suffix), kept / f"{path.name}{suffix}")
            if suffix != "-shm":
                shutil.copyfile(kept / f"{path.name}{suffix}", f"{old}{suffix}")
    sync_folder(kept)
    Database(work / "new.db", create=True).close()
    first = (work / "new.db").read_bytes()
    new = Database(work / "new.db", create=False, held=True)
    try:
        with new.write() as connection:
            connection.execute("DELETE FROM state")
            if old.exists():
                _mend_file(old, connection, first)
                with closing(sqlite3.connect(old, isolation_level=None)) as damaged:
                    damaged.text_factory = lambda data: data.decode("utf-8", "replace")
                    _copy_rows(damaged, connection)
            _mend_settings(folder, connection)
            reindex(connection)
    finally:
        new.close()
    aside = ""
    if old.exists():
        aside = f"damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
        kept.replace(folder / aside)
        sync_folder(folder)
    (work / "new.db").replace(new_database(path))
    sync_folder(work)
    put_in_place(path)
    return aside


def _copy(source: Path, target: Path) -> None:
    """Copy a file, so that it is on the disk."""
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _mend_file(old: Path, new: sqlite3.Connection, fresh: bytes) -> None:
    """Write what is the same in every index's file over the old one's: the header, and what the tables are.

    ``fresh``: the file of a new index; the tables of any that this version made begin where its do. ``old`` is a copy,
    so nothing is lost where that makes things worse.
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
    if not _mend_schema(old, new):
        with old.open("r+b") as file:
            file.seek(HEADER)
            file.write(fresh[HEADER:length])
        _mend_schema(old, new)


def _mend_schema(old: Path, new: sqlite3.Connection) -> bool:
    """Write what the tables are; whether all of them are known then."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(old, isolation_level=None)) as damaged:
        damaged.execute("PRAGMA writable_schema = ON")
        rows = new.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        for name, sql in rows:
            damaged.execute("UPDATE sqlite_master SET sql = ? WHERE name = ? AND sql <> ?", (sql, name, sql))
        names = "SELECT type, name FROM sqlite_master ORDER BY 1, 2"
        return damaged.execute(names).fetchall() == new.execute(names).fetchall()
    return False


def _copy_rows(damaged: sqlite3.Connection, new: sqlite3.Connection) -> None:
    damaged.execute("PRAGMA writable_schema = ON")  # so that what it is made of need not all be readable
    for table, order in TABLES.items():
        columns = [row[1] for row in new.execute(f"PRAGMA table_info({table})")]
        texts = set(text_columns(new, table))
        marks = ", ".join("?" * len(columns))
        for values in _rows(damaged, table, columns, order):
            row = [
                value.decode("utf-8", "replace") if column in texts and isinstance(value, bytes) else value
                for column, value in zip(columns, values, strict=True)
            ]
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
    """Take the settings of the copy where the state of the index could not be read. Without one there are none, which
    is damage where there are pages that were made by them."""
    if new.execute("SELECT 1 FROM state").fetchone() is None:
        text = read_copy(folder)
        new.execute("INSERT INTO state (id, settings, changes) VALUES (1, ?, 1)", (text or "{}",))
        if text or new.execute("SELECT 1 FROM page_vectors").fetchone() is None:
            seal_settings(new)
