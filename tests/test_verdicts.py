"""Verdicts written as CSV and JSON and read back; what the majority of reviewers says."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from visrag.records import Feedback
from visrag.verdicts import as_csv, as_json, from_csv, from_json, relevant_pages

SAID = Feedback("How much?", "a.pdf", 3, "relevant", "see table 2", "spring", "ann", 1753660800.5)


def test_csv_is_rfc_4180_with_a_header() -> None:
    noted = replace(SAID, verdict=None, note='two, "quoted"\nlines', review="", time=0.0)
    assert as_csv([SAID, noted]) == (
        "question,document,page,verdict,note,review,reviewer,time\r\n"
        "How much?,a.pdf,3,relevant,see table 2,spring,ann,2025-07-28T00:00:00.500000Z\r\n"
        'How much?,a.pdf,3,,"two, ""quoted""\nlines",,ann,1970-01-01T00:00:00.000000Z\r\n'
    )
    assert as_csv([]) == "question,document,page,verdict,note,review,reviewer,time\r\n"


def test_json_is_a_list_of_objects() -> None:
    assert json.loads(as_json([replace(SAID, question="Größe?", verdict=None)])) == [
        {
            "question": "Größe?", "document": "a.pdf", "page": 3, "verdict": None, "note": "see table 2",
            "review": "spring", "reviewer": "ann", "time": "2025-07-28T00:00:00.500000Z",
        }
    ]  # fmt: skip
    assert "Größe?" in as_json([replace(SAID, question="Größe?")])
    assert json.loads(as_json([])) == []


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
        ("+1", "'+1"),
        ("-1 %", "'-1 %"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("＝1", "'＝1"),
        ("'=1", "''=1"),
        ("''-", "'''-"),
        ("'tis the season", "'tis the season"),
        ("'", "'"),
        ("a=b", "a=b"),
        ("a\n=b", "a\n=b"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula_and_each_comes_back(cell: str, written: str) -> None:
    said = replace(SAID, question=cell, document=cell, note=cell, review=cell, reviewer=cell)
    [_, row] = csv.reader(io.StringIO(as_csv([said]), newline=""))
    assert row == [written, written, "3", "relevant", written, written, written, "2025-07-28T00:00:00.500000Z"]
    assert from_csv(as_csv([said])) == [said]


HARD = [
    SAID,
    replace(SAID, question='semi;colon, "quotes"', note="a\r\nb\rc\n\n", time=1753660800.123456),
    replace(SAID, question="日本語\u2028🙂", document="ü/ä b.pdf", verdict="not_relevant", reviewer="", review=""),
    replace(SAID, verdict=None, note=" spaces ", page=12345, time=0.0),
]


def test_both_forms_give_back_what_was_written() -> None:
    assert from_csv(as_csv(HARD)) == HARD
    assert from_json(as_json(HARD)) == HARD
    told = {"feedback": [{**each, "id": "YS5wZGY"} for each in json.loads(as_json(HARD))]}
    assert from_json(json.dumps(told)) == HARD


def test_only_four_columns_are_needed_in_any_order() -> None:
    text = "page,verdict,colour,document,question\n3,relevant,red,a.pdf,q\n\n4,,,a.pdf,q\n"
    assert from_csv(text) == [Feedback("q", "a.pdf", 3, "relevant"), Feedback("q", "a.pdf", 4, None)]
    assert from_json('[{"question": "q", "document": "a.pdf", "page": 3, "verdict": "relevant"}]') == [
        Feedback("q", "a.pdf", 3, "relevant")
    ]


HEAD = "question,document,page,verdict\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: no column question, document, page, verdict"),
        ("question;document;page;verdict\n", "line 1: no column question"),
        (HEAD + 'q,"a\nb",1,relevant\nq,a.pdf,none,relevant\n', "line 4: not a verdict .page 'none' is not a number"),
        (HEAD + "q,a.pdf,0,relevant\n", "line 2: not a verdict .page '0'"),
        (HEAD + "q,a.pdf,1,yes\n", "line 2: not a verdict .verdict 'yes' is neither relevant, not_relevant nor empty"),
        (HEAD + "q,a.pdf,1\n", "line 2: 3 cells for 4 columns"),
        (HEAD + '\nq,"a.pdf,1,relevant\n', "line 3: unexpected end of data"),
    ],
)
def test_errors_in_csv_name_the_line(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        from_csv(text)


ITEM = {"question": "q", "document": "a.pdf", "page": 1, "verdict": "relevant"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"page": True}, "page True"),
        ({"page": 1.5}, "page 1.5"),
        ({"page": None}, "page None"),
        ({"verdict": "maybe"}, "verdict 'maybe'"),
        ({"verdict": ["relevant"]}, "verdict .'relevant'. is neither"),
        ({"question": None}, "question None is not a text"),
        ({"note": 5}, "note 5 is not a text"),
        ({"time": "yesterday"}, "Invalid isoformat string: 'yesterday'"),
        ({"time": 5}, "argument must be str"),
    ],
)
def test_errors_in_json_name_the_item(changed: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=f"item 2: not a verdict .*{told}"):
        from_json(json.dumps([ITEM, ITEM | changed]))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"question": "q"}]', "item 1: not a verdict .no 'page'"),
        ("[1]", "item 1: not a verdict .not an object"),
        ('{"questions": []}', "neither a list of verdicts nor"),
        ("3", "neither a list of verdicts nor"),
        ("[", "line 1 column 2"),
    ],
)
def test_what_is_no_list_of_verdicts(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        from_json(text)


def verdicts(*told: str) -> list[Feedback]:
    """Of "reviewer page verdict", with + and - for the verdict, · for none; all of one question."""
    meaning = {"+": "relevant", "-": "not_relevant", "·": None}
    split = [each.split() for each in told]
    return [Feedback("q", "a.pdf", int(page), meaning[said], reviewer=who) for who, page, said in split]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("told", "pages"),
    [
        (["ann 1 +", "ann 2 -"], {1}),
        (["ann 1 +", "bob 1 -"], {1}),
        (["ann 1 +", "bob 1 -", "eve 1 -"], set()),
        (["ann 1 -", "bob 1 +", "eve 1 +"], {1}),
        (["ann 1 +", "bob 1 -", "eve 1 ·"], {1}),
        (["ann 1 -", "ann 1 -", "bob 1 +"], {1}),
        (["ann 1 +", "ann 1 -"], set()),
        (["ann 1 -"], set()),
        (["ann 1 ·"], set()),
        (["ann 2 +", "bob 1 +"], {1, 2}),
    ],
)
def test_the_majority_counts_and_a_tie_is_relevant(told: list[str], pages: set[int]) -> None:
    expected = {"q": {("a.pdf", page) for page in pages}} if pages else {}
    assert relevant_pages(verdicts(*told)) == expected


def test_questions_come_in_their_order() -> None:
    asked = [replace(SAID, question=question, document=name) for question, name in [("b", "x"), ("a", "y"), ("b", "z")]]
    found = relevant_pages(asked)
    assert list(found.items()) == [("b", {("x", 3), ("z", 3)}), ("a", {("y", 3)})]
