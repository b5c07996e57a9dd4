"""What a search scans: the visible pages and where their vectors lie, in arrays.

They are read once, and then what was added since: what belongs to a visible document does not change, but for where
its vectors lie. Compaction moves them, and then the segment in which they lay is gone: all is read anew.
"""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..compress import words_of
from ..errors import Damaged, StoreError, UsageError
from ..fulltext import K1, B, idf, weight
from ..maxsim import NUMPY, Block, kernel, maxsim, score_pages
from ..records import Filter, Floats, PageRef, QueryVectors
from .packing import bits_of, halves_of
from .segments import ALIGN, CURE, SegmentReader

Rows = NDArray[np.int64]
Records = NDArray[np.void]

PAGE = np.dtype([("id", "i8"), ("generation", "i8"), ("number", "i8"), ("length", "i8")])
BLOCK = np.dtype(
    [("page", "i8"), ("segment", "i8"), ("offset", "i8"), ("count", "i8"), ("scale", "f4"), ("chance", "f4")]
)
OVERSAMPLING = 5.0  # pages whose codes are scored after the bits of all, for each one that is asked for
LARGE = 2_000_000_000  # products of codes up to which no bits are scored


@dataclass(frozen=True, slots=True)
class LegTable:
    """The v pages that have a leg: ``rows`` (v,) of the page table, ascending. ``codes`` (v,): where their codes lie;
    ``bits``, ``halves`` (v,): where those lie, of ``count`` 0 for a page that has none. ``names``: those of segments by
    id."""

    rows: Rows
    codes: Records
    bits: Records
    halves: Records
    names: dict[int, str]
    dim: int

    def find(self, rows: Rows) -> Rows:
        """Positions in this table of rows of the page table; −1 for a page that lacks the leg."""
        return _find(self.rows, rows)

    def score(self, query: QueryVectors, positions: Rows, reader: SegmentReader) -> Floats:
        """MaxSim of the pages at these positions, (len(positions),) float32."""
        return self._score(query, self.codes[positions], reader)

    def exact(self, query: QueryVectors, positions: Rows, reader: SegmentReader) -> Floats:
        """As ``score``, by the float16 vectors of pages of which they are kept."""
        scores = self.score(query, positions, reader)
        for i in np.flatnonzero(self.halves["count"][positions]).tolist():
            _, segment, offset, count, *_ = self.halves[positions[i]].tolist()
            end = offset + 2 * count * self.dim
            vectors = reader.buffer(self.names[segment], end)[offset:end].view("<f2").reshape(count, self.dim)
            scores[i] = maxsim(query.vectors, query.weights, vectors.astype(np.float32))
        return scores

    def best(self, query: QueryVectors, positions: Rows, n: int, reader: SegmentReader) -> tuple[Rows, Floats]:
        """Of the pages at these positions, which ascend, the n best, best first, and their MaxSim; of equals the first.

        Where the codes of all would take long, they are those of ``oversampling()`` × n pages, the best by their bits,
        and of those without bits. (Not in numpy, which scores codes as fast as bits.)
        """
        most = int(n * oversampling())
        products = int(self.codes["count"][positions].sum()) * np.count_nonzero(query.weights) * self.dim
        large = len(positions) > 2 * most and products > LARGE and kernel() != NUMPY
        bits = self.bits[positions] if large else self.bits[:0]
        if bits["count"].any():
            coarse = np.where(bits["count"], self._score(query, bits, reader, bits=True), np.inf)
            most = min(most + int((bits["count"] == 0).sum()), len(positions))
            positions = np.sort(positions[np.argpartition(-coarse, most - 1)[:most]])
        scores = self.score(query, positions, reader)
        order = np.argsort(-scores, kind="stable")[:n]
        return positions[order], scores[order]

    def _score(self, query: QueryVectors, found: Records, reader: SegmentReader, bits: bool = False) -> Floats:
        if query.vectors.shape[1] != self.dim:
            raise StoreError(
                f"the question's vectors have {query.vectors.shape[1]} dimensions, the index's {self.dim}: "
                "use its model"
            )
        width = 8 * words_of(self.dim) if bits else self.dim
        segment, offsets, counts = (np.ascontiguousarray(found[name]) for name in ("segment", "offset", "count"))
        ends = np.zeros(1 + max(self.names, default=0), np.int64)
        np.maximum.at(ends, segment, offsets + counts * width)
        used = np.flatnonzero(ends)
        buffers = tuple(reader.buffer(self.names[i], int(ends[i])) for i in used.tolist())
        ends[used] = np.arange(len(used))
        scales = np.ascontiguousarray(found["scale"])
        return score_pages(
            query.vectors, query.weights, Block(buffers, ends[segment], offsets, counts, scales, self.dim, bits)
        )


