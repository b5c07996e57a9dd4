"""visrag's ranking beside BM25 and the dense model, on the same questions, pages and OCR, in one run.

    python benchmarks/quality.py --data FOLDER [--index DIR] [--float32] [--json]
    python benchmarks/quality.py --beir FOLDER [--index DIR] [--float32] [--json]

FOLDER of --data holds pdfs/ and questions.jsonl. All sides rank the pages that `visrag ingest` made: BM25 (bm25s,
English stemming and stop words) their text; the dense model (all-MiniLM-L6-v2, its own pooling, cosine) by the best
window of a page: "dense" in windows of the 256 tokens that it takes, encoded here; "dense, short" in those that the
index stores as the leg "windows". Beside all questions stand the two halves of the
documents (by the parity of the sha256 of their names: what is chosen by measurement is chosen on the even half) and
the types that have 20 questions or more. Intervals: 95%, percentile bootstrap over
documents (BEIR: over questions), 2,000 draws.

--float32 encodes the pages again, in float32, and scores all of them by exact MaxSim. What the cascade costs "visrag
maxsim" is the scope "cascade", where ours is that: every question over all pages, which must be more than 2,000, by the
bits of all and then int8, beside exact MaxSim. (One document has never so many that visrag goes by their bits: there it
is int8 alone.) To compare the same vectors, make the index with VISRAG_DTYPE=float32; else what bfloat16 costs is in
it, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from visrag import Index
from visrag.blas import one_blas_thread
from visrag.encode.text import TextEncoder
from visrag.evaluate import Outcome, Question, cache_folder, evaluate, read_beir, read_questions
from visrag.ingest import Silent
from visrag.records import Filter, Floats, Page, PageRef, PatchVectors
from visrag.store import tables

Ranker = Callable[[Question, int], Sequence[object]]
Makers = Mapping[str, Callable[[bool], Ranker]]  # by name, what makes a ranker within a question's document (True)
DRAWS = 2000
MANY = 20  # questions of a type from which it has rows of its own


class Bm25:
    """bm25s over the text of pages, with a filter on their documents."""

    def __init__(self, refs: Sequence[PageRef], texts: Sequence[str]) -> None:
        import bm25s
        import Stemmer

        self._refs = list(refs)
        self._stem = Stemmer.Stemmer("english")
        self._tokenize = bm25s.tokenize
        self._bm25 = bm25s.BM25()
        self._bm25.index(self._tokens(texts), show_progress=False)
        self._documents = np.array([ref.document for ref in refs])

    def _tokens(self, texts: Sequence[str], ids: bool = True) -> Any:
        return self._tokenize(texts, stopwords="en", stemmer=self._stem, return_ids=ids, show_progress=False)

    def rank(self, question: str, document: str | None, k: int) -> list[PageRef]:
        """The k best pages, of one document where it is given."""
        terms = [term for term in self._tokens([question], ids=False)[0] if term in self._bm25.vocab_dict]
        scores = self._bm25.get_scores(terms) if terms else np.zeros(len(self._refs), np.float32)
        if document is not None:
            scores = np.where(self._documents == document, scores, -np.inf)
        return [self._refs[i] for i in np.argsort(-scores, kind="stable")[:k]]


class Dense:
    """The default model as it is sold: the cosine with the best window of 256 tokens, [CLS] and [SEP] among them."""

    def __init__(self, refs: Sequence[PageRef], texts: Sequence[str]) -> None:
        encoder = TextEncoder.load(window=254)
        found = [(i, legs["windows"].vectors) for i, legs in _encoded(encoder, texts) if legs]
        self._refs = list(refs)
        self._documents = np.array([ref.document for ref in refs])
        self._pages = np.array([i for i, _ in found])
        self._starts = np.cumsum([0, *(len(vectors) for _, vectors in found)])[:-1]
        self._vectors = np.concatenate([vectors for _, vectors in found])

    def rank(self, query: Floats, document: str | None, k: int) -> list[PageRef]:
        """The k best pages, of one document where it is given, for a question's vector (1, dim)."""
        scores = np.full(len(self._refs), -np.inf)
        scores[self._pages] = np.maximum.reduceat((self._vectors @ query.T)[:, 0], self._starts)
        if document is not None:
            scores[self._documents != document] = -np.inf
        return [self._refs[i] for i in np.argsort(-scores, kind="stable")[:k]]


