"""An index on Qdrant: pages are points of one collection, all else lies in a sidecar collection; files beside them.

COLLECTION           a point for each page, with the vectors of all its legs (``qdrant_points``)
COLLECTION.meta      settings, documents, failures, the queue, feedback (``qdrant_records``)
files: originals/GENERATION, images/GENERATION/PAGE, parcels/GENERATION/PIECE

A page belongs to a generation of its document and is hidden until the document's record names that generation. In this
order, so that what a crash leaves can be mended by whoever comes next (``tidy``), and never shows:

    begin     the generation is staged: hidden          commit    the record names it, readers are told,
    write     pages, failures, files                              it is staged no longer, what it replaced goes
    abandon   it is staged no longer, then all of it goes; whoever wrote meanwhile sees that, and deletes it
"""

from __future__ import annotations

import hashlib
import io
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from qdrant_client import models

from ..errors import NotFound, NotWritten, StoreError
from ..records import Document, DocumentState, EncodedPage, Failure, PageRef
from . import Generation
from .qdrant_address import MEMORY, Address
from .qdrant_cleaning import QdrantCleaning
from .qdrant_connection import Connection
from .qdrant_feedback import QdrantFeedback
from .qdrant_forms import Record, Staged, check_text, quoted, unquoted
from .qdrant_pages import Pages
from .qdrant_points import has_id, is_any, is_value, page_id
from .qdrant_records import Records, new_generation
from .qdrant_search import Current, QdrantSearch
from .qdrant_work import QdrantWork
from .remote import Folder
from .urls import is_url

if TYPE_CHECKING:
    from PIL.Image import Image

TOUCH = 600.0  # seconds between signs of life of a process that writes a document
WEBP_SIDE = 16383  # pixels: a longer side is stored as PNG
LINK = "link:"


