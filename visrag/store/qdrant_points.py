"""A page ↔ a point of Qdrant's collection.

    LEG                 all vectors of a page in a leg: a multivector, scored by MaxSim
    LEG.pooled          a few vectors that stand for them, which find candidates
    fulltext            BM25's weights of the page's terms, without the idf, which the server multiplies in
    payload             document, page, generation, tags: what is filtered; and what is fetched for single pages:
                        text, words, size, text_source, drawn; legs: for each its chance level and packed places

A vector is stored as float32, but with the values that a local index holds (int8 codes × a scale): so rankings are
the same in both, and an index is copied to and fro without loss. DOT, since COSINE would erase what lengths say.

A page of a document is a point of a generation, and never changes: the sidecar says which generations are to be seen
(``qdrant_records``).
"""

from __future__ import annotations

import base64
import json
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import models

from ..compress import from_int8
from ..fulltext import K1, PHRASE, B
from ..records import EncodedPage, Filter, Floats, Page, PageRef, Places
from .packing import PackedPage, pack, unpack_places, unpack_words

FULLTEXT = "fulltext"
POOLED = ".pooled"
# Of the exact 10 best of 2,374 pages (690 token vectors each; 120 questions) the first 400 by pooled vectors hold, by
# runs of 2: 100%, of 4: 99.9%, of 8: 99.6%, of 16: 99.0%; the first 100: 99.8, 98.1, 93.3 and 89.5%. By 64 vectors
# whatever the page's length 92.5% of the first 400, fewer than by runs of 16: long pages lose. By one mean 91.6%.
RUN = 4  # neighbours that are pooled into one, where there is no grid
MOST = 16  # a page of up to so many vectors is not pooled: windows, of which 4 pooled would hold 99.0%

# BM25 needs the mean length of all pages, in terms, when a page is written, and earlier pages keep what they were
# written with. So it is a constant: the mean of the 2,374 pages on which the ranking was measured. Where the index's
# own mean is another, long pages are damped a little more or less than in a local index.
MEAN_LENGTH = 328.0

_SPACE = uuid.UUID("6f1f1f7e-3c0f-5a53-9f3b-8f2d8f3f9a10")


def point_id(*parts: object) -> str:
    """The id of a point: the same for the same parts, so that what is written again overwrites itself."""
    return str(uuid.uuid5(_SPACE, "/".join(map(str, parts))))


def page_id(generation: int, page: int) -> str:
    return point_id("page", generation, page)


def tag_key(key: str, value: str) -> str:
    """A tag as one keyword."""
    return json.dumps([key, value], ensure_ascii=False)


class PagePoint:
    """A page as it is sent: ``vectors`` by name, float32 (n, dim) or sparse, and ``payload``."""

    def __init__(self, document: str, generation: int, tags: Mapping[str, str], encoded: EncodedPage) -> None:
        """Raises StoreError, naming the page, for what cannot be stored."""
        packed = pack(document, encoded)
        self.number = packed.number
        self.id = page_id(generation, packed.number)
        self.vectors: dict[str, Floats | models.SparseVector] = {FULLTEXT: weights(packed.terms, packed.phrases)}
        self.legs: dict[str, tuple[int, int]] = {}
        for name, leg in packed.legs.items():
            vectors = from_int8(leg.codes, leg.scale)
            self.legs[name] = vectors.shape
            self.vectors[name] = vectors
            self.vectors[name + POOLED] = pooled(vectors, encoded.legs[name].places)
        self.payload = {
            "document": document,
            "page": packed.number,
            "generation": generation,
            "tags": [tag_key(*tag) for tag in tags.items()],
            **_contents(packed),
        }

    def bytes(self, number: int) -> int:
        """How much is sent for it, where one number of a vector takes ``number`` bytes. A little too much."""
        numbers = sum(
            2 * len(v.indices) if isinstance(v, models.SparseVector) else v.size for v in self.vectors.values()
        )
        return numbers * number + len(json.dumps(self.payload))


def _contents(packed: PackedPage) -> dict[str, Any]:
    legs = {
        name: {"chance": leg.chance, "places": base64.b64encode(leg.places).decode()}
        for name, leg in packed.legs.items()
    }
    return {
        "text": packed.text,
        "words": base64.b64encode(packed.words).decode(),
        "size": list(packed.size),
        "text_source": packed.text_source,
        "drawn": packed.drawn,
        "legs": legs,
    }


