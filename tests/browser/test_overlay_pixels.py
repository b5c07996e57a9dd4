"""The heat lies on the word: measured in screenshots, by marks that were drawn beside the word into the PDF."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from acting import address, chip, looked_at
from pixels import Box, Pixels, framed, grown, ink, inside, mapping, outline, pixels, strong, warm, without
from planted import AWAY, QUESTION, TURNED, WORD, word_box
from playwright.sync_api import Page, expect

NewPage = Callable[..., Page]


def viewer(name: str, **state: Any) -> str:
    return address("planted", view="page", q=QUESTION, open=name, **state)


def shown(page: Page) -> Pixels:
    """The part of the screen in which the page lies, in the screen's own pixels."""
    looked_at(page)
    page.mouse.move(1, 1)
    return pixels(page.get_by_test_id("stage").screenshot())


def in_view(page: Page) -> None:
    """Brings the word to the middle of the stage, by scrolling."""
    region = page.get_by_test_id("region").first
    region.evaluate("element => element.scrollIntoView({block: 'center', inline: 'center'})")


def lies_on_the_word(screen: Pixels) -> Box:
    """Asserts that there is much heat between the letters of the word, and none off it; returns where the word is."""
    word = mapping(screen)(word_box())
    hot, letters = strong(screen), ink(screen)
    ground = ~inside(letters, word)
    assert inside(letters, word).mean() > 0.1, "the word is not where it was drawn"
    assert inside(hot, word)[ground].mean() > 0.7, "there is no heat on the word"
    height = min(word[2] - word[0], word[3] - word[1])
    off = without(hot, grown(word, 0.9 * height))  # its l is that much higher, its font has room above and below
    assert not off.any(), f"there is heat beside the word, at (row, column) {np.argwhere(off)[:5].tolist()}"
    return word


@pytest.mark.parametrize("zoom", [0, 2])
@pytest.mark.parametrize("name", [turned.name for turned in TURNED])
def test_the_heat_of_a_word_lies_on_that_word(new_page: NewPage, name: str, zoom: float) -> None:
    page = new_page(viewer(name, zoom=zoom) if zoom else viewer(name))
    chip(page, WORD).click()
    expect(chip(page, WORD)).to_have_attribute("aria-pressed", "true")
    in_view(page)
    screen = shown(page)
    word = lies_on_the_word(screen)
    if zoom:
        pixels_long = zoom * 96 / 72 * (word_box()[2] - word_box()[0])
        assert max(word[2] - word[0], word[3] - word[1]) == pytest.approx(pixels_long, rel=0.02)
    assert framed(outline(screen), word, reach=14 + 0.5 * min(word[2] - word[0], word[3] - word[1]))


def test_the_heat_stays_on_the_word_when_the_page_is_moved_and_zoomed(new_page: NewPage) -> None:
    page = new_page(viewer("rotated.pdf", zoom=1.5))
    chip(page, WORD).click()
    in_view(page)
    page.keyboard.press("b")
    stage = page.get_by_test_id("stage").bounding_box()
    assert stage is not None
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    before = lies_on_the_word(shown(page))

    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y - 50, steps=4)
    page.mouse.up()
    dragged = lies_on_the_word(shown(page))
    assert (dragged[0] - before[0], dragged[1] - before[1]) == pytest.approx((-60, -50), abs=1.5)

    page.mouse.move(x, y)
    page.mouse.wheel(0, 40)
    page.wait_for_timeout(100)
    scrolled = lies_on_the_word(shown(page))
    assert scrolled[1] - dragged[1] == pytest.approx(-40, abs=1.5)

    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -60)
    page.keyboard.up("Control")
    zoomed = lies_on_the_word(shown(page))
    assert zoomed[2] - zoomed[0] == pytest.approx((scrolled[2] - scrolled[0]) * np.exp(60 / 300), rel=0.03)


def test_the_heat_lies_on_the_word_on_a_dense_screen_and_a_narrow_one(new_page: NewPage) -> None:
    for options in ({"device_scale_factor": 2}, {"device_scale_factor": 2, "viewport": {"width": 390, "height": 844}}):
        page = new_page(viewer("rotated-cropped.pdf", boxes=0), **options)
        chip(page, WORD).click()
        page.get_by_test_id("stage").scroll_into_view_if_needed()
        lies_on_the_word(shown(page))


def test_a_map_in_which_nothing_stands_out_looks_flat(new_page: NewPage) -> None:
    page = new_page(viewer("upright.pdf", boxes=0))
    chip(page, AWAY).click()
    looked_at(page)
    assert not strong(shown(page)).any()
    chip(page, WORD).click()
    assert strong(shown(page)).any()


def test_opacity_threshold_and_switches_change_what_is_painted(new_page: NewPage) -> None:
    page = new_page(viewer("upright.pdf"))
    chip(page, WORD).click()
    screen = shown(page)
    word = mapping(screen)(word_box())
    whole = grown(word, 40)
    assert inside(strong(screen), word).any()
    assert inside(outline(screen), whole).any()

    page.keyboard.press("b")
    expect(page.get_by_test_id("region")).to_have_count(0)
    assert not inside(outline(shown(page)), whole).any()

    page.get_by_test_id("opacity").fill("30")
    faint = shown(page)
    assert not inside(strong(faint), word).any()
    assert inside(warm(faint), word).mean() > 0.3

    page.get_by_test_id("opacity").fill("100")
    chip(page, "Whole question").click()
    page.get_by_test_id("threshold").fill("50")
    only_hot = shown(page)
    lies_on_the_word(only_hot)
    assert not without(warm(only_hot), grown(word, 20)).any()

    page.get_by_test_id("heat").uncheck()
    expect(page.get_by_test_id("overlay")).to_have_count(0)
    bare = pixels(page.get_by_test_id("stage").screenshot())
    assert not warm(bare).any()


def test_the_value_under_the_pointer_is_of_the_word_there(new_page: NewPage) -> None:
    page = new_page(viewer("rotated-cropped.pdf"))
    left, top, right, bottom = mapping(shown(page))(word_box())
    stage = page.get_by_test_id("stage").bounding_box()
    assert stage is not None
    readout = page.get_by_test_id("readout")
    page.mouse.move(stage["x"] + (left + right) / 2, stage["y"] + (top + bottom) / 2)
    expect(readout).to_contain_text(f"won by “{WORD}”")
    similarity = float(readout.inner_text().split(",")[0].removeprefix("similarity "))
    assert 0.5 < similarity <= 1.0
    page.mouse.move(stage["x"] + right + 3 * (right - left), stage["y"] + bottom)
    expect(readout).to_have_text("Nothing was measured here.")
    page.mouse.move(1, 1)
    expect(readout).to_have_text("Point at the page to read its values.")
