"""The account of a score by the words of the question: what each of them gave, in all legs together."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from .fulltext import query_terms, term_spans, word_spans
from .records import LegScore

WHOLE = "the whole question"
PUNCTUATION = "punctuation"
PROMPT = "the model's prompt"


@dataclass(frozen=True, slots=True)
class Share:
    """What a word of the question gave to a score. ``start``, ``end``: where it stands in the question, in
    characters; None for what is no word of it (``WHOLE``, ``PUNCTUATION``, ``PROMPT``)."""

    word: str
    start: int | None
    end: int | None
    score: float


def token_words(question: str, tokens: Sequence[str], own: Sequence[bool]) -> list[int | None]:
    """For each token of a leg the word of the question, by ``fulltext.word_spans``, that it is part of; None for marks,
    and for those that are not the question's ``own``.

    Tokens are found in the question in their order, without regard to case and accents.
    """
    spans = word_spans(question)
    text, origin = _folded(question)
    found: list[int | None] = []
    cursor = 0
    for token, mine in zip(tokens, own, strict=True):
        piece = _folded(token.removeprefix("##").lstrip("▁Ġ "))[0] if mine else ""
        at = text.find(piece, cursor) if piece else -1
        if at < 0:
            found.append(None)
            continue
        cursor = at + len(piece)
        found.append(_owner(spans, origin[at]))
    return found


def shares(question: str, legs: Sequence[LegScore]) -> tuple[Share, ...]:
    """What each word of the question gave to the score of a hit, the most first; they add up to the score."""
    spans = word_spans(question)
    sums: dict[int | str, float] = {}
    for leg in legs:
        tokens = [token.token for token in leg.token_scores]
        own = [token.own for token in leg.token_scores]
        owners = _term_words(question, tokens) if leg.leg == "fulltext" else token_words(question, tokens, own)
        for owner, token in zip(owners, leg.token_scores, strict=True):
            key: int | str = PUNCTUATION if owner is None else owner
            if not token.own:
                key = PROMPT
            if leg.leg == "windows":  # one vector for all of it
                key = WHOLE
            sums[key] = sums.get(key, 0.0) + leg.weight * token.score
    found = [_share(question, spans, key, score) for key, score in sums.items()]
    return tuple(sorted(found, key=lambda share: -share.score))


def matched(question: str, text: str) -> list[tuple[int, int]]:
    """Where words of a text stand that full text matches to the question, as (start, end) in characters."""
    wanted = set(query_terms(question))
    return sorted({(start, end) for term, start, end in term_spans(text) if term in wanted})


def _share(question: str, spans: Sequence[tuple[int, int]], key: int | str, score: float) -> Share:
    if isinstance(key, str):
        return Share(key, None, None, score)
    start, end = spans[key]
    return Share(question[start:end], start, end, score)


def _term_words(question: str, terms: Sequence[str]) -> list[int | None]:
    """For each term of full text the word that it comes from: of several that give it, each in its turn."""
    spans = word_spans(question)
    owners: dict[str, list[int | None]] = {}
    for term, start, _ in term_spans(question):
        owners.setdefault(term, []).append(_owner(spans, start))
    found = []
    for term in terms:
        known = owners.get(term, [None])
        found.append(known[0] if len(known) == 1 else known.pop(0))
    return found


def _owner(spans: Sequence[tuple[int, int]], position: int) -> int | None:
    """Which span a character lies in."""
    return next((i for i, (start, end) in enumerate(spans) if start <= position < end), None)


def _folded(text: str) -> tuple[str, list[int]]:
    """A text casefolded and without accents, and for each of its characters which of ``text`` it comes from."""
    characters: list[str] = []
    origin: list[int] = []
    for i, char in enumerate(text):
        for part in unicodedata.normalize("NFKD", char.casefold()):
            if not unicodedata.combining(part):
                characters.append(part)
                origin.append(i)
    return "".join(characters), origin