PAGE_FIELDS = ["text", "words", "size", "text_source", "drawn"]


def read_page(number: int, payload: Mapping[str, Any]) -> Page:
    """The page of a point's payload, of which ``PAGE_FIELDS`` were fetched."""
    words = unpack_words(payload["text"], base64.b64decode(payload["words"]))
    width, height = payload["size"]
    return Page(number, width, height, payload["text"], words, payload["text_source"], payload["drawn"])


def read_places(leg: Mapping[str, Any]) -> Places:
    return unpack_places(base64.b64decode(leg["places"]))


# Vectors


def pooled(vectors: Floats, places: Places) -> Floats:
    """The few vectors, (m, dim) float32, that stand for a page's (n, dim) when candidates are looked for.

    On a grid the means of its rows and of its columns, and the vectors that have no place; else means of runs of
    neighbours.
    """
    if places.grid is None:
        if len(vectors) <= MOST:
            return vectors
        starts = np.arange(0, len(vectors), RUN)
        lengths = np.diff([*starts, len(vectors)])
        return np.asarray(np.add.reduceat(vectors, starts, axis=0) / lengths[:, None], np.float32)
    rows, cols = places.grid
    cells = np.where((places.vectors >= 0)[:, None], vectors[places.vectors], np.nan).reshape(rows, cols, -1)
    there = ~np.isnan(cells[:, :, 0])
    means = [np.nanmean(cells[there.any(axis=1)], axis=1), np.nanmean(cells[:, there.any(axis=0)], axis=0)]
    rest = np.setdiff1d(np.arange(len(vectors)), places.vectors)
    return np.concatenate([*means, vectors[rest]]).astype(np.float32)


def weights(terms: Sequence[str], phrases: Sequence[str]) -> models.SparseVector:
    """A page's terms and phrases with their weight in BM25, but for the idf."""
    norm = K1 * (1 - B + B * len(terms) / MEAN_LENGTH)
    values: dict[int, float] = {}
    for found, times in ((term_counts(terms), 1.0), (term_counts(phrases), PHRASE)):
        for index, count in found.items():
            values[index] = values.get(index, 0.0) + times * count * (K1 + 1) / (count + norm)
    indices = sorted(values)
    return models.SparseVector(indices=indices, values=[values[index] for index in indices])


def term_counts(terms: Iterable[str]) -> dict[int, int]:
    """How often each term occurs, by its index, ascending. Of 100,000 terms about one shares its index with another."""
    counts = Counter(zlib.crc32(term.encode()) for term in terms)
    return {index: counts[index] for index in sorted(counts)}


# Collections and filters


def leg_params(dim: int) -> dict[str, models.VectorParams]:
    """What a leg's two vectors are, by the ends of their names. All vectors lie on disk and are read for candidates
    only; the pooled ones are searched through their index, in memory as int8."""
    maxsim = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    int8 = models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    )
    common: dict[str, Any] = {
        "size": dim,
        "distance": models.Distance.DOT,
        "multivector_config": maxsim,
        "on_disk": True,
    }
    return {
        "": models.VectorParams(**common, hnsw_config=models.HnswConfigDiff(m=0)),
        POOLED: models.VectorParams(**common, quantization_config=int8),
    }


def is_value(key: str, value: str | int) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def is_any(key: str, values: Iterable[str] | Iterable[int]) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchAny(any=list(values)))  # type: ignore[arg-type]


def has_id(ids: Iterable[str]) -> models.HasIdCondition:
    return models.HasIdCondition(has_id=list(ids))


def page_filter(hidden: Iterable[int], filter: Filter, *more: models.Condition) -> models.Filter:
    """The pages that a filter lets through, but for those of hidden generations."""
    must: list[Any] = [is_value("tags", tag_key(*tag)) for tag in filter.tags.items()]
    if filter.documents is not None:
        must.append(is_any("document", sorted(filter.documents)))
    unseen = sorted(hidden)
    return models.Filter(must=[*must, *more], must_not=[is_any("generation", unseen)] if unseen else [])


def ref(payload: Mapping[str, Any]) -> PageRef:
    return PageRef(payload["document"], payload["page"])
