"""What every store must do. Scores are judged by MaxSim in float64 over what was stored."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from store_cases import DIM, document, oracle, page, put, query, rounding, stored, unit

from visrag.errors import NotFound, NotWritten, StoreError
from visrag.fulltext import JOINT, PHRASE, terms
from visrag.records import FULLTEXT, EncodedPage, Failure, Filter, Leg, Page, PageRef, PatchVectors, Places
from visrag.search import search

ALL = Filter()


def refs(name, *numbers):
    return [PageRef(name, number) for number in numbers]


# Vectors


def test_candidates_and_scores_are_exact_maxsim_of_what_is_stored(store):
    rng = np.random.default_rng(1)
    names = ["a.pdf", "b.pdf", "c.pdf"]
    for name in names:
        put(store, name, [page(i, tokens=unit(rng, int(rng.integers(1, 40)))) for i in range(1, 8)])
    pages = [ref for name in names for ref in refs(name, *range(1, 8))]
    asked = query(unit(rng, 6), [1, 0, 0.5, 2, 1, 1])
    vectors = stored(store, "tokens", pages)
    expected, off = oracle(asked, vectors), rounding(asked, vectors)
    scores = dict(zip(pages, store.score("tokens", asked, pages).tolist(), strict=True))
    assert all(abs(scores[ref] - expected[ref]) <= off[ref] for ref in pages)
    found = store.candidates("tokens", asked, ALL, 5)
    assert [ref for ref, _ in found] == sorted(pages, key=lambda ref: (-scores[ref], ref))[:5]
    assert [score for _, score in found] == pytest.approx([scores[ref] for ref, _ in found], abs=1e-5)


def test_stored_vectors_are_within_half_a_step_of_what_was_given(store):
    rng = np.random.default_rng(2)
    given_vectors = unit(rng, 30)
    put(store, "a.pdf", [page(1, tokens=given_vectors)])
    found = store.vectors("tokens", PageRef("a.pdf", 1))
    assert found.vectors.dtype == np.float32
    step = np.abs(given_vectors).max() / 127
    assert np.abs(found.vectors - given_vectors).max() <= step / 2 + 1e-7


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(0, 70), min_size=1, max_size=6), tokens=st.integers(1, 20), seed=st.integers(0, 99))
def test_any_shape_is_scored_like_the_oracle(store, counts, tokens, seed):
    rng = np.random.default_rng(seed)
    put(store, "shapes.pdf", [page(i + 1, tokens=unit(rng, n)) for i, n in enumerate(counts)])
    asked = query(unit(rng, tokens))
    pages = refs("shapes.pdf", *range(1, len(counts) + 1))
    vectors = stored(store, "tokens", pages)
    expected, off = oracle(asked, vectors), rounding(asked, vectors)
    assert {ref for ref, _ in store.candidates("tokens", asked, ALL, 10)} == set(expected)
    for ref, score in zip(pages, store.score("tokens", asked, pages).tolist(), strict=True):
        assert abs(score - expected[ref]) <= off[ref] if ref in expected else math.isnan(score)


def test_negative_scores_survive_beside_longer_pages(store):
    away = np.zeros((1, DIM), np.float32)
    away[0, 0] = -1.0
    put(store, "a.pdf", [page(1, tokens=away), page(2, tokens=np.repeat(away, 50, axis=0))])
    found = store.candidates("tokens", query(-away), ALL, 5)
    assert [ref.page for ref, _ in found] == [1, 2]  # equals, in the order of PageRef
    assert [score for _, score in found] == pytest.approx([-1.0, -1.0], abs=1e-5)


def test_scores_of_pages_of_any_magnitude_stay_comparable(store):
    rng = np.random.default_rng(3)
    vectors = unit(rng, 10)
    put(store, "a.pdf", [page(1, tokens=vectors * 0.01), page(2, tokens=vectors * 100), page(3, tokens=vectors * 0)])
    found = dict(store.candidates("tokens", query(vectors), ALL, 5))
    assert found[PageRef("a.pdf", 2)] == pytest.approx(1000, rel=0.01)
    assert found[PageRef("a.pdf", 1)] == pytest.approx(0.1, rel=0.01)
    assert found[PageRef("a.pdf", 3)] == 0


def test_ties_come_in_the_order_of_document_and_page(store):
    same = unit(np.random.default_rng(4), 3)
    for name in ("b.pdf", "a.pdf", "é.pdf", "Z.pdf"):
        put(store, name, [page(n, "same", tokens=same) for n in (2, 10, 1)])
    expected = sorted(PageRef(name, n) for name in ("b.pdf", "a.pdf", "é.pdf", "Z.pdf") for n in (1, 2, 10))
    assert [ref for ref, _ in store.candidates("tokens", query(same), ALL, 99)] == expected
    assert [ref for ref, _ in store.candidates("fulltext", terms("same"), ALL, 99)] == expected


def test_places_and_chance_come_back(store):
    rng = np.random.default_rng(5)
    on_grid = PatchVectors(unit(rng, 12), Places.on_grid(3, 4, np.arange(12, dtype=np.int32)))
    put(store, "a.pdf", [EncodedPage(Page(1, 100, 50), {"patches": on_grid}, {"patches": 0.125})])
    put(store, "b.pdf", [page(1, tokens=unit(rng, 4), chance=-0.5)])
    grid = store.vectors("patches", PageRef("a.pdf", 1)).places
    assert grid.grid == (3, 4)
    np.testing.assert_array_equal(grid.vectors, np.arange(12))
    boxes = store.vectors("tokens", PageRef("b.pdf", 1)).places
    np.testing.assert_allclose(boxes.boxes()[:, 0], [0, 0.25, 0.5, 0.75], atol=1e-4)
    levels = store.chance("patches", [PageRef("a.pdf", 1), PageRef("b.pdf", 1), PageRef("c.pdf", 1)])
    assert levels[0] == 0.125
    assert np.isnan(levels[1:]).all()
    assert store.chance("tokens", [PageRef("b.pdf", 1)])[0] == -0.5


def test_a_page_that_lacks_a_leg_is_no_candidate_of_it(store):
    rng = np.random.default_rng(6)
    put(store, "a.pdf", [page(1, tokens=unit(rng, 3)), page(2, patches=unit(rng, 3, 8)), page(3)])
    asked = query(unit(rng, 2))
    assert [ref for ref, _ in store.candidates("tokens", asked, ALL, 9)] == refs("a.pdf", 1)
    assert [ref for ref, _ in store.candidates("patches", query(unit(rng, 2, 8)), ALL, 9)] == refs("a.pdf", 2)
    assert np.isnan(store.score("tokens", asked, refs("a.pdf", 2, 3, 4))).all()
    assert store.vectors("tokens", PageRef("a.pdf", 2)) is None
    assert store.candidates("no such leg", asked, ALL, 9) == []


def test_a_blank_page_is_a_page_without_vectors(store):
    made = put(store, "blank.pdf", [page(1), page(2, tokens=np.zeros((0, DIM), np.float32))])
    assert (made.state, made.pages, made.indexed, made.failed) == ("indexed", 2, 2, 0)
    assert store.page_count(ALL) == 2
    assert store.page(PageRef("blank.pdf", 1)).text == ""
    assert store.candidates("tokens", query(np.ones((1, DIM), np.float32)), ALL, 5) == []
    assert store.vectors("tokens", PageRef("blank.pdf", 2)) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_no_numbers_are_refused_naming_the_page(store, bad):
    vectors = unit(np.random.default_rng(7), 3)
    vectors[1, 2] = bad
    generation = store.begin(document("wrong.pdf"))
    with pytest.raises(StoreError, match=r"wrong\.pdf, page 7"):
        store.add_pages(generation, [page(7, tokens=vectors)])


def test_vectors_of_other_dimensions_are_refused(store):
    rng = np.random.default_rng(8)
    put(store, "a.pdf", [page(1, tokens=unit(rng, 3))])
    generation = store.begin(document("b.pdf"))
    with pytest.raises(StoreError, match=r"b\.pdf, page 1.*24 dimensions.*16"):
        store.add_pages(generation, [page(1, tokens=unit(rng, 3, 24))])
    with pytest.raises(StoreError, match="24 dimensions"):
        store.candidates("tokens", query(unit(rng, 3, 24)), ALL, 5)


# Full text


def bm25(texts, question, mean_length):
    """{page: BM25} by the formula, in plain Python."""
    bags = {ref: Counter(terms(text)) for ref, text in texts.items()}
    mean = mean_length or sum(sum(bag.values()) for bag in bags.values()) / len(bags)
    scores = dict.fromkeys(bags, 0.0)
    for term in question:
        having = sum(term in bag for bag in bags.values())
        idf = math.log(1 + (len(bags) - having + 0.5) / (having + 0.5))
        for ref, bag in bags.items():
            length = sum(bag.values())
            scores[ref] += idf * bag[term] * 2.2 / (bag[term] + 1.2 * (0.25 + 0.75 * length / mean))
    return scores


TEXTS = {
    PageRef("a.pdf", 1): "Revenue grew by 12% to $3.2m in Q3; revenue from services fell.",
    PageRef("a.pdf", 2): "The board of directors met in Paris.",
    PageRef("b.pdf", 1): "Capital expenditure in 2018: 1,234.5 million. Revenues were flat.",
    PageRef("b.pdf", 2): "",
    PageRef("中文.pdf", 1): "東京都の売上高は百万円です。",
}


@pytest.fixture
def texts(store):
    for name in dict.fromkeys(ref.document for ref in TEXTS):
        put(store, name, [page(ref.page, text) for ref, text in TEXTS.items() if ref.document == name])
    return store


@pytest.mark.parametrize(
    "question", ["revenues", "revenue revenue in 2018", "the board's capital", "売上", "1234.5", "東"]
)
def test_full_text_is_bm25_over_the_visible_pages(texts, question, mean_length):
    expected = bm25(TEXTS, terms(question), mean_length)
    found = texts.candidates("fulltext", terms(question), ALL, 10)
    assert found
    assert dict(found) == pytest.approx({ref: score for ref, score in expected.items() if score}, rel=1e-5)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    np.testing.assert_allclose(
        texts.score("fulltext", terms(question), list(TEXTS)), list(expected.values()), rtol=1e-5
    )


def test_a_phrase_is_found_where_its_terms_are_neighbours(texts, mean_length):
    """ "board of directors" on a page of 4 terms; nowhere "directors of the board"."""
    mean = mean_length or sum(len(terms(text)) for text in TEXTS.values()) / len(TEXTS)
    score = PHRASE * math.log(1 + 4.5 / 1.5) * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 4 / mean))
    ((ref, found),) = texts.candidates("fulltext", [f"board{JOINT}director", f"director{JOINT}board"], ALL, 9)
    assert (ref, found) == (PageRef("a.pdf", 2), pytest.approx(score, rel=1e-5))


def test_term_scores_add_up_to_the_score(texts):
    question = [*terms("revenue in capital Paris"), "revenu", "nowhere", f"met{JOINT}pari"]
    rows = texts.term_scores(question, list(TEXTS))
    assert rows.shape == (len(TEXTS), len(question))
    np.testing.assert_allclose(rows.sum(axis=1), texts.score("fulltext", question, list(TEXTS)), rtol=1e-5)
    assert not rows[:, -2].any()
    assert rows[0, 0] == rows[0, -3] > 0


def test_pages_without_the_terms_score_nothing_and_unknown_pages_are_not_there(texts):
    scores = texts.score("fulltext", ["pari"], [*refs("a.pdf", 1, 2), PageRef("gone.pdf", 1)])
    assert scores[0] == 0
    assert scores[1] > 0
    assert np.isnan(scores[2])
    assert texts.candidates("fulltext", [], ALL, 5) == []
    assert texts.candidates("fulltext", ['"', "NEAR(", "*", "a OR b"], ALL, 5) == []


def test_a_page_with_every_kind_of_character_is_found_by_its_terms(store):
    text = "naïve ﬁnance e\u0301te\u0301 10-K ½ ⑴ O'Neill हिन्दी ภาษาไทย ガス 한국어 \U0001f600 a\x00b x\u2028y"
    put(store, "odd.pdf", [page(1, text)])
    for term in set(terms(text)):
        assert store.candidates("fulltext", [term], ALL, 1), term


# Documents


def test_a_page_comes_back_as_it_was_given(store):
    first = page(1, "Two words\nand more", tokens=unit(np.random.default_rng(9), 2)).page
    put(store, "a.pdf", [EncodedPage(first, {}, {})])
    found = store.page(PageRef("a.pdf", 1))
    assert (found.number, found.width, found.height, found.text) == (1, 612.0, 792.0, "Two words\nand more")
    assert (found.text_source, found.drawn, found.image) == ("text_layer", 0.5, None)
    assert [(word.text, word.start) for word in found.words] == [(word.text, word.start) for word in first.words]
    for mine, given_word in zip(found.words, first.words, strict=True):
        np.testing.assert_allclose(mine.boxes, given_word.boxes, atol=1e-5)
    with pytest.raises(NotFound, match=r"page 2 of a\.pdf"):
        store.page(PageRef("a.pdf", 2))


def test_a_word_that_is_not_in_the_text_is_refused(store):
    wrong = page(3, "some words").page
    generation = store.begin(document("a.pdf"))
    with pytest.raises(StoreError, match=r"a\.pdf, page 3.*'some'"):
        store.add_pages(generation, [EncodedPage(Page(3, 1, 1, "other words", wrong.words), {}, {})])


def test_documents_have_what_they_were_begun_with_and_counts(store):
    asked = document("ü/日本.pdf", "c1", tags={"year": "2018", "käse": "ja"}, path="/tmp/ü", renderer="pdfium", pages=3)
    generation = store.begin(asked)
    assert store.document("ü/日本.pdf").state == "ingesting"
    store.add_pages(generation, [page(1, "one"), page(2, "two")])
    staged = store.document("ü/日本.pdf")
    assert (staged.state, staged.pages, staged.indexed) == ("ingesting", 3, 2)
    store.fail(generation, 3, "corrupt", "no such object")
    made = store.commit(generation, 3)
    assert (made.pages, made.indexed, made.failed, made.state) == (3, 2, 1, "partial")
    assert made == store.document("ü/日本.pdf") == store.documents()[0]
    assert (made.content, made.settings, made.media_type, made.path) == ("c1", "settings", "application/pdf", "/tmp/ü")
    assert (made.tags, made.renderer) == ({"year": "2018", "käse": "ja"}, "pdfium")
    assert store.document("other.pdf") is None


@pytest.mark.parametrize(
    ("indexed", "failed", "pages", "state"),
    [([1, 2], [], 2, "indexed"), ([1], [2], 2, "partial"), ([], [1, 2], 2, "failed"), ([], [None], 0, "failed"),
     ([], [], 0, "indexed"), ([1], [None], 1, "partial"), ([1], [], 2, "partial")],
)  # fmt: skip
def test_states(store, indexed, failed, pages, state):
    generation = store.begin(document("a.pdf"))
    store.add_pages(generation, [page(n) for n in indexed])
    for number in failed:
        store.fail(generation, number, "corrupt", "why")
    made = store.commit(generation, pages)
    assert made.state == state
    assert (made.pages, made.indexed, made.failed) == (pages, len(indexed), len([n for n in failed if n]))


def test_failures_by_document_and_page_and_gone_with_the_next_version(store):
    for name in ("b.pdf", "a.pdf"):
        generation = store.begin(document(name))
        for number in (10, None, 2):
            store.fail(generation, number, "timeout", f"page {number}")
        assert store.failures(name) == []
        store.commit(generation, 10)
    assert [(f.document, f.page) for f in store.failures()] == [
        (name, n) for name in ("a.pdf", "b.pdf") for n in (None, 2, 10)
    ]
    assert store.failures("a.pdf")[1] == Failure("a.pdf", 2, "timeout", "page 2")
    put(store, "a.pdf", [page(1)])
    assert store.failures("a.pdf") == []
    assert len(store.failures()) == 3


def test_the_last_result_for_a_page_counts(store):
    rng = np.random.default_rng(10)
    first, second = unit(rng, 4), unit(rng, 6)
    generation = store.begin(document("a.pdf"))
    store.add_pages(generation, [page(1, "first", tokens=first), page(2, "kept")])
    store.fail(generation, 3, "encoder", "out of memory")
    store.fail(generation, 2, "encoder", "out of memory")
    store.add_pages(generation, [page(1, "second", tokens=second), page(3, "at last")])
    made = store.commit(generation, 3)
    assert (made.indexed, made.failed) == (2, 1)
    assert [f.page for f in store.failures()] == [2]
    assert store.page(PageRef("a.pdf", 1)).text == "second"
    assert len(store.vectors("tokens", PageRef("a.pdf", 1)).vectors) == 6
    assert store.candidates("fulltext", terms("first"), ALL, 5) == []


def test_settings_are_kept(store, open_store):
    assert store.settings() == {}
    wanted = {"encoders": [{"name": "ü", "dim": 384}], "canary": [0.5, -1e-9]}
    store.write_settings(wanted)
    assert json.loads(json.dumps(wanted)) == store.settings() == open_store().settings()


# Visibility


def everything(store, asked):
    return (
        store.candidates("tokens", asked, ALL, 99),
        store.candidates("fulltext", terms("common"), ALL, 99),
        store.page_count(ALL),
    )


def test_what_is_not_committed_is_not_found(store, open_store):
    rng = np.random.default_rng(11)
    asked = query(unit(rng, 2))
    put(store, "a.pdf", [page(1, "common", tokens=unit(rng, 5))])
    before = everything(store, asked)
    generation = store.begin(document("a.pdf", "new"))
    other = store.begin(document("b.pdf"))
    for staged in (generation, other):
        store.add_pages(staged, [page(n, "common common", tokens=unit(rng, 5)) for n in (1, 2)])
        store.fail(staged, 3, "corrupt", "bad")
    assert everything(store, asked) == before == everything(open_store(), asked)
    assert store.failures() == []
    with pytest.raises(NotFound):
        store.page(PageRef("b.pdf", 1))
    assert store.vectors("tokens", PageRef("b.pdf", 1)) is None
    assert [(d.name, d.state) for d in store.documents()] == [("a.pdf", "indexed"), ("b.pdf", "ingesting")]


def test_an_abandoned_generation_leaves_nothing(store):
    rng = np.random.default_rng(12)
    asked = query(unit(rng, 2))
    generation = store.begin(document("a.pdf"))
    store.add_pages(generation, [page(1, "common", tokens=unit(rng, 5))])
    store.abandon(generation)
    assert store.documents() == []
    assert everything(store, asked) == ([], [], 0)
    for call in (
        lambda: store.add_pages(generation, [page(2)]),
        lambda: store.fail(generation, 1, "corrupt", ""),
        lambda: store.commit(generation, 1),
    ):
        with pytest.raises(StoreError, match="not being written"):
            call()


def test_what_a_store_had_begun_is_gone_once_it_is_closed(store, open_store):
    other = open_store()
    other.add_pages(other.begin(document("a.pdf")), [page(1, "common")])
    assert [d.name for d in store.documents()] == ["a.pdf"]
    other.close()
    assert store.documents() == []


def test_another_handle_sees_a_commit_at_its_next_query(store, open_store):
    rng = np.random.default_rng(13)
    reader, asked = open_store(), query(unit(rng, 2))
    for n in range(1, 4):
        put(store, f"{n}.pdf", [page(1, "common", tokens=unit(rng, 5))])
        assert everything(reader, asked) == everything(store, asked)
        assert reader.page_count(ALL) == n


def test_a_document_is_replaced_at_one_stroke(store, open_store):
    """A reader finds all pages of one version or of the other, in either leg."""
    axis = np.eye(DIM, dtype=np.float32)[:1]

    def version(k):
        return [page(n, f"common v{k}", tokens=axis * np.float32(k)) for n in range(1, 2 + k % 3)]

    put(store, "a.pdf", version(1))
    reader, done, seen = open_store(), threading.Event(), set()

    def read():
        while not done.is_set():
            found = reader.candidates("tokens", query(axis), ALL, 99)
            (score,) = {round(score, 3) for _, score in found}
            assert len(found) == 1 + score % 3
            seen.add(score)
            assert len(reader.candidates("fulltext", ["common"], ALL, 99)) in (1, 2, 3)

    failed: list[BaseException] = []

    def watch():
        try:
            read()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    for k in range(2, 25):
        put(store, "a.pdf", version(k))
    done.set()
    thread.join()
    assert not failed
    assert len(seen) > 1


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_search_sees_one_state_whatever_another_handle_does_amid_it(store, open_store, replaced):
    """It finds what it finds before the other's act, or after it, at whichever of its calls that comes."""
    rng = np.random.default_rng(18)
    asked, other = query(unit(rng, 2)), open_store()
    first, second, kept = (page(1, text, tokens=unit(rng, 4)) for text in ("common rare", "common", "common kept"))
    put(store, "kept.pdf", [kept])
    legs = [Leg("tokens", "by hand", DIM, "f"), FULLTEXT]
    calls, due = 0, 0  # of the store in a search; which of them the other acts after

    def disturbed(call):
        def called(*args):
            nonlocal calls
            result = call(*args)
            calls += 1
            if calls == due and replaced:
                put(other, "a.pdf", [second])
            elif calls == due:
                other.remove("a.pdf")
            return result

        return called

    def find(disturbed_after):
        nonlocal calls, due
        calls, due = 0, disturbed_after
        return store.steady(lambda: search(store, "common rare", {"tokens": asked}, legs, "fusion", ALL, 5))

    for name in ("candidates", "score", "chance", "vectors", "page", "term_scores"):
        setattr(store, name, disturbed(getattr(store, name)))
    moment, last = 0, 1
    while moment < last:
        moment += 1
        put(other, "a.pdf", [first])
        before, last = find(0), calls
        found, after = find(moment), find(0)
        assert found in (before, after)
        assert len(before) == 2
        assert after != before
    assert last > 4


