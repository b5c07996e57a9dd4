"""Search on Qdrant: what the protocol of stores asks, as calls of the Query API.

A leg's candidates are one call: the pooled vectors find ``FIRST`` times as many pages, all vectors rank them. Filters
and hidden generations hold at both stages. What is read is of one state of the index: a call during which a document
was replaced or removed is made again (``_steady``, ``_seen``), and a search in which that happened to a document that
it saw (``steady``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from qdrant_client import models

from ..errors import NotFound, StoreError
from ..records import Filter, Floats, Page, PageRef, PatchVectors, QueryVectors
from . import Query
from .qdrant_connection import Connection
from .qdrant_forms import Record
from .qdrant_pages import Pages
from .qdrant_points import (
    FULLTEXT,
    PAGE_FIELDS,
    POOLED,
    has_id,
    page_filter,
    page_id,
    read_page,
    read_places,
    ref,
    term_counts,
)
from .qdrant_records import Records

FIRST = 2  # pages that the pooled vectors put forward, for each that is asked for
LEAST = 200  # and at least so many
RETRIES = 20  # times that a search starts again because a document changed under it

T = TypeVar("T")
Found = list[tuple[int, PageRef, float]]  # generation, page, score


class Current(threading.local):
    """The version of the index at which this thread's search began, while there is one, and the records that it saw."""

    state: tuple[str, dict[str, Record | None]] | None = None


