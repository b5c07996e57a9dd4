"""What a search of a local index scans: bits before codes, and tables that follow what is written."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
from store_cases import document, oracle, page, put, query, stored, unit

from visrag.errors import Damaged, PageRefused, UsageError
from visrag.records import Filter, PageRef
from visrag.store import local, tables
from visrag.store.local import LegUsage, LocalStore
from visrag.store.tables import PageTable

ALL = Filter()


@pytest.fixture
def place(tmp_path):
    """Of the stores only the local one."""
    return tmp_path / "index"


@pytest.fixture
def by_bits(monkeypatch):
    """Bits decide which 20 pages are scored by their codes, of which 10 are asked for."""
    monkeypatch.setattr(tables, "LARGE", 0)
    monkeypatch.setattr(tables, "oversampling", lambda: 2)
    monkeypatch.setattr(tables, "kernel", lambda: "a C kernel")


def agreement(asked, vectors):
    """The sum over the tokens of weight × (the share of the signs that agree less that of those that do not)."""
    products = np.where(asked.vectors > 0, 1.0, -1.0) @ np.where(vectors > 0, 1.0, -1.0).T / vectors.shape[1]
    return float(asked.weights @ products.max(axis=1))


def filled(store, rng, pages=100):
    for i in range(pages // 4):
        vectors = [unit(rng, int(rng.integers(1, 30)), 64) for _ in range(4)]
        put(store, f"{i:03}.pdf", [page(n, "common", tokens=vectors[n - 1]) for n in range(1, 5)])
    refs = [PageRef(f"{i:03}.pdf", n) for i in range(pages // 4) for n in range(1, 5)]
    return stored(store, "tokens", refs)


def test_the_codes_of_the_best_by_bits_are_scored(store, by_bits):
    rng = np.random.default_rng(0)
    pages = filled(store, rng)
    asked = query(unit(rng, 5, 64), [1.01, 0.53, 0, 2.07, 1.19])
    coarse = {ref: agreement(asked, vectors) for ref, vectors in pages.items()}
    limit = sorted(coarse.values())[-20]
    exact = oracle(asked, {ref: pages[ref] for ref in pages if coarse[ref] >= limit - 1e-6})
    expected = sorted(exact, key=lambda ref: -exact[ref])[:10]
    found = store.candidates("tokens", asked, ALL, 10)
    assert len(exact) == 20
    assert [ref for ref, _ in found] == expected
    assert expected != sorted(all_ := oracle(asked, pages), key=lambda ref: -all_[ref])[:10]  # so bits had a say


def test_of_a_filter_that_leaves_few_the_codes_of_all_are_scored(store, by_bits):
    rng = np.random.default_rng(0)
    pages = filled(store, rng)
    asked = query(unit(rng, 5, 64))
    few = frozenset(f"{i:03}.pdf" for i in range(10))
    exact = oracle(asked, {ref: vectors for ref, vectors in pages.items() if ref.document in few})
    found = store.candidates("tokens", asked, Filter(documents=few), 10)
    assert [ref for ref, _ in found] == sorted(exact, key=lambda ref: -exact[ref])[:10]


def test_in_numpy_the_codes_of_all_are_scored(store, by_bits, monkeypatch):
    monkeypatch.setattr(tables, "kernel", lambda: "numpy")
    rng = np.random.default_rng(0)
    exact = oracle(asked := query(unit(rng, 5, 64)), filled(store, rng))
    found = dict(store.candidates("tokens", asked, ALL, 10))
    assert len(set(found) & set(sorted(exact, key=lambda ref: -exact[ref])[:10])) >= 9  # of two next to each other
    monkeypatch.setattr(tables, "LARGE", 10**18)
    assert dict(store.candidates("tokens", asked, ALL, 10)) == found


def test_the_codes_of_pages_without_bits_are_scored(store, place, by_bits):
    rng = np.random.default_rng(0)
    pages = filled(store, rng)
    asked = query(unit(rng, 5, 64))
    with sqlite3.connect(place / "index.db") as connection:  # as an earlier version wrote them
        connection.execute("DELETE FROM page_vectors WHERE leg = (SELECT id FROM legs WHERE name = 'tokens.bits')")
    connection.close()
    exact = oracle(asked, pages)
    best = sorted(exact, key=lambda ref: -exact[ref])
    assert [ref for ref, _ in store.candidates("tokens", asked, ALL, 10)] == best[:10]
    put(store, "new.pdf", [page(1, tokens=asked.vectors)])
    assert store.candidates("tokens", asked, ALL, 10)[0][0] == PageRef("new.pdf", 1)


def test_a_table_that_follows_is_the_one_that_is_read_anew(store):
    rng = np.random.default_rng(0)
    asked = query(unit(rng, 3))
    following = None
    for step in range(40):
        name = f"{rng.integers(12)}.pdf"
        if rng.random() < 0.25 and store.document(name):
            store.remove(name)
        else:
            legs = [leg for leg in ("tokens", "patches") if rng.random() < 0.8]
            pages = [page(n, "common", **{leg: unit(rng, 3) for leg in legs}) for n in range(1, rng.integers(2, 6))]
            put(store, name, pages)
        if step % 10 == 9:
            store.compact()
            following = None
        with store._database.read() as connection:
            following = PageTable.read(connection, step, following)
            anew = PageTable.read(connection, step)
            assert (following.names, following._known) == (anew.names, anew._known)
            for field in ("generations", "pages", "document"):
                np.testing.assert_array_equal(getattr(following, field), getattr(anew, field))
            for leg in ("tokens", "patches"):
                found, expected = following.leg(connection, leg), anew.leg(connection, leg)
                if found is None or expected is None:
                    assert found is expected
                    continue
                for field in ("rows", "codes", "bits", "halves"):
                    assert getattr(found, field).tobytes() == getattr(expected, field).tobytes()  # NaN is NaN
        refs = [PageRef(document.name, n) for document in store.documents() for n in range(1, document.pages + 1)]
        exact = oracle(asked, stored(store, "tokens", refs))
        assert {ref for ref, _ in store.candidates("tokens", asked, ALL, 99)} == set(exact)


def test_a_leg_may_come_again_with_other_dimensions(store):
    rng = np.random.default_rng(0)
    put(store, "a.pdf", [page(1, tokens=unit(rng, 3))])
    assert store.candidates("tokens", query(unit(rng, 2)), ALL, 5)
    store.remove("a.pdf")
    store.compact()
    assert store.candidates("tokens", query(unit(rng, 2)), ALL, 5) == []
    put(store, "b.pdf", [page(1, tokens=unit(rng, 3, 32))])
    assert [ref.document for ref, _ in store.candidates("tokens", query(unit(rng, 2, 32)), ALL, 5)] == ["b.pdf"]


def test_tags_are_those_of_the_state(store):
    put(store, "a.pdf", [page(1, "common")], tags={"year": "2024"})
    tagged = Filter(tags={"year": "2024"})
    assert store.page_count(tagged) == 1
    put(store, "b.pdf", [page(1, "common"), page(2, "common")], tags={"year": "2024"})
    assert store.page_count(tagged) == 3
    put(store, "a.pdf", [page(1, "common")], tags={"year": "2025"})
    assert store.page_count(tagged) == 2


@pytest.mark.parametrize("value", ["'x'", "1.5", "NULL", "x'00'", "'1,2'"])
def test_what_is_no_number_is_damage(store, place, value):
    put(store, "a.pdf", [page(1, "common", tokens=unit(np.random.default_rng(0), 3))])
    with sqlite3.connect(place / "index.db") as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, 'offset INTEGER NOT NULL', 'offset')")
    connection.close()
    with sqlite3.connect(place / "index.db") as connection:
        connection.execute(f"UPDATE page_vectors SET offset = {value}")
    connection.close()
    with LocalStore.open(place) as opened, pytest.raises(Damaged, match=r"index\.db is damaged"):
        opened.candidates("tokens", query(unit(np.random.default_rng(0), 2)), ALL, 5)


def test_vectors_that_are_kept_as_float16_are_scored_and_given_back(store):
    rng = np.random.default_rng(0)
    vectors = {PageRef("a.pdf", n): unit(rng, 20) for n in range(1, 9)}
    store.write_settings({"float16": True})
    put(store, "a.pdf", [page(ref.page, tokens=each) for ref, each in vectors.items()])
    asked = query(unit(rng, 5))
    halves = {ref: each.astype(np.float16).astype(np.float32) for ref, each in vectors.items()}
    for ref, each in stored(store, "tokens", list(vectors)).items():
        np.testing.assert_array_equal(each, halves[ref])
    exact = oracle(asked, halves)
    np.testing.assert_allclose(store.score("tokens", asked, list(exact), True), list(exact.values()), rtol=1e-6)
    found = store.score("tokens", asked, list(exact))  # by the codes
    np.testing.assert_allclose(found, list(exact.values()), rtol=2e-2)
    assert np.abs(found - list(exact.values())).max() > 1e-5
    assert [leg.halves for leg in store.legs_used()] == [8 * 20 * 16 * 2]
    store.write_settings({})
    put(store, "b.pdf", [page(1, tokens=unit(rng, 20))])  # one without them beside
    refs = [*vectors, PageRef("b.pdf", 1)]
    coded = oracle(asked, stored(store, "tokens", refs))
    np.testing.assert_allclose(store.score("tokens", asked, refs, True), list(coded.values()), rtol=1e-2)
    store.remove("a.pdf")
    store.compact()
    assert store.check() == []
    assert [leg.halves for leg in store.legs_used()] == [0]


def test_what_float16_cannot_hold_is_refused(store):
    store.write_settings({"float16": True})
    generation = store.begin(document("a.pdf"))
    with pytest.raises(PageRefused, match=r"a\.pdf, page 1: .*float16"):
        store.add_pages(generation, [page(1, tokens=np.full((2, 16), 7e4, np.float32))])


def test_oversampling_is_a_number_from_1_on(monkeypatch):
    for given, expected in (("", 5.0), ("1", 1.0), ("7.5", 7.5)):
        monkeypatch.setenv("VISRAG_OVERSAMPLING", given)
        assert tables.oversampling.__wrapped__() == expected
    for given in ("0.9", "x", "nan", "inf", "-3"):
        monkeypatch.setenv("VISRAG_OVERSAMPLING", given)
        with pytest.raises(UsageError, match="VISRAG_OVERSAMPLING"):
            tables.oversampling.__wrapped__()


def test_what_is_dead_is_given_back_unasked_once_it_is_much(store, monkeypatch):
    monkeypatch.setattr(local, "WORTH", 10_000)
    rng = np.random.default_rng(0)
    for i in range(20):
        put(store, f"{i}.pdf", [page(1, tokens=unit(rng, 100))])
    assert store.compact(worth=True) == 0
    for i in range(8):
        store.remove(f"{i}.pdf")
    assert store.compact(worth=True) == 0  # less than half
    for i in range(8, 15):
        store.remove(f"{i}.pdf")
    assert store.compact(worth=True) > 15 * 1600
    assert store.compact(worth=True) == 0
    asked = query(unit(rng, 3))
    assert len(store.candidates("tokens", asked, ALL, 99)) == 5


def test_what_an_index_uses(store):
    rng = np.random.default_rng(0)
    put(store, "a.pdf", [page(1, tokens=unit(rng, 10), patches=unit(rng, 5, 128)), page(2, tokens=unit(rng, 3))])
    put(store, "a.pdf", [page(1, tokens=unit(rng, 10), patches=unit(rng, 5, 128)), page(2, tokens=unit(rng, 3))])
    assert store.legs_used() == [  # bits: of 8 vectors at a time, of 64 dimensions at a time
        LegUsage("tokens", 16, 2, 13, 13 * 16, (16 + 8) * 8, 0),
        LegUsage("patches", 128, 1, 5, 5 * 128, 8 * 16, 0),
    ]
    used = store.bytes_used()
    assert used["index.db"] > 100_000
    assert used["vectors"] >= 2 * (13 * 16 + 5 * 128 + 24 * 8 + 128)
    assert used["originals"] == used["images"] == used["waiting"] == 0
