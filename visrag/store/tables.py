"""What a search scans: the visible pages and where their vectors lie, in arrays, read once a state of the index."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import Damaged, StoreError
from ..fulltext import K1, B, idf, weight
from ..maxsim import Block, score_pages
from ..records import Filter, Floats, PageRef, QueryVectors
from .segments import ALIGN, CURE, SegmentReader

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LegTable:
    """The pages that have a leg: ``rows`` (v,) of the page table, ascending, and for each where its codes lie."""

    rows: Rows
    segments: tuple[str, ...]
    segment: Rows
    offsets: Rows
    counts: Rows
    scales: Floats
    chances: Floats
    dim: int

    def find(self, rows: Rows) -> Rows:
        """Positions in this table of rows of the page table; −1 for a page that lacks the leg."""
        if not len(self.rows):
            return np.full(len(rows), -1, np.int64)
        found = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[found] == rows, found, -1)

    def score(self, query: QueryVectors, positions: Rows, segments: SegmentReader) -> Floats:
        """MaxSim of the pages at these positions, (len(positions),) float32."""
        if query.vectors.shape[1] != self.dim:
            raise StoreError(
                f"the question's vectors have {query.vectors.shape[1]} dimensions, the index's {self.dim}: "
                "use its model"
            )
        numbers, segment = np.unique(self.segment[positions], return_inverse=True)
        offsets, counts = self.offsets[positions], self.counts[positions]
        ends = np.zeros(len(numbers), np.int64)
        np.maximum.at(ends, segment, offsets + counts * self.dim)
        buffers = tuple(
            segments.buffer(self.segments[number], end)
            for number, end in zip(numbers.tolist(), ends.tolist(), strict=True)
        )
        block = Block(buffers, segment, offsets, counts, self.scales[positions], self.dim)
        return score_pages(query.vectors, query.weights, block)


@dataclass(slots=True)
class PageTable:
    """The visible pages of one state of an index, in the order of PageRef.

    ``ids`` (p,): SQLite's; ``document`` (p,) into ``names``; ``numbers`` (p,); ``lengths`` (p,) in terms. ``tags`` maps
    (key, value) to the documents that have it. ``legs`` and ``postings`` are filled as searches ask for them.
    """

    changes: int
    names: list[str]
    generations: Rows
    ids: Rows
    document: Rows
    numbers: Rows
    lengths: Rows
    tags: Mapping[tuple[str, str], list[int]]
    legs: dict[str, LegTable] = field(default_factory=dict)
    postings: dict[str, tuple[Rows, Floats]] = field(default_factory=dict)
    _known: dict[str, int] = field(default_factory=dict)
    _by_id: Rows | None = None

    @classmethod
    def read(cls, connection: sqlite3.Connection, changes: int) -> PageTable:
        documents = connection.execute("SELECT id, name FROM generations WHERE visible ORDER BY name").fetchall()
        place = {generation: i for i, (generation, _) in enumerate(documents)}
        pages = _columns(
            connection.execute(
                "SELECT p.id, p.generation, p.number, p.length FROM generations g JOIN pages p ON p.generation = g.id "
                "WHERE g.visible ORDER BY g.name, p.number"
            ),
            4,
        )
        tags: dict[tuple[str, str], list[int]] = {}
        for generation, key, value in connection.execute("SELECT generation, key, value FROM tags"):
            if generation in place:
                tags.setdefault((key, value), []).append(place[generation])
        document = np.array([place[generation] for generation in pages[1].tolist()], np.int64)
        names = [name for _, name in documents]
        generations = np.array([generation for generation, _ in documents], np.int64)
        table = cls(changes, names, generations, pages[0], document, pages[2], pages[3], tags)
        table._known = {name: i for i, name in enumerate(names)}
        return table

    def leg(self, connection: sqlite3.Connection, name: str) -> LegTable | None:
        """The table of a leg, read with the same state of the index; None where no page ever had it."""
        if name not in self.legs:
            row = connection.execute("SELECT id, dim FROM legs WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            self.legs[name] = self._read_leg(connection, *row)
        return self.legs[name]

    def _read_leg(self, connection: sqlite3.Connection, leg: int, dim: int) -> LegTable:
        names = dict(connection.execute("SELECT id, name FROM segments ORDER BY id"))
        sql = "SELECT page, segment, offset, count, scale, ifnull(chance, 9e999) FROM page_vectors WHERE leg = ?"
        page, segment, offset, count, scale, chance = _columns(connection.execute(sql, (leg,)), 6)
        rows = self.rows_of_ids(page)
        kept = np.flatnonzero(rows >= 0)
        kept = kept[np.argsort(rows[kept])]
        ids = np.array(list(names), np.int64)
        if len(kept) and not _are_places(segment[kept], offset[kept], count[kept], ids):
            raise Damaged(f"index.db is damaged: where vectors lie is no place: {CURE}")
        return LegTable(
            rows[kept],
            tuple(names.values()),
            np.searchsorted(ids, segment[kept]),
            offset[kept],
            count[kept],
            scale[kept].astype(np.float32),
            np.where(np.isinf(chance[kept]), np.nan, chance[kept]).astype(np.float32),
            dim,
        )

    def rows_of_ids(self, ids: Rows) -> Rows:
        """The rows of pages by SQLite's ids; −1 for a page that isn't visible."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        if self._by_id is None:
            self._by_id = np.argsort(self.ids)
        found = np.minimum(np.searchsorted(self.ids, ids, sorter=self._by_id), len(self.ids) - 1)
        rows = self._by_id[found]
        return np.where(self.ids[rows] == ids, rows, -1)

    def rows(self, pages: Sequence[PageRef]) -> Rows:
        """The rows of pages by name; −1 for a page that isn't there."""
        starts = np.searchsorted(self.document, np.arange(len(self.names) + 1))
        found = np.full(len(pages), -1, np.int64)
        for i, (name, number) in enumerate(pages):
            document = self._known.get(name)
            if document is not None:
                first, end = starts[document], starts[document + 1]
                row = first + int(np.searchsorted(self.numbers[first:end], number))
                if row < end and self.numbers[row] == number:
                    found[i] = row
        return found

    def ref(self, row: int) -> PageRef:
        return PageRef(self.names[self.document[row]], int(self.numbers[row]))

    def allowed(self, filter: Filter) -> NDArray[np.bool_]:
        """Which pages a filter lets through, (p,)."""
        documents = np.ones(len(self.names), bool)
        if filter.documents is not None:
            documents[:] = False
            documents[[self._known[name] for name in filter.documents if name in self._known]] = True
        for tag in filter.tags.items():
            having = np.zeros(len(self.names), bool)
            having[self.tags.get(tag, [])] = True
            documents &= having
        return documents[self.document]

    def bm25(self, connection: sqlite3.Connection, term: str) -> tuple[Rows, Floats]:
        """The rows of the pages that hold a term, ascending, and its BM25 in each, over all visible pages.

        weight × idf × tf × (k1 + 1) / (tf + k1 × (1 − b + b × length / mean length)), with ``fulltext.weight`` and
        ``fulltext.idf``; a page's length counts no phrases.
        """
        if term not in self.postings:
            sql = "SELECT doc, count(*) FROM fulltext_terms WHERE term = ? GROUP BY doc"
            ids, counts = _columns(connection.execute(sql, (term,)), 2)
            rows = self.rows_of_ids(ids)
            order = np.argsort(rows)
            rows, tf = rows[order], counts[order].astype(np.float64)
            share = self.lengths[rows] / max(1.0, self.lengths.mean()) if len(rows) else tf
            scores = weight(term) * idf(len(self.ids), len(rows)) * tf * (K1 + 1) / (tf + K1 * (1 - B + B * share))
            if sum(len(found) for found, _ in list(self.postings.values())) > 4_000_000:
                self.postings.clear()
            self.postings[term] = rows, scores.astype(np.float32)
        return self.postings[term]


def _are_places(segment: Rows, offset: Rows, count: Rows, segments: Rows) -> bool:
    """Whether rows that say where vectors lie can be true."""
    if any(column.dtype.kind != "i" for column in (segment, offset, count)) or not np.isin(segment, segments).all():
        return False
    return bool(offset.min() >= ALIGN and offset.max() < 2**48 and count.min() >= 1 and count.max() < 2**32)


def _columns(cursor: sqlite3.Cursor, width: int) -> list[Rows]:
    """A query's rows as one array a column: int64, or float64 where a value is no integer. Raises Damaged."""
    rows = cursor.fetchall()
    if not rows:
        return [np.zeros(0, np.int64)] * width
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    try:
        return [column if column.dtype.kind == "i" else column.astype(np.float64) for column in columns]
    except (TypeError, ValueError) as error:
        raise Damaged(f"index.db is damaged: what should be a number is none ({error}): {CURE}") from error
