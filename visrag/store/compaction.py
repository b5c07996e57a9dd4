"""Upkeep of a local index: what dead processes left, dead space."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection

from ..errors import Damaged, StoreError
from .checksums import read_facts, unsealed
from .damage import WORK, tolerant, unneeded_originals
from .database import CURE, Database
from .documents import segment_id
from .files import Files, size_of_files
from .locks import try_lock
from .packing import kind_of
from .segments import SUFFIX, SegmentReader, SegmentWriter, size_of_file
from .work import WRITER

DEAD_SHARE = 0.25  # of a segment's bytes: with more it is written anew


def sweep(folder: Path, database: Database, files: Files) -> None:
    """Drop what processes that are gone had begun: their rows, files, and segments that hold nothing else."""
    dead = []
    for path in (folder / "writers").iterdir():
        if (lock := try_lock(path)) is not None:
            path.unlink()
            os.close(lock)
            dead.append(path.name)
    with database.read() as connection:
        staged = [
            writer
            for (writer,) in connection.execute(
                "SELECT DISTINCT writer FROM generations WHERE NOT visible AND facts IS NULL AND writer != ?",
                (WRITER,),
            )
        ]
    dead += [writer for writer in staged if writer not in dead and not (folder / "writers" / writer).exists()]
    if not dead:
        return
    with database.write() as connection:
        connection.executemany(
            "DELETE FROM generations WHERE writer = ? AND NOT visible AND facts IS NULL",
            [(writer,) for writer in dead],
        )
    if not _whole(folder, database):
        return
    _delete_unused(folder, database, files)
    _each_free(folder, lambda path: _delete_dead(database, path))


def compact(folder: Path, database: Database, files: Files) -> int:
    """Rewrite segments with much dead space, vacuum, delete files that nothing uses: bytes given back.

    A segment's live blocks are copied and synced, then one transaction points their rows to the copies, then the
    old file goes: at every moment the rows point to whole blocks.
    """
    before = _bytes(folder)
    sweep(folder, database, files)
    if not _whole(folder, database):
        raise Damaged(f"{database.path} is damaged, or a repair has not come to its end: {CURE}")
    _delete_unused(folder, database, files)
    writer = SegmentWriter(folder / "vectors", reuse=False)
    try:
        _each_free(folder, lambda path: _rewrite(database, path, writer))
    finally:
        writer.close()
        _each_free(folder, lambda path: _delete_dead(database, path))  # where a rewrite did not come to its end
    with database.write() as connection:
        connection.execute("DELETE FROM segments WHERE id NOT IN (SELECT segment FROM page_vectors)")
        connection.execute("DELETE FROM legs WHERE id NOT IN (SELECT leg FROM page_vectors)")
    database.vacuum(DEAD_SHARE)
    return before - _bytes(folder)


def _whole(folder: Path, database: Database) -> bool:
    """Whether the rows that say which files are needed are as they were written: else one that is may not seem so."""
    if (folder / WORK).exists():
        return False
    with database.write(), tolerant(database) as connection:  # no one moves segments meanwhile
        segments = connection.execute("SELECT name FROM segments WHERE id IN (SELECT segment FROM page_vectors)")
        if not all(isinstance(name, str) and (folder / "vectors" / name).exists() for (name,) in segments):
            return False
        lost = "SELECT 1 FROM page_vectors WHERE segment NOT IN (SELECT id FROM segments) LIMIT 1"
        if connection.execute(lost).fetchone():
            return False
        documents = connection.execute("SELECT id, facts FROM generations WHERE visible AND facts NOTNULL").fetchall()
        return all(unsealed(facts) == json.dumps(read_facts(connection, document)) for document, facts in documents)


def _delete_unused(folder: Path, database: Database, files: Files) -> None:
    """Delete the files that no document uses, but for originals that are not what their names say."""
    with tolerant(database) as connection:
        _, strange = unneeded_originals(folder, connection)
    originals, images = files.names()
    files.delete_unused([name for name in originals if name not in strange], images)


def _each_free(folder: Path, do: Callable[[Path], object]) -> None:
    """Do something with each segment that no process appends to, while its lock is held."""
    for path in sorted((folder / "vectors").glob("*" + SUFFIX)):
        if (lock := try_lock(path)) is not None:
            try:
                do(path)
            finally:
                os.close(lock)


def _blocks(connection: Connection, segment: str) -> list[tuple[int, int, int, int, int, int, str]]:
    """The blocks of a segment that rows point to: leg, page, offset, n, dim, crc, the leg's name."""
    return connection.execute(
        "SELECT v.leg, v.page, v.offset, v.count, l.dim, v.crc, l.name FROM segments s "
        "JOIN page_vectors v ON v.segment = s.id JOIN legs l ON l.id = v.leg WHERE s.name = ? ORDER BY v.leg, v.offset",
        (segment,),
    ).fetchall()


def _delete_dead(database: Database, path: Path) -> bool:
    """Delete a segment, whose lock is held, if no row points to it."""
    sql = "SELECT 1 FROM segments JOIN page_vectors ON segment = id WHERE name = ? LIMIT 1"
    with database.read() as connection:
        if connection.execute(sql, (path.name,)).fetchone():
            return False
    path.unlink()
    return True


def _rewrite(database: Database, path: Path, writer: SegmentWriter) -> None:
    """Move the live blocks of a segment, whose lock is held, if enough of it is dead. A damaged one is left alone."""
    if _delete_dead(database, path):
        return
    with database.read() as connection:
        blocks = _blocks(connection, path.name)
    live = sum(count * dim for _, _, _, count, dim, _, _ in blocks)
    if live >= (1 - DEAD_SHARE) * path.stat().st_size:
        return
    reader = SegmentReader(path.parent)
    try:
        moved = [
            (leg, page, offset, writer.append(reader.block(path.name, offset, (count, dim), crc), kind_of(name)))
            for leg, page, offset, count, dim, crc, name in blocks
        ]
    except StoreError:
        return
    writer.sync()
    with database.write() as connection:
        old = segment_id(connection, path.name)
        for leg, page, offset, (name, new_offset, _) in moved:
            connection.execute(
                "UPDATE page_vectors SET segment = ?, offset = ? "
                "WHERE leg = ? AND page = ? AND segment = ? AND offset = ?",
                (segment_id(connection, name), new_offset, leg, page, old, offset),
            )
        connection.execute("UPDATE state SET changes = changes + 1")
    writer.release()
    path.unlink()


def _bytes(folder: Path) -> int:
    """What the index takes, but for SQLite's log, which comes and goes."""
    return size_of_files(folder) - size_of_file(folder / "index.db-wal")
