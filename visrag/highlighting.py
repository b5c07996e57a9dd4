"""How often the regions of a page show where an answer stands, beside the page's best lines by BM25.

A question counts by the first of its pages that holds its answer once or twice. Answer and text are compared after
NFKC and casefolding, character by character, any run of whitespace like any other, and never within a longer word or
number of ASCII letters and digits; an answer has 4 characters or more. A region holds the answer if of each word of it
at least ``INSIDE`` of the box lies in that one region. The lines are favoured: they may hold an answer between them,
and so many are drawn that they cover at least as much of the page as the regions do.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple, Protocol

import numpy as np

from .blocks import text_lines
from .boxes import area, cut_to
from .fulltext import K1, B, idf, query_terms, terms
from .records import Box, Page, PageRef, Region
from .words import WORD

SHORTEST = 4  # characters of an answer
OCCURRENCES = 2  # on its page, at most
INSIDE = 0.8  # of a word's box
COUNTS = (1, 2, 3, 5)  # of regions: the points of the curve
TOP = 3  # of them, which stand for the whole


class Pages(Protocol):
    """What is asked for pages: an Index, or a Client."""

    def page(self, document: str, page: int) -> Page: ...
    def regions(self, question: str, document: str, page: int) -> tuple[Region, ...]: ...


@dataclass(frozen=True, slots=True)
class Answered:
    """A question, its answer, and the pages that answer it."""

    question: str
    answer: str
    pages: Sequence[PageRef]


class Drawn(NamedTuple):
    """Whether the boxes drawn on a page hold its answer, and the share of the page that they cover together."""

    held: float
    cover: float


def highlighting(pages: Pages, asked: Iterable[Answered]) -> dict[str, Any]:
    """The figures of ``visrag evaluate`` on highlighting; empty where no question has an answer to look for.

    "curve" has a row for each of ``COUNTS`` regions, the best of a page: "held", the share of the questions whose
    answer one of them holds, and "cover", the share of the page that they cover together, on average; "lines_held" and
    "lines_cover" of the best lines at equal cover, "as_many_lines_held" and "as_many_lines_cover" of as many lines as
    regions. The row of ``TOP`` regions stands beside it.
    """
    rows: list[list[tuple[Drawn, ...]]] = []
    for each in asked:
        for ref in each.pages if len(each.answer) >= SHORTEST else ():
            page = pages.page(*ref)
            if 1 <= len(answers := occurrences(each.answer, page)) <= OCCURRENCES:
                regions = [region.box for region in pages.regions(each.question, *ref)]
                lines = best_lines(page, each.question)
                rows.append([compared(regions[:count], lines, count, answers) for count in COUNTS])
                break
    if not rows:
        return {}
    curve = [{"regions": count, **_means(row)} for count, row in zip(COUNTS, zip(*rows, strict=True), strict=True)]
    return {"questions": len(rows), **curve[COUNTS.index(TOP)], "curve": curve}


def compared(
    regions: Sequence[Box], lines: Sequence[Box], count: int, answers: Sequence[Sequence[Box]]
) -> tuple[Drawn, Drawn, Drawn]:
    """Regions, the lines that cover as much, and ``count`` lines. ``answers``: the words' boxes of each occurrence."""
    covered = cover(regions)
    level = next((n for n in range(len(lines)) if cover(lines[:n]) >= covered), len(lines))

    def between(some: Sequence[Box]) -> Drawn:
        return Drawn(any(holds(some, answer) for answer in answers), cover(some))

    ours = Drawn(any(holds([region], answer) for answer in answers for region in regions), covered)
    return ours, between(lines[:level]), between(lines[:count])


def occurrences(answer: str, page: Page) -> list[list[Box]]:
    """Where an answer stands on a page: for each occurrence the boxes of its words."""
    runs = _normal(answer)[0].split()
    if sum(map(len, runs)) + len(runs) - 1 < SHORTEST:
        return []
    text, origins = _normal(page.text)
    pattern = r"\s+".join(r"\s*".join(map(re.escape, WORD.findall(run))) for run in runs)
    starts = [word.start for word in page.words]
    found = []
    for match in re.finditer(rf"(?<![a-z0-9]){pattern}(?![a-z0-9])", text):
        first = max(0, bisect_right(starts, origins[match.start()]) - 1)
        last = bisect_right(starts, origins[match.end() - 1])
        found.append([box for word in page.words[first:last] for box in word.boxes])
    return found


def best_lines(page: Page, question: str) -> list[Box]:
    """The page's lines, the best by BM25 among them first, equals in the order of the text."""
    lines = text_lines(page.words)
    bags = [Counter(terms(" ".join(page.words[i].text for i in line.words))) for line in lines]
    lengths = [sum(bag.values()) for bag in bags]
    mean = fmean(lengths) if any(lengths) else 1.0
    scores = [0.0] * len(bags)
    for term in set(query_terms(question)):
        holding = sum(term in bag for bag in bags)
        rarity = idf(len(bags), holding)
        for i, bag in enumerate(bags):
            scores[i] += rarity * bag[term] * (K1 + 1) / (bag[term] + K1 * (1 - B + B * lengths[i] / mean))
    return [lines[i].box for i in sorted(range(len(lines)), key=lambda i: -scores[i])]


def holds(drawn: Sequence[Box], answer: Sequence[Box]) -> bool:
    """Whether of each of an answer's boxes enough lies in what is drawn."""
    return all(cover([part for box in drawn if (part := cut_to(box, word))]) >= INSIDE * area(word) for word in answer)


def cover(boxes: Sequence[Box]) -> float:
    """The area that boxes cover together."""
    if not boxes:
        return 0.0
    edges = np.array(boxes)
    xs, ys = np.unique(edges[:, 0::2]), np.unique(edges[:, 1::2])
    lefts, rights = np.searchsorted(xs, edges[:, 0]), np.searchsorted(xs, edges[:, 2])
    tops, bottoms = np.searchsorted(ys, edges[:, 1]), np.searchsorted(ys, edges[:, 3])
    inside = np.zeros((len(ys), len(xs)), np.bool_)
    for i in range(len(boxes)):
        inside[tops[i] : bottoms[i], lefts[i] : rights[i]] = True
    return float((np.diff(ys)[:, None] * np.diff(xs) * inside[:-1, :-1]).sum())


def _means(rows: Sequence[Sequence[Drawn]]) -> dict[str, float]:
    figures = {}
    for name, column in zip(("", "lines_", "as_many_lines_"), zip(*rows, strict=True), strict=True):
        for key, values in zip(Drawn._fields, zip(*column, strict=True), strict=True):
            figures[name + key] = round(fmean(map(float, values)), 4)
    return figures


def _normal(text: str) -> tuple[str, list[int]]:
    """A text after NFKC and casefolding, and from which of its characters each comes."""
    parts = [unicodedata.normalize("NFKC", character).casefold() for character in text]
    return "".join(parts), [i for i, part in enumerate(parts) for _ in part]
