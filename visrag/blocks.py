"""Words → lines → blocks: the paragraphs, headings and table rows of a page, by where its words stand.

Words at one height without a wide gap make a line: a line of a column, a cell of a table, a label. A line goes on in
the one below it where that is as near as the lines before, of the same height, and begins with a word for which there
was no room. Cells side by side are a row of a table where several bands of lines near by have the same columns.

Lengths are in line heights unless they say otherwise; ``ratio`` is a page's height by its width, which makes a length
in fractions of the height one in fractions of the width.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise
from statistics import median
from typing import NamedTuple

from .boxes import same_line, union
from .records import Box, Page, Word

SPACE, TORN = 1.3, 0.5  # between two words of a line, at most: where one follows the other in the text, and elsewhere
SIGN, MARK = 12.0, 4.0  # from a lone sign ("$") to its number, from a bullet or number to its item, at most
REACH = 2.4  # from the middle of a line to that of the next one of its paragraph, at most
EVEN = 1.25  # lines of a paragraph are at most this much farther apart than the two before
ALIKE, BESIDE = 1.6, 3.0  # and differ in height by this factor at most, those beside one another by this one
ROOM = 0.8  # what a line may leave free beside the width of the word that begins the next one
COLUMNS = 120  # positions to the width of a page: the edges of a column are one apart at most
NEAR, SAME = 8, 2  # of this many bands above and below, so many must have the same columns
PROSE = 4.0  # words to the line from which a paragraph of two lines and more is taken for a column's
LONG = 4  # lines of a paragraph that is no cell of a table
MOST = 5000  # lines of a page from which each is a block
_MARK = re.compile(r"[^\w\s$€£¥(]|\(?(?:\d{1,2}|[A-Za-z]|[ivx]{2,4})[.)]|\d{1,2}(?:\.\d{1,2})+")
_SIGN = re.compile(r"[$€£¥(]+")
_LETTERS = re.compile(r"[^\W\d_]{2}|[\u3040-\u9fff\uac00-\ud7a3]")


@dataclass(frozen=True, slots=True)
class Line:
    """Some words of a page at one height, by their indices, and the box around them."""

    words: tuple[int, ...]
    box: Box


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, a heading, a label, or (``row``) a row of a table, whose lines are its cells'; in reading order."""

    lines: tuple[Line, ...]
    box: Box
    row: bool = False


class _Paragraph(NamedTuple):
    """What of a paragraph is known by the line that it ends with so far."""

    lines: int
    left: float
    right: float
    pitch: float  # from middle to middle, a fraction of the page's height


def text_lines(words: Sequence[Word]) -> list[Line]:
    """Words that follow one another in the text at one height, however far apart. A word on two lines is in both."""
    return _pieces(words, float("inf"))


def blocks(page: Page) -> list[Block]:
    """The blocks of a page in the order of its text. Every word is in one; a word on two lines is in both."""
    ratio = page.height / page.width if page.width and page.height else 1.0
    found = [_merged(page.words, band, ratio) for band in _bands(_pieces(page.words, SPACE * ratio))]
    lines = [line for band in found for line in band]
    if len(lines) > MOST:
        return [Block((line,), line.box) for line in sorted(lines, key=lambda line: line.words[0])]
    bands = [range(end - len(band), end) for band, end in zip(found, accumulate(map(len, found)), strict=True)]
    follow = _follow(page.words, lines, bands, ratio)
    return _grouped(lines, follow, _rows(page.words, lines, bands, follow))


def _pieces(words: Sequence[Word], space: float) -> list[Line]:
    """``space``: between words, in line heights, as a fraction of the page's width."""
    lines: list[Line] = []
    inside: list[int] = []  # the words of the line so far, the box around them, and that of the last one
    around = last = (0.0, 0.0, 0.0, 0.0)
    for i, word in enumerate(words):
        for box in word.boxes:
            height, tall = box[3] - box[1], last[3] - last[1]
            if inside and _level(last, box):
                gap = max(last[0], box[0]) - min(last[2], box[2])
                if gap <= space * max(around[3] - around[1], height):
                    if inside[-1] != i:
                        inside.append(i)
                    around = union(around, box)
                    last = box if 2 * height > tall else (box[0], last[1], box[2], last[3])
                    continue
            if inside:
                lines.append(Line(tuple(inside), around))
            inside, around, last = [i], box, box
    return [*lines, Line(tuple(inside), around)] if inside else lines


def _level(one: Box, other: Box) -> bool:
    """Whether two boxes share more than half the height of the lower one; a full stop or a dash need only touch the
    height of its neighbour."""
    low, high = sorted((one[3] - one[1], other[3] - other[1]))
    overlap = min(one[3], other[3]) - max(one[1], other[1])
    return overlap > (0.5 * low if 2 * low >= high else 0.0)


