"""The collection of an index on Qdrant that holds its pages: its legs, and what is written to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from qdrant_client import models

from ..errors import Reason, StoreError
from ..records import EncodedPage, Failure
from .qdrant_connection import Connection
from .qdrant_forms import Staged
from .qdrant_points import FULLTEXT, POOLED, PagePoint, leg_params

LARGEST = 1_048_576  # numbers in one multivector: Qdrant's limit
REQUEST = 24 * 2**20  # bytes of one upsert; a server takes 32 MB
JSON_NUMBER, GRPC_NUMBER = 24, 5  # bytes of a vector's number when it is sent, at most

ReadSettings: TypeAlias = Callable[[], Mapping[str, Any]]  # the index's settings, which take a call

_INDEXES = {
    "document": models.PayloadSchemaType.KEYWORD,
    "generation": models.PayloadSchemaType.INTEGER,
    "tags": models.PayloadSchemaType.KEYWORD,
}


class Pages:
    """The pages of one index. The collection is made with the first page, when the index's legs are known."""

    def __init__(self, connection: Connection) -> None:
        self.collection = connection.address.collection
        self._connection = connection
        self._number = GRPC_NUMBER if connection.address.grpc else JSON_NUMBER
        self._schema = threading.Lock()
        self._dims: dict[str, int] = {}

    # Legs

    def legs(self) -> dict[str, int]:
        """The dimensions of the legs that the collection has, 0 for full text; empty while there is no collection."""
        if not self._dims:
            self._read_legs()
        return self._dims

    def has(self, leg: str) -> bool:
        if leg not in self.legs():
            self._read_legs()  # it may have been added meanwhile
        return leg in self._dims

    def _read_legs(self) -> None:
        if not self._connection.call("collection_exists", collection_name=self.collection):
            self._dims = {}
            return
        params = self._connection.describe(self.collection, _INDEXES)
        vectors = params.vectors if isinstance(params.vectors, dict) else {}
        dims = {name: found.size for name, found in vectors.items() if not name.endswith(POOLED)}
        self._dims = {FULLTEXT: 0, **dims}

    def _make_legs(self, name: str, points: Sequence[PagePoint], settings: ReadSettings) -> None:
        """See that the collection has the legs of pages; if it is made now, those of the settings, too. Raises
        StoreError where a leg has another dimension."""
        wanted: dict[str, int] = {}
        for point in points:
            for leg, (_, dim) in point.legs.items():
                expected = self.legs().get(leg, wanted.setdefault(leg, dim))
                if dim != expected:
                    raise StoreError(
                        f"{name}, page {point.number}: its vectors in {leg} have {dim} dimensions, the index's have "
                        f"{expected}: use the index's model, or make another index"
                    )
        if FULLTEXT in self._dims and wanted.keys() <= self._dims.keys():
            return
        with self._schema:
            self._read_legs()
            if not self._dims:
                self._make({**{leg["name"]: leg["dim"] for leg in settings().get("legs", [])}, **wanted})
            for leg, dim in wanted.items():
                if leg not in self._dims:
                    self._add_leg(leg, dim)
            self._read_legs()

    def _make(self, legs: Mapping[str, int]) -> None:
        params = {leg + end: each for leg, dim in legs.items() for end, each in leg_params(dim).items()}
        sparse = {FULLTEXT: models.SparseVectorParams(modifier=models.Modifier.IDF)}
        shards = self._connection.address.shards
        self._connection.make(self.collection, shards, _INDEXES, vectors_config=params, sparse_vectors_config=sparse)
        self._read_legs()

    def _add_leg(self, leg: str, dim: int) -> None:
        """A leg that the collection was not made with, as of a vision model that came later."""
        for end, params in leg_params(dim).items():
            dense = models.DenseVectorConfig(
                size=dim, distance=params.distance, multivector_config=params.multivector_config
            )
            try:
                self._connection.call(
                    "create_vector_name",
                    collection_name=self.collection,
                    vector_name=leg + end,
                    vector_name_config=models.DenseVectorNameConfig(dense=dense),
                )
            except StoreError as error:
                cure = "Qdrant before 1.18 cannot add a leg to a collection: upgrade it, or ingest into a new index"
                raise StoreError(f"{error} ({cure})") from error
            if not self._connection.address.local:
                diff = models.VectorParamsDiff(
                    hnsw_config=params.hnsw_config, quantization_config=params.quantization_config, on_disk=True
                )
                self._connection.call(
                    "update_collection", collection_name=self.collection, vectors_config={leg + end: diff}
                )

    # Pages

    def count(self, where: models.Filter) -> int:
        return self._connection.count(self.collection, where) if self.legs() else 0

    def count_by_generation(self, where: models.Filter) -> dict[int, int]:
        return self._connection.counts(self.collection, "generation", where) if self.legs() else {}

    def delete(self, where: models.Condition) -> None:
        if self.legs():
            selector = models.FilterSelector(filter=models.Filter(must=[where]))
            self._connection.call("delete", collection_name=self.collection, points_selector=selector)

    def write(self, staged: Staged, pages: Sequence[EncodedPage], settings: ReadSettings) -> list[Failure]:
        """Write pages, in requests of bounded size. Those that are too large are not written: as failures."""
        document = staged.document
        points, failures = [], []
        for page in pages:
            point = PagePoint(document.name, staged.generation, document.tags, page)
            message = _too_large(point, settings)
            if message is None:
                points.append(point)
            else:
                failures.append(Failure(document.name, page.page.number, Reason.TOO_LARGE, message))
        if points:
            self._make_legs(document.name, points, settings)
            for batch in self._batches(points):
                self._upsert(batch)
        return failures

    def _batches(self, points: Sequence[PagePoint]) -> Iterator[list[PagePoint]]:
        """Pages that are sent together."""
        batch: list[PagePoint] = []
        size = 0
        for point in points:
            more = point.bytes(self._number)
            if batch and size + more > REQUEST:
                yield batch
                batch, size = [], 0
            batch.append(point)
            size += more
        yield batch

    def _upsert(self, points: Sequence[PagePoint]) -> None:
        """Send pages; one that is too large for a request of its own, vector by vector."""
        late: dict[str, Any] = {}
        if len(points) == 1 and points[0].bytes(self._number) > REQUEST:
            late = {name: points[0].vectors.pop(name) for leg in points[0].legs for name in (leg, leg + POOLED)}
        sent = [
            models.PointStruct.model_construct(
                id=point.id, payload=point.payload, vector={name: self._sent(v) for name, v in point.vectors.items()}
            )
            for point in points
        ]
        self._connection.call("upsert", collection_name=self.collection, points=sent)
        for name, vector in late.items():
            each = models.PointVectors.model_construct(id=points[0].id, vector={name: self._sent(vector)})
            self._connection.call("update_vectors", collection_name=self.collection, points=[each])

    def _sent(self, vector: Any) -> Any:
        """A vector as the client takes it. Local mode keeps what it is given: arrays take a quarter of lists' room."""
        if isinstance(vector, models.SparseVector) or self._connection.address.local:
            return vector
        return vector.tolist()


def _too_large(point: PagePoint, settings: ReadSettings) -> str | None:
    for leg, (count, dim) in point.legs.items():
        if count * dim > LARGEST:
            encoder = {each["name"]: each["encoder"] for each in settings().get("legs", [])}.get(leg, "its model")
            return (
                f"its {count} vectors of {dim} dimensions in {leg} ({encoder}) are {count * dim:,} numbers, and Qdrant "
                f"takes {LARGEST:,} a page: use a local index, or a model with fewer or smaller vectors"
            )
    return None
