"""What token pooling and fewer dimensions would cost an index: its questions asked again of reduced copies of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .copy import read_pages
from .encode.reduced import Reduction
from .encoders import Encoders
from .errors import UsageError
from .evaluate import evaluate_questions
from .index import Index
from .ingest import Progress
from .models import Models
from .records import EncodedPage, Filter, PatchVectors
from .settings import ModelSettings, Rank
from .store import Store

MEASURES = ("ndcg@5", "ndcg@10", "recall@1", "recall@5", "mrr")


def evaluate_reduced(
    index: Index, questions: Path, rank: Rank, choices: Sequence[tuple[int, int | None]], progress: Progress
) -> dict[str, Any]:
    """As ``evaluate_questions``, with "reduced": a row for the index as it is, and one for each of the ``choices``
    (pool, dim), of a copy of the index that is reduced so. "loss" is what the index as it is has more, "bytes_per_page"
    are those of its vectors, "held" is of its highlighting, where there are answers to look for.

    Stored vectors are reduced, so nothing is encoded again. A copy lies in the folder for temporary files while it is
    asked. Raises UsageError for an index that is reduced itself.
    """
    store = index.open()
    settings = store.settings()
    if Reduction.from_settings(settings.get("reduction", {})):
        raise UsageError(f"{index.path}: is pooled or projected already: measure with an index that is not")
    models = settings["models"]
    copies: list[tuple[int, int | None, float, dict[str, Any]]] = []
    for pool, dim in choices:
        with TemporaryDirectory(prefix="visrag-") as folder, Index(folder, device=index.device) as copy:
            there = copy.open(create=True)
            wanted = ModelSettings(models["text"], models.get("vision"), index.device, pool, dim)
            encoders = Models(wanted).for_ingest(there)
            before, after = _copy(store, there, encoders)
            copies.append((pool, dim, after, evaluate_questions(copy, questions, rank, progress)))
    report = evaluate_questions(index, questions, rank, progress)
    rows = [(1, None, before, report), *copies]
    return {**report, "reduced": [_row(*row, report) for row in rows]}


def choices_of(pools: Sequence[int], dims: Sequence[int]) -> list[tuple[int, int | None]]:
    """Each of ``pools`` and ``dims`` alone, and one of each together."""
    return list(product((1, *pools), (None, *dims)))[1:]


def _copy(here: Store, there: Store, encoders: Encoders) -> tuple[float, float]:
    """Copy the pages of an index, reduced: the bytes of vectors that a page has in each."""
    reduction = Reduction.from_settings(there.settings()["reduction"])
    before = after = 0
    for document in here.documents():
        generation = there.begin(document)
        for _, some in read_pages(here, document):
            pages: list[EncodedPage] = []
            for found in some:
                reduced = {name: reduction.page(name, leg) for name, leg in found.legs.items()}
                pages.append(EncodedPage(found.page, reduced, encoders.chance(reduced)))
                before, after = before + _bytes(found.legs), after + _bytes(reduced)
            there.add_pages(generation, pages)
        there.commit(generation, document.pages)
    count = max(1, there.page_count(Filter()))
    return before / count, after / count


def _bytes(legs: Mapping[str, PatchVectors]) -> int:
    return sum(leg.vectors.size for leg in legs.values())


def _row(pool: int, dim: int | None, size: float, found: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    row = {"pool": pool, "dim": dim, "bytes_per_page": round(size), "by_scope": found["by_scope"]}
    row["loss"] = {
        scope: {name: round(whole["by_scope"][scope][name] - figures[name], 4) for name in MEASURES}
        for scope, figures in found["by_scope"].items()
    }
    return {**row, "held": found["highlighting"]["held"]} if "highlighting" in found else row
