"""What reviewers say of pages, in every store: the last counts, it outlives its document, nothing of it is changed."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from store_cases import page, put

from visrag.errors import StoreError
from visrag.records import Feedback

SAID = Feedback("How much?", "a.pdf", 3, "relevant", "", "spring", "ann", 100.0)


def test_it_comes_back_as_it_was_said(store, open_store):
    assert store.feedback() == []
    store.judge(SAID)
    assert store.feedback() == [SAID]
    assert open_store().feedback() == [SAID]
    assert store.documents() == []


def test_the_last_by_the_same_reviewer_counts(store, open_store):
    store.judge(SAID)
    changed = replace(SAID, verdict="not_relevant", note="the wrong year", time=50.0)  # of a clock that is behind
    open_store().judge(changed)
    assert store.feedback() == [changed]


@pytest.mark.parametrize(
    "other",
    [{"review": ""}, {"question": "how much?"}, {"document": "A.pdf"}, {"page": 30}, {"reviewer": "bob"}],
    ids=lambda other: next(iter(other)),
)
def test_each_part_of_the_key_tells_two_apart(store, other):
    second = replace(SAID, time=101.0, verdict="not_relevant", **other)
    store.judge(second)
    store.judge(SAID)
    assert store.feedback() == [SAID, second]


def test_parts_of_the_key_do_not_run_together(store):
    """As they would if they were joined by a character that may be in them."""
    said = [Feedback(question, document, 1, "relevant") for question, document in [("a/b", "c"), ("a", "b/c")]]
    said += [replace(SAID, review="x\x1f", question="y"), replace(SAID, review="x", question="\x1fy")]
    for each in said:
        store.judge(each)
    assert sorted(each.key for each in store.feedback()) == sorted(each.key for each in said)


def test_neither_verdict_nor_note_takes_it_away(store, open_store):
    other = replace(SAID, reviewer="bob", time=101.0)
    store.judge(SAID)
    store.judge(other)
    store.judge(replace(SAID, verdict=None, note="unsure", time=102.0))
    assert store.feedback() == [other, replace(SAID, verdict=None, note="unsure", time=102.0)]
    store.judge(replace(SAID, verdict=None, time=103.0))
    store.judge(replace(SAID, verdict=None, time=104.0))
    assert open_store().feedback() == [other]


def test_by_time_and_of_the_same_time_by_key(store):
    said = [
        replace(SAID, time=1.5),
        replace(SAID, page=2, time=2.0),
        replace(SAID, page=10, time=2.0),
        replace(SAID, question="z", time=2.0),
        replace(SAID, review="winter", question="b", time=2.0),
        replace(SAID, review="winter", question="ü", time=2.0),
        replace(SAID, reviewer="bob", time=2.000001),
    ]
    for each in said[::-2] + said[-2::-2]:
        store.judge(each)
    assert store.feedback() == said


def test_by_review_and_question(store):
    first = SAID
    second = replace(SAID, review="", time=101.0)
    third = replace(SAID, question='"quoted" OR 1=1 --', time=102.0)
    for each in (first, second, third):
        store.judge(each)
    assert store.feedback("spring") == [first, third]
    assert store.feedback("") == [second]
    assert store.feedback(question="How much?") == [first, second]
    assert store.feedback("spring", third.question) == [third]
    assert store.feedback("autumn") == store.feedback(question="") == []


@pytest.mark.parametrize(
    "text",
    [
        "Übergröße: 50 % \"mehr\" – 'ja'; DROP TABLE feedback;",
        "日本語 🙂 e\u0301 é",
        "line\r\nline\ttab\n",
        "%_*?\\",
        "x" * 70_000,
        "nul\x00",
    ],
    ids=["quotes", "scripts", "newlines", "patterns", "long", "nul"],
)
def test_any_text_stays_as_it_is(store, text):
    said = Feedback(text, text, 1, "not_relevant", text, text, text, 1753660800.123456)
    store.judge(said)
    assert store.feedback(text, text) == [said]
    store.judge(replace(said, verdict=None, note=""))
    assert store.feedback() == []


@pytest.mark.parametrize("part", ["question", "document", "note", "review", "reviewer"])
def test_what_is_no_text_is_refused(store, part):
    with pytest.raises(StoreError, match="not valid Unicode"):
        store.judge(replace(SAID, **{part: "\ud800"}))
    assert store.feedback() == []


def test_it_outlives_the_versions_of_its_document_and_its_removal(store, open_store):
    put(store, "a.pdf", [page(1, "old"), page(3, "old")])
    store.judge(SAID)
    put(store, "a.pdf", [page(1, "new")], content="new")
    assert store.feedback() == [SAID]
    store.remove("a.pdf")
    store.tidy()
    assert open_store().feedback() == [SAID]
    put(store, "a.pdf", [page(1, "again")])
    assert store.feedback() == [SAID]
    assert [(found.name, found.indexed) for found in store.documents()] == [("a.pdf", 1)]


def test_two_writers_lose_nothing(store, open_store):
    """Each judges pages of its own, and both the same page: one of them is the last."""
    failed: list[BaseException] = []

    def judge(writer, reviewer):
        try:
            for n in range(1, 21):
                writer.judge(replace(SAID, page=n, reviewer=reviewer, time=float(n)))
                writer.judge(replace(SAID, page=99, note=f"{reviewer} {n}"))
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=judge, args=(open_store(), reviewer)) for reviewer in ("bob", "eve")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    found = store.feedback()
    assert {(each.reviewer, each.page) for each in found if each.page != 99} == {
        (reviewer, n) for reviewer in ("bob", "eve") for n in range(1, 21)
    }
    assert [each.note for each in found if each.page == 99] in (["bob 20"], ["eve 20"])
    assert len(found) == 41