class QdrantStore(QdrantSearch, QdrantWork, QdrantFeedback, QdrantCleaning):
    """The Store of many machines. Any number of processes may read and write a server's; each object serves several
    threads. In local mode all objects of one process share the folder, which no other process can open."""

    def __init__(self, connection: Connection, records: Records, files: Folder) -> None:
        self.url = connection.address.url
        self._connection = connection
        self._records = records
        self._files = files
        self._pages = Pages(connection)
        self._writer = secrets.token_hex(8)
        self._begun: dict[Generation, float] = {}  # by this object: when they were last touched
        self._known = ("", {})
        self._idf = ("", {})
        self._current = Current()

    @classmethod
    def open(cls, url: str, create: bool = False) -> Self:
        """Open the index at a URL (see ``qdrant_address``); ``create`` makes one that is not there.

        Raises UsageError for the URL, StoreError (not an index, not reached, refused), IndexMismatch (a newer version).
        """
        address = Address.parse(url)
        if address.local and not create and not _is_there(address):
            raise StoreError(_nothing_at(address))
        connection = Connection(address)
        try:
            connection.check_version()
            records = Records(connection)
            if create:
                records.make()
            elif not records.exist():
                raise StoreError(_nothing_at(address))
            store = cls(connection, records, Folder(_files(connection, records, create)))
            if create or address.local:
                store._mend()
        except BaseException:
            connection.close()
            raise
        return store

    def close(self) -> None:
        """Drop what this object had begun and not committed, and close the connection."""
        try:
            for generation in list(self._begun):
                self.abandon(generation)
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Settings

    def settings(self) -> dict[str, Any]:
        return self._records.settings()

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        self._records.write_settings(settings)

    # Writing

    def begin(self, document: Document) -> Generation:
        generation, now = new_generation(), time.time()
        check_text(document.name, *document.tags.keys(), *document.tags.values())
        document = replace(document, indexed=0, failed=0, state="ingesting")
        self._records.stage([Staged(generation, document, self._writer, now)])
        self._begun[generation] = now
        return generation

    def add_pages(self, generation: Generation, pages: Sequence[EncodedPage]) -> None:
        """As the protocol says. A page with more vectors than Qdrant takes is recorded as failed."""
        staged = self._staged(generation)
        self._write_pages(staged, pages)
        if self._drop_late(staged):
            raise NotWritten(_not_written(generation))
        if generation in self._begun and time.time() - self._begun[generation] > TOUCH:
            self._begun[generation] = time.time()
            self._records.change_staged(generation, {"touched": self._begun[generation]})

    def fail(self, generation: Generation, page: int | None, reason: str, message: str) -> None:
        staged = self._staged(generation)
        self._fail(generation, [Failure(staged.document.name, page, reason, message)])
        if self._drop_late(staged):
            raise NotWritten(_not_written(generation))

    def commit(self, generation: Generation, pages: int) -> Document:
        """As the protocol says: the stroke is that which replaces the document's record."""
        document: Document | None = None
        while True:
            if document is not None and self._replaced(generation, document.name):
                self._begun.pop(generation, None)
                return document
            staged = self._staged(generation)
            name = staged.document.name
            before = self._records.document(name)
            if before is not None and before.generation == generation:  # another's stroke, who may have died since
                self._records.changed()
                self._settle(before)
                raise NotWritten(_not_written(generation))
            document = self._committed(staged, pages)
            self._staged(generation)  # still: so all of its pages were counted
            old = () if before is None else tuple({*before.old, before.generation} - {0})
            record = self._records.swap(before, Record(generation, document, staged.original, old, pending=True))
            if record is not None:
                break
        self._records.changed()
        # Where it is staged no longer, another has settled this record; or it was abandoned, and its pages go.
        if self._records.staged(generation) is None and self._written(generation) < document.indexed:
            self._take_back(record, before)
            raise NotWritten(_not_written(generation))
        self._settle(record)
        self._begun.pop(generation, None)
        return document

    def abandon(self, generation: Generation) -> None:
        self._begun.pop(generation, None)
        staged = self._records.staged(generation)
        if staged is not None:
            self._drop_staged(staged)

    def remove(self, document: str) -> None:
        record = self._records.document(document)
        staged = self._records.all_staged(is_value("name", document))
        if not staged and (record is None or record.removed):
            raise NotFound(f"the index holds no document {document}")
        for each in staged:
            self._drop_staged(each)
        while record is not None and not self._tombstone(record):
            record = self._records.document(document)

    # Reading

    def documents(self) -> list[Document]:
        found = {record.document.name: record.document for record in self._records.documents()}
        newest = {staged.document.name: staged for staged in self._records.all_staged()}
        shown = self._counted([staged for name, staged in newest.items() if name not in found])
        return sorted([*found.values(), *shown], key=lambda document: document.name)

    def document(self, name: str) -> Document | None:
        record = self._records.document(name)
        if record is not None and not record.removed:
            return record.document
        staged = self._records.all_staged(is_value("name", name))
        return self._counted(staged[-1:])[0] if staged else None

    def failures(self, document: str | None = None) -> list[Failure]:
        if document is None:
            records = self._records.documents()
            found = self._records.failures()
        else:
            record = self._records.document(document)
            records = [] if record is None or record.removed else [record]
            found = self._records.failures([record.generation for record in records])
        visible = {record.generation for record in records}
        mine = [failure for generation, failure in found if generation in visible]
        return sorted(mine, key=lambda failure: (failure.document, failure.page or 0))

    # Files

    def put_original(self, path: Path, content: str, link: bool) -> None:
        staged = self._records.staged_with(content) if content else []
        if not staged:
            raise NotWritten(f"{path}: no document of this content was begun in the index")
        for each in staged:
            if each.original:
                continue
            name = LINK + quoted(str(path.absolute())) if link else f"originals/{each.generation}"
            if not link:
                self._files.put(name, path)
            self._records.change_staged(each.generation, {"original": name})
            self._drop_late(each)

    def put_image(self, generation: Generation, page: int, image: Image) -> None:
        staged = self._staged(generation)
        kind = "WEBP" if max(image.size) <= WEBP_SIDE else "PNG"
        data = io.BytesIO()
        image.convert("RGB").save(data, kind, quality=85)
        name = f"images/{generation}/{page}-{hashlib.sha256(data.getvalue()).hexdigest()[:12]}.{kind.lower()}"
        self._files.put(name, data.getvalue())
        self._records.put_image(generation, page, name)
        if self._drop_late(staged):
            raise NotWritten(_not_written(generation))

    def original(self, document: str, generation: Generation | None = None) -> Path:
        record = self._records.document(document)
        found = record if generation is None else self._records.staged(generation)
        if found is None or not found.original:
            raise NotFound(f"the index keeps no file of {document}")
        if not found.original.startswith(LINK):
            return self._files.fetch(found.original)
        path = Path(unquoted(found.original.removeprefix(LINK)))
        if not path.exists():
            raise NotFound(f"{document}: its file {path} is gone; put it back, or ingest the document again")
        return path

    def image_path(self, page: PageRef) -> Path | None:
        record = self._records.document(page.document)
        name = None if record is None else self._records.image(record.generation, page.page)
        return None if name is None else self._files.fetch(name)

    # Inside

    def _staged(self, generation: Generation) -> Staged:
        staged = self._records.staged(generation)
        if staged is None:
            raise NotWritten(_not_written(generation))
        return staged

    def _replaced(self, generation: Generation, name: str) -> bool:
        """Whether a stroke that seemed lost came through: another's has replaced it, and may have cleaned up since."""
        record = self._records.document(name)
        return (record is not None and generation in record.old) or self._records.staged(generation) is None

    def _write_pages(self, staged: Staged, pages: Sequence[EncodedPage]) -> None:
        """Write pages; those that are too large are recorded as failed."""
        if not pages:
            return
        failures = self._pages.write(staged, pages, self.settings)
        failed = {failure.page for failure in failures}
        written = [page.page.number for page in pages if page.page.number not in failed]
        self._records.unfail(staged.generation, written)
        self._fail(staged.generation, failures)

    def _fail(self, generation: Generation, failures: Sequence[Failure]) -> None:
        """Record failures, and take the pages back."""
        ids = [page_id(generation, failure.page) for failure in failures if failure.page is not None]
        if ids:
            self._pages.delete(has_id(ids))
        if failures:
            self._records.fail(generation, failures)

    def _committed(self, staged: Staged, pages: int) -> Document:
        """A document as its record will have it."""
        indexed = self._written(staged.generation)
        failures = [failure for _, failure in self._records.failures([staged.generation])]
        state: DocumentState = "indexed"
        if failures and not indexed:
            state = "failed"
        elif failures or indexed < pages:
            state = "partial"
        failed = sum(failure.page is not None for failure in failures)
        return replace(staged.document, pages=pages, indexed=indexed, failed=failed, state=state)

    def _written(self, generation: Generation) -> int:
        """How many pages there are of a generation."""
        return self._pages.count(models.Filter(must=[is_value("generation", generation)]))

    def _counted(self, staged: Sequence[Staged]) -> list[Document]:
        """Documents that are being written, with what is in of them."""
        if not staged:
            return []
        mine = is_any("generation", [each.generation for each in staged])
        where = models.Filter(must=[mine])
        indexed = self._pages.count_by_generation(where)
        failed: dict[int, int] = {}
        for generation, failure in self._records.failures([each.generation for each in staged]):
            failed[generation] = failed.get(generation, 0) + (failure.page is not None)
        found = []
        for each in staged:
            done, lost = indexed.get(each.generation, 0), failed.get(each.generation, 0)
            found.append(replace(each.document, pages=max(each.document.pages, done + lost), indexed=done, failed=lost))
        return found


def _is_there(address: Address) -> bool:
    """Whether a folder of local mode holds anything; opening it would make it."""
    return address.folder == MEMORY or Path(address.folder, "meta.json").is_file()


def _nothing_at(address: Address) -> str:
    return f"{address.url} is not an index; make one with: visrag ingest PATH --index {address.url}"


def _not_written(generation: int) -> str:
    return f"generation {generation} is not being written: it was committed or abandoned, or its document was removed"


def _files(connection: Connection, records: Records, create: bool) -> str:
    """Where an index's files lie: as its URL says, or was said when it was made, or by default. A URL is remembered."""
    asked, known = connection.address.files, str(records.state()["files"])
    if create and asked and not known and is_url(asked):
        records.put_fields({"files": asked}, is_value("kind", "state"))
    return asked or known or connection.default_files()
