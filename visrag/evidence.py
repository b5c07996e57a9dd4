"""Token scores on their places → the few regions of a page that hold the evidence, each with its text.

Words and patches go one way: a word has the evidence of the places on it (its own token vectors, or the patches under
it); words make lines; the lines that answer to most of the question are grown into the block around them. Patches
without a word under them make regions of their own.

The constants were chosen on 46 questions of the dev set (those whose answer stands verbatim on the page).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .fulltext import term_spans
from .records import BOX_UNITS, Box, Floats, Page, Places, Region, Word

AREA = 0.045  # of the page at most in a region of several lines
LINES = 6  # at most in a region
PITCH = 3.0  # lines of a block follow one another within this many line heights
LABEL_WORDS, LABEL_AREA = 3, 0.02  # short lines (labels of a chart, cells) join over any distance within this area
COMPACT = 0.2  # how strongly a smaller region is preferred (an exponent)
MARGIN = 0.07  # of the page's height, at top and bottom: running heads and feet, which count half
KEEP = 0.35  # regions below this share of the best region's score are not given


@dataclass(frozen=True, slots=True)
class _Line:
    first: int  # word
    last: int  # word, in it
    box: Box


def regions(page: Page, places: Places, maps: Floats, weights: Floats, count: int = 5) -> tuple[Region, ...]:
    """The few boxes of a page that hold the evidence, best first. Empty where nothing stands out.

    ``maps`` (t, m) as from ``heatmap.token_maps``, ``weights`` (t,): 0 for tokens that must not count. A place's
    evidence for a token is by how much it exceeds the page's median for that token. A line has for each token the best
    of its words, so that a line that answers to several tokens beats one that answers to one of them several times.
    """
    evidence = _evidence(maps, weights)
    by_word, wordless = _on_words(page.words, places, evidence)
    lines = _lines(page.words)
    joined = [_joined(a, b) for a, b in pairwise(lines)]
    seeds: list[tuple[float, Box, int, int]] = _seeds(lines, joined, _by_line(lines, by_word))
    seeds += [(score, box, -1, -1) for score, box in _areas(places, evidence, wordless)]
    seeds.sort(key=lambda seed: (-seed[0], seed[1][1], seed[1][0], seed[2], seed[3]))
    kept: list[Region] = []
    used: set[int] = set()
    for score, seed, first, last in seeds:
        if len(kept) == count or score <= KEEP * seeds[0][0]:
            break
        box, text, span = seed, "", range(0)
        if first >= 0:
            if not used.isdisjoint(range(first, last + 1)):
                continue
            span, box = _grown(lines, joined, first, last, used)
            text = _text(page, lines[span[0]].first, lines[span[-1]].last)
        if all(_overlap(box, region.box) <= 0.25 for region in kept):
            kept.append(Region(box, score, text))
            used.update(span)
    return tuple(kept)


def term_regions(page: Page, terms: Collection[str]) -> tuple[Region, ...]:
    """As ``regions``, for full text: a word's evidence for a term is 1 where the term occurs in it, else 0."""
    rows = {term: row for row, term in enumerate(terms)}
    starts = [word.start for word in page.words]
    maps = np.zeros((len(rows), len(starts)), np.float32)
    for term, start, _ in term_spans(page.text):
        if term in rows and starts and starts[0] <= start:
            maps[rows[term], bisect_right(starts, start) - 1] = 1.0
    places = Places.of_boxes([word.boxes[0] for word in page.words], range(len(starts)))
    return regions(page, places, maps, np.ones(len(rows), np.float32))


def _evidence(maps: Floats, weights: Floats) -> Floats:
    """(t, m): weighted excess over the token's median on the page; 0 for places without a vector."""
    evidence = np.zeros_like(maps)
    known = ~np.isnan(maps).any(axis=0) if len(maps) else np.zeros(maps.shape[1], np.bool_)
    if known.any():
        values = maps[:, known]
        typical = np.median(values, axis=1, keepdims=True) if values.shape[1] > 1 else np.float32(0)
        evidence[:, known] = np.maximum(values - typical, 0) * weights[:, None]
    return evidence


