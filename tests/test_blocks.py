"""Lines, paragraphs and table rows of pages set out by hand."""

from __future__ import annotations

import time

from visrag.blocks import Block, blocks, text_lines
from visrag.records import Page, Word

LETTER, HEIGHT = 0.01, 0.02


def page_of(lines: list[tuple[float, float, str]]) -> Page:
    """A square page with (left, top, text): every letter and every space is ``LETTER`` wide; in the order given."""
    text, words = "", []
    for left, top, line in lines:
        at = left
        for word in line.split():
            words.append(Word(word, len(text), ((at, top, at + LETTER * len(word), top + HEIGHT),)))
            text += word + " "
            at += LETTER * (len(word) + 1)
        text = text[:-1] + "\n"
    return Page(1, 600, 600, text.rstrip(), tuple(words), "text_layer")


def told(page: Page, found: list[Block]) -> list[str]:
    return [" ".join(page.words[i].text for line in block.lines for i in line.words) for block in found]


PAGE = [
    (0.1, 0.10, "Fares"),
    (0.1, 0.16, "Fares were last raised in the spring of this"),
    (0.1, 0.19, "year by a fifth, and are reviewed each winter"),
    (0.1, 0.22, "by the board."),
    (0.1, 0.25, "They are not refunded."),
    (0.1, 0.35, "Table 2: fares by kind of ticket"),
    (0.1, 0.40, "Single ride"),
    (0.5, 0.40, "€ 2.40"),
    (0.1, 0.44, "Day pass"),
    (0.5, 0.44, "€ 6.10"),
    (0.1, 0.48, "Year pass"),
    (0.5, 0.48, "€ 429"),
]


def test_heading_paragraphs_caption_and_table_rows() -> None:
    page = page_of(PAGE)
    found = blocks(page)
    assert told(page, found) == [
        "Fares",
        "Fares were last raised in the spring of this year by a fifth, and are reviewed each winter by the board.",
        "They are not refunded.",  # the line before had room for "They"
        "Table 2: fares by kind of ticket",
        "Single ride € 2.40",
        "Day pass € 6.10",
        "Year pass € 429",
    ]
    assert [block.row for block in found] == [False] * 4 + [True] * 3
    assert [round(edge, 4) for edge in found[4].box] == [0.1, 0.4, 0.56, 0.42]


def test_a_table_whose_text_goes_down_its_columns_is_read_by_rows() -> None:
    cells = [(0.1, "alpha", "beta", "gamma"), (0.5, "10", "20", "30")]
    page = page_of([(left, 0.2 + 0.04 * i, text) for left, *column in cells for i, text in enumerate(column)])
    assert page.text == "alpha\nbeta\ngamma\n10\n20\n30"
    assert told(page, blocks(page)) == ["alpha 10", "beta 20", "gamma 30"]


def test_two_columns_of_text_are_not_rows() -> None:
    left = ["the river rose in the night", "and by the morning the road", "was under water to the west"]
    right = ["trains were held for an hour", "while the bridge was looked", "at, and then ran once more."]
    lines = [(x, 0.2 + 0.03 * i, text) for x, column in ((0.1, left), (0.5, right)) for i, text in enumerate(column)]
    page = page_of(lines)
    assert told(page, blocks(page)) == [" ".join(left), " ".join(right)]
    across = page_of(sorted(lines, key=lambda line: (line[1], line[0])))  # the text goes across both columns
    assert told(across, blocks(across)) == [" ".join(left), " ".join(right)]
    assert not any(block.row for block in blocks(page))


def test_a_wrapped_cell_belongs_to_its_row() -> None:
    rows = [("Operators of", "3"), ("cable cars", ""), ("Ferries", "12"), ("Trams", "7")]
    tops = [0.2, 0.23, 0.30, 0.37]
    lines = [(0.1, top, a) for (a, _), top in zip(rows, tops, strict=True)]
    lines += [(0.28, top, b) for (_, b), top in zip(rows, tops, strict=True) if b]
    page = page_of(lines)
    assert told(page, blocks(page)) == ["Operators of cable cars 3", "Ferries 12", "Trams 7"]


def test_list_items_stand_alone_with_their_marks() -> None:
    page = page_of([(0.1, 0.2, "• first the brakes are tested"), (0.1, 0.23, "• then the doors and the lamps")])
    assert told(page, blocks(page)) == ["• first the brakes are tested", "• then the doors and the lamps"]


def test_every_word_is_in_a_block_and_one_on_two_lines_in_two_lines() -> None:
    words = (
        Word("the", 0, ((0.1, 0.20, 0.15, 0.22),)),
        Word("expenditure", 4, ((0.16, 0.20, 0.30, 0.22), (0.1, 0.225, 0.15, 0.245))),
        Word("fell", 16, ((0.16, 0.225, 0.22, 0.245),)),
    )
    (found,) = blocks(Page(1, 600, 600, "the expenditure fell", words))
    assert [line.words for line in found.lines] == [(0, 1), (1, 2)]
    assert [line.words for line in text_lines(words)] == [(0, 1), (1, 2)]
    assert blocks(Page(1, 600, 600)) == []


def test_a_page_of_many_scattered_words_takes_bounded_time() -> None:
    boxes = [((i * 0.618) % 0.99, (i * 0.4142) % 0.99) for i in range(20_000)]
    words = tuple(Word("w", 2 * i, ((x, y, x + 0.001, y + 0.0004),)) for i, (x, y) in enumerate(boxes))
    start = time.process_time()
    assert (
        sum(len(line.words) for block in blocks(Page(1, 600, 600, "w " * 20_000, words)) for line in block.lines)
        == 20_000
    )
    assert time.process_time() - start < 10  # under 1 s; the limit only catches what grows with the square
