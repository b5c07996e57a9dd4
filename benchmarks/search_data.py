"""The pages and questions of benchmarks/search.py, and their exact scores; needs numpy alone once they are made.

Made of an index of real pages and of real questions:

base       the token vectors of a document in the order of its pages, cut into pieces of 730; what is left over is
           dropped. Projected to 128 dimensions (the eigenvectors of the greatest eigenvalues of the sum of v vᵀ over
           each 40th of them), and of length 1 again. The dev set gives 2,644 pieces.
page i     two pieces, drawn with the seed (1, i): a mother and another. Of the mother's runs of 10 vectors a share that
           is the page's own, 30% to 70%, is replaced by the other's at the same places. To each vector is added
           Gaussian noise of length 0.48, so that its cosine to the original is about 0.9; its length is 1 again.
           Among 100,000 pages a piece is the mother of 38, and the other of as many.
question   the first 20 vectors that count of a real question that has so many, by the index's model, projected alike.

A page does not depend on how many there are: the first 5,000 of 100,000 are those of 5,000.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from visrag.store import Store

PATCHES, DIM, TOKENS = 730, 128, 20
RUN = 10  # vectors that are replaced together
NOISE = math.tan(math.acos(0.9))  # of length 1 to this, at right angles: a cosine of 0.9
SAMPLED = 40  # every so many vectors of a document the axes are found by
CHUNK = 250  # pages scored at a time

Floats: TypeAlias = NDArray[np.float32]


def unit(vectors: Floats) -> Floats:
    found: Floats = vectors / np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return found


class Data:
    """The pages and questions that lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self._base: Floats = np.load(folder / "base.npy", mmap_mode="r")
        self.questions: Floats = np.load(folder / "questions.npy")  # (q, TOKENS, DIM)

    def page(self, number: int) -> Floats:
        """(PATCHES, DIM)."""
        rng = np.random.default_rng((1, number))
        mother, other = rng.choice(len(self._base), 2, replace=False)
        replaced = np.repeat(rng.random(PATCHES // RUN) < rng.uniform(0.3, 0.7), RUN)
        vectors = np.where(replaced[:, None], self._base[other], self._base[mother])
        vectors += rng.standard_normal(vectors.shape, np.float32) * np.float32(NOISE / math.sqrt(DIM))
        return unit(vectors)

    def pages(self, first: int, end: int) -> Iterator[Floats]:
        return map(self.page, range(first, end))

    def exact(self, first: int, end: int, questions: int) -> Floats:
        """MaxSim in float32 of the first questions, (end − first, questions)."""
        tokens = self.questions[:questions].reshape(-1, DIM).T
        best = np.stack([(page @ tokens).max(axis=0) for page in self.pages(first, end)])
        scores: Floats = best.reshape(len(best), -1, TOKENS).sum(axis=2)
        return scores


def make(folder: Path, index: Path, questions: Path) -> None:
    """Make base and questions of an index of visrag and a file with a question in each line's JSON."""
    from visrag.models import Models
    from visrag.store.local import LocalStore

    with LocalStore.open(index, clean=False) as store:
        pieces = list(_pieces(store))
        models = Models()
        texts = [json.loads(line)["question"] for line in questions.read_text("utf-8").splitlines()]
        encoded = [models.encode(text, store)["tokens"] for text in np.random.default_rng(0).permutation(texts)]
    asked = [query.vectors[query.weights > 0][:TOKENS] for query in encoded if (query.weights > 0).sum() >= TOKENS]
    sample = np.concatenate([piece.reshape(-1, piece.shape[2])[::SAMPLED] for piece in pieces])
    axes = np.linalg.eigh(sample.T @ sample)[1][:, -DIM:].astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "base.npy", np.concatenate([unit(piece @ axes) for piece in pieces]))
    np.save(folder / "questions.npy", unit(np.stack(asked) @ axes))


def _pieces(store: Store) -> Iterator[Floats]:
    """The token vectors of each document in pieces (n, PATCHES, dim)."""
    from visrag.records import PageRef

    for document in store.documents():
        found = [store.vectors("tokens", PageRef(document.name, page + 1)) for page in range(document.pages)]
        vectors = [page.vectors for page in found if page is not None]
        if vectors and (whole := sum(map(len, vectors)) // PATCHES):
            yield np.concatenate(vectors)[: whole * PATCHES].reshape(whole, PATCHES, -1)


def truth(folder: Path, pages: int, questions: int) -> list[list[int]]:
    """The ten best of the first pages for each question, best first. The scores are kept in the folder."""
    path = folder / f"scores-{questions}.npy"
    scores = np.load(path) if path.exists() else np.zeros((0, questions), np.float32)
    if len(scores) < pages:
        starts = range(len(scores), pages, CHUNK)
        with ProcessPoolExecutor(2) as pool:
            more = pool.map(partial(_exact, folder, questions, pages), starts)
            scores = np.concatenate([scores, *more])
        np.save(path, scores)
    best: list[list[int]] = np.argsort(-scores[:pages], axis=0, kind="stable")[:10].T.tolist()
    return best


def _exact(folder: Path, questions: int, end: int, first: int) -> Floats:
    from visrag.blas import one_blas_thread

    with one_blas_thread():
        return Data(folder).exact(first, min(first + CHUNK, end), questions)
