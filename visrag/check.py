"""What is damaged in an index, and its repair: from checksums and copies, else from the documents' files."""

from __future__ import annotations

import itertools
import mimetypes
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from .encoders import Encoders, settings_hash
from .errors import Damaged, DocumentError, NotFound
from .ingest import Progress, Silent, ingest
from .kinds import media_type, sha256_of
from .models import legs
from .records import Document
from .settings import IngestSettings, Ocr, RendererName, Route
from .sources import Source, size_of
from .store import Store
from .store.damage import DATABASE, WORK, Damage, Found
from .store.database import alone
from .store.local import LocalStore
from .store.rebuild import rebuild
from .store.remote import Downloads

ForIngest = Callable[[Store], Encoders]


@dataclass(slots=True)
class Check:
    """What a check found. ``damage``: all of it; ``left``: what is not repaired; ``orphans``: files that nothing
    needed, which a repair deletes; ``notes``: what else is to be known, and what remains to be done."""

    documents: int = 0
    pages: int = 0
    damage: list[Damage] = field(default_factory=list)
    left: list[Damage] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """What `visrag check --json` prints."""
        left = {damage.where for damage in self.left}
        return {
            "documents": self.documents,
            "pages": self.pages,
            "damage": [
                {
                    "document": damage.document,
                    "page": damage.page,
                    "file": damage.file,
                    "message": damage.message,
                    "repaired": damage.where not in left,
                }
                for damage in self.damage
            ],
            "orphans": self.orphans,
            "notes": self.notes,
            "seconds": round(self.seconds, 2),
        }


def check(
    folder: Path,
    for_ingest: ForIngest,
    repair: bool = False,
    settings: IngestSettings | None = None,
    progress: Progress | None = None,
) -> Check:
    """Compare an index with its checksums. ``repair``: make good what is damaged.

    ``settings``: passwords, processes and limits for the documents that are read again; how each is read is as it was.
    Nobody else may have the index open to repair it; who opens it to write waits meanwhile. A database that had to be
    made anew is kept beside. Raises StoreError for what is no index, and where it is to be repaired and cannot be.
    """
    begun = time.monotonic()
    progress = progress or Silent()
    found = _look(folder, progress)
    result = Check(found.documents, found.pages, found.damage, found.damage, found.orphans, found.notes)
    if repair and (found.damage or found.orphans):
        with alone(folder):
            _Repair(folder, for_ingest, settings or IngestSettings(), progress, result).run(found)
    result.seconds = time.monotonic() - begun
    return result


def _look(folder: Path, progress: Progress, held: bool = False) -> Found:
    try:
        with LocalStore.open(folder, clean=False, held=held) as store:
            return _find(store, progress)
    except Damaged as error:
        return Found(damage=[Damage("database", DATABASE, str(error))])


def _find(store: LocalStore, progress: Progress) -> Found:
    """``LocalStore.find_damage`` as progress by document: of so many parts of which each byte is one."""

    def told(name: str, done: int, size: int) -> None:
        progress.page(Source(Path(), name, done), 1)

    return store.find_damage(progress.start, told)


