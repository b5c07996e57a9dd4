"""Segments: append-only files of blocks, memory-mapped for reading.

A file is a header of 64 bytes and blocks, each beginning at a multiple of 64. What is in a block, whose it is
and its checksum stand in SQLite's rows: bytes that no row points to are dead, whatever they hold. All blocks of a file
are of one kind: 1 is int8 codes (n × dim, row after row), 2 is bits (``compress.to_bits``), which a search reads all
of, and so lie close together, 3 is float16 (n × dim, little-endian).

    header: magic 8 bytes, version uint16, kind uint16, zeros (little-endian)

A file is written by whoever holds its lock, and unlinked only under it. Readers take no lock: what they have mapped
stays theirs, and a file that is gone has moved (the rows say where to).
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged, StoreError
from .locks import lock_new, try_lock

MAGIC = b"VISRAGSG"
VERSION = 1
INT8, BITS, FLOAT16 = KINDS = 1, 2, 3
ALIGN = 64
HEADERS = {kind: struct.pack("<8sHH52x", MAGIC, VERSION, kind) for kind in KINDS}
LIMIT = 256 * 2**20
SUFFIX = ".seg"
CURE = "visrag check --repair makes good what it can"


class Location(NamedTuple):
    """Where a block lies: the segment's name, the offset of its first byte; and its crc32."""

    segment: str
    offset: int
    crc: int


class SegmentGone(Damaged):
    """Raised when a segment is not there: compaction moved its blocks, or it was deleted."""


@dataclass(slots=True)
class _Open:
    """A segment that is appended to."""

    descriptor: int
    name: str
    end: int


class SegmentWriter:
    """Appends blocks to segments of its own, one of each kind; a full one is followed by another. Not thread-safe."""

    def __init__(self, folder: Path, limit: int = LIMIT, reuse: bool = True) -> None:
        """``reuse``: whether to go on in a segment that is not full and has no other writer."""
        self._folder = folder
        self._limit = limit
        self._reused = set() if reuse else set(KINDS)
        self._open: dict[int, _Open] = {}
        self._full: list[int] = []
        self._new_name = False
        self._dirty = False

    def append(self, block: NDArray[np.int8], kind: int = INT8) -> Location:
        """Write a block. It is safe on disk after ``sync``. Raises OSError, and then nothing was appended."""
        data = np.ascontiguousarray(block).data.cast("B")
        found = self._open.get(kind)
        if found is not None and found.end > ALIGN and found.end + len(data) > self._limit:
            self._full.append(self._open.pop(kind).descriptor)
            found = None
        if found is None:
            found = self._begin(kind, len(data))
        offset = found.end
        padding = -len(data) % ALIGN
        try:
            _write(found.descriptor, data, offset)
            _write(found.descriptor, memoryview(bytes(padding)), offset + len(data))
        except OSError:
            os.ftruncate(found.descriptor, offset)
            raise
        found.end = offset + len(data) + padding
        self._dirty = True
        return Location(found.name, offset, zlib.crc32(data))

    def sync(self) -> None:
        """Bring everything appended to the disk."""
        if self._dirty:
            for descriptor in (*self._full, *(found.descriptor for found in self._open.values())):
                os.fsync(descriptor)
            self._dirty = False
        if self._new_name:
            sync_folder(self._folder)
            self._new_name = False

    def release(self) -> None:
        """Let go of full segments, once they are synced and rows point to their blocks."""
        while self._full:
            os.close(self._full.pop())

    def close(self) -> None:
        """Sync, and let go of every segment."""
        try:
            self.sync()
        finally:
            self._full += [found.descriptor for found in self._open.values()]
            self._open.clear()
            self.release()

    def _begin(self, kind: int, length: int) -> _Open:
        if kind not in self._reused:
            self._reused.add(kind)
            for path in sorted(self._folder.glob("*" + SUFFIX)):
                if (descriptor := try_lock(path)) is not None:
                    size = os.fstat(descriptor).st_size
                    if size + length <= self._limit and os.pread(descriptor, ALIGN, 0) == HEADERS[kind]:
                        self._open[kind] = _Open(descriptor, path.name, size + -size % ALIGN)
                        return self._open[kind]
                    os.close(descriptor)
        name = os.urandom(8).hex() + SUFFIX
        descriptor = lock_new(self._folder / name)
        try:
            _write(descriptor, memoryview(HEADERS[kind]), 0)
        except OSError:
            (self._folder / name).unlink()
            os.close(descriptor)
            raise
        self._open[kind] = _Open(descriptor, name, ALIGN)
        self._new_name = True
        return self._open[kind]


class SegmentReader:
    """Maps segments into memory, each once. For use from several threads."""

    def __init__(self, folder: Path, headers: bool = True) -> None:
        """``headers``: whether a segment whose header is not known is refused."""
        self._folder = folder
        self._headers = headers
        self._maps: dict[str, NDArray[np.int8]] = {}
        self._lock = threading.Lock()

    def buffer(self, name: str, end: int) -> NDArray[np.int8]:
        """A segment's bytes as int8, at least ``end`` of them. Raises SegmentGone; Damaged where it is too short."""
        path = self._folder / name
        with self._lock:
            found = self._maps.get(name)
            if found is None or len(found) < end:
                found = self._maps[name] = _map(path, self._headers)
        if len(found) < end:
            raise Damaged(f"{path} is damaged: it ends at byte {len(found)}, before a block that ends at {end}: {CURE}")
        return found

    def block(self, name: str, offset: int, shape: tuple[int, int], crc: int) -> NDArray[np.int8]:
        """One block, (n, dim) int8, if its checksum is right. Raises SegmentGone; Damaged."""
        end = offset + shape[0] * shape[1]
        if offset < ALIGN or min(shape) < 1:
            raise Damaged(f"{self._folder.parent / 'index.db'} is damaged: where vectors lie is no place: {CURE}")
        data = self.buffer(name, end)[offset:end]
        if zlib.crc32(data.data) != crc:
            raise Damaged(f"{self._folder / name} is damaged between bytes {offset} and {end}: {CURE}")
        return data.reshape(shape)

    def keep(self, names: set[str]) -> None:
        """Let go of the segments that are not named."""
        with self._lock:
            self._maps = {name: data for name, data in self._maps.items() if name in names}


def mend_header(path: Path, kind: int) -> None:
    """Write a segment's header anew, once no one appends to it."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _write(descriptor, memoryview(HEADERS[kind]), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _map(path: Path, header: bool) -> NDArray[np.int8]:
    try:
        data = np.memmap(path, np.int8, "r")
    except FileNotFoundError as error:
        raise SegmentGone(f"{path} is missing: restore it from a copy; else {CURE}") from error
    except ValueError as error:  # an empty file
        raise Damaged(f"{path} is damaged: it is empty: {CURE}") from error
    except OSError as error:
        raise StoreError(f"{path} could not be read: {error.strerror}; check the disk") from error
    if header and bytes(data[:ALIGN]) not in HEADERS.values():
        raise Damaged(f"{path} is damaged, or was made by a newer version of visrag: its header is not known: {CURE}")
    return data.view(np.ndarray)


def size_of_file(path: Path) -> int:
    """A file's bytes, 0 where it is not there: another process may delete it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