def _encoded(encoder: TextEncoder, texts: Sequence[str]) -> Iterator[tuple[int, Mapping[str, PatchVectors]]]:
    for start in range(0, len(texts), 64):
        pages = [Page(1, 0, 0, text) for text in texts[start : start + 64]]
        yield from enumerate(encoder.encode_pages(pages), start)


def rankers(index: Index, item: Callable[[PageRef], object], float32: bool) -> Makers:
    store = index.open()
    refs = [PageRef(d.name, n) for d in store.documents() for n in range(1, d.pages + 1)]
    failed = {(f.document, f.page) for f in store.failures()}
    refs = [ref for ref in refs if (ref.document, ref.page) not in failed and (ref.document, None) not in failed]
    texts = [store.page(ref).text for ref in refs]
    bm25, long = Bm25(refs, texts), Dense(refs, texts)

    def ours(rank: str) -> Callable[[bool], Ranker]:
        def within(inside: bool) -> Ranker:
            return lambda q, k: [
                item(PageRef(hit.document, hit.page))
                for hit in index.search(q.text, k, [q.document] if inside else None, rank=rank)  # type: ignore[arg-type]
            ]

        return within

    def dense(inside: bool) -> Ranker:
        return lambda q, k: [
            item(ref) for ref in long.rank(index._encode(q.text)["windows"].vectors, q.document if inside else None, k)
        ]

    def short(inside: bool) -> Ranker:
        def rank(q: Question, k: int) -> list[object]:
            query = index._encode(q.text)["windows"]
            chosen = Filter(frozenset([q.document]) if inside else None)
            return [item(ref) for ref, _ in store.candidates("windows", query, chosen, k)]

        return rank

    def words(inside: bool) -> Ranker:
        return lambda q, k: [item(ref) for ref in bm25.rank(q.text, q.document if inside else None, k)]

    found = {"visrag": ours("fusion"), "visrag maxsim": ours("maxsim"), "visrag fulltext": ours("fulltext"),
             "BM25": words, "dense": dense, "dense, short": short}  # fmt: skip
    return {**found, "MaxSim float32": exact(refs, texts, item)} if float32 else found


def exact(refs: Sequence[PageRef], texts: Sequence[str], item: Callable[[PageRef], object]) -> Callable[[bool], Ranker]:
    """Exact MaxSim in float32 over pages that are encoded here, in float32."""
    os.environ["VISRAG_DTYPE"] = "float32"
    encoder = TextEncoder.load()
    pages = {refs[i]: legs["tokens"].vectors for i, legs in _encoded(encoder, texts) if legs}

    def within(inside: bool) -> Ranker:
        def rank(q: Question, k: int) -> list[object]:
            query = encoder.encode_query(q.text)["tokens"]
            chosen = [ref for ref in pages if not inside or ref.document == q.document]
            with one_blas_thread():
                scores = np.array([query.weights @ (query.vectors @ pages[ref].T).max(axis=1) for ref in chosen])
            return [item(chosen[i]) for i in np.argsort(-scores, kind="stable")[:k]]

        return rank

    return within


