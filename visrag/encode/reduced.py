"""Fewer vectors a page, by hierarchical token pooling, and shorter ones, by projection onto principal components."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Floats, Leg, Page, PatchVectors, QueryVectors
from . import Encoder
from .patches import PATCHES
from .text import TOKENS

POOLED = (TOKENS, PATCHES)  # legs with so many vectors that there is something to pool
TOGETHER = 2048  # vectors clustered at once: time and memory grow with their square


@dataclass(frozen=True, slots=True, eq=False)
class Reduction:
    """How the vectors of an index are reduced. False where they are not.

    ``pool``: one vector of a page is kept in so many, in the legs ``POOLED``; 1 for all. ``projection`` (dim, fewer):
    of tokens, of pages and questions; None for none.
    """

    pool: int = 1
    projection: Floats | None = None

    def __bool__(self) -> bool:
        return self.pool > 1 or self.projection is not None

    @property
    def dim(self) -> int | None:
        """The dimensions of projected vectors, None where they are not projected."""
        return None if self.projection is None else self.projection.shape[1]

    def to_settings(self) -> dict[str, Any]:
        """As the settings of an index keep it."""
        if self.projection is None:
            return {"pool": self.pool}
        matrix = base64.b64encode(self.projection.astype("<f4").tobytes()).decode()
        return {"pool": self.pool, "dim": self.dim, "projection": matrix}

    @classmethod
    def from_settings(cls, kept: Mapping[str, Any]) -> Reduction:
        """The inverse of ``to_settings``; nothing where nothing is kept, by an index from before there was any."""
        if "projection" not in kept:
            return cls(kept.get("pool", 1))
        values = np.frombuffer(base64.b64decode(kept["projection"]), "<f4").astype(np.float32)
        return cls(kept["pool"], values.reshape(-1, kept["dim"]))

    def leg(self, leg: Leg) -> Leg:
        """A leg of an encoder, reduced."""
        projection = self.projection if leg.name == TOKENS else None
        if projection is None and (self.pool == 1 or leg.name not in POOLED):
            return leg
        digest = hashlib.sha256(f"{leg.fingerprint} {self.pool}".encode())
        digest.update(b"" if projection is None else projection.tobytes())
        dim = leg.dim if projection is None else projection.shape[1]
        return replace(leg, dim=dim, fingerprint=digest.hexdigest())

    def page(self, leg: str, found: PatchVectors) -> PatchVectors:
        """A page's vectors in a leg, reduced."""
        if self.projection is not None and leg == TOKENS:
            found = PatchVectors(project(found.vectors, self.projection), found.places)
        return pool(found, self.pool) if self.pool > 1 and leg in POOLED else found

    def query(self, leg: str, query: QueryVectors) -> QueryVectors:
        """A question's vectors in a leg, projected."""
        if self.projection is None or leg != TOKENS:
            return query
        return replace(query, vectors=project(query.vectors, self.projection))


class ReducedEncoder:
    """An encoder whose vectors are reduced."""

    def __init__(self, encoder: Encoder, reduction: Reduction) -> None:
        self._encoder = encoder
        self._reduction = reduction
        self.needs_image = encoder.needs_image
        self.legs: tuple[Leg, ...] = tuple(reduction.leg(leg) for leg in encoder.legs)

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        """As the encoder, reduced."""
        encoded = self._encoder.encode_pages(pages)
        return [{name: self._reduction.page(name, found) for name, found in legs.items()} for legs in encoded]

    def encode_query(self, question: str) -> Mapping[str, QueryVectors]:
        """As the encoder, projected."""
        queries = self._encoder.encode_query(question)
        return {name: self._reduction.query(name, query) for name, query in queries.items()}


def pool(found: PatchVectors, factor: int) -> PatchVectors:
    """A page's vectors, those with a place clustered until one in ``factor`` is left, at the places of all that it
    stands for. Vectors without a place follow as they are."""
    rows = found.places.vectors
    placed = np.unique(rows[rows >= 0])
    if not len(placed):
        return found
    owner = np.empty(len(found.vectors), np.int32)  # the row that each vector goes into
    vectors: list[Floats] = []
    count = 0
    for some in np.array_split(placed, -(-len(placed) // TOGETHER)):
        means, cluster = _clustered(found.vectors[some], factor)
        owner[some] = count + cluster
        vectors.append(means)
        count += len(means)
    alone = np.setdiff1d(np.arange(len(owner)), placed)
    owner[alone] = count + np.arange(len(alone))
    places = replace(found.places, vectors=np.where(rows >= 0, owner[rows], -1).astype(np.int32))
    return PatchVectors(np.concatenate([*vectors, found.vectors[alone]]), places)


def _clustered(vectors: Floats, factor: int) -> tuple[Floats, NDArray[np.intp]]:
    """The means of clusters of vectors (n, dim), as long as their vectors, and which of them each vector is in, (n,).

    sentence-transformers clusters, by Ward's method on the cosine.
    """
    import torch
    from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling

    lengths = np.linalg.norm(vectors, axis=1)
    # Behind each vector stands a mark of its own. Marks are orthogonal, so that they change no similarity of two, and
    # in the mean of a cluster they say which vectors went into it.
    marked = np.hstack([_unit(vectors), np.eye(len(vectors), dtype=np.float32)])
    pooling = HierarchicalTokenPooling(factor, num_protected_tokens=0, normalize_embeddings=False)
    found = pooling.pool_one(torch.from_numpy(marked)).numpy()
    means, members = np.hsplit(found, [vectors.shape[1]])
    return _unit(means) * (members @ lengths)[:, None], members.argmax(axis=0)


def project(vectors: Floats, projection: Floats) -> Floats:
    """Vectors (n, dim) in fewer dimensions, of length 1."""
    return _unit(vectors @ projection)


def _unit(vectors: Floats) -> Floats:
    scaled: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled
