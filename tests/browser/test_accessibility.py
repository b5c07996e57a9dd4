"""Each view in light and dark, wide and narrow: axe-core finds nothing against WCAG 2.1 A and AA, all can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from acting import NARROW, WIDE, address, asked, looked_at
from axe_playwright_python.sync_playwright import Axe
from pixels import pixels
from planted import torn
from playwright.sync_api import Page, expect
from serving import Server, finished, upload
from watching import Watch

NewPage = Callable[..., Page]
QUESTION = "How many passengers can stand in a Kestrel tram?"
REPORT = {"open": "harrowmere-annual-report.pdf", "page": 6}
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
STOPS = 24  # that the Tab key is pressed

LOOKS = [(scheme, size) for scheme in ("light", "dark") for size in (WIDE, NARROW)]


@pytest.fixture(scope="module")
def _filled(server: Server) -> Iterator[None]:
    """A document with a page that failed, and verdicts with a note."""
    client = server.client()
    id = upload(client, "samples", "torn.pdf", torn(["a heron", "an otter"], 2), tags='{"year": "2024"}').json()["id"]
    assert finished(client, "samples", id)["state"] == "partial"
    for page, verdict, note in ((6, "relevant", "the table in the middle"), (1, "not_relevant", "")):
        told = {"question": QUESTION, "document": REPORT["open"], "page": page, "verdict": verdict, "note": note}
        answer = client.post("/v1/collections/samples/feedback", json={**told, "reviewer": "Ann"})
        assert answer.status_code == 201, answer.text
    yield
    client.delete(f"/v1/collections/samples/documents/{id}")


def empty(page: Page) -> None:
    page.goto(address("samples"))
    page.get_by_test_id("search-box").wait_for()


def results(page: Page) -> None:
    page.goto(address("samples", q=QUESTION, document=REPORT["open"], tag="kind=sample"))
    asked(page)


def nothing_found(page: Page) -> None:
    page.goto(address("samples", q="zyzzyva", rank="fulltext"))
    expect(page.get_by_test_id("summary")).to_contain_text("No page answers to this.")


def wrong(page: Page) -> None:
    page.goto(address("samples", q=QUESTION, tag="kind=sample", rank="nonsense"))
    page.get_by_role("alert").wait_for()


def viewer(page: Page) -> None:
    page.goto(address("samples", view="page", q=QUESTION, hit=1, **REPORT))
    looked_at(page)
    page.get_by_text("Text of the page").click()


def documents(page: Page) -> None:
    page.goto(address("samples", view="documents"))
    expect(page.get_by_test_id("document")).to_have_count(7)


def verdicts(page: Page) -> None:
    page.goto(address("samples", view="verdicts"))
    expect(page.get_by_test_id("verdict-row")).to_have_count(2)


def help_dialog(page: Page) -> None:
    results(page)
    page.keyboard.press("?")
    expect(page.get_by_test_id("help")).to_be_visible()


def delete_dialog(page: Page) -> None:
    documents(page)
    page.get_by_role("button", name="Delete torn.pdf").click()
    expect(page.get_by_test_id("confirm")).to_be_visible()


VIEWS = (empty, results, nothing_found, wrong, viewer, documents, verdicts, help_dialog, delete_dialog)


def is_accessible(page: Page) -> None:
    """In all looks: no violation, and nothing to scroll sideways for."""
    for scheme, size in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        page.wait_for_timeout(100)
        found = Axe().run(page, options={"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]})
        assert found.violations_count == 0, f"{scheme}, {size['width']} wide: {found.generate_report()}"
        across = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
        assert max(across[:2]) <= across[2], f"{scheme}, {size['width']} wide: as wide as {across}"


@pytest.mark.usefixtures("_filled")
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_no_violation_and_fits(new_page: NewPage, watch: Watch, view: Callable[[Page], None]) -> None:
    if view is wrong:
        watch.expected.append("status of 422")
    page = new_page()
    view(page)
    is_accessible(page)


class TestLocked:
    """The dialog for the key."""

    @pytest.fixture
    def site(self, locked_server: tuple[Server, dict[str, str]]) -> Server:
        return locked_server[0]

    def test_the_dialog_for_the_key_has_no_violation_and_fits(self, new_page: NewPage, watch: Watch) -> None:
        watch.expected.append("status of 401")
        page = new_page()
        dialog = page.get_by_test_id("sign-in")
        dialog.get_by_label("Key").fill("visrag_wrong")
        dialog.get_by_role("button", name="Sign in").click()
        dialog.get_by_role("alert").wait_for()
        is_accessible(page)


AROUND = """() => {
    const element = document.activeElement;
    const {left, top, right, bottom} = (element.closest(".file") ?? element).getBoundingClientRect();
    const [x, y] = [Math.max(left - 8, 0), Math.max(top - 8, 0)];
    return {x, y, width: Math.min(right + 8, innerWidth) - x, height: Math.min(bottom + 8, innerHeight) - y};
}"""


@pytest.mark.usefixtures("_filled")
@pytest.mark.parametrize(
    ("view", "scheme"), [(results, "light"), (viewer, "dark"), (viewer, "light"), (documents, "dark")]
)
def test_the_focus_is_seen_wherever_the_keyboard_takes_it(
    new_page: NewPage, view: Callable[[Page], None], scheme: str
) -> None:
    """Around what has the focus pixels change: at each stop of the Tab key, with the focus and without it."""
    page = new_page(color_scheme=scheme)
    view(page)
    page.locator(".skip").focus()
    page.evaluate("document.activeElement.blur()")
    stops = set()
    for _ in range(STOPS):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        name, around = page.evaluate("document.activeElement.outerHTML")[:200], page.evaluate(AROUND)
        stops.add(name)
        focused = pixels(page.screenshot(clip=around))
        page.evaluate("document.activeElement.blur()")
        blurred = pixels(page.screenshot(clip=around))
        assert (np.abs(focused - blurred).max(axis=2) > 40).sum() > 30, f"the focus is not seen on {name}"
    assert len(stops) > 8
