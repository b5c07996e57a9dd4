"""Pages made for the stores' tests, and MaxSim in float64, which judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from visrag.records import Document, EncodedPage, Floats, Page, PageRef, PatchVectors, Places, QueryVectors, Word
from visrag.store import Store

DIM = 16


def unit(rng: np.random.Generator, n: int, dim: int = DIM) -> Floats:
    """n random vectors of length 1, (n, dim)."""
    vectors = rng.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def document(name: str, content: str = "content", **fields: object) -> Document:
    return Document(name, content, "settings", "application/pdf", **fields)  # type: ignore[arg-type]


def words(text: str) -> tuple[Word, ...]:
    """The words of a text, each in a box of its own."""
    found, start = [], 0
    for i, word in enumerate(text.split()):
        start = text.index(word, start)
        found.append(Word(word, start, ((0.1, i / 100, 0.2, (i + 1) / 100),)))
        start += len(word)
    return tuple(found)


def page(number: int, text: str = "", chance: float = 0.25, **legs: Floats) -> EncodedPage:
    """A page with this text, and vectors (n, dim) in these legs; vector i lies in column i of n."""
    vectors = {}
    for leg, array in legs.items():
        n = len(array)
        boxes = [(i / n, 0.0, (i + 1) / n, 1.0) for i in range(n)]
        vectors[leg] = PatchVectors(array, Places.of_boxes(boxes, np.arange(n, dtype=np.int32)))
    shown = Page(number, 612.0, 792.0, text, words(text), "text_layer" if text else "none", 0.5)
    return EncodedPage(shown, vectors, dict.fromkeys(vectors, chance))


def query(vectors: Floats, weights: Sequence[float] | None = None) -> QueryVectors:
    tokens = tuple(f"t{i}" for i in range(len(vectors)))
    return QueryVectors(vectors, tokens, np.asarray([1.0] * len(tokens) if weights is None else weights, np.float32))


def put(store: Store, name: str, pages: Sequence[EncodedPage], **fields: object) -> Document:
    """Make these pages the whole of a document."""
    generation = store.begin(document(name, **fields))
    store.add_pages(generation, pages)
    return store.commit(generation, len(pages))


def oracle(asked: QueryVectors, pages: Mapping[PageRef, Floats]) -> dict[PageRef, float]:
    """MaxSim of each page that has vectors, in float64."""
    scores = {}
    for ref, vectors in pages.items():
        if len(vectors):
            products = asked.vectors.astype(np.float64) @ vectors.astype(np.float64).T
            scores[ref] = float(asked.weights.astype(np.float64) @ products.max(axis=1))
    return scores


def rounding(asked: QueryVectors, pages: Mapping[PageRef, Floats]) -> dict[PageRef, float]:
    """How far a score may be from the oracle's: a store may round the components of each token to 255 steps."""
    steps = np.abs(asked.vectors).max(axis=1) / 127
    return {
        ref: float(np.abs(asked.weights) @ steps / 2 * np.abs(vectors).sum(axis=1).max()) + 1e-5
        for ref, vectors in pages.items()
        if len(vectors)
    }


def stored(store: Store, leg: str, refs: Sequence[PageRef]) -> dict[PageRef, Floats]:
    """What a store says that it holds of these pages."""
    found = {ref: store.vectors(leg, ref) for ref in refs}
    return {ref: patches.vectors for ref, patches in found.items() if patches is not None}