def _bands(lines: Iterable[Line]) -> list[list[Line]]:
    """Lines at one height, from the top down, each band from left to right."""
    bands: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: line.box[1] + line.box[3]):
        for band in bands[:-4:-1]:
            if same_line(band[0].box, line.box) and _similar(band[0].box, line.box, BESIDE):
                band.append(line)
                break
        else:
            bands.append([line])
    return [sorted(band, key=lambda line: line.box[0]) for band in bands]


def _merged(words: Sequence[Word], band: Sequence[Line], ratio: float) -> list[Line]:
    """A band with those lines made one that the order of the text has torn apart, and signs, bullets and numbers put to
    what they stand before."""
    found = list(band[:1])
    for line in band[1:]:
        last, reach = found[-1], TORN
        if len(last.words) == 1:
            alone, next = words[last.words[0]].text, words[line.words[0]].text
            if _SIGN.fullmatch(alone):
                reach = SIGN
            elif _MARK.fullmatch(alone) and next[0].isalpha():
                reach = MARK
        height = max(last.box[3] - last.box[1], line.box[3] - line.box[1])
        if line.box[0] - last.box[2] <= reach * height * ratio:
            found[-1] = Line(last.words + line.words, union(last.box, line.box))
        else:
            found.append(line)
    return found


def _follow(words: Sequence[Word], lines: Sequence[Line], bands: Sequence[range], ratio: float) -> dict[int, int]:
    """By line the one that it goes on in, where there is one."""
    below = _below(lines, bands)
    above = Counter(below.values())
    right = {i: lines[i + 1].box for band in bands for i in band[:-1]}
    paragraphs: dict[int, _Paragraph] = {}
    follow: dict[int, int] = {}
    pitch = {i: _middle(lines[j].box) - _middle(lines[i].box) for i, j in below.items()}
    loose: dict[int, float] = {}  # the same in line heights
    for i, line in enumerate(lines):
        here = paragraphs.pop(i, None) or _Paragraph(1, line.box[0], line.box[2], 0.0)
        j = below.get(i)
        if j is None or above[j] > 1 or (here.lines == 1 and pitch[i] > EVEN * pitch.get(j, 1.0)):
            continue
        edge = 0.0  # of a cell, where a column stands beside it
        if i in right and j in right and _aligned(right[i], right[j]):
            edge = right[i][0] - 2 * ROOM * (line.box[3] - line.box[1]) * ratio
        if _goes_on(words, line, lines[j], here._replace(right=max(here.right, edge)), ratio):
            box = lines[j].box
            paragraphs[j] = _Paragraph(here.lines + 1, box[0], max(here.right, box[2]), pitch[i])
            follow[i] = j
            loose[i] = pitch[i] / max(box[3] - box[1], line.box[3] - line.box[1])
    usual = EVEN * median(loose.values()) if loose else 0.0
    return {i: j for i, j in follow.items() if loose[i] <= usual}


def _below(lines: Sequence[Line], bands: Sequence[range]) -> dict[int, int]:
    """By line the only one that lies under it, in the next band that has any."""
    below = {}
    for number, band in enumerate(bands):
        for i in band:
            x0, y0, x1, y1 = lines[i].box
            for after in bands[number + 1 : number + 8]:
                if lines[after[0]].box[1] > y1 + REACH * (y1 - y0):
                    break
                under = [j for j in after if min(x1, lines[j].box[2]) > max(x0, lines[j].box[0])]
                if under:
                    if len(under) == 1:
                        below[i] = under[0]
                    break
    return below


def _middle(box: Box) -> float:
    return (box[1] + box[3]) / 2


