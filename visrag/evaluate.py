"""How good the answers are: nDCG, recall and MRR on questions whose pages are known, and how often the regions show the
answer."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from .errors import UsageError
from .highlighting import Answered, highlighting
from .ingest import Progress
from .records import PageRef
from .settings import Rank
from .sources import Source
from .verdicts import from_csv, from_json, relevant_pages

if TYPE_CHECKING:
    from .index import Index

Ranker: TypeAlias = Callable[["Question", int], Sequence[object]]
DEPTH = 10  # how many results of a question are looked at


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the pages (or documents) that answer it.

    ``any_one``: one of ``relevant`` is enough, so that finding the first is a perfect answer.
    """

    id: str
    text: str
    document: str
    relevant: frozenset[object]
    type: str = "none"
    scope: Literal["document", "corpus"] = "document"
    any_one: bool = False
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one question gave: the measures by name, and the seconds that the search took."""

    question: Question
    measures: dict[str, float]
    seconds: float


def read_questions(path: Path) -> list[Question]:
    """Questions from a file of questions (JSONL, in the form that README.md gives under "How good the answers are"), or
    of verdicts (.csv and .json, as ``visrag.verdicts`` writes them).

    Verdicts: the relevant pages of a question make one Question of scope "corpus". Where several reviewers judged a
    page, the majority counts, and a tie says relevant; a question without a relevant page is left out. Its document is
    that of its pages, "" where they are of several.

    Raises UsageError, naming the line or the item.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    read = {".csv": from_csv, ".json": from_json}.get(path.suffix.lower())
    if read is None:
        return _read_lines(path, text)
    try:
        return [_judged(question, pages) for question, pages in relevant_pages(read(text)).items()]
    except ValueError as error:
        raise UsageError(
            f"{path}: {error}: a .csv or .json file is one of verdicts, as the server exports it; "
            "name a file of questions .jsonl"
        ) from error


def _read_lines(path: Path, text: str) -> list[Question]:
    questions = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            questions.append(_question(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}, line {number}: not a question ({error}): "
                'each line is {"id", "question", "doc", "page": a number or a list}'
            ) from error
    return questions


def _judged(question: str, pages: frozenset[PageRef]) -> Question:
    documents = {page.document for page in pages}
    document = documents.pop() if len(documents) == 1 else ""
    return Question("", question, document, frozenset(pages), scope="corpus")


def _question(record: dict[str, Any]) -> Question:
    pages = record["page"] if isinstance(record["page"], list) else [record["page"]]
    return Question(
        id=str(record.get("id", "")),
        text=str(record["question"]),
        document=str(record["doc"]),
        relevant=frozenset((str(record["doc"]), int(page)) for page in pages),
        type=record.get("type") or "none",
        scope="corpus" if record.get("scope") == "corpus" else "document",
        any_one=record.get("page_mode") == "any",
        answer=str(record.get("answer") or ""),
    )


def read_beir(folder: Path) -> tuple[dict[str, str], list[Question]]:
    """A BEIR folder: its passages ("title text", by id) and its judged questions. Raises UsageError."""
    try:
        with (folder / "corpus.jsonl").open(encoding="utf-8") as file:
            passages = {str(p["_id"]): f"{p.get('title', '')} {p['text']}".strip() for p in map(json.loads, file)}
        with (folder / "queries.jsonl").open(encoding="utf-8") as file:
            texts = {str(q["_id"]): str(q["text"]) for q in map(json.loads, file)}
        qrels = next(path for path in (folder / "qrels.tsv", folder / "qrels" / "test.tsv") if path.is_file())
        relevant: dict[str, set[str]] = {}
        for line in qrels.read_text(encoding="utf-8").splitlines()[1:]:
            query, passage, score = line.split("\t")
            if int(score) > 0:
                relevant.setdefault(query, set()).add(passage)
    except (OSError, StopIteration, ValueError, KeyError) as error:
        raise UsageError(f"{folder}: not a BEIR folder (corpus.jsonl, queries.jsonl, qrels.tsv): {error}") from error
    questions = [Question(id, texts[id], "", frozenset(found), scope="corpus") for id, found in relevant.items()]
    return passages, questions