@dataclass(slots=True)
class PageTable:
    """The p visible pages of one state of an index, in the order of PageRef.

    ``names`` and ``generations`` (d,): of the documents; ``pages`` (p,) PAGE; ``document`` (p,) into ``names``.
    ``legs``, ``postings`` and ``tagged`` are filled as searches ask for them.
    """

    changes: int
    names: list[str]
    generations: Rows
    pages: Records
    document: Rows
    legs: dict[str, LegTable] = field(default_factory=dict)
    postings: dict[str, tuple[Rows, Floats]] = field(default_factory=dict)
    tagged: dict[tuple[str, str], NDArray[np.bool_]] = field(default_factory=dict)
    _known: dict[str, int] = field(default_factory=dict)
    _by_id: Rows | None = None

    @classmethod
    def read(cls, connection: sqlite3.Connection, changes: int, before: PageTable | None = None) -> PageTable:
        """The table of the state that a connection sees; what is in that of an earlier state is taken from there."""
        documents = connection.execute("SELECT id, name FROM generations WHERE visible ORDER BY name").fetchall()
        names = [name for _, name in documents]
        generations = np.array([generation for generation, _ in documents], np.int64)
        new = None if before is None else np.setdiff1d(generations, before.generations)
        pages = _read(connection, PAGE, "pages", *_among("generation", new))
        if before is not None:
            pages = np.concatenate([before.pages, pages])
        order = np.argsort(generations)
        document = _find(generations[order], pages["generation"])
        pages, document = pages[document >= 0], order[document[document >= 0]]
        order = np.lexsort((pages["number"], document))
        table = cls(changes, names, generations, pages[order], document[order])
        table._known = {name: i for i, name in enumerate(names)}
        for name, leg in [] if before is None else list(before.legs.items()):
            if _dim(connection, name) == leg.dim:
                table.legs[name] = table._read_leg(connection, name, leg.dim, new, leg)
        return table

    def leg(self, connection: sqlite3.Connection, name: str) -> LegTable | None:
        """The table of a leg, read with the same state of the index; None where no page ever had it."""
        if name not in self.legs:
            dim = _dim(connection, name)
            if dim is None:
                return None
            self.legs[name] = self._read_leg(connection, name, dim)
        return self.legs[name]

    def _read_leg(
        self,
        connection: sqlite3.Connection,
        name: str,
        dim: int,
        new: Rows | None = None,
        before: LegTable | None = None,
    ) -> LegTable:
        """``before``: the table of an earlier state, to which that of the generations ``new`` is added."""
        names = dict(connection.execute("SELECT id, name FROM segments").fetchall())
        among, values = _among("generation", new)
        pages = among if new is None else f"page IN (SELECT id FROM pages WHERE {among})"
        where = f"leg = (SELECT id FROM legs WHERE name = ?) AND {pages}"
        read = [
            _read(connection, BLOCK, "page_vectors", where, (each, *values))
            for each in (name, bits_of(name), halves_of(name))
        ]
        for found in read:
            if len(found) and not _are_places(found, np.array(list(names))):
                raise Damaged(f"index.db is damaged: where vectors lie is no place: {CURE}")
        if before is not None:
            names = before.names | names
            known = (before.codes, before.bits, before.halves)
            read = [np.concatenate([old[old["count"] > 0], new]) for old, new in zip(known, read, strict=True)]
        codes, bits, halves = read
        rows = self.rows_of_ids(codes["page"])
        kept = np.flatnonzero(rows >= 0)
        kept = kept[np.argsort(rows[kept])]
        codes, rows = codes[kept], rows[kept]
        return LegTable(rows, codes, _aligned(bits, codes), _aligned(halves, codes), names, dim)

    def rows_of_ids(self, ids: Rows) -> Rows:
        """The rows of pages by SQLite's ids; −1 for a page that isn't visible."""
        if self._by_id is None:
            self._by_id = np.argsort(self.pages["id"])
        found = _find(self.pages["id"][self._by_id], ids)
        return np.where(found >= 0, np.append(self._by_id, -1)[found], -1)

    def rows(self, pages: Sequence[PageRef]) -> Rows:
        """The rows of pages by name; −1 for a page that isn't there."""
        numbers = self.pages["number"]
        starts = np.searchsorted(self.document, np.arange(len(self.names) + 1))
        found = np.full(len(pages), -1, np.int64)
        for i, (name, number) in enumerate(pages):
            document = self._known.get(name)
            if document is not None:
                first, end = starts[document], starts[document + 1]
                row = first + int(np.searchsorted(numbers[first:end], number))
                if row < end and numbers[row] == number:
                    found[i] = row
        return found

    def ref(self, row: int) -> PageRef:
        return PageRef(self.names[self.document[row]], int(self.pages["number"][row]))

    def allowed(self, connection: sqlite3.Connection, filter: Filter) -> NDArray[np.bool_]:
        """Which pages a filter lets through, (p,)."""
        documents = np.ones(len(self.names), bool)
        if filter.documents is not None:
            documents[:] = False
            documents[[self._known[name] for name in filter.documents if name in self._known]] = True
        for tag in filter.tags.items():
            if tag not in self.tagged:
                having = connection.execute("SELECT generation FROM tags WHERE key = ? AND value = ?", tag).fetchall()
                self.tagged[tag] = np.isin(self.generations, np.array(having, np.int64))
            documents &= self.tagged[tag]
        return documents[self.document]

    def bm25(self, connection: sqlite3.Connection, term: str) -> tuple[Rows, Floats]:
        """The rows of the pages that hold a term, ascending, and its BM25 in each, over all visible pages.

        weight × idf × tf × (k1 + 1) / (tf + k1 × (1 − b + b × length / mean length)), with ``fulltext.weight`` and
        ``fulltext.idf``; a page's length counts no phrases.
        """
        if term not in self.postings:
            sql = "SELECT doc, count(*) FROM fulltext_terms WHERE term = ? GROUP BY doc"
            postings = np.array(connection.execute(sql, (term,)).fetchall(), np.int64).reshape(-1, 2)
            rows = self.rows_of_ids(postings[:, 0])
            order = np.argsort(rows)
            rows, tf = rows[order], postings[order, 1].astype(np.float64)
            lengths = self.pages["length"]
            share = lengths[rows] / max(1.0, lengths.mean()) if len(rows) else tf
            scores = weight(term) * idf(len(lengths), len(rows)) * tf * (K1 + 1) / (tf + K1 * (1 - B + B * share))
            if sum(len(found) for found, _ in list(self.postings.values())) > 4_000_000:
                self.postings.clear()
            self.postings[term] = rows, scores.astype(np.float32)
        return self.postings[term]


