"""Terms: each rule of the module with an example, and what the index relies on."""

from __future__ import annotations

import re
import sqlite3
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visrag.fulltext import JOINT, PHRASE, STOP_WORDS, phrases, query_terms, term_spans, terms, weight


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The companies are growing", ["compani", "grow"]),
        ("Company's COMPANY’S companies'", ["compani"] * 3),
        ("naïve Café Straße ÉTÉ", ["naiv", "cafe", "strass", "ete"]),
        ("e\u0301te\u0301 ﬁnance", ["ete", "financ"]),
        ("L'homme O'Neill don't", ["homm", "neil", "don"]),
        ("foo_bar a/b.c", ["foo", "bar", "b", "c"]),
        ("exam\u00adple exam\ufffe\nple", ["exampl", "exampl"]),
        ("1,234.5 1234.5", ["1234.5", "1234.5"]),
        ("$1,234,567.", ["1234567"]),
        ("1,2,3 and 12,34", ["1", "2", "3", "12", "34"]),
        ("$3.2m 5% 2018-2019", ["3.2m", "3.2", "5", "2018", "2019"]),
        ("Q3 FY2018 CO2 Q32018", ["q3", "fy2018", "2018", "co2", "q32018"]),
        ("10-K", ["10k", "10"]),
        ("10K", ["10k", "10"]),
        ("COVID-19", ["covid19", "covid", "19"]),
        ("10-year", ["10", "year"]),
        ("growth² CO₂ １２３", ["growth", "co2", "123"]),
        ("12.5.2018", ["12.5.2018"]),
        ("Выручка выросла", ["выручка", "выросла"]),
        ("हिन्दी", ["हिन्दी"]),
        ("שָׁלוֹם", ["שלום"]),
        ("東京都", ["東", "東京", "京", "京都", "都"]),
        ("税", ["税"]),
        ("ｶﾞｽ ガス", ["ガ", "ガス", "ス"] * 2),
        ("매출은", ["매", "매출", "출", "출은", "은"]),
        ("นี้", ["นี้"]),
        ("売上2018年", ["売", "売上", "上", "2018", "年"]),
        ("", []),
        (" \n\t.,;-'\x00\ud800", []),
    ],
)
def test_terms(text, expected):
    assert terms(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cost of the sales, 2018", ["cost sale", "sale 2018"]),  # over stop words and marks
        ("Figure 3 shows COVID-19", ["figur 3", "3 show", "show covid19"]),
        ("$3.2m in FY2018 was paid", ["3.2 fy2018", "2018 paid"]),  # the last term of one, the first of the next
        ("revenue 東京都 growth rate", ["growth rate"]),  # not over scripts that are cut in pairs anyway
        ("the", []),
        ("", []),
    ],
)
def test_phrases(text, expected):
    assert [phrase.replace(JOINT, " ") for phrase in phrases(text)] == expected


def test_what_a_phrase_counts():
    assert (weight("sale"), weight(phrases("cost of sales")[0])) == (1.0, PHRASE)


def test_a_question_of_a_run_without_spaces_is_its_pairs():
    assert query_terms("東京都の revenue") == ["東京", "京都", "都の", "revenu"]
    assert query_terms("税 10-K 1,234") == ["税", "10k", "10", "1234"]
    assert set(query_terms("東京都")) <= set(terms("これは東京都です"))
    assert set(query_terms("京")) <= set(terms("東京都"))


def test_spans_are_where_the_words_stand():
    text = "The $3.2m in 東京 (COVID-19)"
    found = [(term, text[start:end]) for term, start, end in term_spans(text)]
    assert found == [
        ("3.2m", "3.2m"), ("3.2", "3.2m"), ("東", "東"), ("東京", "東京"), ("京", "京"),
        ("covid19", "COVID-19"), ("covid", "COVID"), ("19", "19"),
    ]  # fmt: skip


def test_stop_words_are_lucenes():
    assert len(STOP_WORDS) == 33
    assert terms(" ".join(STOP_WORDS)) == []


@given(st.text(max_size=40) | st.text(alphabet="aZ1,.'-’½⑴²\u00ad\ufffe\n é東ガ゙ｶﾞหนั$한हि", max_size=30))
def test_terms_are_what_the_index_takes_for_one_token(text):
    spans = term_spans(text)
    assert [term for term, _, _ in spans] == terms(text)
    for term, start, end in spans:
        assert re.fullmatch(r"[a-z0-9.\x80-\U0010ffff]+", term)
        assert 0 <= start < end <= len(text)
    assert set(query_terms(text)) <= set(terms(text))


def test_fts5_takes_each_term_for_one_token():
    found = terms("naïve 10-K 1,234.5 ½ ⑴ 東京 हिन्दी O'Neill ﬁ $3.2m ภาษา")
    connection = sqlite3.connect(":memory:")
    connection.execute("""CREATE VIRTUAL TABLE t USING fts5 (terms, tokenize="ascii tokenchars '.'")""")
    connection.execute("CREATE VIRTUAL TABLE v USING fts5vocab (t, instance)")
    connection.execute("INSERT INTO t VALUES (?)", (" ".join(found),))
    held = [term for (term,) in connection.execute("SELECT term FROM v ORDER BY offset")]
    connection.close()
    assert held == found


def test_long_words_are_cut():
    assert [len(term) for term in terms("x" * 1000 + " " + "7" * 1000)] == [64, 64]


def test_threads_have_stemmers_of_their_own():
    text = " ".join(f"running{chr(97 + i % 26)}ings nationally{i}" for i in range(3000))
    expected, found = terms(text), []
    threads = [threading.Thread(target=lambda: found.append(terms(text))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_a_page_takes_milliseconds():
    page = " ".join(f"consolidated{i % 400} statements of operations 1,234.{i % 10}" for i in range(80))
    start = time.process_time()
    for _ in range(50):
        terms(page)
    assert (time.process_time() - start) / 50 < 0.02


def test_hostile_texts_take_linear_time():
    for text in (
        "a'" * 50_000,
        "1," * 50_000,
        "\u00ad" * 50_000,
        "1-" * 50_000,
        "東" * 50_000,
        "a\u0301" * 50_000,
        "a-1" * 30_000,
    ):
        start = time.process_time()
        terms(text)
        query_terms(text)
        assert time.process_time() - start < 5, text[:4]