def test_a_removed_document_is_gone_from_every_leg(store, open_store):
    rng = np.random.default_rng(14)
    asked, reader = query(unit(rng, 2)), open_store()
    for name in ("a.pdf", "b.pdf"):
        generation = store.begin(document(name))
        store.add_pages(generation, [page(n, "common", tokens=unit(rng, 5)) for n in (1, 2)])
        store.fail(generation, 3, "corrupt", "bad")
        store.commit(generation, 3)
    assert reader.page_count(ALL) == 4
    store.remove("a.pdf")
    for each in (store, reader):
        vectors, text, count = everything(each, asked)
        assert {ref for ref, _ in vectors} == {ref for ref, _ in text} == set(refs("b.pdf", 1, 2))
        assert count == 2
        assert [d.name for d in each.documents()] == ["b.pdf"]
        assert [f.document for f in each.failures()] == ["b.pdf"]
        assert each.vectors("tokens", PageRef("a.pdf", 1)) is None
        assert np.isnan(each.score("fulltext", ["common"], refs("a.pdf", 1))).all()
    with pytest.raises(NotFound, match=r"a\.pdf"):
        store.remove("a.pdf")


def test_removing_a_document_stops_what_is_being_written_of_it(store, tmp_path):
    generation = store.begin(document("a.pdf", "a.pdf's hash"))
    store.add_pages(generation, [page(1)])
    store.remove("a.pdf")
    for call in (
        lambda: store.add_pages(generation, [page(2)]),
        lambda: store.fail(generation, 1, "corrupt", ""),
        lambda: store.put_image(generation, 1, Image.new("RGB", (4, 3))),
        lambda: store.put_original(tmp_path / "a.pdf", "a.pdf's hash", link=False),
        lambda: store.commit(generation, 1),
    ):
        with pytest.raises(NotWritten):
            call()
    assert store.documents() == []


