"""A text → its words: what all that read a page's text share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from .records import Box, Word

# Scripts written without spaces: South-East Asian, CJK with its punctuation, full-width forms.
_WIDE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3001-\u303f\u3040-\u312f\u3190-\u31ff\u3200-\u33ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff60\U00020000-\U0003ffff"
)
_MARKS = (
    "\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u17b4-\u17d3"
    "\u3099\u309a\ufe00-\ufe0f\U000e0100-\U000e01ef"
)
WORD = re.compile(f"[{_WIDE}][{_MARKS}]*|[^\\s{_WIDE}]+")
"""A word of a text: a run without spaces, or one character (with its marks) of a script without spaces."""

_ONE_WIDE = re.compile(f"[{_WIDE}][{_MARKS}]*")
_DIVIDED = re.compile(r"[^\W\d_]{2}[-\u2010]$")
_CONJUNCTIONS = frozenset({"and", "or", "to", "und", "oder", "bis"})

UNUSABLE = 0.1  # share of characters without meaning that makes a text layer unusable

_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "st", 0xFB06: "st"}
_DROPPED = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0xAD, 0xFEFF, 0xFFFF, *range(0xD800, 0xE000)])
_CLEAN = _LIGATURES | _DROPPED
_BULLET = re.compile(r"(?<!\S)[\ue000-\uf8ff](?!\S)")
_MEANINGLESS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff\ud800-\udfff]")


def clean(word: str) -> str:
    """A word of a text layer with letters for ligatures, and without characters that are not shown."""
    return word.translate(_CLEAN)


def is_usable(text: str) -> bool:
    """Whether the characters of a text layer, spaces not counted, have a meaning: nine tenths of them at least.

    A private character that stands alone is a bullet or an icon, and not counted.
    """
    text = "".join(_BULLET.sub("", text).split())
    return len(_MEANINGLESS.findall(text)) <= UNUSABLE * max(1, len(text))


def compose(lines: Iterable[tuple[str, Iterable[Box]]]) -> tuple[str, tuple[Word, ...]]:
    """A page's text and words from its lines: each a string, and one box for each match of ``WORD`` in it."""
    pieces: list[str] = []
    words: list[Word] = []
    at = 0
    for text, boxes in lines:
        words.extend(
            Word(match.group(), at + match.start(), (box,))
            for match, box in zip(WORD.finditer(text), boxes, strict=True)
        )
        pieces.append(text)
        at += len(text) + 1
    return "\n".join(pieces), tuple(words)


def without_breaks(text: str, words: Sequence[Word]) -> tuple[str, tuple[Word, ...]]:
    """A page's text and words without the line breaks that divide what belongs together.

    A word that a hyphen divides becomes one, with the boxes of both parts (``rejoined``). Of writing from top to
    bottom, in which each character comes as a line, the columns become lines.
    """
    pieces: list[str] = []
    kept: list[Word] = []
    at = end = 0  # of the new text, and of the old
    for word in words:
        gap, end = text[end : word.start], word.start + len(word.text)
        last = kept[-1] if kept else None
        if last is not None and gap == "\n" and _is_divided(last.text, word.text):
            whole = rejoined(last.text[:-1], word.text, text)
            pieces[-1], kept[-1] = whole, Word(whole, last.start, last.boxes + word.boxes)
            at = last.start + len(whole)
            continue
        if last is not None and gap == "\n" and _is_below(word, last):
            gap = ""
        pieces += [gap, word.text]
        kept.append(Word(word.text, at + len(gap), word.boxes))
        at += len(gap) + len(word.text)
    return "".join(pieces), tuple(kept)


def rejoined(before: str, after: str, text: str) -> str:
    """A word that a hyphen at a line's end divides. The hyphen stays where it seems to belong to the word: the first
    part has another, is in capitals or ends otherwise than with a letter, the second does not begin in lower case, or
    the word stands with it elsewhere in ``text``."""
    hyphenated = f"{before}-{after}"
    inside = "-" in before or before.isupper() or not before[-1:].isalpha() or not after[:1].islower()
    return hyphenated if inside or hyphenated in text else before + after


def _is_divided(before: str, after: str) -> bool:
    """Whether a hyphen at a line's end divides a word ("short- and long-term" is none)."""
    return _DIVIDED.search(before) is not None and after[:1].islower() and after not in _CONJUNCTIONS


def _is_below(word: Word, last: Word) -> bool:
    """Whether a character of a script without spaces stands right below another."""
    if not (_ONE_WIDE.fullmatch(word.text) and _ONE_WIDE.fullmatch(last.text)):
        return False
    (x0, y0, x1, _), (left, top, right, bottom) = word.boxes[0], last.boxes[-1]
    aside = abs(x0 + x1 - left - right) / 2
    return aside < 0.5 * min(x1 - x0, right - left) and 0 < y0 - top < 2 * (bottom - top)


def split_box(text: str, box: Box) -> Iterator[Box]:
    """The boxes of the words of a text that fills ``box``, each as wide as its share of the characters."""
    wide = box[2] - box[0]
    for match in WORD.finditer(text):
        yield box[0] + wide * match.start() / len(text), box[1], box[0] + wide * match.end() / len(text), box[3]
