"""Files that were handed in, and wait in the index's files until they have come through the queue."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from .errors import NotFound, UsageError
from .kinds import SUFFIXES
from .records import Document, Order
from .settings import IngestSettings
from .steps import AGAIN, HANDED_IN, options_of
from .store import Store
from .store.database import mapped
from .store.folders import PARTS, unlink_dead
from .store.locks import lock_new
from .store.opening import QDRANT
from .store.qdrant_address import Address
from .store.remote import Downloads, Folder, is_url, local_path
from .store.segments import sync_folder

YOUNG = 3600.0  # seconds for which a file that was kept, or is being copied, may not be in the queue yet
_STAMP = 16  # characters of a name: when the file was kept, in nanoseconds since 1970

_SUFFIX_OF = {"text/markdown": ".md", "text/html": ".html", "text/plain": ".txt"}


class Uploads:
    """Where files that were handed in wait: uploads/ in the index's folder, or under the URL of its files.

    Raises UsageError for an index on Qdrant whose URL does not say where its files lie.
    """

    def __init__(self, index: str) -> None:
        if index.startswith(QDRANT):
            address = Address.parse(index)
            if not address.files:
                cure = "add ?files=FOLDER_OR_URL, which the server and all workers can reach"
                raise UsageError(f"{QDRANT}…/{address.collection}: says not where its files lie, for uploads: {cure}")
            where = address.files.rstrip("/")
        else:
            where = str(Path(index).absolute())
        self._files = Folder(f"{where}/uploads")
        self._folder = None if is_url(where) else local_path(self._files.url)

    @contextmanager
    def part(self) -> Iterator[Path]:
        """An empty file of this machine that only this user may read, to be written and perhaps kept. It is gone at
        the end, and when this process is killed with the next ``sweep``. Raises StoreError."""
        if self._folder is None:
            with Downloads() as downloads:
                path = downloads.folder / "part"
                path.touch(mode=0o600)
                yield path
            return
        path = self._folder / PARTS / os.urandom(16).hex()
        with mapped(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            held = lock_new(path)
        try:
            os.fchmod(held, 0o600)
            yield path
        finally:
            path.unlink(missing_ok=True)
            os.close(held)

    def keep(self, path: Path, name: str) -> str:
        """Keep a file whole and on the disk: the URI for its order, which is to be enqueued soon.

        A ``part`` is moved where that can be done, any other file copied. ``name``: the document's, for its suffix.
        Raises StoreError.
        """
        suffix = PurePosixPath(name).suffix.lower()
        kept = f"{time.time_ns():0{_STAMP}x}{os.urandom(8).hex()}{suffix if suffix in SUFFIXES else ''}"
        if self._folder is None or path.parent != self._folder / PARTS:
            self._files.put(kept, path)
            return f"{self._files.url}/{kept}"
        target = self._folder / kept
        with mapped(target):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.rename(target)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)
        return str(target)

    def sweep(self, needed: Callable[[], Iterable[str]]) -> int:
        """Delete the files but for those that are ``needed``, the URIs of the orders in the queue, and those that came
        within the hour: how many. Also what killed processes were writing. Raises StoreError."""
        if self._folder is not None:
            with mapped(self._folder):
                for part in (self._folder / PARTS).glob("*"):
                    unlink_dead(part)
        before = time.time() - YOUNG
        old = [name for name in self._files.names() if _kept_at(name) < before]
        kept = set(needed())  # asked for after the names: what is enqueued meanwhile is among them
        unused = [name for name in old if f"{self._files.url}/{name}" not in kept]
        self._files.delete(unused)
        return len(unused)


def upload_order(
    name: str, uri: str, settings: IngestSettings | None = None, tags: Mapping[str, str] | None = None
) -> Order:
    """The order for a file that was kept. ``tags``: None keeps those that the document has.

    Raises UsageError for settings that cannot go with it.
    """
    settings = settings or IngestSettings()
    if settings.link or settings.passwords:
        raise UsageError(f"{name}: a file that was handed in is read without link and passwords: leave them out")
    return Order(name, uri, {**options_of(settings), HANDED_IN: True}, tags)


def retry_order(store: Store, uploads: Uploads, name: str, settings: IngestSettings | None = None) -> Order:
    """The order for a document of the index that is to be read once more, to be enqueued soon.

    Its file is the index's copy, which is kept anew among the uploads, or else where it came from. Of a document that
    is in the queue it is the order that is there. Raises NotFound where there is no file, or no such document.
    """
    waiting = [job.order for job in store.jobs() if job.order.name == name]
    if waiting:
        return waiting[-1]
    document = store.document(name)
    if document is None:
        raise NotFound(f"the index holds no document {name}: visrag documents lists them")
    order = _order(store, uploads, document, settings or IngestSettings())
    return replace(order, options={**order.options, AGAIN: True})


def _order(store: Store, uploads: Uploads, document: Document, settings: IngestSettings) -> Order:
    try:
        kept = store.original(document.name)
    except NotFound:
        if not _is_there(document.path):
            cure = "hand the file in again, or remove the document"
            raise NotFound(f"{document.name}: its file is not kept and gone from where it was: {cure}") from None
        return Order(document.name, document.path, options_of(settings))
    if str(kept) == document.path:  # linked
        return Order(document.name, document.path, options_of(replace(settings, link=True)))
    known = PurePosixPath(document.name).suffix.lower() in SUFFIXES
    suffix = "" if known else _SUFFIX_OF.get(document.media_type, "")
    return upload_order(document.name, uploads.keep(kept, document.name + suffix), settings)


def _is_there(path: str) -> bool:
    return bool(path) and (is_url(path) or local_path(path).is_file())


def _kept_at(name: str) -> float:
    """When a file was kept, in seconds since 1970; one of another name counts as new."""
    try:
        return int(name[:_STAMP], 16) / 1e9
    except ValueError:
        return float("inf")
