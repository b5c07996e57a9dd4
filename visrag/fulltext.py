"""Text → the terms that full text is matched by.

- A word is normalised (NFKC), casefolded, freed of accents (Latin, Greek, Cyrillic) and of Hebrew and Arabic points,
  and stemmed by Snowball's English stemmer; English stop words are dropped.
- A number loses its thousands separators: "1,234.5" is "1234.5". With a unit it is two terms: "$3.2m" is "3.2m", "3.2".
- A year after a few letters is one, too: "FY2017" is "fy2017", "2017".
- A short code with a hyphen is one term, too: "10-K" and "10K" are "10k", "10"; "COVID-19" is "covid19", "covid", "19".
- Scripts without spaces, and Korean, whose particles stick to its words, become characters and overlapping pairs
  (a character with its marks is one). In a question a run of two and more is only pairs: see ``query_terms``.
- Two neighbouring terms of words and numbers are a phrase: "cost of sales" holds "cost sale". (Metzler and Croft, "A
  Markov random field model for term dependencies", SIGIR 2005: its ordered pairs.)

Of ASCII, terms hold only lower-case letters, digits and ".": the full-text index relies on it.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

import Stemmer

# Lucene's English stop words (org.apache.lucene.analysis.en.EnglishAnalyzer.ENGLISH_STOP_WORDS_SET).
_LUCENE = """
a an and are as at be but by for if in into is it no not of on or such
that the their then there these they this to was will with
"""
STOP_WORDS = frozenset(_LUCENE.split())
LONGEST = 64  # characters of a term; the rest is cut
JOINT = "\ue000"  # between the terms of a phrase
K1, B = 1.2, 0.75  # BM25's usual constants
PHRASE = 0.7  # what a phrase's BM25 counts beside that of a term


def _ranges(codepoints: Iterable[int]) -> str:
    """The inside of a character class that matches these codepoints, which ascend."""
    spans: list[list[int]] = []
    for code in codepoints:
        if spans and spans[-1][1] == code - 1:
            spans[-1][1] = code
        else:
            spans.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in spans)


def _marks(*blocks: tuple[int, int]) -> str:
    return _ranges(
        c for first, last in blocks for c in range(first, last + 1) if unicodedata.category(chr(c))[0] == "M"
    )


_UNSPACED = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Han
    "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3\uffa1-\uffdc"  # Hangul
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf"  # Thai, Lao
    "\u1000-\u102a\u103f\u1050-\u1055\u1780-\u17b3\u17d7"  # Burmese, Khmer
)
_UNSPACED_MARKS = _marks((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)) + "\u3099\u309a\uff9e\uff9f\ufe00-\ufe0f"
_MARKS = _marks((0x0300, 0x0DFF), (0x0F00, 0x0FFF), (0x1700, 0x1AFF), (0x1DC0, 0x1DFF), (0xA66F, 0xABFF))
_SUPERSCRIPTS = "\u00b2\u00b3\u00b9\u2070-\u2079"  # a footnote's number is no part of the word before it
_SOFT = "\u00ad\u200b-\u200d\u2060\ufffe"  # soft hyphens and joiners; U+FFFE is pdfium's hyphen at a line's end

_LETTER = rf"[^\W\d_{_UNSPACED}{_SUPERSCRIPTS}]"
_PART = rf"[^\W_{_UNSPACED}{_SUPERSCRIPTS}]"
_WORD = rf"{_LETTER}(?:{_PART}|[{_MARKS}]|[{_SOFT}](?:\r?\n)?(?={_PART})|['’](?={_LETTER}))*"
_NUMBER = rf"\d+(?:[.,]\d+)*(?:{_LETTER}{_PART}*)?"
_TOKEN = re.compile(
    rf"(?P<code>{_LETTER}{{1,6}}-\d{{1,3}}(?!{_PART})|\d{{1,3}}-{_LETTER}{{1,2}}(?!{_PART}))"
    rf"|(?P<number>{_NUMBER})|(?P<word>{_WORD})|(?P<unspaced>(?:[{_UNSPACED}][{_UNSPACED_MARKS}]*)+)"
)
_UNIT = re.compile(rf"[{_UNSPACED}][{_UNSPACED_MARKS}]*")
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DIGITS = re.compile(r"[\d.]+")
_YEAR = re.compile(r"[^\W\d_]{1,3}(\d{4})")
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u0652\u0670]")
_OTHER_ASCII = re.compile(r"[\x00-&(-+\-/:-@\[-`{-\x7f]")  # what NFKC makes of "⑴" and its like, but for . , '
_SOFTLY = re.compile(f"[{_SOFT}\r\n]")

Span = tuple[str, int, int]


def terms(text: str) -> list[str]:
    """The terms of a page's text, in order, repeated ones as often as they occur."""
    return [term for term, _, _ in _spans(text)]


def phrases(text: str) -> list[str]:
    """The phrases of a text, in order: two terms of neighbouring words or numbers, stop words left out, and ``JOINT``
    between them."""
    found: list[str] = []
    before = ""
    for match in _TOKEN.finditer(text):
        spans = [] if match.lastgroup == "unspaced" else list(_of_token(match))
        if spans and before:
            found.append(before + JOINT + spans[0][0])
        before = spans[-1][0] if spans else before if match.lastgroup == "word" else ""
    return found


