"""The measures, by numbers worked by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from visrag import Index
from visrag.errors import UsageError
from visrag.evaluate import Outcome, Question, evaluate_questions, measure, read_beir, read_questions, report
from visrag.ingest import Silent
from visrag.records import Document, EncodedPage, Feedback, Page, Word
from visrag.store.opening import open_store
from visrag.verdicts import as_csv, as_json


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
    file.write_text('{"question": "of\u2028two lines", "doc": "a.pdf", "page": 1}\r\n', encoding="utf-8-sig")
    assert [question.text for question in read_questions(file)] == ["of\u2028two lines"]
    file.write_bytes(b'{"question": "\xff"}')
    with pytest.raises(UsageError, match="not UTF-8"):
        read_questions(file)


SAID = [
    Feedback("=1+1?", "a.pdf", 2, "relevant", "see\nbelow", "spring", "ann", 1.0),
    Feedback("=1+1?", "a.pdf", 5, "relevant", reviewer="ann", time=2.0),
    Feedback("=1+1?", "b.pdf", 1, "not_relevant", reviewer="ann", time=3.0),
    Feedback("where?", "a.pdf", 1, "relevant", reviewer="ann", time=4.0),
    Feedback("where?", "b.pdf", 1, "relevant", reviewer="bob", time=5.0),
    Feedback("where?", "b.pdf", 2, "relevant", reviewer="bob", time=6.0),
    Feedback("where?", "b.pdf", 2, "not_relevant", reviewer="ann", time=7.0),
    Feedback("where?", "b.pdf", 3, "relevant", reviewer="bob", time=8.0),
    Feedback("where?", "b.pdf", 3, "not_relevant", reviewer="ann", time=9.0),
    Feedback("where?", "b.pdf", 3, "not_relevant", reviewer="eve", time=10.0),
    Feedback("why?", "a.pdf", 1, "not_relevant", reviewer="ann", time=11.0),
    Feedback("who?", "a.pdf", 1, None, "unclear", reviewer="ann", time=12.0),
]


@pytest.mark.parametrize(("name", "write"), [("v.csv", as_csv), ("v.json", as_json), ("V.CSV", as_csv)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_verdicts_are_questions(tmp_path: Path, name: str, write: Callable[..., str], encoding: str) -> None:
    file = tmp_path / name
    file.write_bytes(write(SAID).encode(encoding))
    one, two = read_questions(file)
    assert one == Question("", "=1+1?", "a.pdf", frozenset({("a.pdf", 2), ("a.pdf", 5)}), scope="corpus")
    several = frozenset({("a.pdf", 1), ("b.pdf", 1), ("b.pdf", 2)})
    assert two == Question("", "where?", "", several, scope="corpus")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("v.csv", "question,document,page,verdict\nq,a.pdf,x,relevant\n", r"v\.csv: line 2: not a verdict"),
        ("v.json", '[{"question": "q", "document": "a.pdf", "page": 1}]', r"v\.json: item 1: .*no 'verdict'"),
        ("v.json", '{"question": "q", "doc": "a.pdf", "page": 1}', r"v\.json: .*name a file of questions \.jsonl"),
    ],
)
def test_errors_in_verdicts_name_the_file_and_the_place(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=told):
        read_questions(tmp_path / name)


def test_a_question_of_several_documents_is_asked_of_the_whole_index_only(tmp_path: Path) -> None:
    with open_store(tmp_path / "index", create=True) as store:
        for name in ("a.pdf", "b.pdf"):
            generation = store.begin(Document(name, name, "", "application/pdf"))
            texts = ["apple", "pear pear", "apple apple"] if name == "a.pdf" else ["pear", "fig"]
            pages = [Page(n, 612, 792, text, words(text)) for n, text in enumerate(texts, 1)]
            store.add_pages(generation, [EncodedPage(page, {}, {}) for page in pages])
            store.commit(generation, len(pages))
    said = [
        Feedback("apple", "a.pdf", 1, "relevant"),  # in the document, and in all, found second
        Feedback("pear", "a.pdf", 2, "relevant"),
        Feedback("pear", "b.pdf", 1, "relevant"),
    ]
    file = tmp_path / "verdicts.csv"
    file.write_bytes(as_csv(said).encode())
    with Index(tmp_path / "index") as index:
        found = evaluate_questions(index, file, "fulltext", Silent())
        scopes = found["by_scope"]
        assert (scopes["document"]["questions"], scopes["document"]["mrr"]) == (1, 0.5)
        assert (scopes["corpus"]["questions"], scopes["corpus"]["mrr"], scopes["corpus"]["recall@5"]) == (2, 0.75, 1.0)
        file.write_bytes(as_csv([*said, Feedback("pear", "gone.pdf", 1, "relevant")]).encode())
        with pytest.raises(UsageError, match=r"not in the index: gone\.pdf;"):
            evaluate_questions(index, file, "fulltext", Silent())
        file.write_bytes(as_csv([Feedback("fig", "a.pdf", 1, "not_relevant")]).encode())
        with pytest.raises(UsageError, match="holds no question with a page that answers it"):
            evaluate_questions(index, file, "fulltext", Silent())


def test_highlighting_is_measured_where_a_page_holds_the_answer(tmp_path: Path) -> None:
    text = "trams are red\nbuses are pale blue\nferries are white"
    boxes = [
        (0.1 + 0.2 * column, 0.2 + 0.1 * row, 0.25 + 0.2 * column, 0.25 + 0.1 * row)
        for row in range(3)
        for column in range(4)
    ]
    del boxes[3], boxes[10]  # lines of three, four and three words
    found = tuple(Word(w.group(), w.start(), (box,)) for w, box in zip(re.finditer(r"\S+", text), boxes, strict=True))
    with open_store(tmp_path / "index", create=True) as store:
        generation = store.begin(Document("a.pdf", "a", "", "application/pdf"))
        store.add_pages(generation, [EncodedPage(Page(1, 600, 600, text, found), {}, {})])
        store.commit(generation, 1)
    asked = {"question": "What colour are buses?", "doc": "a.pdf", "page": 1}
    file = tmp_path / "q.jsonl"
    file.write_text("\n".join(json.dumps({**asked, "answer": answer}) for answer in ("pale blue", "grey", "red")))
    with Index(tmp_path / "index") as index:
        report = evaluate_questions(index, file, "fulltext", Silent())
        assert report["questions"] == 3
        assert (report["highlighting"]["questions"], report["highlighting"]["held"]) == (1, 1.0)
        file.write_text(json.dumps({**asked, "answer": "grey"}))
        assert "highlighting" not in evaluate_questions(index, file, "fulltext", Silent())


def words(text: str) -> tuple[Word, ...]:
    return tuple(Word(found.group(), found.start(), ((0, 0, 1, 1),)) for found in re.finditer(r"\S+", text))


def test_beir_folder(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": 7, "title": "T", "text": "body"}\n{"_id": 8, "text": "only"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "what"}\n{"_id": "unjudged", "text": "no"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t7\t1\nq\t8\t0\n")
    passages, questions = read_beir(tmp_path)
    assert passages == {"7": "T body", "8": "only"}
    assert [(q.id, q.relevant) for q in questions] == [("q", {"7"})]
    with pytest.raises(UsageError, match="not a BEIR folder"):
        read_beir(tmp_path / "none")
