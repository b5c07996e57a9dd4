"""Pictures of pages as files, kept on the disk: those longest unused go."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

MEMORY = 64 << 20  # bytes of pictures kept in memory, too
QUALITY = 88  # of JPEG


class Pictures:
    """A cache of encoded pictures by key, in a folder and, the last ones, in memory. For any number of threads.

    A folder that cannot be written, or is full, costs the cache and no picture.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._written = limit  # so that what an earlier run left is counted at the first write

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The picture of this key, made where it is not kept. ``key``: of letters, digits and dots."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        path = self._folder / key
        try:
            data = path.read_bytes() or make()  # empty after a power cut
            with suppress(OSError):
                os.utime(path)
        except OSError:
            data = make()
            self._write(path, data)
        self._remember(key, data)
        return data

    def _remember(self, key: str, data: bytes) -> None:
        with self._lock:
            self._bytes += len(data) - len(self._kept.get(key, b""))
            self._kept[key] = data
            while self._bytes > MEMORY and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1])

    def _write(self, path: Path, data: bytes) -> None:
        part = path.with_name(f"{path.name}.{os.urandom(4).hex()}.part")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink()
            return
        with self._lock:
            self._written += len(data)
            if self._written <= self._limit // 10:
                return
            self._written = 0
        self._shrink()

    def _shrink(self) -> None:
        """Delete those longest unused until the rest is within the limit."""
        found = []
        for file in self._folder.glob("*"):
            with suppress(OSError):
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= self._limit:
                break
            with suppress(OSError):
                file.unlink()
            total -= size


def key_of(*parts: object, suffix: str) -> str:
    """A key for the picture that is made from these; also its ETag."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).hexdigest() + suffix


def jpeg(image: Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=QUALITY, subsampling=0)
    return data.getvalue()


def png(image: Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=3)
    return data.getvalue()
