"""Files by URI, and folders of files: paths of this machine, or URLs of the file systems that fsspec knows.

Where a file system's endpoint and credentials come from is told in ``visrag.store.urls``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from ..errors import DocumentError, Reason, StoreError, UsageError
from .database import mapped
from .folders import PARTS, Cache, LocalFolder, ObjectFolder
from .locks import lock_new, try_lock
from .urls import Refused, asked, download, is_url, last_name, local_path, stamp_of, suffix_of, trimmed

__all__ = ["CACHE_BYTES", "Downloads", "Folder", "Listed", "fetch", "is_url", "listing", "local_path"]

CACHE_BYTES = 10 * 2**30  # of files from elsewhere that a Folder keeps here


class Listed(NamedTuple):
    """A file under a URL: its own URL, its name relative to what was asked for, its size in bytes (0: not told)."""

    uri: str
    name: str
    size: int


def listing(url: str) -> list[Listed]:
    """The files under a URL, by name: itself, or all below it.

    Raises UsageError where there is nothing or it cannot be looked at, and MissingExtra.
    """

    def find(files: Any, path: str) -> list[Listed]:
        files.invalidate_cache()
        found = files.info(path)
        if found["type"] != "directory":
            return [Listed(url, last_name(url), int(found["size"] or 0))]
        above, folder = path.rstrip("/") + "/", trimmed(url)
        below = [(key.removeprefix(above), entry) for key, entry in files.find(path, detail=True).items()]
        return [
            Listed(f"{folder}/{name}", name, int(entry["size"] or 0))
            for name, entry in sorted(below, key=lambda item: item[0])
            if entry["type"] == "file" and name and not name.endswith("/")
        ]

    try:
        return asked(url, find)
    except Refused as refused:
        raise UsageError(f"{url}: {refused}") from refused.__cause__


def fetch(uri: str, folder: Path) -> Path:
    """A file as a path of this machine: a local one as it is, there or not; another is downloaded into ``folder``,
    whole, under a new name with its suffix.

    Raises DocumentError (missing) where it could not be had, UsageError for a protocol that is not known, MissingExtra,
    and StoreError where ``folder`` cannot be written.
    """
    if not is_url(uri):
        return local_path(uri)
    part = folder / f"{os.urandom(8).hex()}{suffix_of(uri)}.part"
    try:
        with mapped(folder):
            folder.mkdir(parents=True, exist_ok=True)
            asked(uri, lambda files, path: download(files, path, part, stamp_of(files, path)), part)
            return part.rename(part.with_suffix(""))
    except Refused as refused:
        raise DocumentError(uri, None, Reason.MISSING, str(refused)) from refused.__cause__
    finally:
        with suppress(OSError):
            part.unlink()


class Downloads:
    """A folder for what this process fetches, gone with it: what a killed process left is removed when the next one
    starts. ``root``: where, by default under the system's folder for temporary files (TMPDIR)."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root or Path(tempfile.gettempdir()) / f"visrag-{os.getuid()}"
        self.folder = self._root / os.urandom(8).hex()
        self._lock = self.folder.with_suffix(".lock")
        self._held = -1

    def __enter__(self) -> Self:
        with mapped(self._root):
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._root.stat().st_uid != os.getuid():
                raise StoreError(f"{self._root}: belongs to another user: remove it, or set TMPDIR to another folder")
            for lock in self._root.glob("*.lock"):
                if (held := try_lock(lock)) is not None:
                    _remove(lock, held)
            self._held = lock_new(self._lock)
            self.folder.mkdir(mode=0o700)
        return self

    def __exit__(self, *_: object) -> None:
        _remove(self._lock, self._held)

    @contextmanager
    def file(self, uri: str) -> Iterator[Path]:
        """A file as a path of this machine; what was downloaded for it is deleted at the end. Raises as ``fetch``."""
        path = fetch(uri, self.folder)
        try:
            yield path
        finally:
            if is_url(uri):
                path.unlink(missing_ok=True)


def _remove(lock: Path, held: int) -> None:
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)
    os.close(held)


class Folder:
    """Files by name, in a folder or under a URL of an object store. Names are relative and may hold "/".

    ``cache``: where ``fetch`` keeps files from elsewhere, by default $XDG_CACHE_HOME/visrag; those longest unused go
    when they are over ``cache_bytes``. An upload to S3 of over 100 MB that a kill -9 cuts short leaves parts that
    nobody sees; a lifecycle rule of the bucket (AbortIncompleteMultipartUpload) removes them. Every method raises
    StoreError where the folder cannot be used, and UsageError for a name that would leave it.
    """

    def __init__(self, url: str | Path, cache: Path | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        self._files: LocalFolder | ObjectFolder
        if is_url(str(url)):
            self.url = trimmed(str(url))
            cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "visrag"
            self._files = ObjectFolder(self.url, Cache(cache, cache_bytes))
        else:
            path = local_path(str(url)).absolute()
            self.url = str(path)
            self._files = LocalFolder(path)

    def put(self, name: str, data: bytes | Path) -> None:
        """Write a file, from bytes or from a file of this machine: it is there whole or not at all."""
        self._files.put(self._checked(name), data)

    def get(self, name: str) -> bytes:
        """Raises NotFound."""
        return self._files.get(self._checked(name))

    def fetch(self, name: str) -> Path:
        """A file as a path of this machine, not to be changed: itself, or a copy that is downloaded once and stays for
        a minute at least. Raises NotFound."""
        return self._files.fetch(self._checked(name))

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that are not there are passed over."""
        self._files.delete([self._checked(name) for name in names])

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with ``prefix``, sorted."""
        above = prefix.rpartition("/")[0]
        found = self._files.names(self._checked(above) if above else "")
        return sorted(name for name in found if name.startswith(prefix))

    def sweep(self) -> int:
        """Remove what killed processes left of files that they were writing: how many. The first ``put`` does so."""
        return self._files.sweep()

    def _checked(self, name: str) -> str:
        parts = name.split("/")
        if parts[0] == PARTS or "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise UsageError(f"{name!r}: is no name for a file in {self.url}: give a path relative to it, without '..'")
        return name