# Filters


def test_filters_hold_in_every_leg_before_the_best_are_taken(store):
    rng = np.random.default_rng(15)
    axis = unit(rng, 1)
    for i in range(6):
        tags = {"year": str(2018 + i % 2), "kind": "report" if i < 3 else "letter"}
        put(store, f"{i}.pdf", [page(1, "common " * (6 - i), tokens=axis * np.float32(6 - i))], tags=tags)
    cases = [
        (Filter(frozenset({"4.pdf", "5.pdf", "none.pdf"})), "45"),
        (Filter(tags={"year": "2019"}), "135"),
        (Filter(tags={"year": "2019", "kind": "letter"}), "35"),
        (Filter(frozenset({"3.pdf", "4.pdf"}), {"year": "2018"}), "4"),
        (Filter(frozenset()), ""),
        (Filter(tags={"year": "1999"}), ""),
        (ALL, "012345"),
    ]
    for filter, expected in cases:
        wanted = [f"{i}.pdf" for i in expected]
        assert store.page_count(filter) == len(wanted)
        for leg, asked in (("tokens", query(axis)), ("fulltext", ["common"])):
            found = store.candidates(leg, asked, filter, 2)
            assert {ref.document for ref, _ in found} <= set(wanted)
            assert len(found) == min(2, len(wanted))
        assert [ref.document for ref, _ in store.candidates("tokens", query(axis), filter, 2)] == wanted[:2]


def test_tags_follow_the_visible_version(store):
    put(store, "a.pdf", [page(1)], tags={"year": "2018"})
    put(store, "a.pdf", [page(1)], tags={"year": "2019"})
    assert store.page_count(Filter(tags={"year": "2018"})) == 0
    assert store.page_count(Filter(tags={"year": "2019"})) == 1


def test_one_handle_serves_many_threads(store):
    rng = np.random.default_rng(16)
    asked = query(unit(rng, 3))
    errors: list[BaseException] = []

    def work(k):
        try:
            for i in range(5):
                put(store, f"{k}-{i}.pdf", [page(1, "common", tokens=unit(np.random.default_rng(k), 9))])
                assert store.candidates("tokens", asked, Filter(frozenset({f"{k}-{i}.pdf"})), 3)
                assert store.candidates("fulltext", ["common"], ALL, 99)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert store.page_count(ALL) == 20
