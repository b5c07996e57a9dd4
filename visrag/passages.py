"""The blocks of a page and the evidence on its words → passages: what a person would draw a line around.

A passage is a block, the lines that a sentence of a long paragraph is on, a heading with what it is the heading of, or
rows of a table that follow one another. Its score is the evidence in it, each token's best, and less for a larger one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import reduce
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from .blocks import Block, blocks
from .boxes import area, union
from .records import Box, Floats, Page

AREA = 0.12  # of the page at most in a passage of several lines
BLOCKS = 3  # at most in a passage, before it is joined to another one
FEW, SHORTEST = 3, 4  # lines of a paragraph of which no sentence stands alone; words of a sentence that does
GAP = 1.5  # line heights between a heading and its block, one row and the next, at most
INDENT = 0.06  # of the page's width between the left edges of a heading and its block, at most
LABEL_WORDS, LABEL_AREA = 3, 0.02  # short blocks (labels of a chart, cells) join over any distance within this area
COMPACT = 0.3  # how strongly a smaller passage is preferred (an exponent)
MARGIN = 0.07  # of the page's height, at top and bottom: running heads and feet, which count half
_END = re.compile(r"[.!?]['’”\")\]]*(?:\[\d+\])*$|[。！？]$")


class Passage(NamedTuple):
    """A score, a box, and the ``lines`` of the page in it, numbered in the order of its blocks."""

    score: float
    box: Box
    lines: range = range(0)


def size(box: Box) -> float:
    """What evidence in a box is divided by: it grows slowly with the area."""
    return float((area(box) + 0.01) ** COMPACT)


class Passages:
    """The passages of a page, given the evidence by word, (words, t)."""

    def __init__(self, page: Page, by_word: Floats) -> None:
        self._page = page
        self._blocks = blocks(page)
        self.lines = [line for block in self._blocks for line in block.lines]
        ends = [0, *accumulate(len(block.lines) for block in self._blocks)]
        self._spans = [range(first, end) for first, end in pairwise(ends)]
        self._block_of = [number for number, span in enumerate(self._spans) for _ in span]
        self._best = self._by_line(by_word)

    def __iter__(self) -> Iterator[Passage]:
        """Those that have evidence, in the order of the page's blocks; they overlap."""
        for number, (block, span) in enumerate(zip(self._blocks, self._spans, strict=True)):
            parts = [span, *self._sentences(span)] if not block.row and len(span) > FEW else [span]
            own = [passage for part in parts if area((passage := self._passage(part)).box) <= AREA]
            joined = list(self._with_next(number))
            if len(block.lines) > 1 or block.row or not joined:  # what is under a heading goes with it
                joined += own or [self._passage(range(i, i + 1)) for i in span]
            yield from (passage for passage in joined if passage.score > 0)

    def merged(self, one: Passage, other: Passage) -> Passage | None:
        """The passage of two that follow one another in a paragraph or a table, None where they don't."""
        if one.lines.start > other.lines.start:
            one, other = other, one
        if not one.lines or not one.lines.start < other.lines.start <= one.lines.stop < other.lines.stop:
            return None
        before, after = self._block_of[one.lines.stop - 1], self._block_of[other.lines.start]
        together = before == after or (self._near(before) and self._blocks[before].row and self._blocks[after].row)
        box = union(one.box, other.box)
        if not together or area(box) > AREA:
            return None
        return Passage(max(one.score, other.score), box, range(one.lines.start, other.lines.stop))

    def words(self, passage: Passage) -> list[int]:
        """The words of a passage in reading order."""
        return list(dict.fromkeys(i for line in passage.lines for i in self.lines[line].words))

    def _passage(self, span: range) -> Passage:
        box = reduce(union, (self.lines[i].box for i in span))
        return Passage(float(self._best[span.start : span.stop].max(axis=0).sum()) / size(box), box, span)

    def _with_next(self, number: int) -> Iterator[Passage]:
        """A heading with the block under it, rows, labels: a block and those that follow it, one after the other."""
        for last in range(number + 1, min(number + BLOCKS, len(self._blocks))):
            one, next = self._blocks[last - 1], self._blocks[last]
            limit = LABEL_AREA if max(map(_count, (one, next))) <= LABEL_WORDS else 0.0
            heading = last == number + 1 and len(one.lines) == 1 and abs(one.box[0] - next.box[0]) <= INDENT
            if self._near(last - 1) and (heading or (one.row and next.row)):
                limit = AREA
            passage = self._passage(range(self._spans[number].start, self._spans[last].stop))
            if area(passage.box) > limit:
                return
            yield passage

    def _near(self, number: int) -> bool:
        """Whether the next block in the text is right below a block."""
        one, next = self._blocks[number], self._blocks[number + 1]
        height = min(one.lines[-1].box[3] - one.lines[-1].box[1], next.lines[0].box[3] - next.lines[0].box[1])
        aligned = min(one.box[2], next.box[2]) > max(one.box[0], next.box[0])
        return aligned and -height < next.box[1] - one.box[3] < GAP * height and next.box[3] > one.box[3]

    def _sentences(self, span: range) -> list[range]:
        """The lines that the sentences of a paragraph are on."""
        words = [(line, self._page.words[i].text) for line in span for i in self.lines[line].words]
        first, found, begun = span.start, [], 0
        for i, ((line, word), (after, next)) in enumerate(pairwise(words), 1):
            if i - begun >= SHORTEST and _END.search(word) and not next[:1].islower():
                found.append(range(first, line + 1))
                first, begun = after, i
        return [*found, range(first, span.stop)]

    def _by_line(self, by_word: Floats) -> Floats:
        """Evidence by line, (lines, t): the most of its words, half of it in the page's margin."""
        best = np.zeros((len(self.lines), by_word.shape[1]), np.float32)
        for i, line in enumerate(self.lines):
            best[i] = by_word[list(line.words)].max(axis=0)
            if line.box[3] < MARGIN or line.box[1] > 1 - MARGIN:
                best[i] *= 0.5
        return best


def _count(block: Block) -> int:
    return sum(len(line.words) for line in block.lines)
