"""Ranking and its account, by numbers worked by hand: vectors of two dimensions in a real store."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from visrag.fulltext import PHRASE
from visrag.records import (
    FULLTEXT,
    Document,
    EncodedPage,
    Filter,
    Leg,
    Page,
    PageRef,
    PatchVectors,
    Places,
    QueryVectors,
    Word,
)
from visrag.search import CHANCE, WEIGHTS, Found, search
from visrag.settings import Rank
from visrag.store.local import LocalStore

TOKENS = Leg("tokens", "by hand", 2, "f")
PATCHES = Leg("patches", "by hand", 2, "f")
EAST, NORTH = (1.0, 0.0), (0.0, 1.0)
BOX = (0.25, 0.5, 0.5, 0.75)


def vectors(*rows: tuple[float, float]) -> PatchVectors:
    return PatchVectors(np.array(rows, np.float32), Places.of_boxes([BOX] * len(rows), range(len(rows))))


def query(*rows: tuple[float, float], weights: tuple[float, ...] | None = None) -> QueryVectors:
    names = tuple(f"t{i}" for i in range(len(rows)))
    return QueryVectors(np.array(rows, np.float32), names, np.array(weights or [1.0] * len(rows), np.float32))


def add(store: LocalStore, name: str, text: str, legs: dict[str, PatchVectors], chance: float = 0.0) -> None:
    words, at = [], 0
    for word in text.split():
        words.append(Word(word, text.index(word, at), (BOX,)))
        at = words[-1].start + len(word)
    generation = store.begin(Document(name, name, "s", "application/pdf", {"kind": name[0]}, 1))
    page = EncodedPage(Page(1, 600, 800, text, tuple(words)), legs, dict.fromkeys(legs, chance))
    store.add_pages(generation, [page])
    store.commit(generation, 1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore.open(tmp_path / "index", create=True) as store:
        yield store


def ask(
    store: LocalStore, question: QueryVectors, rank: Rank, text: str = "", filter: Filter | None = None
) -> list[Found]:
    queries = {"tokens": question, "patches": question}
    return search(store, text, queries, [TOKENS, PATCHES, FULLTEXT], rank, filter or Filter(), 10)


def test_maxsim_is_the_plain_sum(store: LocalStore) -> None:
    add(store, "a", "", {"tokens": vectors(EAST, NORTH)}, chance=0.9)
    add(store, "b", "", {"tokens": vectors((-1.0, 0.0), (0.6, 0.8))}, chance=0.1)
    first, second = ask(store, query(EAST, NORTH), "maxsim")
    assert (first.ref, second.ref) == (PageRef("a", 1), PageRef("b", 1))
    assert first.score == pytest.approx(2.0, abs=0.01)
    assert second.score == pytest.approx(1.4, abs=0.01)
    assert [token.score for token in second.legs[0].token_scores] == pytest.approx([0.6, 0.8], abs=0.01)
    assert second.legs[0].weight == 1.0


def test_a_token_of_weight_0_gives_nothing(store: LocalStore) -> None:
    add(store, "a", "", {"tokens": vectors(EAST)})
    (found,) = ask(store, query(EAST, NORTH, weights=(0.0, 1.0)), "maxsim")
    assert [token.token for token in found.legs[0].token_scores] == ["t1"]
    assert found.score == pytest.approx(0.0, abs=0.01)


def test_negative_scores_stay_negative_beside_a_longer_page(store: LocalStore) -> None:
    add(store, "a", "", {"tokens": vectors((-1.0, 0.0))})
    add(store, "b", "", {"tokens": vectors((-0.6, 0.8), (-1.0, 0.0), (-0.8, 0.6))})
    scores = [found.score for found in ask(store, query(EAST), "maxsim")]
    assert scores == pytest.approx([-0.6, -1.0], abs=0.01)


def test_fusion_takes_chance_off_the_mean(store: LocalStore) -> None:
    add(store, "long", "", {"tokens": vectors(EAST, NORTH)}, chance=0.7)
    add(store, "short", "", {"tokens": vectors((0.8, 0.6))}, chance=0.1)
    first, second = ask(store, query(EAST, NORTH), "fusion")
    assert first.ref.document == "short"
    assert first.score == pytest.approx((0.8 + 0.6) / 2 - CHANCE * 0.1, abs=0.01)
    assert second.score == pytest.approx(1.0 - CHANCE * 0.7, abs=0.01)


def test_legs_of_different_pages_are_one_list(store: LocalStore) -> None:
    add(store, "text", "", {"tokens": vectors((0.8, 0.6))}, chance=0.2)
    add(store, "chart", "", {"patches": vectors((0.9, 0.4))}, chance=0.7)
    found = ask(store, query(EAST), "fusion")
    assert [f.ref.document for f in found] == ["text", "chart"]
    assert [f.score for f in found] == pytest.approx([0.8 - CHANCE * 0.2, 0.9 - CHANCE * 0.7], abs=0.01)
    assert [[leg.leg for leg in f.legs] for f in found] == [["tokens"], ["patches"]]


def test_full_text_is_a_share_of_the_best_page(store: LocalStore) -> None:
    add(store, "a", "ferry ferry timetable", {})
    add(store, "b", "the ferry and a great many other words that make this page a longer one", {})
    add(store, "c", "nothing of it", {})
    best, other = ask(store, query(EAST), "fusion", "When does the ferry leave?")
    assert best.ref.document == "a"
    assert best.score == pytest.approx(WEIGHTS["fulltext"])
    assert 0 < other.score < best.score
    (leg,) = best.legs
    assert leg.leg == "fulltext"
    assert [token.token for token in leg.token_scores] == ["ferri"]
    assert leg.token_scores[0].box == pytest.approx(BOX, abs=1e-4)


def test_a_phrase_gives_a_half_to_each_of_its_terms(store: LocalStore) -> None:
    add(store, "a", "cost of sales", {})
    add(store, "b", "sales at any cost", {})
    (with_phrase,), (without,) = (found.legs for found in ask(store, query(EAST), "fulltext", "The cost of sales?"))
    assert [token.token for token in with_phrase.token_scores] == ["cost", "sale"]
    # Two pages with both terms; a has 2 terms, b 3 ("any" is no stop word); the phrase is on one of them.
    norm = [1.2 * (0.25 + 0.75 * length / 2.5) for length in (2, 3)]
    word = [math.log(1 + 0.5 / 2.5) * 2.2 / (1 + each) for each in norm]
    phrase = PHRASE * math.log(1 + 1.5 / 1.5) * 2.2 / (1 + norm[0])
    assert [token.score for token in with_phrase.token_scores] == pytest.approx([word[0] + phrase / 2] * 2, rel=1e-5)
    assert [token.score for token in without.token_scores] == pytest.approx([word[1]] * 2, rel=1e-5)
    assert with_phrase.score == pytest.approx(2 * word[0] + phrase, rel=1e-5)


def test_every_account_adds_up(store: LocalStore) -> None:
    random = np.random.default_rng(0)
    for name in "abcdef":
        rows = [(float(np.cos(angle)), float(np.sin(angle))) for angle in random.uniform(0, 6, 5)]
        add(store, name, f"ferry {name} pier", {"tokens": vectors(*rows)}, chance=float(random.uniform(0, 0.5)))
    for rank in ("fusion", "maxsim", "fulltext"):
        for found in ask(store, query(EAST, (0.6, -0.8)), rank, "ferry pier"):
            assert sum(leg.weight * leg.score for leg in found.legs) == pytest.approx(found.score, abs=1e-5)
            for leg in found.legs:
                assert sum(token.score for token in leg.token_scores) == pytest.approx(leg.score, abs=1e-5)


def test_filter_and_ties(store: LocalStore) -> None:
    for name in ("b", "a", "c"):
        add(store, name, "", {"tokens": vectors(EAST)})
    assert [found.ref.document for found in ask(store, query(EAST), "maxsim")] == ["a", "b", "c"]
    assert [found.ref.document for found in ask(store, query(EAST), "maxsim", filter=Filter(frozenset("bc")))] == [
        "b",
        "c",
    ]
    assert [found.ref.document for found in ask(store, query(EAST), "maxsim", filter=Filter(tags={"kind": "c"}))] == [
        "c"
    ]


def test_a_question_of_stop_words_finds_by_vectors_only(store: LocalStore) -> None:
    add(store, "a", "the and of", {"tokens": vectors(EAST)})
    (found,) = ask(store, query(EAST), "fusion", "what is the")
    assert [leg.leg for leg in found.legs] == ["tokens"]
    assert ask(store, query(EAST), "fulltext", "what is the") == []


def test_by_float16_no_page_comes_twice_however_many_are_asked_for_at_once(store: LocalStore) -> None:
    """40 pages whose codes are the same: of the first 30, and then of the others, the best is the last."""
    store.write_settings({"float16": True})
    for i in range(40):
        add(store, f"{i:02}", "", {"tokens": vectors((0.00009 * i, 1.0))})  # a code is for 1/127
    expected = [f"{i:02}" for i in (*range(29, -1, -1), *range(39, 29, -1))]
    for k in (5, 8, 40):
        found = [
            search(store, "", {"tokens": query(EAST)}, [TOKENS], "maxsim", Filter(), k, offset)
            for offset in range(0, 45, k)
        ]
        pages = [[hit.ref.document for hit in each] for each in found]
        assert [sorted(page) for page in pages if page] == [sorted(expected[i : i + k]) for i in range(0, 40, k)]


def test_an_empty_index_has_no_hits(store: LocalStore) -> None:
    assert ask(store, query(EAST), "fusion", "ferry") == []
