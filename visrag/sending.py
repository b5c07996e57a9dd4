"""Documents → a server's collection, and how far they are, until they have left its queue."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from .answers import Json, document_of, failures_of
from .connection import Connection
from .errors import DocumentError, FileChanged, LimitError, NotFound, Reason, ServerError, StoreError, UsageError
from .ids import document_id
from .ingest import Progress, Silent, Summary
from .records import Document, Failure
from .settings import IngestSettings
from .sources import Source

LISTED = 1000  # documents of one answer
BREAKS = 7  # times in a row that the events may break off before anything came


class Sending:
    """A lot of documents on their way into a collection, whose path is ``base``."""

    def __init__(self, connection: Connection, base: str, progress: Progress | None) -> None:
        self._connection, self._base = connection, base
        self._progress = progress or Silent()
        self._begun = time.monotonic()
        self._before = {found["document"]: document_of(found) for found in listed(connection, base)}
        self._waiting: dict[str, Source] = {}
        self._told: dict[str, int] = {}  # how many pages of a document the progress knows of
        self.summary = Summary()

    def files(self, sources: Sequence[Source], fields: Mapping[str, str], upload_bytes: int) -> None:
        """Send files of this machine, each as it is read. One that cannot be read, or is refused, is among the
        failures. ``fields``: what goes with each; ``upload_bytes``: the largest that the server takes."""
        self._progress.start(sum(source.size for source in sources))
        for source in sources:
            try:
                if source.size > upload_bytes:
                    why = f"is larger than the server takes ({upload_bytes >> 20} MiB): split it"
                    raise DocumentError(source.name, None, Reason.TOO_LARGE, why)
                with source.path.open("rb") as file:
                    self._upload(source, file, fields)
            except OSError as error:
                why = f"cannot be read ({error.strerror}): check the path and its rights"
                self._refused(source, Reason.MISSING, why)
            except FileChanged as error:
                self._refused(source, Reason.MISSING, str(error))
            except DocumentError as error:
                self._refused(source, error.reason, error.message)

    def texts(self, texts: Mapping[str, str]) -> None:
        """Send texts, by name."""
        data = {name: text.encode("utf-8", "replace") for name, text in texts.items()}
        self._progress.start(sum(map(len, data.values())))
        for name, text in data.items():
            self._upload(Source(Path(name), name, len(text)), BytesIO(text), {})

    def url(self, url: str, body: Json) -> None:
        """Have the server fetch what lies at a URL."""
        answer = self._connection.post(f"{self._base}/documents/from-uri", {**body, "uri": url})
        with self._connection.understood():
            for found in answer["documents"]:
                self._queued(Source(url, found["document"], 0))

    def again(self, names: Sequence[str]) -> None:
        """Have documents read once more of which something failed. One whose file has gone is among the failures."""
        self._before = {}
        self._progress.start(0)
        for name in names:
            source = Source(Path(name), name, 0)
            try:
                self._connection.post(f"{self._base}/documents/{document_id(name)}/retry")
                self._queued(source)
            except NotFound as error:
                self._refused(source, Reason.MISSING, str(error))

    def wait(self) -> Summary:
        """Until all have left the queue: what became of them. Raises ServerError, LimitError, StoreError where the
        server fails for half a minute."""
        broken = 0
        while self._waiting:
            try:
                for number, changes in enumerate(self._connection.events(f"{self._base}/events")):
                    broken = 0
                    self._take(changes, whole=number == 0)
                    if not self._waiting:
                        break
            except (ServerError, LimitError, StoreError):
                broken += 1
                if broken == BREAKS:
                    raise
            if self._waiting:
                time.sleep(0.25 * 2**broken)
        self.summary.seconds = time.monotonic() - self._begun
        return self.summary

    def _upload(self, source: Source, file: IO[bytes], fields: Mapping[str, str]) -> None:
        self._connection.upload(f"{self._base}/documents", file, {**fields, "name": source.name})
        self._queued(source)

    def _queued(self, source: Source) -> None:
        self._waiting[source.name] = source
        self._told[source.name] = 0

    def _refused(self, source: Source, reason: Reason, why: str) -> None:
        self.summary.documents += 1
        self.summary.failures.append(Failure(source.name, None, reason, why))
        self._progress.finish(source)

    def _take(self, changes: Json | None, whole: bool) -> None:
        """What an event tells; the first one of a stream, and the sign of life of a quiet one, is a reason to look
        what has left the queue unseen."""
        with self._connection.understood():
            if whole or changes is None:
                found = [_known(item) for item in listed(self._connection, self._base)]
                present = {document.name for document, _ in found}
                gone = [name for name in self._waiting if name not in present]
            else:
                found = [_known(item) for item in changes["documents"]]
                gone = [name for name in self._waiting if document_id(name) in changes["removed"]]
        for document, failures in found:
            if document.name in self._waiting:
                self._follow(document, failures)
        for name in gone:
            self._refused(self._waiting.pop(name), Reason.MISSING, "was removed while it was in the queue")

    def _follow(self, document: Document, failures: Sequence[Failure]) -> None:
        """Tell the progress how far a document is; end it where it has left the queue."""
        source = self._waiting[document.name]
        for _ in range(self._told[document.name], document.indexed + document.failed):
            self._progress.page(source, document.pages)
            self._told[document.name] += 1
        if document.state != "ingesting":
            self._end(document, failures)
            del self._waiting[document.name]
            self._progress.finish(source)

    def _end(self, document: Document, failures: Sequence[Failure]) -> None:
        before = self._before.get(document.name)
        if before is not None and before.state != "ingesting" and _same(before, document):
            self.summary.unchanged += 1
            return
        if len(failures) < document.failed:  # a list has only the first of them
            found = self._connection.get(f"{self._base}/documents/{document_id(document.name)}")
            with self._connection.understood():
                _, failures = _known(found)
        self.summary.documents += 1
        self.summary.pages += document.indexed
        self.summary.failures += failures


def listed(connection: Connection, base: str) -> Iterator[Json]:
    """The documents of a collection as the server gives them."""
    offset = 0
    while True:
        found = connection.get(f"{base}/documents", limit=LISTED, offset=offset)
        yield from found["documents"]
        offset += LISTED
        if offset >= found["total"]:
            return


def options_of(settings: IngestSettings | None) -> dict[str, Any] | None:
    """Settings as a server takes them, None for none. ``jobs`` is its own affair. Raises UsageError for what cannot be
    sent."""
    if settings is None:
        return None
    if settings.passwords:
        raise UsageError("passwords are not sent to a server: give them to its environment, VISRAG_PASSWORDS")
    if settings.link:
        raise UsageError("a server cannot link files of this machine: leave link out")
    options, usual = asdict(settings), asdict(IngestSettings())
    for name in ("memory", "max_pixels", "max_words", "max_pages"):
        if options[name] != usual[name]:
            raise UsageError(f"{name}: these limits are the server's own: leave it out")
    return {name: options[name] for name in ("ocr", "renderer", "route", "page_timeout")}


def fields_of(tags: Mapping[str, str] | None, options: Mapping[str, Any] | None) -> dict[str, str]:
    """What goes with an upload, as fields of a form."""
    given = {"tags": None if tags is None else dict(tags), "options": options}
    return {name: json.dumps(value) for name, value in given.items() if value is not None}


def _same(before: Document, after: Document) -> bool:
    return (before.content, before.settings, before.tags) == (after.content, after.settings, after.tags)


def _known(found: Json) -> tuple[Document, list[Failure]]:
    return document_of(found), failures_of(found)
