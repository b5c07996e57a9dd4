"""Whether a text layer may be a lie: letters that are not those shown, or an earlier OCR's poor reading.

What no eye has seen can be in any language, so words are not looked up. Their letters are judged instead, and only
where a rule holds for all languages of a script: what has no opinion doesn't count. A page in doubt is read by OCR,
and the two compared (``tells_the_page``), so a false alarm costs time, not text.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter

from .words import WORD

ODD = 0.06  # share of odd words from which a page is in doubt
ODD_SCAN = 0.04  # the same for a scan, whose text layer was made by OCR
JUDGED = 20  # words with an opinion, without which there is none on the page
AGREED = 0.8  # share of the words that OCR read for sure, and the text layer has, from which the layer is believed

_HYPHEN = re.compile("[-‐–—]")
_DIGIT = re.compile(r"\d")
_SIGN = re.compile(r"[^\w\s]")
_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
_ADDRESS = re.compile(r"[@/\\_=<>{}\[\]()#]|\w[.:]\w|\d{3}")  # addresses, paths, formulae, code, numbers: no opinion
_LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]")
_VOWEL = re.compile("[aeiouyæœøıəɛɔ]")
_INNER = re.compile(r"[a-z]\d+[a-z]|[a-z]{2}[^\w\s'’‘`´\-‐–—&,.+·*ʼ\u00ad\u200b-\u200d]+[a-z]{2}")
_HUMP = re.compile(r"[a-z][A-Z]")
_UPPER_LATIN_1 = re.compile("[\u00a1-\u00ff]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_OTHER_SCRIPT = re.compile("[\u0370-\u052f]")  # Greek, Cyrillic


def is_in_doubt(text: str, scan: bool) -> bool:
    """Whether so many words of a text layer are odd that the page should be read by OCR, and the two compared.

    ``scan``: the page is a picture, under the text.
    """
    odd, judged = odd_words(text)
    return judged >= JUDGED and odd > (ODD_SCAN if scan else ODD) * judged


def odd_words(text: str) -> tuple[int, int]:
    """How many different words of a text are odd, and on how many there is an opinion; a Han character is a word."""
    opinions = [opinion for word in set(text.split()) for opinion in _opinions(word)]
    return sum(opinions), len(opinions)


@functools.lru_cache(maxsize=1 << 16)
def _opinions(word: str) -> tuple[bool, ...]:
    """Whether a word is odd: one opinion, none, or one for each part or character."""
    if han := _HAN.findall(word):
        return tuple(not _is_common(character) for character in han)
    signs = _SIGN.findall(word)
    if len(set(signs)) > 3 and len(signs) > len(word) / 2 and not _DIGIT.search(word):
        return (True,)
    if _ADDRESS.search(word):
        return ()
    opinions = (_opinion(part) for part in _HYPHEN.split(word))
    return tuple(opinion for opinion in opinions if opinion is not None)


def _opinion(part: str) -> bool | None:
    """Whether a word, or a part of one before or after a hyphen, is odd; None for no opinion."""
    part = _EDGES.sub("", part)
    latin = len(_LATIN.findall(part))
    if len(part) < (3 if part.islower() else 4) or latin < 3:
        return None
    if other := len(_OTHER_SCRIPT.findall(part)):
        return other > 1  # "μm" and "α-helix" are words
    return _is_odd_latin(part, latin)


def _is_odd_latin(word: str, latin: int) -> bool:
    """Whether a word of Latin letters, three small ones or more, is odd.

    No vowel; digits or signs between small letters; two capitals after small ones; mostly accented letters, as in
    bytes of another encoding taken for Latin-1.
    """
    plain = unicodedata.normalize("NFD", word.casefold())
    return (
        (not _VOWEL.search(plain) and latin == len(word))
        or _INNER.search(word) is not None
        or len(_HUMP.findall(word)) > 1
        or len(_UPPER_LATIN_1.findall(word)) > 0.6 * len(word)
    )


@functools.lru_cache(maxsize=4096)
def _is_common(character: str) -> bool:
    """Whether a Han character is among the most used in Chinese or Japanese: level 1 of GB 2312, Big5 or JIS X 0208."""
    levels = (("gb2312", 0xB0, 0xD7), ("big5", 0xA4, 0xC6), ("shift_jis", 0x88, 0x97))
    for encoding, first, last in levels:
        code = character.encode(encoding, "ignore")
        if code and first <= code[0] <= last:
            return True
    return False


def tells_the_page(text: str, read: str) -> bool:
    """Whether a text layer in doubt is to be kept, by the lines of the page that OCR is sure of.

    It is where it has most of their words, where OCR read too few to tell (a script that it cannot read), or where
    these are no less odd.
    """
    sure, layer = _counted(read), _counted(text)
    if _length(sure) < 0.3 * _length(layer):
        return True
    if (sure & layer).total() >= AGREED * sure.total():
        return True
    odd, judged = odd_words(text)
    odd_read, judged_read = odd_words(read)
    return odd_read * judged >= 0.5 * odd * max(1, judged_read)


def _counted(text: str) -> Counter[str]:
    """The words of three characters or more, and single characters of scripts without spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = (_EDGES.sub("", match.group()) for match in WORD.finditer(folded))
    return Counter(word for word in words if len(word) > 2 or _HAN.match(word))


def _length(words: Counter[str]) -> int:
    return sum(len(word) * count for word, count in words.items())