def _dim(connection: sqlite3.Connection, leg: str) -> int | None:
    """A leg's dimensions; None where no page ever had it, or none has and the index was compacted."""
    row = connection.execute("SELECT dim FROM legs WHERE name = ?", (leg,)).fetchone()
    return None if row is None else int(row[0])


@cache
def oversampling() -> float:
    """Of how many times the pages that are asked for the codes are scored after the bits of all: VISRAG_OVERSAMPLING.
    Raises UsageError where that is no number from 1 on."""
    given = os.environ.get("VISRAG_OVERSAMPLING", "")
    try:
        found = float(given or OVERSAMPLING)
    except ValueError:
        found = 0.0
    if not 1 <= found < float("inf"):
        raise UsageError(f"VISRAG_OVERSAMPLING={given}: must be a number, and at least 1")
    return found


def _find(values: Rows, wanted: Rows) -> Rows:
    """Positions in ``values``, which ascend, of those that are wanted; −1 for one that is not there."""
    if not len(values):
        return np.full(len(wanted), -1, np.int64)
    found = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[found] == wanted, found, -1)


def _aligned(blocks: Records, pages: Records) -> Records:
    """The blocks of pages, in the order of other blocks of theirs; zeros for a page that has none."""
    ordered = np.append(blocks[np.argsort(blocks["page"])], np.zeros(1, BLOCK))
    return ordered[_find(ordered["page"][:-1], pages["page"])]


def _among(column: str, values: Rows | None) -> tuple[str, tuple[str, ...]]:
    """SQL, and its parameters, for rows of which a column is among some values; for all rows where they are None."""
    if values is None:
        return "1", ()
    return f"{column} IN (SELECT value FROM json_each(?))", (json.dumps(values.tolist()),)


def _read(
    connection: sqlite3.Connection, kind: np.dtype[np.void], table: str, where: str, values: tuple[str, ...] = ()
) -> Records:
    """The rows of a table for which ``where`` holds: the columns that ``kind`` names. Raises Damaged for what is no
    number.

    SQLite puts each column into one text, which numpy reads: three times as fast as row by row.
    """
    names = kind.names or ()
    joined = ", ".join(f"group_concat(ifnull({name}, 'nan'))" for name in names)
    texts = connection.execute(f"SELECT {joined} FROM {table} WHERE {where}", values).fetchone()
    columns = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, text in zip(names, texts, strict=True):
            try:
                columns.append(np.fromstring(text, kind[name], sep=",") if text else np.zeros(0, kind[name]))
            except (DeprecationWarning, ValueError, TypeError) as error:
                raise Damaged(f"index.db is damaged: what should be a number is none ({error}): {CURE}") from error
    if len({len(column) for column in columns}) > 1:
        raise Damaged(f"index.db is damaged: {table} has values that are no numbers: {CURE}")
    found = np.empty(len(columns[0]), kind)
    for name, column in zip(names, columns, strict=True):
        found[name] = column
    return found


def _are_places(found: Records, segments: Rows) -> bool:
    """Whether rows that say where vectors lie can be true."""
    offset, count = found["offset"], found["count"]
    if not np.isin(found["segment"], segments).all():
        return False
    return bool(offset.min() >= ALIGN and offset.max() < 2**48 and count.min() >= 1 and count.max() < 2**32)