def weight(term: str) -> float:
    """What the BM25 of a term or phrase is multiplied by."""
    return PHRASE if JOINT in term else 1.0


def idf(texts: int, having: int) -> float:
    """Lucene's idf of a term that ``having`` of so many texts hold, ln(1 + (N − n + ½) / (n + ½)): unlike FTS5's own it
    is positive for a term that is in most of them."""
    return math.log(1 + (texts - having + 0.5) / (having + 0.5))


def query_terms(question: str) -> list[str]:
    """The terms of a question: as ``terms``, but of a run without spaces only its pairs, where it has any.

    Single characters of a longer run would match nearly every page.
    """
    found = list(_spans(question))
    inside = {position for _, start, end in found if _is_pair(question, start, end) for position in range(start, end)}
    return [term for term, start, end in found if start not in inside or _is_pair(question, start, end)]


def term_spans(text: str) -> list[Span]:
    """(term, start, end) for each of ``terms(text)``: it comes from ``text[start:end]``."""
    return list(_spans(text))


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text stand, (start, end); a run of a script without spaces is cut in pairs of characters."""
    spans: list[tuple[int, int]] = []
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "unspaced":
            units = [unit.span() for unit in _UNIT.finditer(text, *match.span())]
            spans += [(units[i][0], units[min(i + 1, len(units) - 1)][1]) for i in range(0, len(units), 2)]
        else:
            spans.append(match.span())
    return spans


def _is_pair(text: str, start: int, end: int) -> bool:
    units = _UNIT.findall(text, start, end)
    return len(units) == 2 and sum(map(len, units)) == end - start


def _spans(text: str) -> Iterator[Span]:
    for match in _TOKEN.finditer(text):
        yield from _of_token(match)


def _of_token(match: re.Match[str]) -> Iterator[Span]:
    start, end = match.span()
    kind = match.lastgroup
    if kind == "unspaced":
        yield from _unspaced(match.string, start, end)
    elif kind == "word":
        for term in _word(match.group()):
            yield term, start, end
        if year := _YEAR.fullmatch(match.group()):
            yield _normal(year.group(1)), start + year.start(1), end
    elif kind == "number":
        yield from _number(match.group(), start)
    else:
        yield from _code(match.group(), start)


def _unspaced(text: str, start: int, end: int) -> Iterator[Span]:
    before: Span | None = None
    for unit in _UNIT.finditer(text, start, end):
        here = (_normal(unit.group()).replace(",", ""), *unit.span())
        if before is not None:
            yield before[0] + here[0], before[1], here[2]
        yield here
        before = here


def _number(number: str, start: int) -> Iterator[Span]:
    """A number, or several where commas do not part thousands; with a unit as a whole, too."""
    plain = _normal(number)
    digits = _DIGITS.match(plain.replace(",", ""))
    assert digits is not None
    grouped = _THOUSANDS.match(plain)
    if "," in plain and (grouped is None or plain[grouped.end() : grouped.end() + 1] in (",", ".")):
        for part in re.finditer(r"[^,]+", number):
            yield from _number(part.group(), start + part.start())
        return
    whole, end = plain.replace(",", "").replace("'", ""), start + len(number)
    yield whole[:LONGEST], start, end
    if len(digits.group()) < len(whole):
        yield digits.group()[:LONGEST], start, end


def _code(code: str, start: int) -> Iterator[Span]:
    left, right = code.split("-")
    yield _normal(left + right), start, start + len(code)
    for part, at in ((left, start), (right, start + len(left) + 1)):
        if part.isdecimal():
            yield _normal(part), at, at + len(part)
        elif len(part) > 1:
            for term in _word(part):
                yield term, at, at + len(part)


@lru_cache(maxsize=200_000)
def _word(word: str) -> tuple[str, ...]:
    """The term of a word, none for a stop word."""
    plain = _normal(_SOFTLY.sub("", word)).replace("’", "'")
    if plain in STOP_WORDS:
        return ()
    parts = [part for part in _stemmer().stemWord(plain).split("'") if part]
    if len(parts) > 1:  # "l'homme", "o'neill", "don't": what is left of a short word says nothing
        parts = [part for part in parts if len(part) > 1]
    return tuple(sys.intern(part[:LONGEST]) for part in parts)


def _normal(word: str) -> str:
    """NFKC, casefolded, without accents."""
    if word.isascii():
        return word.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", word).casefold())
    return _OTHER_ASCII.sub("", unicodedata.normalize("NFKC", _ACCENTS.sub("", folded))).lower()


_local = threading.local()


def _stemmer() -> Stemmer.Stemmer:
    """A stemmer of this thread's own: they are not thread-safe."""
    stemmer = getattr(_local, "stemmer", None)
    if stemmer is None:
        stemmer = _local.stemmer = Stemmer.Stemmer("english", 0)
    return stemmer
