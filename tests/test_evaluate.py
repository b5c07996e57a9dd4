"""The measures, by numbers worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visrag.errors import UsageError
from visrag.evaluate import Outcome, Question, measure, read_beir, read_questions, report


def question(*relevant: str, any_one: bool = False, kind: str = "none") -> Question:
    return Question("q", "?", "d", frozenset(relevant), kind, any_one=any_one)


def test_one_page_at_rank_3() -> None:
    found = measure(question("c"), ["a", "b", "c", "d"])
    assert found == pytest.approx({"ndcg@5": 0.5, "ndcg@10": 0.5, "recall@1": 0, "recall@5": 1, "mrr": 1 / 3})


def test_two_pages_at_ranks_1_and_3() -> None:
    found = measure(question("a", "c"), ["a", "b", "c"])
    assert found["ndcg@5"] == pytest.approx(1.5 / (1 + 0.6309297536))
    assert found["recall@1"] == 0.5
    assert found["recall@5"] == 1.0


def test_found_below_the_depth() -> None:
    found = measure(question("x"), [*"abcdef", "x"])
    assert found["ndcg@5"] == 0.0
    assert found["ndcg@10"] == pytest.approx(1 / 3)


def test_any_one_is_enough() -> None:
    found = measure(question("a", "b", any_one=True), ["a", "z", "b"])
    assert found["ndcg@5"] == 1.0
    assert found["recall@5"] == 1.0
    assert measure(question("a", "b", any_one=True), ["z", "b", "a"])["ndcg@5"] == pytest.approx(0.6309297536)


def test_nothing_found() -> None:
    assert set(measure(question("a"), []).values()) == {0.0}


def test_report_has_types_and_scopes() -> None:
    outcomes = [
        Outcome(question("a", kind="table"), measure(question("a"), ["a"]), 0.010),
        Outcome(question("a", kind="chart"), measure(question("a"), ["b"]), 0.030),
    ]
    found = report(outcomes, outcomes[:1])
    assert found["questions"] == 2
    assert found["ndcg@5"] == 0.5
    assert found["latency_ms"] == {"p50": 10.0, "p95": 30.0}
    assert found["by_type"]["table"]["recall@1"] == 1.0
    assert found["by_scope"]["corpus"]["questions"] == 1
    assert report([], outcomes)["ndcg@5"] == 0.5


def test_questions_file(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    lines = [
        {"question": "one", "doc": "a.pdf", "page": 3, "type": None},
        {"id": "x", "question": "two", "doc": "b.pdf", "page": [1, 2], "scope": "corpus", "page_mode": "any"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    one, two = read_questions(file)
    assert (one.relevant, one.type, one.scope) == ({("a.pdf", 3)}, "none", "document")
    assert (two.relevant, two.any_one, two.scope) == ({("b.pdf", 1), ("b.pdf", 2)}, True, "corpus")
    file.write_text('{"question": "no page", "doc": "a.pdf"}')
    with pytest.raises(UsageError, match=r"q\.jsonl, line 1"):
        read_questions(file)


def test_beir_folder(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": 7, "title": "T", "text": "body"}\n{"_id": 8, "text": "only"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "what"}\n{"_id": "unjudged", "text": "no"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t7\t1\nq\t8\t0\n")
    passages, questions = read_beir(tmp_path)
    assert passages == {"7": "T body", "8": "only"}
    assert [(q.id, q.relevant) for q in questions] == [("q", {"7"})]
    with pytest.raises(UsageError, match="not a BEIR folder"):
        read_beir(tmp_path / "none")
