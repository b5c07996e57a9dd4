"""The measure of highlighting, by areas and ranks worked out by hand."""

from __future__ import annotations

import pytest

from visrag.highlighting import Answered, best_lines, compared, cover, highlighting, holds, occurrences
from visrag.records import Box, Page, PageRef, Region, Word

LINES = ["Fares of the trams", "A year pass costs € 429.00", "A day pass costs € 6.10", "Dogs ride free"]


def page_of(lines: list[str]) -> Page:
    """Line i from 0.1 × i down, 0.05 high; every character 0.02 wide."""
    words, at = [], 0
    for i, line in enumerate(lines):
        left = 0
        for word in line.split():
            box = (0.02 * left, 0.1 * i, 0.02 * (left + len(word)), 0.1 * i + 0.05)
            words.append(Word(word, at + left, (box,)))
            left += len(word) + 1
        at += len(line) + 1
    return Page(1, 600, 600, "\n".join(lines), tuple(words))


def line_box(i: int) -> Box:
    return (0.0, 0.1 * i, 0.02 * len(LINES[i]), 0.1 * i + 0.05)


def near(box: Box) -> object:
    return pytest.approx(box, abs=1e-9)


def test_what_boxes_cover_together() -> None:
    assert cover([]) == 0
    assert cover([(0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.75, 0.75)]) == pytest.approx(0.25 + 0.25 - 0.0625)
    assert cover([(0.1, 0.1, 0.3, 0.2)] * 3) == pytest.approx(0.02)


def test_a_box_holds_a_word_from_four_fifths_of_it() -> None:
    word = (0.2, 0.2, 0.3, 0.3)
    assert holds([(0.2, 0.2, 0.2801, 0.3)], [word])
    assert not holds([(0.2, 0.2, 0.2799, 0.3)], [word])
    assert holds([(0.2, 0.2, 0.25, 0.3), (0.25, 0.2, 0.3, 0.3)], [word])  # two boxes between them
    assert not holds([(0.0, 0.0, 0.5, 0.5)], [word, (0.6, 0.6, 0.7, 0.7)])
    assert not holds([], [word])


def test_where_an_answer_stands() -> None:
    page = page_of(LINES)
    (found,) = occurrences("€\u00a0429.00", page)
    assert found == [near((0.36, 0.1, 0.38, 0.15)), near((0.40, 0.1, 0.52, 0.15))]
    assert len(occurrences("PASS COSTS", page)) == 2
    (across,) = occurrences("429.00 a day", page)  # over the end of a line
    assert len(across) == 3
    assert occurrences("29.00", page) == []  # within a longer number
    assert occurrences("day", page) == []  # 3 characters
    assert occurrences("never", page) == []


def test_an_answer_in_a_script_without_spaces_may_be_broken() -> None:
    text = "図書は十\n冊まで"
    boxes = [(0.1 * i, 0.1, 0.1 * i + 0.1, 0.2) for i in range(8)]
    page = Page(1, 600, 600, text, tuple(Word(c, i, (boxes[i],)) for i, c in enumerate(text) if c != "\n"))
    assert occurrences("は十冊ま", page) == [[boxes[2], boxes[3], boxes[5], boxes[6]]]


def test_the_best_lines_by_bm25() -> None:
    # "year" stands in one line, "pass" and "cost" in two: lines 1, 2; the others keep the order of the text
    assert best_lines(page_of(LINES), "What does a year pass cost?") == [near(line_box(i)) for i in (1, 2, 0, 3)]


def test_regions_beside_lines_at_equal_cover() -> None:
    page, lines = page_of(LINES), best_lines(page_of(LINES), "What does a year pass cost?")
    answers = occurrences("€ 6.10", page)
    region = (0.0, 0.2, 0.5, 0.25)  # around line 2, which is 0.023 of the page: 0.025
    ours, level, same = compared([region], lines, 1, answers)
    assert ours == (True, pytest.approx(0.025))
    assert level == (False, pytest.approx(0.026))  # line 1 alone covers as much, and doesn't hold the answer
    assert same == level
    ours, level, same = compared([region, (0.5, 0.2, 0.6, 0.25)], lines, 2, answers)
    assert ours == (True, pytest.approx(0.03))
    assert level == same == (True, pytest.approx(0.026 + 0.023))


class Shelf:
    """Pages of one text, with one region each, over the whole line."""

    def page(self, document: str, page: int) -> Page:
        return page_of(LINES if document == "fares" else ["nothing of the kind"])

    def regions(self, question: str, document: str, page: int) -> tuple[Region, ...]:
        return (Region(line_box(page), 1.0, ""),)


def test_the_figures() -> None:
    pass_ = "What does a year pass cost?"
    asked = [
        Answered(pass_, "€ 429.00", [PageRef("empty", 1), PageRef("fares", 1)]),  # found
        Answered(pass_, "€ 429.00", [PageRef("fares", 3)]),  # the region is elsewhere
        Answered(pass_, "429", [PageRef("fares", 1)]),  # too short
        Answered(pass_, "no such words", [PageRef("fares", 1)]),
    ]
    found = highlighting(Shelf(), asked)
    assert (found["questions"], found["regions"], found["held"]) == (2, 3, 0.5)
    assert found["cover"] == pytest.approx((0.026 + 0.014) / 2)
    assert (found["lines_held"], found["lines_cover"]) == (1.0, 0.026)
    assert found["as_many_lines_cover"] == pytest.approx(0.026 + 0.023 + 0.018)
    assert [row["regions"] for row in found["curve"]] == [1, 2, 3, 5]
    assert found["curve"][0]["as_many_lines_cover"] == 0.026
    assert highlighting(Shelf(), asked[2:]) == {}