class QdrantSearch:
    """The part of QdrantStore that searches. As the protocol says, unless a method says more."""

    _connection: Connection
    _records: Records
    _pages: Pages
    _known: tuple[str, dict[str, Record | None]]
    _idf: tuple[str, dict[str, float]]
    _current: Current

    # Search

    def steady(self, find: Callable[[], T]) -> T:
        """As the protocol says, as to the documents that it finds or asks for: they are the same from its beginning to
        its end. Where those change all the time, what it gave last."""
        if self._current.state is not None:
            return find()
        for left in reversed(range(RETRIES)):
            version, records = self._current.state = self._records.version(), {}
            try:
                found = find()
            except NotFound:
                if not left or self._are_same(version, records):
                    raise
            else:
                if not left or self._are_same(version, records):
                    break
            finally:
                self._current.state = None
        return found

    def candidates(self, leg: str, query: Query, filter: Filter, n: int) -> list[tuple[PageRef, float]]:
        """As the protocol says, among those pages that the pooled vectors put forward."""
        if n < 1 or not self._pages.has(leg) or (filter.documents is not None and not filter.documents):
            return []
        if isinstance(query, QueryVectors):
            self._check_dim(leg, query)
            vectors = self._question(query)

            def find(hidden: set[int]) -> list[models.ScoredPoint]:
                return self._nearest(leg, vectors, page_filter(hidden, filter), n)
        elif query:
            terms = query

            def find(hidden: set[int]) -> list[models.ScoredPoint]:
                return self._matching(terms, page_filter(hidden, filter), hidden, n)

        else:
            return []
        found = self._seen(find)
        return sorted(((page, score) for _, page, score in found), key=lambda each: (-each[1], each[0]))[:n]

    def score(self, leg: str, query: Query, pages: Sequence[PageRef], exact: bool = False) -> Floats:
        if not pages or not self._pages.has(leg):
            return np.full(len(pages), np.nan, np.float32)
        if isinstance(query, QueryVectors):
            self._check_dim(leg, query)

        def find(_: str, ids: Sequence[str]) -> Floats:
            scores: dict[str, float] = {}
            if isinstance(query, QueryVectors):
                points = self._nearest(
                    leg, self._question(query), models.Filter(must=[has_id(ids)]), len(ids), exact=True
                )
            else:
                scores = dict.fromkeys((str(point.id) for point in self._retrieve(ids, False)), 0.0)
                among = models.Filter(must=[has_id(ids)])
                points = self._matching(query, among, self._records.hidden(), len(ids)) if query else []
            scores.update((str(point.id), point.score) for point in points)
            return np.array([scores.get(key, np.nan) for key in ids], np.float32)

        return self._by_id(pages, find)

    def term_scores(self, terms: Sequence[str], pages: Sequence[PageRef]) -> Floats:
        """As the protocol says: the pages' weights, times the idf that the server gives each term."""

        def find(version: str, ids: Sequence[str]) -> Floats:
            weights = {str(point.id): _sparse(point) for point in self._retrieve(ids, False, [FULLTEXT])}
            idf = self._idfs(version, terms)
            rows = [[weights.get(key, {}).get(_index(term), 0.0) * idf[term] for term in terms] for key in ids]
            return np.array(rows, np.float32).reshape(len(ids), len(terms))

        return self._by_id(pages, find)

    def chance(self, leg: str, pages: Sequence[PageRef]) -> Floats:
        def find(_: str, ids: Sequence[str]) -> Floats:
            levels = {
                str(point.id): _leg(point, leg).get("chance") for point in self._retrieve(ids, [f"legs.{leg}.chance"])
            }
            return np.array([np.nan if levels.get(key) is None else levels[key] for key in ids], np.float32)

        return self._by_id(pages, find)

    # Pages

    def vectors(self, leg: str, page: PageRef) -> PatchVectors | None:
        if leg not in self._pages.legs():
            return None

        def find(_: str, ids: Sequence[str]) -> PatchVectors | None:
            for point in self._retrieve(ids, [f"legs.{leg}"], [leg]):
                if leg in (point.vector or {}):
                    vectors = np.asarray(point.vector[leg], np.float32)  # type: ignore[call-overload,index]
                    return PatchVectors(vectors, read_places(_leg(point, leg)))
            return None

        return self._by_id([page], find)

    def page(self, page: PageRef) -> Page:
        def find(_: str, ids: Sequence[str]) -> Page | None:
            for point in self._retrieve(ids, PAGE_FIELDS):
                return read_page(page.page, point.payload or {})
            return None

        found = self._by_id([page], find)
        if found is None:
            raise NotFound(f"the index holds no page {page.page} of {page.document}")
        return found

    def page_count(self, filter: Filter) -> int:
        if filter.documents is not None and not filter.documents:
            return 0
        return self._steady(lambda _: self._pages.count(page_filter(self._records.hidden(), filter)))

    # Calls

    def _nearest(
        self, leg: str, query: models.NearestQuery, where: models.Filter, n: int, exact: bool = False
    ) -> list[models.ScoredPoint]:
        """The pages nearest to a question, by MaxSim. ``exact``: of all that the filter lets through."""
        first = models.Prefetch(
            query=query,
            using=leg + POOLED,
            filter=where,
            limit=max(FIRST * n, LEAST),
            params=models.SearchParams(quantization=models.QuantizationSearchParams(rescore=False)),
        )
        return self._query(query, leg, where, n, prefetch=None if exact else first)

    def _question(self, query: QueryVectors) -> models.NearestQuery:
        """A question's vectors as MaxSim of the server counts them: a weight scales its vector, and so its best match.

        Local mode computes with what it is given: with an array of float32 four times as fast as with a list.
        """
        counting = query.weights > 0
        weighted = query.vectors[counting] * query.weights[counting, None]
        if not len(weighted):
            weighted = np.zeros_like(query.vectors[:1])
        if self._connection.address.local:
            return models.NearestQuery.model_construct(nearest=weighted.astype(np.float32))
        return models.NearestQuery(nearest=weighted.tolist())

    def _matching(
        self, terms: Sequence[str], where: models.Filter, hidden: Iterable[int], n: int
    ) -> list[models.ScoredPoint]:
        """The pages that hold terms, by BM25. The idf is counted over the pages that are not hidden; servers before
        1.19 count all that are in their index."""
        counts = term_counts(terms)
        query = models.SparseVector(indices=list(counts), values=list(map(float, counts.values())))
        params = models.SearchParams(idf=models.IdfCorpusParams(corpus=page_filter(hidden, Filter())))
        return self._query(query, FULLTEXT, where, n, search_params=params)

    def _query(self, query: Any, using: str, where: models.Filter, n: int, **more: Any) -> list[models.ScoredPoint]:
        answer = self._connection.call(
            "query_points",
            collection_name=self._pages.collection,
            query=query,
            using=using,
            query_filter=where,
            limit=n,
            with_payload=["document", "page", "generation"],
            **more,
        )
        points: list[models.ScoredPoint] = answer.points
        return points

    def _retrieve(
        self, ids: Sequence[str], payload: bool | list[str], vectors: bool | list[str] = False
    ) -> list[models.Record]:
        if not ids or not self._pages.legs():
            return []
        points: list[models.Record] = self._connection.call(
            "retrieve",
            collection_name=self._pages.collection,
            ids=list(ids),
            with_payload=payload,
            with_vectors=vectors,
        )
        return points

    def _idfs(self, version: str, terms: Iterable[str]) -> dict[str, float]:
        """Each term's idf: what the server makes of a page that holds it, by the page's weight for it."""
        kept = self._idf
        if kept[0] != version:
            kept = self._idf = version, {}
        known = kept[1]
        missing = [term for term in dict.fromkeys(terms) if term not in known]
        hidden = self._records.hidden() if missing else set()
        for term in missing:
            known[term] = 0.0
            for point in self._matching([term], page_filter(hidden, Filter()), hidden, 1):
                weight = _sparse(self._retrieve([str(point.id)], False, [FULLTEXT])[0])[_index(term)]
                known[term] = point.score / weight
        return known

    def _check_dim(self, leg: str, query: QueryVectors) -> None:
        dim = self._pages.legs()[leg]
        if query.vectors.shape[1] != dim:
            raise StoreError(
                f"the question's vectors have {query.vectors.shape[1]} dimensions, the index's {dim}: use its model"
            )

    # One state of the index

    def _steady(self, find: Callable[[str], T]) -> T:
        """What ``find`` gives of one state of the index, whose version it is told. Where documents change all the time,
        of the last. In a search it is ``steady`` that sees to it."""
        if self._current.state is not None:
            return find(self._current.state[0])
        for _ in range(RETRIES):
            with self._connection.alone():
                version = self._records.version()
                found = find(version)
                if self._records.version() == version:
                    break
        return found

    def _seen(self, find: Callable[[set[int]], list[models.ScoredPoint]]) -> Found:
        """Pages of one state of the index, each of the generation that its document has. Where documents change all
        the time, of the last; but never of two generations of one."""
        strays: set[int] = set()  # left by late writers and not yet swept, or begun since ``hidden`` was read
        known = ""
        for _ in range(RETRIES):
            with self._connection.alone():
                version = self._records.version()
                if version != known:
                    known, strays = version, set()
                points = [(point.payload or {}, point.score) for point in find(self._records.hidden() | strays)]
                found = [(payload["generation"], ref(payload), score) for payload, score in points]
                records = self._records.named({page.document for _, page, _ in found})
                right = [each for each in found if _generation(records, each[1].document) == each[0]]
                if self._records.version() != version:
                    continue
                if len(right) == len(found):
                    self._known = version, dict(records)
                    if self._current.state is not None:
                        seen = self._current.state[1]
                        seen.update({**records, **seen})
                    break
                strays |= {generation for generation, _, _ in found} - {generation for generation, _, _ in right}
        return right

    def _are_same(self, version: str, records: Mapping[str, Record | None]) -> bool:
        """Whether documents are what they were, by their records of this version or a later one."""
        if self._records.version() == version:
            return True
        now = self._records.named(records)
        return all(_generation(now, name) == _generation(records, name) for name in records)

    def _by_id(self, pages: Sequence[PageRef], find: Callable[[str, Sequence[str]], T]) -> T:
        """What ``find`` gives for the ids of pages; a page that isn't there has one that nothing has."""

        def ask(version: str) -> T:
            records = self._read_records({page.document for page in pages}, version)
            return find(version, [page_id(_generation(records, page.document), page.page) for page in pages])

        return self._steady(ask)

    def _read_records(self, names: Iterable[str], version: str) -> Mapping[str, Record | None]:
        """The records of documents, kept as long as nothing changes, or as a search goes on."""
        kept = self._current.state or self._known
        if kept[0] != version:
            kept = self._known = version, {}
        known = kept[1]
        missing = [name for name in names if name not in known]
        if missing:
            found = self._records.named(missing)
            known.update((name, found.get(name)) for name in missing)
        return known


def _generation(records: Mapping[str, Record] | Mapping[str, Record | None], name: str) -> int:
    record = records.get(name)
    return 0 if record is None or record.removed else record.generation


def _leg(point: models.Record, leg: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (point.payload or {}).get("legs", {}).get(leg, {})
    return found


def _sparse(point: models.Record) -> dict[int, float]:
    """The weights of a page's terms, by index."""
    vector = (point.vector or {}).get(FULLTEXT)  # type: ignore[union-attr]
    return dict(zip(vector.indices, vector.values, strict=True)) if isinstance(vector, models.SparseVector) else {}


def _index(term: str) -> int:
    return next(iter(term_counts([term])))