def measure(question: Question, ranked: Sequence[object]) -> dict[str, float]:
    """nDCG@5 and @10 (binary gains, log2 discount; Järvelin and Kekäläinen 2002), recall@1 and @5, MRR@10."""
    gains = [item in question.relevant for item in ranked[:DEPTH]]
    ideal = len(question.relevant)
    if question.any_one:
        first = gains.index(True) if True in gains else None
        gains = [index == first for index in range(len(gains))]
        ideal = 1

    def ndcg(depth: int) -> float:
        found = sum(1 / math.log2(rank + 2) for rank, gain in enumerate(gains[:depth]) if gain)
        return found / sum(1 / math.log2(rank + 2) for rank in range(min(ideal, depth)))

    return {
        "ndcg@5": ndcg(5),
        "ndcg@10": ndcg(10),
        "recall@1": sum(gains[:1]) / ideal,
        "recall@5": sum(gains[:5]) / ideal,
        "mrr": next((1 / (rank + 1) for rank, gain in enumerate(gains) if gain), 0.0),
    }


def evaluate_questions(index: Index, path: Path, rank: Rank, progress: Progress) -> dict[str, Any]:
    """The figures of ``visrag evaluate QUESTIONS``: every question that has a document among the pages of that, those
    of scope "corpus" over the whole index, too; and "highlighting" (``visrag.highlighting``), where there are answers
    to look for. Raises UsageError where there is no question, or a document is not in the index."""
    questions = read_questions(path)
    if not questions:
        raise UsageError(f"{path}: holds no question with a page that answers it")
    known = {document.name for document in index.documents()}
    asked = {document for question in questions for document, _ in cast("frozenset[PageRef]", question.relevant)}
    if missing := sorted(asked - known):
        raise UsageError(
            f"{path}: not in the index: {', '.join(missing)}; ingest the folder that holds these documents"
        )
    alone = [question for question in questions if question.document]
    corpus = [question for question in questions if question.scope == "corpus"]

    def in_document(question: Question, k: int) -> list[object]:
        return [(hit.document, hit.page) for hit in index.search(question.text, k, [question.document], rank=rank)]

    def in_corpus(question: Question, k: int) -> list[object]:
        return [(hit.document, hit.page) for hit in index.search(question.text, k, rank=rank)]

    progress.start(len(alone) + len(corpus))
    found = report(evaluate(alone, in_document, progress), evaluate(corpus, in_corpus, progress))
    answered = [Answered(q.text, q.answer, sorted(cast("frozenset[PageRef]", q.relevant))) for q in questions]
    shown = highlighting(index, answered)
    return {**found, "highlighting": shown} if shown else found


def evaluate_beir(folder: Path, path: str | None, rank: Rank, device: str | None, progress: Progress) -> dict[str, Any]:
    """The figures of ``visrag evaluate --beir``. The index of the passages, by default in the user's cache, is made on
    first use and reused."""
    from .index import Index

    passages, questions = read_beir(folder)
    with Index(path or cache_folder(folder), device=device) as index:
        index.ingest_texts(passages, progress)

        def in_corpus(question: Question, k: int) -> list[object]:
            return [hit.document for hit in index.search(question.text, k, rank=rank)]

        progress.start(len(questions))
        return report([], evaluate(questions, in_corpus, progress))


def cache_folder(folder: Path) -> Path:
    """Where the index of a BEIR folder is kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    return cache / "visrag" / f"{folder.resolve().name}-{key}"


def evaluate(questions: Iterable[Question], rank: Ranker, progress: Progress) -> list[Outcome]:
    """Ask every question. ``rank(question, k)`` gives the k best items."""
    outcomes = []
    for question in questions:
        start = time.perf_counter()
        ranked = rank(question, DEPTH)
        seconds = time.perf_counter() - start
        outcomes.append(Outcome(question, measure(question, ranked), seconds))
        progress.finish(Source(Path(), question.text, 1))
    return outcomes


def table(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The means over the questions, and the latency's percentiles in milliseconds."""
    if not outcomes:
        return {"questions": 0}
    result: dict[str, Any] = {"questions": len(outcomes)}
    for name in outcomes[0].measures:
        result[name] = round(sum(outcome.measures[name] for outcome in outcomes) / len(outcomes), 4)
    times = sorted(outcome.seconds * 1000 for outcome in outcomes)
    result["latency_ms"] = {"p50": _percentile(times, 50), "p95": _percentile(times, 95)}
    return result


def report(in_document: Sequence[Outcome], corpus: Sequence[Outcome]) -> dict[str, Any]:
    """The figures of ``visrag evaluate --json``: in-document at the top, where there are such, else corpus-wide."""
    main = in_document or corpus
    types = sorted({outcome.question.type for outcome in main})
    scopes = {"document": in_document, "corpus": corpus}
    return {
        **table(main),
        "by_type": {kind: table([o for o in main if o.question.type == kind]) for kind in types},
        "by_scope": {scope: table(found) for scope, found in scopes.items() if found},
    }


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of an ordered sequence."""
    return round(ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)], 2)
