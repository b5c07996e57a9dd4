"""Question → candidates of every leg → exact scores → the account of each hit.

``maxsim`` and ``fulltext`` rank by one plain score. Fusion adds the legs, and what makes them addable is that in
each of them 0 is about what chance gives: MaxSim as the mean over the question's tokens, less the page's chance level
(``visrag.calibration``); full text as a share of the best page's BM25. Form and weights were chosen by the sum of the
figures on half of the real PDFs and on passages (README.md, "How good the answers are"); between 0.25 and 0.35 for
full text and 0.6 and 0.8 for windows they change by 0.01 or less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from .errors import NotFound
from .fulltext import JOINT, phrases, query_terms, term_spans
from .maxsim import token_matches
from .records import (
    FULLTEXT,
    Box,
    Filter,
    Floats,
    Ints,
    Leg,
    LegScore,
    Page,
    PageRef,
    Places,
    QueryVectors,
    TokenScore,
)
from .settings import Rank
from .store import Query, Store

CANDIDATES = 200  # pages that each leg puts forward
RESCORED = 30  # pages that their float16 vectors, if there are any, put in order: the best, the next, …, for any k
WEIGHTS = {"tokens": 1.0, "windows": 0.7, "patches": 1.0, "fulltext": 0.35}  # in fusion
CHANCE = 0.8  # of a page's chance level is taken off: all of it was a little too much, for pages and for passages


@dataclass(frozen=True, slots=True)
class Part:
    """A leg's part in the answer to one question. It adds ``weight`` × (plain score − chance, where corrected)."""

    leg: Leg
    query: Query
    weight: float
    corrected: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A page, its score, and the account of that: the legs' weighted scores add up to the score."""

    ref: PageRef
    page: Page
    score: float
    legs: tuple[LegScore, ...]


def search(
    store: Store,
    question: str,
    queries: Mapping[str, QueryVectors],
    legs: Sequence[Leg],
    rank: Rank,
    filter: Filter,
    k: int,
    offset: int = 0,
) -> list[Found]:
    """The k best pages after the first ``offset``, best first; ties by document and page.

    ``queries``: the question's vectors by leg name. Within ``store.steady`` it is of one state of the index.
    """
    parts = [part for leg in legs if (part := _part(leg, question, queries, rank)) is not None]
    depth = max(offset + k, CANDIDATES)
    candidates = {part.leg.name: store.candidates(part.leg.name, part.query, filter, depth) for part in parts}
    refs = sorted({ref for found in candidates.values() for ref, _ in found})
    if not refs:
        return []
    if rank == "fusion":
        parts = [_to_best(part, candidates[part.leg.name]) for part in parts]
    total = _total(store, parts, refs)
    best = np.argsort(-total, kind="stable")
    if store.settings().get("float16"):
        for start in range(offset - offset % RESCORED, min(offset + k, len(best)), RESCORED):
            some = np.sort(best[start : start + RESCORED])
            exact = _total(store, parts, [refs[i] for i in some], exact=True)
            best[start : start + RESCORED] = some[np.argsort(-exact, kind="stable")]
    found = []
    for i in best[offset : offset + k]:
        with suppress(NotFound):  # gone meanwhile, where a store cannot hold on to a state for so long
            found.append(_account(store, parts, refs[i]))
    return sorted(found, key=lambda hit: -round(hit.score, 6))  # the account is exact, a store's scores nearly


def explain(
    store: Store,
    question: str,
    queries: Mapping[str, QueryVectors],
    legs: Sequence[Leg],
    rank: Rank,
    filter: Filter,
    ref: PageRef,
) -> Found:
    """The score of one page, found or not, and its account: as ``search`` gives it. Raises NotFound."""
    store.page(ref)
    parts = [part for leg in legs if (part := _part(leg, question, queries, rank)) is not None]
    if rank == "fusion":
        parts = [_to_best(part, _best_of(store, part, filter, ref)) for part in parts]
    return _account(store, parts, ref)


def _best_of(store: Store, part: Part, filter: Filter, ref: PageRef) -> list[tuple[PageRef, float]]:
    """The best page by full text, were the page ``ref`` among those of the filter."""
    if part.leg != FULLTEXT:
        return []
    own = float(store.score(part.leg.name, part.query, [ref])[0])
    found = store.candidates(part.leg.name, part.query, filter, 1)
    return [max([*found, (ref, own)], key=lambda each: each[1])]


