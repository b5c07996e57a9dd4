"""What is to go from an index on Qdrant: what was replaced, removed or abandoned, and what a crash left of that."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from qdrant_client import models

from .qdrant_connection import Connection
from .qdrant_forms import QUEUE, Record, Staged
from .qdrant_pages import Pages
from .qdrant_points import is_any, is_value
from .qdrant_records import Records
from .qdrant_work import parcel_name
from .remote import Folder

DEAD = 86_400.0  # seconds without a sign of life after which a process that was writing a document is taken for dead
SWEEP = 3600.0  # seconds between searches of this process for what late writers left


class QdrantCleaning:
    """The part of QdrantStore that cleans up. Everything here may be done twice, and by several at once."""

    _connection: Connection
    _records: Records
    _pages: Pages
    _files: Folder
    _begun: Mapping[int, float]
    _swept = -SWEEP

    def compact(self, worth: bool = False) -> int:
        """None: Qdrant gives them back by itself."""
        return 0

    def tidy(self) -> int:
        """As the protocol says; and what processes that are gone had begun, replaced or removed. Pages, images and
        files that late writers left are looked for once an hour."""
        count = self._mend()
        deep = time.monotonic() - self._swept > SWEEP
        idle = self._idle_parcels()
        self._files.delete([name for names in idle.values() for name in names])
        generations = set(idle)
        if deep:
            self._swept = time.monotonic()
            generations |= self._records.generations("failure", "image", "piece")
            generations |= {_generation(name) for kind in ("originals/", "images/") for name in self._files.names(kind)}
            generations |= set(self._pages.count_by_generation(models.Filter()))
        late = self._not_known(generations)
        for generation in late:
            self._clean([generation])
            self._files.delete(self._files.names(f"images/{generation}/"))
        return count + len(late | set(idle))

    def _idle_parcels(self) -> dict[int, list[str]]:
        """Parcels of documents that are not in the queue, by generation: of what was abandoned, and of what is done,
        where its worker died before it deleted them."""
        found: dict[int, list[str]] = {}
        for name in self._files.names("parcels/"):
            found.setdefault(_generation(name), []).append(name)
        for staged in self._records.all_staged() if found else ():
            found.pop(staged.generation, None)
        return found

    def _mend(self) -> int:
        """Finish what others that are gone had not: how many documents."""
        pending = self._records.pending()
        if pending:
            self._records.changed()  # in case that they died before they told readers
        for record in pending:
            self._settle(record)
        count = len(pending)
        gone = time.time() - DEAD
        for staged in self._records.all_staged(models.Filter(must_not=[is_value("writer", QUEUE)])):
            if staged.generation not in self._begun and (self._connection.first or staged.touched < gone):
                self._drop_staged(staged)
                count += 1
        self._connection.first = False
        return count

    def _not_known(self, generations: Iterable[int]) -> set[int]:
        """Those that no document has. To be asked of generations that were found before: a new one is staged first."""
        late = set(generations)
        if late:
            late -= {staged.generation for staged in self._records.all_staged()}  # before the records: a commit writes
            late -= {record.generation for record in self._records.documents()}  # its record before it unstages
        return late

    def _drop_late(self, staged: Staged) -> bool:
        """Whether a generation was abandoned while it was written; then what was written goes."""
        if self._records.staged(staged.generation) is not None:
            return False
        self._drop(staged)
        return True

    def _drop_staged(self, staged: Staged) -> None:
        self._records.unstage(staged.generation)
        self._drop(staged)

    def _drop(self, staged: Staged) -> None:
        """Clean away a generation that is staged no longer, unless it was committed. If it is found to be only after
        that, its commit saw all of its pages, and the document goes."""
        if self._committed_as(staged) is not None:
            return
        self._clean([staged.generation])
        while (record := self._committed_as(staged)) is not None and not self._tombstone(record):
            pass

    def _committed_as(self, staged: Staged) -> Record | None:
        """The record of a document if it is of this generation."""
        record = self._records.document(staged.document.name)
        return record if record is not None and record.generation == staged.generation else None

    def _tombstone(self, record: Record) -> bool:
        """Remove a document, unless another record came in the place of this one."""
        old = tuple({*record.old, record.generation} - {0})
        gone = self._records.swap(record, replace(record, generation=0, old=old, pending=True, removed=True))
        if gone is None:
            return False
        self._records.changed()
        self._settle(gone)
        return True

    def _take_back(self, record: Record, before: Record | None) -> None:
        """Put back what a record replaced just now, as its own pages are gone."""
        if before is None or before.removed:
            self._tombstone(record)
            return
        back = self._records.swap(record, replace(before, old=(*before.old, record.generation), pending=True))
        if back is not None:
            self._records.changed()
            self._settle(back)

    def _settle(self, record: Record) -> None:
        """Clean away what a record replaced. Twice does no harm."""
        for generation in {record.generation, *record.old} - {0}:
            self._records.unstage(generation)
        if record.old:
            self._clean(record.old)
        self._records.settle(record)

    def _clean(self, generations: Sequence[int]) -> None:
        """Delete all that belongs to generations."""
        self._pages.delete(is_any("generation", generations))
        left = self._records.clean(generations)
        originals = [f"originals/{generation}" for generation in generations]
        self._files.delete([*originals, *left.images, *map(parcel_name, left.pieces)])


def _generation(name: str) -> int:
    """Whose a file is: KIND/GENERATION, or KIND/GENERATION/NAME."""
    return int(name.split("/")[1])