def interval(ours: Sequence[Outcome], theirs: Sequence[Outcome], measure: str, group: Callable[[Question], str]) -> Any:
    """The mean difference and its 95% interval, by resampling groups of questions."""
    groups: dict[str, list[float]] = {}
    for a, b in zip(ours, theirs, strict=True):
        groups.setdefault(group(a.question), []).append(a.measures[measure] - b.measures[measure])
    sums = np.array([sum(values) for values in groups.values()])
    counts = np.array([len(values) for values in groups.values()])
    draws = np.random.default_rng(0).integers(0, len(sums), (DRAWS, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"difference": float(sums.sum() / counts.sum()), "low": float(low), "high": float(high)}


def compare(
    by_name: dict[str, list[Outcome]], scope: str, measure: str, group: Callable[[Question], str]
) -> list[dict[str, Any]]:
    """One row an engine: its mean, and that of the first, which is ours, less its."""
    ours = next(iter(by_name))
    rows = []
    for name, outcomes in by_name.items():
        row: dict[str, Any] = {"engine": name, "scope": scope, "questions": len(outcomes), "measure": measure,
               "mean": float(np.mean([o.measures[measure] for o in outcomes]))}  # fmt: skip
        if name != ours:
            row |= {f"visrag_{key}": value for key, value in interval(by_name[ours], outcomes, measure, group).items()}
        rows.append(row)
    return rows


def cascade(
    makers: Makers, questions: list[Question], measure: str, group: Callable[[Question], str]
) -> list[dict[str, Any]]:
    """Ours by bits and int8 beside exact scores, over all pages."""
    with patch.object(tables, "LARGE", 0):  # bits are scored, however short a question
        names = ("visrag maxsim", "MaxSim float32")
        found = {name: evaluate(questions, makers[name](False), Silent()) for name in names}
    return compare(found, "cascade", measure, group)


def is_even(question: Question) -> bool:
    """Whether a question's document is of the half that is chosen on."""
    return int(hashlib.sha256(question.document.encode()).hexdigest(), 16) % 2 == 0


def parts(by_name: dict[str, list[Outcome]]) -> Iterator[tuple[str, dict[str, list[Outcome]]]]:
    """The outcomes of the two halves of the documents, and of each type of many questions, by the part's name."""
    questions = [outcome.question for outcome in by_name["visrag"]]
    types = Counter(question.type for question in questions)
    chosen = {"even": [is_even(question) for question in questions]}
    chosen["odd"] = [not even for even in chosen["even"]]
    for kind in sorted(kind for kind, count in types.items() if count >= MANY):
        chosen[kind] = [question.type == kind for question in questions]
    for part, mask in chosen.items():
        yield part, {name: list(compress(outcomes, mask)) for name, outcomes in by_name.items()}


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'':18} {'scope':17} {'questions':>9} {'measure':>8} {'mean':>6}   ours less it [95% interval]")
    for row in rows:
        line = f"{row['engine']:18} {row['scope']:17} {row['questions']:9} {row['measure']:>8} {row['mean']:6.4f}"
        if "visrag_low" in row:
            line += f"   {row['visrag_difference']:+.4f} [{row['visrag_low']:+.4f}, {row['visrag_high']:+.4f}]"
        print(line)


def on_pages(data: Path, path: Path, float32: bool) -> list[dict[str, Any]]:
    """In-document and corpus-wide figures over a folder of PDFs."""
    questions = read_questions(data / "questions.jsonl")
    with Index(path) as index:
        index.ingest(data / "pdfs")
        scopes = {"document": questions, "corpus": [q for q in questions if q.scope == "corpus"]}
        makers = rankers(index, tuple, float32)
        rows = []
        for scope, asked in scopes.items():
            found = {name: evaluate(asked, make(scope == "document"), Silent()) for name, make in makers.items()}
            rows += compare(found, scope, "ndcg@5", lambda question: question.document)
            for part, of_part in parts(found):
                rows += compare(of_part, f"{scope}, {part}", "ndcg@5", lambda question: question.document)
        if float32:
            rows += cascade(makers, questions, "ndcg@5", lambda question: question.document)
    return rows


def on_passages(folder: Path, path: Path, float32: bool) -> list[dict[str, Any]]:
    """The figures over a BEIR collection."""
    passages, questions = read_beir(folder)
    with Index(path) as index:
        index.ingest_texts(passages)
        makers = rankers(index, lambda ref: ref.document, float32)
        found = {name: evaluate(questions, make(False), Silent()) for name, make in makers.items()}
        rows = compare(found, "corpus", "ndcg@10", lambda question: question.id)
        if float32:
            rows += cascade(makers, questions, "ndcg@10", lambda question: question.id)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with pdfs/ and questions.jsonl")
    parser.add_argument("--beir", type=Path, help="a BEIR collection")
    parser.add_argument("--index", type=Path, help="the index; made on first use")
    parser.add_argument("--float32", action="store_true", help="exact MaxSim in float32, too")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if (args.data is None) == (args.beir is None):
        sys.exit("give --data FOLDER or --beir FOLDER")
    folder = args.data or args.beir
    path = args.index or cache_folder(folder)
    rows = (on_pages if args.data else on_passages)(folder, path, args.float32)
    print(json.dumps(rows)) if args.json else print_rows(rows)


if __name__ == "__main__":
    main()