def _part(leg: Leg, question: str, queries: Mapping[str, QueryVectors], rank: Rank) -> Part | None:
    """A leg's part, None where it has none in this way of ranking or the question gives it nothing."""
    if leg == FULLTEXT:
        terms = list(dict.fromkeys([*query_terms(question), *phrases(question)]))
        return Part(leg, terms, 1.0) if terms and rank != "maxsim" else None
    if rank == "fulltext" or (rank == "maxsim" and leg.name == "windows"):
        return None
    query = queries[leg.name]
    if rank == "maxsim":
        return Part(leg, query, 1.0)
    counted = float(query.weights.sum())
    return Part(leg, query, WEIGHTS[leg.name] / counted, corrected=True) if counted else None


def _to_best(part: Part, found: Sequence[tuple[PageRef, float]]) -> Part:
    """Full text as a share of the best page's score; other legs as they are."""
    if part.leg != FULLTEXT or not found or not found[0][1]:
        return part
    return Part(part.leg, part.query, WEIGHTS["fulltext"] / found[0][1])


def _total(store: Store, parts: Sequence[Part], refs: Sequence[PageRef], exact: bool = False) -> Floats:
    """The scores of pages."""
    total: Floats = np.sum([part.weight * _scores(store, part, refs, exact) for part in parts], axis=0)
    return total


def _scores(store: Store, part: Part, refs: Sequence[PageRef], exact: bool) -> Floats:
    """A leg's scores of pages, chance taken off; 0 for a page that lacks the leg."""
    scores = store.score(part.leg.name, part.query, refs, exact)
    if part.corrected and isinstance(part.query, QueryVectors):
        scores = scores - CHANCE * part.query.weights.sum() * store.chance(part.leg.name, refs)
    return np.nan_to_num(scores, nan=0.0)


def _account(store: Store, parts: Sequence[Part], ref: PageRef) -> Found:
    """Raises NotFound."""
    page = store.page(ref)
    legs = []
    for part in parts:
        if isinstance(part.query, QueryVectors):
            tokens = _token_scores(store, part, part.query, ref)
        else:
            tokens = _term_scores(store, part.query, ref, page)
        if tokens:
            score = sum(token.score for token in tokens)
            legs.append(LegScore(part.leg.name, part.leg.encoder, part.weight, score, tokens))
    return Found(ref, page, sum(leg.weight * leg.score for leg in legs), tuple(legs))


def _token_scores(store: Store, part: Part, query: QueryVectors, ref: PageRef) -> tuple[TokenScore, ...]:
    """What each token that counts gave, and where it won."""
    found = store.vectors(part.leg.name, ref)
    if found is None or not len(found.vectors):
        return ()
    best, where = token_matches(query.vectors, found.vectors)
    if part.corrected:
        best = best - CHANCE * store.chance(part.leg.name, [ref])[0]
    own = range(len(best)) if query.own is None else query.own
    scores = query.weights * best
    boxes = _boxes(found.places, len(found.vectors), where)
    return tuple(
        TokenScore(query.tokens[i], float(scores[i]), boxes[i], i in own)
        for i in np.flatnonzero(query.weights).tolist()
    )


def _boxes(places: Places, count: int, vectors: Ints) -> list[Box | None]:
    """The first place of each of these vectors, None where it has none. ``count``: of the page's vectors."""
    first = np.full(count + 1, -1)  # the last for places of no vector, −1
    first[places.vectors[::-1]] = np.arange(len(places.vectors))[::-1]
    boxes = places.boxes()
    return [_rounded(boxes[row].tolist()) if row >= 0 else None for row in first[vectors].tolist()]


def _rounded(box: Sequence[float]) -> Box:
    x0, y0, x1, y1 = (round(edge, 5) for edge in box)
    return x0, y0, x1, y1


def _term_scores(store: Store, terms: Sequence[str], ref: PageRef, page: Page) -> tuple[TokenScore, ...]:
    """BM25 of each term that occurs on the page, and where it occurs first; that of a phrase goes to its two terms, a
    half to each."""
    scores = store.term_scores(terms, [ref])[0].tolist()
    for term, score in zip(terms, scores, strict=True):
        if JOINT in term:
            for part in term.split(JOINT):
                scores[terms.index(part)] += score / 2
    first: dict[str, int] = {}
    for term, start, _ in term_spans(page.text):
        first.setdefault(term, start)
    return tuple(
        TokenScore(term, score, _word_box(page, first.get(term)))
        for term, score in zip(terms, scores, strict=True)
        if score and JOINT not in term
    )


def _word_box(page: Page, start: int | None) -> Box | None:
    """The box of the word at a character of the page's text."""
    if start is None:
        return None
    for word in page.words:
        if word.start <= start < word.start + len(word.text):
            return word.boxes[0]
    return None
