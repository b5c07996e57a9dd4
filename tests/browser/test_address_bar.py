"""Every state is in the address: it can be sent to a colleague, and Back goes back."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from acting import SETTLED, address, asked, chip, looked_at
from playwright.sync_api import Page, expect
from watching import Watch

NewPage = Callable[..., Page]
QUESTION = "How many passengers can stand in a Kestrel tram?"
REPORT = "harrowmere-annual-report.pdf"

# What a person sees of the viewer.
SEEN = """() => {
    const one = (name) => document.querySelector(`[data-testid=${name}]`);
    const stage = one("stage").getBoundingClientRect();
    const sheet = one("sheet").getBoundingClientRect();
    return {
        title: document.title,
        page: one("page-position").textContent,
        hit: one("hit-position").textContent,
        zoom: one("zoom").textContent,
        place: [sheet.left - stage.left, sheet.top - stage.top, sheet.width, sheet.height],
        chip: document.querySelector("[data-testid=chip][aria-pressed=true]").textContent.trim(),
        opacity: one("opacity").value,
        threshold: one("threshold").value,
        heat: one("heat").checked,
        boxes: one("boxes").checked,
        review: one("review").value,
        regions: document.querySelectorAll("[data-testid=region]").length,
    };
}"""


def state(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_the_viewer_looks_the_same_from_its_address(new_page: NewPage) -> None:
    page = new_page(address("samples", q=QUESTION))
    asked(page).nth(1).get_by_test_id("hit-link").click()
    looked_at(page)
    page.get_by_role("button", name="Page after (→)").click()
    expect(page.get_by_test_id("page-position")).to_have_text("page 2 of 8")
    looked_at(page)
    for _ in range(4):
        page.keyboard.press("+")
    chip(page, "tram").click()
    page.get_by_test_id("opacity").fill("60")
    page.get_by_test_id("threshold").fill("20")
    page.get_by_test_id("boxes").uncheck()
    page.get_by_test_id("review").fill("spring")
    page.keyboard.press("Enter")
    page.get_by_test_id("stage").hover()
    page.mouse.wheel(30, 90)
    looked_at(page)
    page.wait_for_timeout(SETTLED)
    seen = page.evaluate(SEEN)
    assert (seen["page"], seen["opacity"], seen["threshold"], seen["boxes"], seen["regions"]) == (
        "page 2 of 8", "60", "20", False, 0,
    )  # fmt: skip

    other = new_page(page.url)
    looked_at(other)
    expect(other.get_by_test_id("hit-position")).to_have_text(seen["hit"])
    again = other.evaluate(SEEN)
    assert again.pop("place") == pytest.approx(seen.pop("place"), abs=2)
    assert again == seen


def test_results_look_the_same_from_their_address(new_page: NewPage) -> None:
    page = new_page(address("samples", q=QUESTION))
    asked(page)
    page.get_by_test_id("document-filter").fill(REPORT)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=f"Remove the filter {REPORT}")).to_be_visible()
    page.get_by_test_id("tag-filter").select_option("kind=sample")
    page.get_by_test_id("rank").select_option("fulltext")
    expect(page.get_by_role("button", name="Remove the filter kind=sample")).to_be_visible()
    hits = asked(page)
    names = hits.get_by_role("heading").all_inner_texts()
    assert names
    assert all(REPORT in name for name in names)
    assert {name: state(page)[name] for name in ("q", "document", "tag", "rank")} == {
        "q": [QUESTION], "document": [REPORT], "tag": ["kind=sample"], "rank": ["fulltext"],
    }  # fmt: skip

    other = new_page(page.url)
    assert asked(other).get_by_role("heading").all_inner_texts() == names
    expect(other.get_by_test_id("search-box")).to_have_value(QUESTION)
    expect(other.get_by_test_id("rank")).to_have_value("fulltext")
    for filter in (REPORT, "kind=sample"):
        other.get_by_role("button", name=f"Remove the filter {filter}").click()
        expect(other.get_by_role("button", name=f"Remove the filter {filter}")).to_have_count(0)
    assert not {"document", "tag"} & set(state(other))


def test_more_hits_are_in_the_address_too(new_page: NewPage) -> None:
    page = new_page(address("samples", q=QUESTION))
    expect(page.get_by_test_id("hit")).to_have_count(10)
    page.get_by_role("button", name="More hits").click()
    expect(page.get_by_test_id("hit").nth(10)).to_be_visible()
    page.wait_for_timeout(SETTLED)
    count = page.get_by_test_id("hit").count()
    other = new_page(page.url)
    expect(other.get_by_test_id("hit")).to_have_count(count)


def test_back_and_forward_go_from_view_to_view(new_page: NewPage) -> None:
    page = new_page(address("samples"))
    page.get_by_test_id("search-box").fill("year pass")
    page.get_by_role("button", name="Search").click()
    first = asked(page).first
    name = first.get_by_role("heading").inner_text().split("\u2003")[-1]
    first.get_by_test_id("hit-link").click()
    looked_at(page)
    opened = page.get_by_test_id("page-position").inner_text()
    page.get_by_role("button", name=re.compile("^Page after")).click()
    expect(page.get_by_test_id("page-position")).not_to_have_text(opened)
    page.get_by_role("link", name="Documents").click()
    expect(page.get_by_test_id("documents-summary")).to_have_text("6 documents")

    page.go_back()
    expect(page.get_by_test_id("page-position")).not_to_have_text(opened)
    page.go_back()
    expect(page.get_by_test_id("page-position")).to_have_text(opened)
    page.go_back()
    expect(page.get_by_test_id("hit").first).to_contain_text(name)
    expect(page.get_by_test_id("search-box")).to_have_value("year pass")
    page.go_forward()
    expect(page.get_by_test_id("page-position")).to_have_text(opened)


def test_a_middle_click_on_a_hit_opens_the_same_view(new_page: NewPage) -> None:
    """Links are links: their addresses are what a click gives."""
    page = new_page(address("samples", q=QUESTION))
    link = asked(page).first.get_by_test_id("hit-link")
    other = new_page("/" + (link.get_attribute("href") or ""))
    looked_at(other)
    link.click()
    looked_at(page)
    assert state(other) == state(page)
    expect(other.get_by_test_id("hit-position")).to_have_text(page.get_by_test_id("hit-position").inner_text())


def test_an_address_with_nonsense_shows_what_is_wrong(new_page: NewPage, watch: Watch) -> None:
    watch.expected.append("status of 404 .*bm90aGluZy5wZGY")  # nothing.pdf in base64url
    page = new_page("/?view=page&open=nothing.pdf&page=-3&zoom=x&word=99&count=1e9&q=tram")
    expect(page.get_by_role("alert")).to_contain_text("nothing.pdf")
    page.goto("/?view=constructor&q=tram")
    asked(page)
    page.goto("/?collection=nothing&q=tram")
    expect(page.get_by_text("There is no collection nothing")).to_be_visible()
    page.get_by_role("button", name="Go to samples").click()
    page.get_by_test_id("search-box").wait_for()


def test_pages_beside_a_hit_can_be_read(new_page: NewPage) -> None:
    """An answer may cross a page: those before and after open, hits or not, up to the document's ends."""
    page = new_page(address("samples", view="page", q=QUESTION, document=REPORT, count=1, open=REPORT, page=6, hit=1))
    looked_at(page)
    before, after = (page.get_by_role("button", name=re.compile(f"^Page {side}")) for side in ("before", "after"))
    position = page.get_by_test_id("page-position")
    for number in (7, 8):
        page.keyboard.press("ArrowRight")
        expect(position).to_have_text(f"page {number} of 8")
        looked_at(page)
        expect(page.get_by_test_id("account-score")).to_be_visible()
    expect(after).to_be_disabled()
    for number in (7, 6, 5, 4, 3, 2, 1):
        page.keyboard.press("[")
        expect(position).to_have_text(f"page {number} of 8")
    expect(before).to_be_disabled()
