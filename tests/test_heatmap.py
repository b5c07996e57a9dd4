"""Heat and regions: numbers worked by hand, signals planted at known places."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from visrag.evidence import regions
from visrag.heatmap import OUTLINE, SPAN, Scale, cell_map, colours, overlay, question_map, token_maps
from visrag.records import Box, Floats, Page, PatchVectors, Places, QueryVectors, Region, Word

NAN = np.nan
ONE = np.ones(1, np.float32)


def floats(values: object) -> Floats:
    return np.array(values, np.float32)


def page_of(lines: list[tuple[float, float, str]], *, height: float = 0.02, letter: float = 0.01) -> Page:
    """A page with lines of (left, top, text); every letter is ``letter`` wide."""
    text, words = "", []
    for left, top, line in lines:
        at = left
        for word in line.split():
            box = (at, top, at + letter * len(word), top + height)
            words.append(Word(word, len(text), (box,)))
            text += word + " "
            at = box[2] + letter
        text = text[:-1] + "\n"
    return Page(1, 600, 800, text.rstrip(), tuple(words), "text_layer")


def on_words(page: Page, scores: dict[str, list[float]], tokens: int, rest: float = 0.2) -> tuple[Places, Floats]:
    """A place on every box of every word; maps (tokens, places) with ``scores`` for the words named, else ``rest``."""
    boxes = [box for word in page.words for box in word.boxes]
    values = [scores.get(word.text, [rest] * tokens) for word in page.words for _ in word.boxes]
    return Places.of_boxes(boxes, list(range(len(boxes)))), floats(values).T


def near(box: Box) -> object:
    return pytest.approx(box, abs=1e-4)


# Token maps


def test_token_maps_are_dot_products_at_the_places() -> None:
    query = QueryVectors(floats([[1, 0], [0, 2]]), ("a", "b"), floats([1, 1]))
    patch = PatchVectors(floats([[0.5, 0.25], [-1, 3]]), Places.on_grid(1, 3, np.array([1, -1, 0], np.int32)))
    maps = token_maps(query, patch)
    np.testing.assert_array_equal(maps, floats([[-1, NAN, 0.5], [6, NAN, 0.5]]))
    assert maps.dtype == np.float32


def test_question_map_leaves_out_tokens_without_weight() -> None:
    maps = floats([[0.9, 0.1, NAN], [0.2, 0.4, NAN], [-0.5, 0.3, NAN]])
    np.testing.assert_array_equal(question_map(maps, floats([0, 1, 2])), floats([0.2, 0.4, NAN]))
    assert np.isnan(question_map(maps, floats([0, 0, 0]))).all()


def test_a_page_without_vectors_has_empty_maps() -> None:
    query = QueryVectors(floats([[1, 0]]), ("a",), ONE)
    maps = token_maps(query, PatchVectors(np.zeros((0, 2), np.float32), Places.of_boxes([], [])))
    assert maps.shape == (1, 0)
    assert Scale.of(maps, ONE) == Scale(0.0, SPAN)
    assert regions(page_of([]), Places.of_boxes([], []), maps, ONE) == ()


# Painting


def test_a_signal_at_row_1_col_3_is_painted_there_and_not_at_row_3_col_1() -> None:
    values = np.zeros(12, np.float32)
    values[1 * 4 + 3] = 1.0  # a grid of 3 rows × 4 cols
    painted = cell_map(values, Places.on_grid(3, 4, np.arange(12, dtype=np.int32)), 30, 80)
    assert painted.shape == (30, 80)
    assert (painted[10:20, 60:80] == 1).all()
    assert painted.sum() == 10 * 20
    smooth = cell_map(values, Places.on_grid(3, 4, np.arange(12, dtype=np.int32)), 30, 80, smooth=True)
    row, col = np.unravel_index(smooth.argmax(), smooth.shape)
    assert (10 <= row < 20, 60 <= col < 80) == (True, True)
    assert smooth[25, 25] == 0  # what (3, 1) would be were rows and cols confused


def test_smooth_interpolates_between_centres() -> None:
    painted = cell_map(floats([0, 1]), Places.on_grid(1, 2, np.arange(2, dtype=np.int32)), 1, 8, smooth=True)
    np.testing.assert_allclose(painted[0], [0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_overlapping_places_show_the_maximum(order: tuple[int, int]) -> None:
    boxes = [(0.0, 0.0, 0.6, 1.0), (0.4, 0.0, 1.0, 1.0)]
    values = floats([-0.25, 0.5])
    picked = list(order)
    painted = cell_map(values[picked], Places.of_boxes([boxes[i] for i in picked], [0, 1]), 1, 10)
    np.testing.assert_array_equal(painted[0], floats([-0.25] * 4 + [0.5] * 6))


def test_where_nothing_lies_is_nan_and_a_tiny_place_still_shows() -> None:
    places = Places.of_boxes([(0.999, 0.999, 1.0, 1.0), (0.0, 0.0, 0.5, 0.5)], [0, -1])
    painted = cell_map(floats([0.7, NAN]), places, 4, 4)
    assert painted[3, 3] == np.float32(0.7)
    assert np.isnan(painted).sum() == 15


# The scale


def test_the_scale_runs_from_the_typical_to_the_best_match() -> None:
    maps = floats([[0.1, 0.2, 0.3, 0.9, NAN]])
    scale = Scale.of(maps, ONE)
    assert scale == Scale(pytest.approx(0.25), pytest.approx(0.9))
    heat = scale.heat(floats([0.25, 0.9, 0.575, -3.0, 5.0, NAN]))
    np.testing.assert_allclose(heat, [0, 1, 0.5**1.5, 0, 1, 0], atol=1e-6)
    assert Scale.of(maps, ONE, best=1.5).high == 1.5


def test_a_token_that_matches_nowhere_looks_flat_on_the_scale_of_its_question() -> None:
    maps = floats([[0.3, 0.3, 0.9], [0.31, 0.29, 0.33]])
    assert Scale.of(maps, floats([1, 1])).heat(maps[1]).max() < 0.02


def test_colours_grow_evenly_darker_and_stay_light_enough_to_read_through() -> None:
    table = colours().astype(float) / 255
    linear = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    assert tuple(colours()[0]) == (255, 255, 255)
    assert (np.diff(luminance) < 0.002).all()
    assert (luminance[-1] + 0.05) / 0.05 > 7  # contrast of black text on full heat: WCAG AAA


# The overlay


def test_overlay_pixels_at_known_points() -> None:
    page = Image.new("RGB", (400, 300), "white")
    page.paste((0, 0, 0), (320, 110, 330, 120))  # a letter in the hot cell
    values = np.zeros(12, np.float32)
    values[1 * 4 + 3] = 1.0
    picture = overlay(page, values, Places.on_grid(3, 4, np.arange(12, dtype=np.int32)), Scale(0.0, 1.0))
    assert picture.size == (400, 300)
    assert picture.getpixel((350, 150)) == pytest.approx(colours()[255], abs=2)  # the cell's centre
    assert picture.getpixel((325, 115)) == (0, 0, 0)  # text stays black
    assert picture.getpixel((150, 250)) == (255, 255, 255)  # NOT at row 3, col 1
    assert page.getpixel((350, 150)) == (255, 255, 255)  # the page itself is not drawn on


def test_a_nearly_flat_map_leaves_the_page_nearly_white() -> None:
    values = floats(0.4 + 0.02 * np.random.default_rng(1).random(12))
    scale = Scale.of(values[None], ONE)
    pixels = np.asarray(
        overlay(Image.new("RGB", (80, 60), "white"), values, Places.on_grid(3, 4, np.arange(12, dtype=np.int32)), scale)
    )
    assert pixels.min() >= 248


def test_heat_shows_on_a_dark_page() -> None:
    places = Places.of_boxes([(0.0, 0.0, 0.5, 1.0)], [0])
    picture = overlay(Image.new("RGB", (40, 20), (10, 10, 10)), ONE, places, Scale(0.0, 1.0))
    hot, cold = picture.getpixel((5, 10)), picture.getpixel((35, 10))
    assert cold == (10, 10, 10)
    assert isinstance(hot, tuple)
    assert hot[0] > 120


def test_regions_are_outlined_around_their_boxes() -> None:
    page = Image.new("RGB", (400, 400), "white")
    picture = overlay(page, floats([]), Places.of_boxes([], []), Scale(0, 1), [Region((0.25, 0.5, 0.75, 0.6), 1.0, "")])
    assert picture.getpixel((200, 198)) == OUTLINE
    assert picture.getpixel((200, 220)) == (255, 255, 255)
    assert picture.getpixel((200, 242)) == OUTLINE


# Regions


def test_planted_words_make_one_region_with_exact_text_and_box() -> None:
    page = page_of(
        [
            (0.1, 0.20, "the weather was mild and dry"),
            (0.1, 0.40, "capital expenditure in 2018 was 4.2"),
            (0.1, 0.60, "nothing else happened that year"),
        ]
    )
    places, maps = on_words(page, {"capital": [0.9, 0.2], "2018": [0.2, 0.8]}, tokens=2)
    found = regions(page, places, maps, floats([1, 1]))
    assert [region.text for region in found] == ["capital expenditure in 2018 was 4.2"]
    assert found[0].box == near((0.1, 0.40, 0.1 + 0.35, 0.42))


def test_a_line_with_two_tokens_beats_a_line_with_one_token_three_times() -> None:
    page = page_of([(0.1, 0.2, "tram tram tram"), (0.1, 0.5, "tram seats here"), (0.1, 0.8, "some other words")])
    places, maps = on_words(page, {"tram": [0.8, 0.2], "seats": [0.2, 0.7]}, tokens=2)
    found = regions(page, places, maps, floats([1, 1]))
    assert [region.text for region in found] == ["tram seats here", "tram tram tram"]
    assert found[0].score > found[1].score


def test_a_word_that_full_text_matches_counts_beside_its_tokens() -> None:
    page = page_of([(0.1, 0.2, "tramways go on"), (0.1, 0.5, "a tram of old"), (0.1, 0.8, "some other words")])
    places, maps = on_words(page, {"tram": [0.7], "tramways": [0.7]}, tokens=1)
    one, other = regions(page, places, maps, ONE, terms=["sell", "tram"])
    assert (one.text, other.text) == ("a tram of old", "tramways go on")
    # 0.5 above the median for the token, 0.8 for the term; 0.13 and 0.14 wide, 0.02 high
    assert one.score == pytest.approx((0.5 + 0.8) / (0.13 * 0.02 + 0.01) ** 0.3, rel=1e-4)
    assert other.score == pytest.approx(0.5 / (0.14 * 0.02 + 0.01) ** 0.3, rel=1e-4)


def test_tokens_without_weight_make_no_region() -> None:
    page = page_of([(0.1, 0.2, "alpha beta gamma"), (0.1, 0.5, "delta epsilon zeta")])
    places, maps = on_words(page, {"alpha": [0.9, 0.2], "zeta": [0.2, 0.9]}, tokens=2)
    found = regions(page, places, maps, floats([0, 1]))
    assert [region.text for region in found] == ["delta epsilon zeta"]


def test_lines_of_a_block_are_merged_and_a_distant_line_is_not() -> None:
    page = page_of(
        [(0.1, 0.200, "one red fox was"), (0.1, 0.225, "seen two days ago"), (0.1, 0.500, "far away from it all")]
    )
    places, maps = on_words(page, {"fox": [0.9, 0.2], "days": [0.2, 0.9]}, tokens=2)
    found = regions(page, places, maps, floats([1, 1]))
    assert [region.text for region in found] == ["one red fox was seen two days ago"]
    assert found[0].box == near((0.1, 0.2, 0.1 + 0.17, 0.245))


def test_a_word_on_two_lines_is_in_the_region_once() -> None:
    words = (
        Word("the", 0, ((0.1, 0.20, 0.15, 0.22),)),
        Word("expenditure", 4, ((0.17, 0.20, 0.30, 0.22), (0.1, 0.225, 0.15, 0.245))),
        Word("fell", 16, ((0.17, 0.225, 0.22, 0.245),)),
        Word("elsewhere", 21, ((0.1, 0.70, 0.2, 0.72),)),
    )
    page = Page(1, 600, 800, "the expenditure fell\nelsewhere", words)
    places, maps = on_words(page, {"expenditure": [0.9]}, tokens=1)
    found = regions(page, places, maps, ONE)
    assert [region.text for region in found] == ["the expenditure fell"]
    assert found[0].box == near((0.1, 0.20, 0.30, 0.245))


def test_japanese_is_joined_without_spaces() -> None:
    text = "図書は十冊\nまで借りる"
    boxes = [
        (0.1 + 0.02 * (i % 6), 0.2 + 0.025 * (i // 6), 0.12 + 0.02 * (i % 6), 0.22 + 0.025 * (i // 6))
        for i in range(11)
    ]
    page = Page(1, 600, 800, text, tuple(Word(c, i, (boxes[i],)) for i, c in enumerate(text) if c != "\n"))
    places, maps = on_words(page, {"冊": [0.9]}, tokens=1)
    assert [region.text for region in regions(page, places, maps, ONE)] == ["図書は十冊まで借りる"]


def test_a_place_outside_any_word_is_a_region_without_text() -> None:
    page = page_of([(0.1, 0.2, "some words stand here")])
    places, maps = on_words(page, {}, tokens=1)
    places = Places.of_boxes([*places.boxes(), (0.6, 0.6, 0.7, 0.65)], list(range(5)))
    found = regions(page, places, np.concatenate([maps, floats([[0.9]])], axis=1), ONE)
    assert [region.text for region in found] == [""]
    assert found[0].box == near((0.6, 0.6, 0.7, 0.65))


def test_places_that_are_no_word_of_their_own_count_for_the_word_around_them() -> None:
    page = page_of([(0.1, 0.2, "left"), (0.1, 0.8, "right")])
    inside = Places.of_boxes([(0.11, 0.205, 0.12, 0.215), (0.11, 0.805, 0.12, 0.815)], [0, 1])
    found = regions(page, inside, floats([[0.1, 0.9]]), ONE)
    assert [region.text for region in found] == ["right"]


def test_patches_snap_to_the_words_under_them() -> None:
    page = page_of([(0.05, 0.30, "a caption"), (0.80, 0.50, "6.8 %"), (0.05, 0.80, "a footnote")])
    values = np.full((1, 12), 0.1, np.float32)
    values[0, 1 * 4 + 3] = 0.9
    places = Places.on_grid(3, 4, np.arange(12, dtype=np.int32))
    found = regions(page, places, values, ONE)
    assert [region.text for region in found] == ["6.8 %"]
    assert found[0].box == near((0.80, 0.50, 0.85, 0.52))


def test_patches_over_a_row_of_a_table_give_the_row() -> None:
    rows = [("single ride", "2.40"), ("day pass", "6.10"), ("year pass", "429")]
    page = page_of(
        [(x, 0.2 + 0.2 * i, cell) for i, row in enumerate(rows) for x, cell in zip((0.05, 0.8), row, strict=True)]
    )
    values = np.full((1, 40), 0.1, np.float32)
    values[0, 2 * 8 + 6] = 0.9  # a grid of 5 rows × 8 cols: over "6.10", at 0.8 to 0.84 across and 0.40 to 0.42 down
    found = regions(page, Places.on_grid(5, 8, np.arange(40, dtype=np.int32)), values, ONE)
    assert [region.text for region in found] == ["day pass 6.10"]
    assert found[0].box == near((0.05, 0.40, 0.84, 0.42))


def test_of_a_long_paragraph_the_sentence_is_given_and_neighbours_are_made_one() -> None:
    lines = [
        "the depot was opened in the year the line was.",
        "It holds forty trams, and stands by the river.",
        "Its roof was made anew, and paid for by a gift.",
        "The yard beside it was sold. The tracks remain.",
    ]
    page = page_of([(0.1, 0.2 + 0.03 * i, line) for i, line in enumerate(lines)])
    places, maps = on_words(page, {"forty": [0.9]}, tokens=1)
    assert [region.text for region in regions(page, places, maps, ONE)] == [lines[1]]
    places, maps = on_words(page, {"forty": [0.9], "gift.": [0.8]}, tokens=1)
    assert [region.text for region in regions(page, places, maps, ONE)] == [f"{lines[1]} {lines[2]}"]


def test_a_heading_goes_with_its_paragraph() -> None:
    page = page_of([(0.1, 0.20, "Fares"), (0.1, 0.23, "a ride costs two"), (0.1, 0.8, "elsewhere")])
    places, maps = on_words(page, {"Fares": [0.9]}, tokens=1)
    assert [region.text for region in regions(page, places, maps, ONE)] == ["Fares a ride costs two"]


def test_connected_patches_without_words_make_one_region() -> None:
    values = np.full((1, 400), 0.1, np.float32)
    for row, col in ((2, 3), (2, 4), (3, 4), (15, 15)):
        values[0, row * 20 + col] = 0.9
    found = regions(page_of([]), Places.on_grid(20, 20, np.arange(400, dtype=np.int32)), values, ONE)
    assert [region.text for region in found] == ["", ""]
    assert {tuple(round(side, 4) for side in region.box) for region in found} == {
        (0.15, 0.10, 0.25, 0.20),
        (0.75, 0.75, 0.80, 0.80),
    }


def test_a_flat_page_and_an_empty_page_have_no_regions() -> None:
    page = page_of([(0.1, 0.2, "all words match alike"), (0.1, 0.5, "as does this line")])
    places, maps = on_words(page, {}, tokens=1)
    assert regions(page, places, maps, ONE) == ()
    nowhere = Places.on_grid(2, 2, np.full(4, -1, np.int32))
    assert regions(page, nowhere, np.full((1, 4), NAN, np.float32), ONE) == ()


def test_a_page_of_one_word_is_its_own_region() -> None:
    page = page_of([(0.1, 0.2, "Contents")])
    places, maps = on_words(page, {"Contents": [0.8]}, tokens=1)
    assert [region.text for region in regions(page, places, maps, ONE)] == ["Contents"]


def test_a_running_head_yields_to_the_body() -> None:
    page = page_of(
        [(0.1, 0.02, "annual report"), (0.1, 0.40, "the report of the board"), (0.1, 0.60, "other matters arise")]
    )
    places, maps = on_words(page, {"report": [0.9]}, tokens=1)
    assert regions(page, places, maps, ONE)[0].text == "the report of the board"


def test_many_places_take_bounded_time_and_give_few_small_regions() -> None:
    page = page_of([(0.05, 0.08 + 0.0085 * i, "word " * 15) for i in range(100)], height=0.008)
    words = [i for i in range(1500) for _ in range(2)]  # every word is in two windows
    places = Places.of_boxes([page.words[i].boxes[0] for i in words], list(range(3000)))
    maps = np.random.default_rng(3).random((30, 3000)).astype(np.float32)
    weights = np.ones(30, np.float32)
    start = time.process_time()
    found = regions(page, places, maps, weights)
    assert time.process_time() - start < 0.5  # some 25 ms; the limit only catches what grows with the square
    assert 1 <= len(found) <= 5
    assert sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (region.box for region in found[:3])) <= 0.12
    assert found == regions(page, places, maps, weights)
