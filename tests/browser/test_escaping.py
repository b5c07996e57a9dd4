"""What comes from documents and people is shown as text: nothing of it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from acting import address, asked, looked_at, row
from planted import story
from playwright.sync_api import Page, expect
from serving import Server, finished, upload

NewPage = Callable[..., Page]
NAME = "<img src=x onerror=alert(1)>.pdf"
LINE = "Mind the <script>alert\\(2\\)</script> and the <b>heron</b> & its &lt;nest&gt;."
WRITTEN = LINE.replace("\\", "")
TAG = ("kind<i>", "<svg onload=alert(3)>")
QUESTION = '"><img src=y onerror=alert(4)> heron {{7*7}} ${8*8}'
NOTE = "</textarea><script>alert(5)</script>"
WHO = "<b onmouseover=alert(6)>Ann</b>"
REVIEW = "<u>spring</u>"


@pytest.fixture(scope="module")
def _hostile(server: Server) -> Iterator[None]:
    client = server.client()
    tags = f'{{"{TAG[0]}": "{TAG[1]}"}}'
    answer = upload(client, "drop", NAME, story([LINE, "another page"]), tags=tags)
    assert answer.status_code == 202, answer.text
    assert finished(client, "drop", answer.json()["id"])["state"] == "indexed"
    yield
    client.delete(f"/v1/collections/drop/documents/{answer.json()['id']}")


def nothing_ran(page: Page) -> None:
    """No element of the page comes from these texts (dialogs, errors and requests fail the test anyway)."""
    assert page.locator("img[src=x], img[src=y], main script, main svg, main b, main i, main u").count() == 0


@pytest.mark.usefixtures("_hostile")
def test_hostile_texts_are_texts_in_every_view(new_page: NewPage) -> None:
    page = new_page(address("drop", view="documents"))
    expect(row(page, NAME)).to_contain_text(NAME)
    expect(row(page, NAME)).to_contain_text("=".join(TAG))
    nothing_ran(page)
    page.get_by_role("button", name=f"Delete {NAME}").click()
    expect(page.get_by_test_id("confirm")).to_contain_text(f"{NAME} and its 2 pages leave the index.")
    page.keyboard.press("Escape")

    page.goto(address("drop", q=QUESTION, review=REVIEW, document=NAME, tag="=".join(TAG)))
    hit = asked(page).filter(has_text=f"{NAME}, page 1")
    expect(hit).to_contain_text(WRITTEN)
    expect(page.get_by_role("button", name=f"Remove the filter {NAME}")).to_be_visible()
    nothing_ran(page)

    hit.get_by_test_id("hit-link").click()
    looked_at(page)
    expect(page.get_by_role("heading", level=1)).to_have_text(NAME)
    expect(page.locator(".asked")).to_have_text(QUESTION)
    page.get_by_label("Your name").fill(WHO)
    page.get_by_label("Note").fill(NOTE)
    page.get_by_test_id("verdict-relevant").click()
    expect(page.get_by_test_id("verdict-relevant")).to_have_attribute("aria-pressed", "true")
    page.get_by_text("Text of the page").click()
    expect(page.locator(".plain-text")).to_have_text(WRITTEN)
    nothing_ran(page)
    assert page.title().startswith(NAME)

    page.get_by_role("link", name="Verdicts").click()
    said = page.get_by_test_id("verdict-row")
    for text in (NAME, NOTE, WHO):
        expect(said).to_contain_text(text)
    expect(page.get_by_test_id("review-filter")).to_have_value(REVIEW)
    expect(page.get_by_role("heading", level=2)).to_have_text(QUESTION)
    nothing_ran(page)

    other = new_page(address("drop", view="page", q=QUESTION, review=REVIEW, open=NAME, page=1))
    looked_at(other)
    expect(other.get_by_role("list", name="Verdicts of others")).to_contain_text(f"{WHO}: {NOTE}")
    nothing_ran(other)


@pytest.mark.usefixtures("_hostile")
def test_an_upload_with_a_hostile_name_is_shown_as_text(new_page: NewPage) -> None:
    page = new_page(address("drop", view="documents"))
    name = "<img src=y onerror=alert(7)>.txt"
    page.get_by_test_id("upload").set_input_files({"name": name, "mimeType": "text/plain", "buffer": b"a heron"})
    expect(row(page, name)).to_contain_text(name)
    expect(page.get_by_test_id("notice")).to_contain_text(name)
    nothing_ran(page)
    page.get_by_role("button", name=f"Delete {name}").click()
    page.get_by_test_id("confirm").get_by_role("button", name="Delete").click()
    expect(row(page, name)).to_have_count(0)
