"""Token scores on their places → the few regions of a page that hold the evidence, each with its text.

Words and patches go one way: a word has the evidence of the places on it (its own token vectors, or the patches under
it), and that of the terms of full text that it holds; the passages of the page (``visrag.passages``) that answer to
most of the question are its regions. Connected patches without a word under them make regions of their own.

The constants of this module and of ``visrag.passages`` were chosen on the dev set, on the documents whose name has an
even sha256.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from .boxes import area
from .fulltext import term_spans
from .passages import Passage, Passages, size
from .records import BOX_UNITS, Box, Floats, Page, Places, Region, Word

KEEP = 0.35  # regions below this share of the best region's score are not given
OVERLAP = 0.25  # of the smaller of two regions, at most
TERM = 0.8  # of a word, for a term that it holds; for a token it is an excess of cosine, seldom above 0.6
FIGURE = 0.045  # of the page at most in a region without words, where a higher threshold makes it so


def regions(
    page: Page, places: Places, maps: Floats, weights: Floats, terms: Collection[str] = (), count: int = 5
) -> tuple[Region, ...]:
    """The few boxes of a page that hold the evidence, best first. Empty where nothing stands out.

    ``maps`` (t, m) as from ``heatmap.token_maps``, ``weights`` (t,): 0 for tokens that must not count; ``terms``: those
    of full text. A place's evidence for a token is by how much it exceeds the page's median for that token. A line has
    for each token and term the best of its words, so that a line that answers to several beats one that answers to one
    of them several times.
    """
    evidence = _evidence(maps, weights)
    by_word, wordless = _on_words(page.words, places, evidence)
    passages = Passages(page, np.concatenate([by_word, _holding(page, terms)], axis=1))
    found = [*passages, *_areas(places, evidence, wordless)]
    found.sort(key=lambda passage: (-passage.score, passage.box[1], passage.box[0], passage.lines.start))
    kept: list[Passage] = []
    for passage in found:
        if len(kept) == count or passage.score <= KEEP * found[0].score:
            break
        merged = ((i, both) for i, other in enumerate(kept) if (both := passages.merged(other, passage)) is not None)
        at, wider = next(merged, (len(kept), passage))
        if all(_overlap(wider.box, other.box) <= OVERLAP for i, other in enumerate(kept) if i != at):
            kept[at : at + 1] = [wider]
    return tuple(Region(each.box, each.score, _text(page, passages.words(each))) for each in _together(passages, kept))


def _together(passages: Passages, kept: Sequence[Passage]) -> list[Passage]:
    """Passages, with those made one that have come to follow one another."""
    found: list[Passage] = []
    for passage in kept:
        for i, other in enumerate(found):
            if (both := passages.merged(other, passage)) is not None:
                found[i] = both
                break
        else:
            found.append(passage)
    return found


def term_regions(page: Page, terms: Collection[str]) -> tuple[Region, ...]:
    """As ``regions``, of a page without vectors."""
    return regions(page, Places.of_boxes([], []), np.empty((0, 0), np.float32), np.empty(0, np.float32), terms)


def _holding(page: Page, terms: Collection[str]) -> Floats:
    """The evidence of words for terms, (words, terms)."""
    columns = {term: column for column, term in enumerate(terms)}
    starts = [word.start for word in page.words]
    found = np.zeros((len(starts), len(columns)), np.float32)
    for term, start, _ in term_spans(page.text):
        if term in columns and starts and starts[0] <= start:
            found[bisect_right(starts, start) - 1, columns[term]] = TERM
    return found


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
        packed = np.rint(np.clip(boxes, 0, 1) * BOX_UNITS).astype(np.uint16)
        # Many words may share a box.
        _, one, same = np.unique(packed.view(np.uint64)[:, 0], return_index=True, return_inverse=True)
        on, place = _on_grid(boxes[one], places.grid) if places.grid else _on_boxes(boxes[one], packed[one], places)
        by_box = np.zeros((len(one), len(evidence)), np.float32)
        np.maximum.at(by_box, on, evidence.T[place])
        np.maximum.at(by_word, owner, by_box[same])
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


def _on_boxes(
    boxes: NDArray[np.float64], packed: NDArray[np.uint16], places: Places
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (box, place): places that are one of the boxes, which are distinct, or else have their centre in it."""
    known = {key: i for i, key in enumerate(packed.view(np.uint64)[:, 0].tolist())}  # a box's four numbers as one
    assert places.packed is not None
    placed = places.boxes()
    pairs: list[tuple[int, int]] = []
    for place, key in enumerate(np.ascontiguousarray(places.packed).view(np.uint64)[:, 0].tolist()):
        if key in known:
            pairs.append((known[key], place))
            continue
        x, y = (placed[place, 0] + placed[place, 2]) / 2, (placed[place, 1] + placed[place, 3]) / 2
        inside = (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
        pairs += [(owner, place) for owner in np.flatnonzero(inside).tolist()]
    array = np.array(pairs, np.intp).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _areas(places: Places, evidence: Floats, wordless: NDArray[np.bool_]) -> list[Passage]:
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
            if all(area(_around(boxes[group])) <= FIGURE for group in groups):
                break
    found = [(float(evidence[:, group].max(axis=1).sum()), _around(boxes[group])) for group in groups]
    return [Passage(score / size(box), box) for score, box in found]


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


def _text(page: Page, words: Sequence[int]) -> str:
    """The page's text in some words, on one line; no space where a script without spaces is broken."""
    runs: list[list[int]] = []
    for i in words:
        if runs and runs[-1][-1] + 1 == i:
            runs[-1].append(i)
        else:
            runs.append([i])
    ends = [(page.words[run[0]].start, page.words[run[-1]].start + len(page.words[run[-1]].text)) for run in runs]
    text = " ".join(page.text[start:end] for start, end in ends)
    text = re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef])\s+(?=[\u3000-\u9fff\uff00-\uffef])", "", text)
    return " ".join(text.split())


def _around(boxes: Floats) -> Box:
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    return x0, y0, x1, y1


def _overlap(a: Box, b: Box) -> float:
    """The share of the smaller box that lies in the other."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0) / max(min(area(a), area(b)), 1e-12)