class _Repair:
    """One repair. What it finds beyond what was found before is added to ``result``."""

    def __init__(
        self, folder: Path, for_ingest: ForIngest, settings: IngestSettings, progress: Progress, result: Check
    ) -> None:
        self._folder = folder
        self._for_ingest = for_ingest
        self._settings = settings
        self._progress = progress
        self._result = result

    def run(self, found: Found) -> None:
        rebuilt = WORK in found.orphans  # by a repair that did not come to its end
        if any(damage.kind == "database" for damage in found.damage):
            rebuilt = True
            aside = rebuild(self._folder)
            kept = f"; the old one is in {aside}: delete it once nothing is missing" if aside else ""
            self._note(f"{DATABASE} was made anew: verdicts and what was in the queue may be missing{kept}")
            found = _look(self._folder, Silent(), held=True)
            known = {damage.where for damage in self._result.damage}
            self._result.damage = self._result.damage + [d for d in found.damage if d.where not in known]
        with LocalStore.open(self._folder, clean=False, held=True) as store:
            store.mend(found)
            for damage in found.damage:
                if damage.kind == "verdict":
                    self._note(f"{damage.document}, page {damage.page}: {damage.message}; it is gone")
            self._originals(store, found)
            try:
                store.settings()
            except Damaged:
                self._note("the settings are damaged, and so is their copy: make another index of the documents")
            else:
                with Downloads() as copies:
                    if rebuilt:
                        self._adopt(store, found.orphans, copies.folder)
                    self._documents(store, found, copies.folder)
            last = _find(store, Silent())
            if not last.damage:
                store.delete(last.orphans)
            elif last.orphans:
                self._note("the files that nothing needs are kept until nothing is damaged")
        self._result.notes = list(dict.fromkeys(self._result.notes + last.notes))
        self._result.documents, self._result.pages, self._result.left = last.documents, last.pages, last.damage
        self._result.orphans = sorted({*self._result.orphans, *last.orphans})

    def _originals(self, store: LocalStore, found: Found) -> None:
        """Copy originals again from where the documents came from."""
        for damage in found.damage:
            if damage.kind != "original" or damage.document is None:
                continue
            document = store.document(damage.document)
            if document is None:
                continue
            if _has(Path(document.path), document.content):
                store.mend_original(Path(document.path), document.content)
            else:
                gone = f"{document.path} is gone or has changed since"
                self._note(f"{document.name}: {damage.file} {damage.message}, and {gone}: put the file back there and "
                           "run this again, or ingest the document anew")  # fmt: skip

    def _documents(self, store: LocalStore, found: Found, folder: Path) -> None:
        """Ingest the documents again whose pages are damaged, each as it was."""
        names = {d.document for d in found.damage if d.document is not None and d.kind in ("page", "image")}
        sources: dict[tuple[IngestSettings, bool], list[Source]] = {}
        for name in sorted(names):
            document = store.document(name)
            source = None if document is None else self._source(store, document, folder)
            if document is None or source is None:
                self._note(f"{name}: its pages are damaged and its file is gone: ingest it anew, or remove it")
                continue
            sources.setdefault(self._way(store, document), []).append(source)
        for (settings, vision), some in sources.items():
            self._ingest(store, some, settings, vision)

    def _source(self, store: LocalStore, document: Document, folder: Path) -> Source | None:
        """The document's file: where it came from if that is unchanged, else the index's copy; None for neither."""
        path = Path(document.path)
        if path.name != document.content and _has(path, document.content):
            return Source(path, document.name, size_of(path), document.path)
        try:
            original = store.original(document.name)
        except NotFound:
            return None
        if not _has(original, document.content):
            return None
        return Source(copied(original, document.name, folder), document.name, size_of(original), document.path)

    def _way(self, store: LocalStore, document: Document) -> tuple[IngestSettings, bool]:
        """How a document was read, and whether by all of the index's models: what gives the hash of its settings."""
        link = store.is_linked(document.name)
        every = legs(store)[:-1]
        for ocr, renderer, route in itertools.product(get_args(Ocr), get_args(RendererName), get_args(Route)):
            settings = replace(self._settings, ocr=ocr, renderer=renderer, route=route, link=link)
            for count in range(len(every), 0, -1):
                if settings_hash(every[:count], settings) == document.settings:
                    return settings, any(leg.name == "patches" for leg in every[:count])
        self._note(f"{document.name}: was ingested by another version of visrag; its pages are made anew with defaults")
        return replace(self._settings, link=link), True

    def _adopt(self, store: LocalStore, orphans: Iterable[str], folder: Path) -> None:
        """Bring in the originals whose documents' rows are lost, under names made of their hashes."""
        sources = []
        for orphan in orphans:
            path = self._folder / orphan
            if not orphan.startswith("originals/") or not _has(path, path.name):
                continue
            suffix = None
            with suppress(DocumentError):
                suffix = mimetypes.guess_extension(media_type(path), strict=False)
            name = f"{path.name[:16]}{suffix or ''}"
            self._note(f"{name}: its name, tags and settings are lost; it was ingested anew under this one")
            sources.append(Source(copied(path, name, folder), name, size_of(path), str(path.absolute())))
        if sources:
            self._ingest(store, sources, self._settings, True)

    def _ingest(self, store: LocalStore, sources: Sequence[Source], settings: IngestSettings, vision: bool) -> None:
        encoders = self._for_ingest(store)
        if not vision:
            encoders = replace(encoders, vision=None)
        known = {(failure.document, failure.page) for failure in store.failures()}
        summary = ingest(store, encoders, sources, settings, progress=self._progress, again=True)
        for failure in summary.failures:
            if failure.page is None:
                self._note(f"{failure.document}: {failure.message}")
            elif (failure.document, failure.page) not in known:
                self._note(f"{failure.document}, page {failure.page}: {failure.message}")

    def _note(self, text: str) -> None:
        self._result.notes = [*self._result.notes, text]


def copied(original: Path, name: str, folder: Path) -> Path:
    """A copy of the index's copy of a document: with the suffix of its name, by which kinds of text are told apart."""
    copy = folder / f"{os.urandom(8).hex()}{PurePosixPath(name).suffix}"
    shutil.copyfile(original, copy)
    return copy


def _has(path: Path, sha256: str) -> bool:
    """Whether a file is there and has this content."""
    try:
        return sha256_of(path) == sha256
    except (OSError, ValueError):
        return False
