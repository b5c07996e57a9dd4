"""The two kinds of folders that files are kept in by name: of this machine, and elsewhere with a cache here."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

from ..errors import NotFound, StoreError, UsageError
from .database import mapped
from .locks import lock_new, locked, try_lock
from .segments import sync_folder
from .urls import Refused, asked, download, protocol_of, stamp_of, suffix_of

FRESH = 60.0  # seconds for which a file that was just used stays in the cache
ATOMIC = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory")  # a file appears there whole or not at all
PARTS = ".parts"  # where a local folder keeps what is being written

T = TypeVar("T")


class LocalFolder:
    """A folder of this machine. What is being written lies in ``PARTS``, locked while its writer lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts = folder / PARTS
        self._swept = False

    def put(self, name: str, data: bytes | Path) -> None:
        path, part = self._folder / name, self._parts / os.urandom(8).hex()
        with mapped(path):
            self._parts.mkdir(parents=True, exist_ok=True)
            if not self._swept:
                self.sweep()
                self._swept = True
            with open(lock_new(part), "wb") as target:
                try:
                    if isinstance(data, Path):
                        with data.open("rb") as source:
                            shutil.copyfileobj(source, target, 2**20)
                    else:
                        target.write(data)
                    target.flush()
                    os.fsync(target.fileno())
                    path.parent.mkdir(parents=True, exist_ok=True)
                    part.replace(path)
                except BaseException:
                    part.unlink(missing_ok=True)
                    raise
            for folder in path.parents[: len(path.relative_to(self._folder).parts)]:
                sync_folder(folder)

    def get(self, name: str) -> bytes:
        return self._read(name, Path.read_bytes)

    def fetch(self, name: str) -> Path:
        def itself(path: Path) -> Path:
            with path.open("rb"):
                return path

        return self._read(name, itself)

    def _read(self, name: str, read: Callable[[Path], T]) -> T:
        path = self._folder / name
        with mapped(path):
            try:
                return read(path)
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise NotFound(f"{self._folder}: holds no file {name}") from None

    def delete(self, names: Iterable[str]) -> None:
        for path in (self._folder / name for name in names):
            with mapped(path), suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()

    def names(self, above: str) -> Iterator[str]:
        """Of all files below the folder ``above`` ("": this one)."""

        def refused(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise error

        with mapped(self._folder):
            for where, folders, files in os.walk(self._folder / above, onerror=refused):
                if Path(where) == self._folder and PARTS in folders:
                    folders.remove(PARTS)
                yield from (Path(where, file).relative_to(self._folder).as_posix() for file in files)

    def sweep(self) -> int:
        with mapped(self._parts):
            return sum(unlink_dead(part) for part in self._parts.glob("*"))


class ObjectFolder:
    """A prefix of an object store."""

    def __init__(self, url: str, cache: Cache) -> None:
        if protocol_of(url) not in ATOMIC:
            kinds = ", ".join(f"{protocol}://" for protocol in ATOMIC)
            raise UsageError(f"{url}: visrag keeps no files there: give a folder, or a URL of {kinds}")
        self._url = url
        self._cache = cache

    def put(self, name: str, data: bytes | Path) -> None:
        def put(files: Any, path: str) -> None:
            if isinstance(data, Path) and files.protocol != "memory":  # which shows a file while it grows
                files.put_file(str(data), path)
            else:
                files.pipe_file(path, data.read_bytes() if isinstance(data, Path) else data)

        self._asked(name, put, data if isinstance(data, Path) else None)

    def get(self, name: str) -> bytes:
        return self._asked(name, lambda files, path: bytes(files.cat_file(path)))

    def fetch(self, name: str) -> Path:
        stamp = self._asked(name, stamp_of)
        key = hashlib.sha256(f"{self._url}/{name} {stamp}".encode("utf-8", "surrogateescape")).hexdigest()

        def fill(part: Path) -> None:
            self._asked(name, lambda files, path: download(files, path, part, stamp), part)

        return self._cache.fetch(key + suffix_of(name), fill)

    def delete(self, names: Iterable[str]) -> None:
        def delete(name: str) -> None:
            with suppress(NotFound):
                self._asked(name, lambda files, path: files.rm_file(path))

        threads = self._asked("", lambda files, _: 16 if files.async_impl else 1)
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(delete, names):
                pass

    def names(self, above: str) -> list[str]:
        """Of all files below the folder ``above`` ("": this one)."""

        def find(files: Any, path: str) -> list[str]:
            files.invalidate_cache()
            start = len(path) + 1
            return [key[start:] for key in files.find(f"{path}/{above}".rstrip("/")) if not key.endswith("/")]

        try:
            return self._asked("", find)
        except NotFound:
            return []

    def sweep(self) -> int:
        return 0

    def _asked(self, name: str, ask: Callable[[Any, str], T], here: Path | None = None) -> T:
        try:
            with mapped(here) if here else nullcontext():
                return asked(self._url, lambda files, path: ask(files, f"{path}/{name}" if name else path), here)
        except Refused as refused:
            if refused.missing:
                raise NotFound(f"{self._url}: holds no file {name}") from refused.__cause__
            raise StoreError(f"{self._url}/{name}: {refused}") from refused.__cause__


class Cache:
    """Copies of files from elsewhere, by a key that changes with their content. Processes may share it."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._grown = limit  # bytes that have come since there was made room
        self._growing = threading.Lock()

    def fetch(self, key: str, fill: Callable[[Path], None]) -> Path:
        """The file of a key, which ``fill`` writes where it is not there. Raises StoreError."""
        path, part = self._folder / key, self._folder / f"{key}.part"
        with mapped(self._folder):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._used(path):
                return path
            held = lock_new(part)  # waits for whoever is writing it
            try:
                if not self._used(path):
                    fill(part)
                    os.fsync(held)
                    part.replace(path)
                    self._make_room(path.stat().st_size)
            finally:
                part.unlink(missing_ok=True)
                os.close(held)
        return path

    def _used(self, path: Path) -> bool:
        """Whether a file is in the cache; if so it counts as new."""
        with locked(self._folder / "lock"), suppress(FileNotFoundError):
            os.utime(path)
            return True
        return False

    def _make_room(self, size: int) -> None:
        """Delete the files longest unused that are over the limit; ``size``: of the one that came. Looks once for each
        hundredth of the limit."""
        with self._growing:
            self._grown += size
            if self._grown < self._limit / 100:
                return
            self._grown = 0
        with locked(self._folder / "lock"):
            files = []
            for entry in os.scandir(self._folder):
                if entry.name.endswith(".part"):
                    unlink_dead(Path(entry.path))
                elif entry.name != "lock" and entry.is_file():  # others keep folders beside it
                    files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
            total = sum(size for _, size, _ in files)
            for used, size, path in sorted(files):
                if total <= self._limit or used > time.time() - FRESH:
                    return
                Path(path).unlink()
                total -= size


def unlink_dead(part: Path) -> bool:
    """Delete a file that was being written by a process which has died. Whether it was one."""
    held = try_lock(part)
    if held is None:
        return False
    part.unlink(missing_ok=True)
    os.close(held)
    return True