def _on_words(words: Sequence[Word], places: Places, evidence: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Evidence by word, (words, t): the most of the places on it; and which places (m,) have no word on them."""
    by_word = np.zeros((len(words), len(evidence)), np.float32)
    wordless = np.ones(evidence.shape[1], np.bool_)
    owner = np.array([i for i, word in enumerate(words) for _ in word.boxes], np.intp)
    boxes = np.array([box for word in words for box in word.boxes], np.float64).reshape(-1, 4)
    if len(boxes):
        on, place = _on_grid(boxes, places.grid) if places.grid else _on_boxes(boxes, places)
        np.maximum.at(by_word, owner[on], evidence.T[place])
        wordless[place] = False
    return by_word, wordless


def _on_grid(boxes: NDArray[np.float64], grid: tuple[int, int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (box, cell): the cells that the middle line of each box crosses."""
    rows, cols = grid
    row = np.clip(((boxes[:, 1] + boxes[:, 3]) / 2 * rows).astype(np.intp), 0, rows - 1)
    first = np.clip((boxes[:, 0] * cols).astype(np.intp), 0, cols - 1)
    last = np.clip((boxes[:, 2] * cols - 1e-6).astype(np.intp), first, cols - 1)
    on = np.repeat(np.arange(len(boxes)), last - first + 1)
    col = np.concatenate([np.arange(a, b + 1) for a, b in zip(first, last, strict=True)])
    return on, row[on] * cols + col


def _on_boxes(boxes: NDArray[np.float64], places: Places) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (box, place): places that are the box of a word, or else have their centre in it."""
    packed = np.rint(np.clip(boxes, 0, 1) * BOX_UNITS).astype(np.uint16)
    known: dict[int, list[int]] = {}
    for i, key in enumerate(packed.view(np.uint64)[:, 0].tolist()):  # the four numbers of a box as one
        known.setdefault(key, []).append(i)
    assert places.packed is not None
    placed = places.boxes()
    pairs: list[tuple[int, int]] = []
    for place, key in enumerate(np.ascontiguousarray(places.packed).view(np.uint64)[:, 0].tolist()):
        owners = known.get(key)
        if owners is None:
            x, y = (placed[place, 0] + placed[place, 2]) / 2, (placed[place, 1] + placed[place, 3]) / 2
            inside = (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
            owners = np.flatnonzero(inside).tolist()
        pairs += [(owner, place) for owner in owners]
    array = np.array(pairs, np.intp).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _lines(words: Sequence[Word]) -> list[_Line]:
    """Words that follow one another in the text at one height. A word on two lines is in both."""
    lines: list[_Line] = []
    before: Box | None = None
    for i, word in enumerate(words):
        for box in word.boxes:
            if before is not None and _level(before, box):
                lines[-1] = _Line(lines[-1].first, i, _union(lines[-1].box, box))
            else:
                lines.append(_Line(i, i, box))
            before = box
    return lines


def _level(a: Box, b: Box) -> bool:
    """Whether two boxes share more than half of the lower one's height."""
    return min(a[3], b[3]) - max(a[1], b[1]) > 0.5 * min(a[3] - a[1], b[3] - b[1])


def _joined(a: _Line, b: _Line) -> float:
    """The area up to which a region may hold two lines that follow one another in the text; 0: never."""
    heights = (a.box[3] - a.box[1], b.box[3] - b.box[1])
    pitch = abs(a.box[1] + a.box[3] - b.box[1] - b.box[3]) / 2
    aligned = min(a.box[2], b.box[2]) > max(a.box[0], b.box[0])
    if aligned and max(heights) < 1.6 * min(heights) and pitch <= PITCH * min(heights):
        return AREA
    return LABEL_AREA if max(a.last - a.first, b.last - b.first) < LABEL_WORDS else 0.0


def _by_line(lines: Sequence[_Line], by_word: Floats) -> Floats:
    """Evidence by line, (lines, t): the most of its words, half of it in the page's margin."""
    best = np.zeros((len(lines), by_word.shape[1]), np.float32)
    for i, line in enumerate(lines):
        best[i] = by_word[line.first : line.last + 1].max(axis=0)
        if line.box[3] < MARGIN or line.box[1] > 1 - MARGIN:
            best[i] *= 0.5
    return best


def _seeds(lines: Sequence[_Line], joined: Sequence[float], best: Floats) -> list[tuple[float, Box, int, int]]:
    """Score, box, first and last line of every line, and of every two joined lines, that have evidence."""
    seeds = [(float(sum_), line.box, i, i) for i, (line, sum_) in enumerate(zip(lines, best.sum(axis=1), strict=True))]
    both = np.maximum(best[:-1], best[1:]).sum(axis=1) if len(best) else best.sum(axis=1)
    for i, (limit, sum_) in enumerate(zip(joined, both, strict=True)):
        box = _union(lines[i].box, lines[i + 1].box)
        if _area(box) <= limit:
            seeds.append((float(sum_), box, i, i + 1))
    return [(sum_ / _size(box), box, first, last) for sum_, box, first, last in seeds if sum_ > 0]


def _grown(lines: Sequence[_Line], joined: Sequence[float], first: int, last: int, used: set[int]) -> tuple[range, Box]:
    """The lines and the box of a region grown by turns below and above while its block and AREA allow."""
    box = lines[first].box if first == last else _union(lines[first].box, lines[last].box)
    grew = True
    while grew:
        grew = False
        for line, gap in ((last + 1, last), (first - 1, first - 1)):
            if last - first + 1 == LINES or not 0 <= line < len(lines) or line in used:
                continue
            wider = _union(box, lines[line].box)
            if _area(wider) <= joined[gap]:
                first, last, box, grew = min(first, line), max(last, line), wider, True
    return range(first, last + 1), box


def _areas(places: Places, evidence: Floats, wordless: NDArray[np.bool_]) -> list[tuple[float, Box]]:
    """Score and box of what has evidence but no words: connected cells of a grid above half of the page's best
    cell (a higher share where an area would be too large), or single boxes."""
    total = evidence.sum(axis=0)
    peak = float(total.max(initial=0.0))
    total = np.where(wordless, total, 0.0)
    if not total.any():
        return []
    boxes = places.boxes()
    groups: list[list[int]] = [[int(i)] for i in np.flatnonzero(total > 0.5 * peak)]
    if places.grid is not None:
        for share in (0.5, 0.65, 0.8, 0.9):
            groups = _connected(total.reshape(places.grid) > share * peak)
            if all(_area(_around(boxes[group])) <= AREA for group in groups):
                break
    found = [(float(evidence[:, group].max(axis=1).sum()), _around(boxes[group])) for group in groups]
    return [(score / _size(box), box) for score, box in found]


def _connected(mask: NDArray[np.bool_]) -> list[list[int]]:
    """Cells of ``mask`` (rows, cols) that are joined by their sides, as row-major indices."""
    cells = [(int(row), int(col)) for row, col in np.argwhere(mask)]
    left = set(cells)
    groups = []
    for start in cells:
        if start not in left:
            continue
        left.remove(start)
        group = [start]
        for row, col in group:  # grows while it is read
            for cell in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                if cell in left:
                    left.remove(cell)
                    group.append(cell)
        groups.append(sorted(row * mask.shape[1] + col for row, col in group))
    return groups


def _text(page: Page, first: int, last: int) -> str:
    """The page's text from one word to another, on one line; no space where a script without spaces is broken."""
    text = page.text[page.words[first].start : page.words[last].start + len(page.words[last].text)]
    text = re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\s+(?=[\u3000-\u9fff\uff00-\uffef])", "", text)
    return " ".join(text.split())


def _around(boxes: Floats) -> Box:
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    return x0, y0, x1, y1


def _union(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _size(box: Box) -> float:
    """What a region's evidence is divided by: it grows slowly with its area."""
    return float((_area(box) + 0.01) ** COMPACT)


def _overlap(a: Box, b: Box) -> float:
    """The share of the smaller box that lies in the other."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0) / max(min(_area(a), _area(b)), 1e-12)