def _goes_on(words: Sequence[Word], line: Line, next: Line, here: _Paragraph, ratio: float) -> bool:
    """Whether a paragraph that ends with a line so far goes on in the one below it."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = line.box, next.box
    height = max(y1 - y0, v1 - v0)
    pitch = (v0 + v1 - y0 - y1) / 2
    if not _similar(line.box, next.box, ALIKE) or pitch > REACH * height or 0 < here.pitch * EVEN < pitch:
        return False
    if _is_item(words, next) or not (_has_letters(words, line) and _has_letters(words, next)):
        return False
    em = height * ratio
    if abs(u0 - x0) > em and abs(x0 + x1 - u0 - u1) < em:  # centred
        return True
    if here.lines > 1 and u0 > here.left + em:  # the first line of a paragraph is drawn in
        return False
    if len(line.words) >= PROSE <= len(next.words) and abs(u1 - x1) < em / 3:  # text beside a picture
        return True
    first = min(words[next.words[0]].boxes, key=lambda box: abs(box[0] - u0))
    return max(here.right, u1) - x1 < first[2] - first[0] + ROOM * em


def _rows(
    words: Sequence[Word], lines: Sequence[Line], bands: Sequence[range], follow: dict[int, int]
) -> dict[int, int]:
    """By line the row of a table that it is a cell of, for those that are.

    What other rows have is looked for where their cells begin: the lines of two columns of text, or of two labels, must
    not bear each other out.
    """
    chains = _chains(lines, follow)
    begins = {chain[0] for chain in chains}
    prose, long = _prose(lines, chains)
    wide = [cells for band in bands if len(cells := [i for i in band if i not in long]) > 1]
    firsts = [_Columns.of(lines, [i for i in band if i in begins]) for band in wide]
    masks = [_Columns.of(lines, [i for i in band[1:] if i in begins]) for band in wide]
    root = {i: chain[0] for chain in chains for i in chain}
    row_of: dict[int, int] = {}  # by the first line of a cell that of another in its row
    for number, band in enumerate(wide):
        around = [k for k in range(max(0, number - NEAR), min(len(wide), number + NEAR + 1)) if k != number]
        for i, j in pairwise(band):
            if not (i in begins or j in begins) or (i in prose and j in prose) or _is_item(words, lines[j]):
                continue
            left, right = _edges(lines[i].box), _edges(lines[j].box)
            same = [k for k in around if masks[k].have(right)]
            least = 1 if root[i] in row_of else SAME
            if len(same) >= least and sum(firsts[k].have(left) for k in same) >= (SAME if i in prose else 1):
                one, other = _top(row_of, root[i]), _top(row_of, root[j])
                row_of[one] = row_of[other] = min(one, other)
    return {i: _top(row_of, root[i]) for i in range(len(lines)) if root[i] in row_of}


def _top(row_of: dict[int, int], chain: int) -> int:
    """The first cell of the row that a cell was joined to, by way of others."""
    while (upper := row_of.get(chain, chain)) != chain:
        chain = upper
    return chain


class _Columns(NamedTuple):
    """The left edges, right edges and middles of lines, each as a set of positions in the bits of a number."""

    lefts: int
    rights: int
    middles: int

    @classmethod
    def of(cls, lines: Sequence[Line], chosen: Iterable[int]) -> _Columns:
        found = [0, 0, 0]
        for i in chosen:
            for k, edge in enumerate(_edges(lines[i].box)):
                found[k] |= 7 << edge >> 1
        return cls(*found)

    def have(self, edges: tuple[int, int, int]) -> bool:
        """Whether one of the edges is within a position of one of these."""
        left, right, middle = edges
        return bool((self.lefts >> left | self.rights >> right | self.middles >> middle) & 1)


def _edges(box: Box) -> tuple[int, int, int]:
    return round(box[0] * COLUMNS), round(box[2] * COLUMNS), round((box[0] + box[2]) / 2 * COLUMNS)


def _aligned(one: Box, other: Box) -> bool:
    return any(abs(a - b) <= 1 for a, b in zip(_edges(one), _edges(other), strict=True))


def _chains(lines: Sequence[Line], follow: dict[int, int]) -> list[list[int]]:
    """The lines of each paragraph, from the top down."""
    chains = [[i] for i in sorted(set(range(len(lines))) - set(follow.values()))]
    for chain in chains:
        while chain[-1] in follow:
            chain.append(follow[chain[-1]])
    return chains


def _prose(lines: Sequence[Line], chains: Sequence[Sequence[int]]) -> tuple[set[int], set[int]]:
    """The lines of paragraphs that may be a column's, and of those that are too long for a cell."""
    found: set[int] = set()
    long: set[int] = set()
    for chain in chains:
        if len(chain) > 1 and sum(len(lines[i].words) for i in chain) >= PROSE * len(chain):
            (long if len(chain) >= LONG else found).update(chain)
    return found, long


def _grouped(lines: Sequence[Line], follow: dict[int, int], row_of: dict[int, int]) -> list[Block]:
    groups: dict[tuple[bool, int], list[Line]] = {}
    start: dict[int, int] = {}
    for i, line in enumerate(lines):
        key = (True, row_of[i]) if i in row_of else (False, start.get(i, i))
        groups.setdefault(key, []).append(line)
        if i in follow:
            start[follow[i]] = start.get(i, i)
    return sorted((_block(found, row) for (row, _), found in groups.items()), key=lambda block: block.lines[0].words[0])


def _block(lines: Sequence[Line], row: bool) -> Block:
    """Lines in reading order: that of the text where it has them together, else from left to right or from the top."""
    indices = sorted({i for line in lines for i in line.words})
    if indices[-1] - indices[0] == len(indices) - 1:
        lines = sorted(lines, key=lambda line: line.words[0])
    elif row:
        lines = sorted(lines, key=lambda line: (line.box[0], line.box[1]))
    return Block(tuple(lines), reduce(union, (line.box for line in lines)), row)


def _similar(one: Box, other: Box, factor: float) -> bool:
    heights = one[3] - one[1], other[3] - other[1]
    return max(heights) <= factor * min(heights)


def _is_item(words: Sequence[Word], line: Line) -> bool:
    """Whether a line begins with a bullet, or a number as of a list, and goes on in words."""
    return len(line.words) > 1 and bool(_MARK.fullmatch(words[line.words[0]].text)) and _has_letters(words, line)


def _has_letters(words: Sequence[Word], line: Line) -> bool:
    return any(_LETTERS.search(words[i].text) for i in line.words)
