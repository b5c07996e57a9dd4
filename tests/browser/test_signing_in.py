"""A server that wants keys: signing in and out, and what a reader is not offered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from acting import address, asked, looked_at
from playwright.sync_api import Page, expect
from serving import Server
from watching import Watch

NewPage = Callable[..., Page]


@pytest.fixture
def site(locked_server: tuple[Server, dict[str, str]]) -> Server:
    return locked_server[0]


@pytest.fixture
def keys(locked_server: tuple[Server, dict[str, str]]) -> dict[str, str]:
    return locked_server[1]


@pytest.fixture(autouse=True)
def _refusals_are_expected(watch: Watch) -> None:
    """The browser writes every 401 into its console."""
    watch.expected.append("status of 401 .*/v1/session")


def enter(page: Page, key: str) -> None:
    page.get_by_test_id("sign-in").get_by_label("Key").fill(key)
    page.get_by_test_id("sign-in").get_by_role("button", name="Sign in").click()


def test_a_wrong_key_is_refused_and_a_right_one_opens_what_was_asked_for(
    new_page: NewPage, watch: Watch, keys: dict[str, str]
) -> None:
    watch.expected.append("status of 401 .*/image")  # pictures that are still asked for while one signs out
    page = new_page(address("samples", q="year pass"))
    dialog = page.get_by_test_id("sign-in")
    expect(dialog.get_by_label("Key")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    enter(page, "visrag_wrong")
    expect(dialog.get_by_role("alert")).to_be_visible()
    expect(page.get_by_test_id("search-box")).to_have_count(0)
    enter(page, keys["reader"])
    asked(page)
    expect(page.get_by_text("reader Ann · reader")).to_be_visible()
    assert page.evaluate("document.cookie") == ""  # a script cannot read it
    page.reload()
    asked(page)

    page.get_by_role("button", name="Sign out").click()
    expect(dialog).to_be_visible()
    expect(page.get_by_test_id("hit")).to_have_count(0)
    page.reload()
    expect(dialog).to_be_visible()


def test_a_reader_judges_and_is_offered_no_upload_retry_or_delete(new_page: NewPage, keys: dict[str, str]) -> None:
    page = new_page(address("samples", view="documents"))
    enter(page, keys["reader"])
    expect(page.get_by_test_id("documents-summary")).to_have_text("7 documents")
    expect(page.get_by_test_id("document")).to_have_count(7)
    expect(page.get_by_test_id("upload")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)
    page.goto(address("samples", view="page", q="year pass", open="harrowmere-annual-report.pdf", page=3))
    looked_at(page)
    page.keyboard.press("y")
    expect(page.get_by_test_id("verdict-relevant")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Your name")).to_have_count(0)
    page.get_by_role("link", name="Verdicts").click()
    expect(page.get_by_test_id("verdict-row")).to_contain_text("reader Ann")


def test_a_writer_is_offered_upload_retry_and_delete(new_page: NewPage, keys: dict[str, str]) -> None:
    page = new_page(address("samples", view="documents"))
    enter(page, keys["writer"])
    expect(page.get_by_test_id("upload")).to_have_count(1)
    expect(page.get_by_role("button", name="Delete")).to_have_count(7)
    expect(page.get_by_role("button", name="Retry")).to_have_count(1)


def test_a_key_that_is_taken_back_asks_for_another_one(
    new_page: NewPage, site: Server, watch: Watch, keys: dict[str, str]
) -> None:
    watch.expected.append("status of 401")
    page = new_page(address("samples"))
    enter(page, keys["writer"])
    page.get_by_test_id("search-box").fill("year pass")
    page.get_by_role("button", name="Search").click()
    asked(page)
    page.context.clear_cookies()
    page.get_by_test_id("search-box").fill("signals")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_test_id("sign-in")).to_be_visible()
    enter(page, keys["writer"])
    asked(page)
