"""The account of a score adds up to the score shown, and chips stand for what is asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from acting import address, asked, looked_at
from pixels import pixels
from planted import TURNED
from playwright.sync_api import Page, expect
from serving import Server

NewPage = Callable[..., Page]
QUESTION = "How many passengers can stand in a Kestrel tram, in the year of 2024?"
NO_CHIP = {"in", "a", "the", "of", ",", "?", "[CLS]", "[SEP]"}
NEAR = 1e-3  # how far sums may be from scores, as the issue says


def numbers(page: Page, name: str) -> list[float]:
    return [float(row.get_attribute("data-value") or "nan") for row in page.get_by_test_id(name).all()]


def shown(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("−", "-"))


def adds_up(page: Page, score: float) -> None:
    """The account's rows add up to its score, and that is the score of the hit."""
    rows, (total,) = numbers(page, "account-row"), numbers(page, "account-score")
    assert rows
    assert sum(rows) == pytest.approx(total, abs=NEAR)
    assert shown(page.get_by_test_id("account-score").inner_text()) == pytest.approx(score, abs=NEAR)


def test_the_account_adds_up_to_the_score_of_each_hit(new_page: NewPage) -> None:
    page = new_page(address("samples", q=QUESTION, count=4))
    hits = asked(page)
    scores = [shown(text) for text in hits.locator(".score > .number").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    hits.first.get_by_test_id("hit-link").click()
    for score in scores:
        looked_at(page)
        adds_up(page, score)
        page.keyboard.press("j")


def test_the_account_of_a_page_that_is_no_hit_adds_up(new_page: NewPage) -> None:
    state = {"open": "harrowmere-annual-report.pdf", "page": 6}
    page = new_page(address("samples", view="page", q=QUESTION, document="observatory-handbook.md", **state))
    looked_at(page)
    expect(page.get_by_test_id("hit-position")).to_contain_text("hit – of")
    adds_up(page, shown(page.get_by_test_id("account-score").inner_text()))


def test_chips_are_the_words_that_are_asked_for_by_what_they_gave(new_page: NewPage) -> None:
    page = new_page(address("samples", view="page", q=QUESTION, open="harrowmere-annual-report.pdf", page=6, hit=1))
    looked_at(page)
    expect(page.get_by_test_id("hit-position")).to_contain_text("hit 1 of")
    chips = [text.split("\n")[-1].rsplit(" ", 1) for text in page.get_by_test_id("chip").all_inner_texts()]
    assert chips[0] == ["Whole", "question"]
    words = [word for word, _ in chips[1:]]
    assert set(words) == set(QUESTION.replace(",", "").replace("?", "").split()) - NO_CHIP
    given = [shown(share) for _, share in chips[1:]]
    assert given == sorted(given, reverse=True)
    assert words[0] == "Kestrel"


def test_a_token_of_the_account_shows_where_it_won(new_page: NewPage) -> None:
    page = new_page(address("samples", view="page", q="Kestrel", open="harrowmere-annual-report.pdf", page=6))
    looked_at(page)
    expect(page.get_by_test_id("spot")).to_have_count(0)
    page.get_by_role("button", name="show where it won").first.focus()
    expect(page.get_by_test_id("spot")).to_have_count(1)


class TestGrid:
    """An index of a vision model: random weights, so that what is hot is known from the numbers only."""

    @pytest.fixture
    def site(self, grid_server: Server) -> Server:
        return grid_server

    @pytest.mark.slow
    def test_heat_of_a_grid_lies_in_its_cell(self, new_page: NewPage, site: Server) -> None:
        page = new_page(address("grid", q="the costs of transport"))
        hits = asked(page)
        assert hits.count() == len(TURNED)
        page.goto(address("grid", view="page", q="the costs of transport", open="upright.pdf", page=1, boxes=0))
        looked_at(page)
        adds_up(page, shown(page.get_by_test_id("account-score").inner_text()))
        id = "dXByaWdodC5wZGY"  # upright.pdf in base64url
        heat = (
            site.client()
            .get(f"/v1/collections/grid/documents/{id}/pages/1/heatmap", params={"q": "the costs of transport"})
            .json()
        )
        rows, columns = heat["grid"]
        assert rows > columns  # portrait
        values = [
            max(each) for each in zip(*(token["values"] for token in heat["tokens"] if token["counts"]), strict=True)
        ]

        sheet = page.get_by_test_id("sheet")
        painted = pixels(sheet.screenshot())
        page.keyboard.press("h")
        expect(page.get_by_test_id("overlay")).to_have_count(0)
        bare = pixels(sheet.screenshot())
        height, width, _ = bare.shape
        blue, expected = [], []
        for place, value in enumerate(values):
            row, column = divmod(place, columns)
            y, x = int((row + 0.5) * height / rows), int((column + 0.5) * width / columns)
            if bare[y - 2 : y + 3, x - 2 : x + 3].min() > 250:  # nothing is drawn there
                blue.append(painted[y, x, 2])
                expected.append(value)
        assert len(blue) > 20
        assert int(np.argmin(blue)) == int(np.argmax(expected))
        assert np.corrcoef(np.argsort(np.argsort(blue)), np.argsort(np.argsort(expected)))[0, 1] < -0.5
