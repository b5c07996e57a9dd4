"""From a file to a verdict to what is taken away, once by mouse and once by keyboard."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pikepdf
import pytest
from acting import READ, address, asked, looked_at, row, saved, tab_to
from PIL import Image
from pixels import inside, pixels, strong
from planted import story
from playwright.sync_api import Locator, Page, expect
from reportlab.pdfbase.pdfmetrics import stringWidth

from visrag.evaluate import Question, read_questions
from visrag.records import PageRef

NewPage = Callable[..., Page]
WIDTH, HEIGHT = 595.0, 842.0  # of a page, in points


@dataclass(frozen=True)
class Story:
    """A document, the question that its second page answers, and the word that says so."""

    name: str
    lines: tuple[str, ...]
    question: str
    word: str
    review: str

    def box(self) -> tuple[float, float, float, float]:
        """Where the word stands on its page, in fractions of it."""
        left = 72 + stringWidth(self.lines[1][: self.lines[1].index(self.word)], "Helvetica", 16)
        right = left + stringWidth(self.word, "Helvetica", 16)
        return left / WIDTH, (HEIGHT - 700 - 8) / HEIGHT, right / WIDTH, (HEIGHT - 700) / HEIGHT


FERRY = Story(
    "ferry.pdf",
    (
        "The ferry company was founded by fishermen.",
        "The last ferry to Skarholm leaves at midnight in winter.",
        "Dogs travel without a ticket, bicycles need one.",
    ),
    "When does the last ferry to Skarholm leave?",
    "Skarholm",
    "crossings 2024",
)
LAMP = Story(
    "lighthouse.pdf",
    (
        "The keepers of the lighthouse lived in two rooms.",
        "The lamp of the lighthouse burned paraffin until 1936.",
        "Visitors climb 214 steps to the gallery.",
    ),
    "What did the lamp of the lighthouse burn?",
    "lighthouse",
    "",
)

DROP = """([name, type, data]) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type}));
    return transfer;
}"""


def dropped(page: Page, name: str, data: bytes) -> None:
    """As when somebody drags a file from the desk over the page and lets it go."""
    told = [name, "application/pdf", base64.b64encode(data).decode()]
    transfer = page.evaluate_handle(DROP, told)
    for event in ("dragenter", "dragover"):
        page.dispatch_event("body", event, {"dataTransfer": transfer})
    expect(page.get_by_text("Drop the files to add them.")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop the files to add them.")).to_have_count(0)


def judged(told: Story, reviewer: str, path: Path) -> None:
    """The file has the verdicts, and `visrag evaluate` reads its question."""
    (question,) = read_questions(path)
    assert isinstance(question, Question)
    assert (question.text, question.relevant) == (told.question, frozenset({PageRef(told.name, 2)}))
    text = path.read_text(encoding="utf-8")
    for said in ("not_relevant", "says it in so many words", *([told.review] if told.review else []), reviewer):
        assert said in text


def has_highlights(told: Story, path: Path, hits: int) -> None:
    """The pages of the hits, the first with a highlight annotation over the word."""
    with pikepdf.open(path) as pdf:
        assert len(pdf.pages) == hits
        notes = [note for note in pdf.pages[0].Annots if note.Subtype == "/Highlight"]
        assert notes
        x0, y0, x1, y1 = told.box()
        middle = ((x0 + x1) / 2 * WIDTH, (2 - y0 - y1) / 2 * HEIGHT)
        boxes = [[float(value) for value in note.Rect] for note in notes]
        assert any(x0 <= middle[0] <= x1 and y0 <= middle[1] <= y1 for x0, y0, x1, y1 in boxes)


def is_highlighted(told: Story, path: Path) -> None:
    """A picture with heat on the word."""
    with Image.open(path) as picture:
        assert max(picture.size) == 2000
        width, height = picture.size
    x0, y0, x1, y1 = told.box()
    hot = inside(strong(pixels(path.read_bytes())), (x0 * width, y0 * height, x1 * width, y1 * height))
    assert hot.mean() > 0.3


def verdict(page: Page, kind: str) -> Locator:
    return page.get_by_test_id(f"verdict-{kind}")


@pytest.mark.slow
def test_from_a_dropped_file_to_verdicts_and_exports_by_mouse(new_page: NewPage, tmp_path: Path) -> None:
    told = FERRY
    page = new_page(address("drop"))
    page.get_by_test_id("search-box").wait_for()
    dropped(page, told.name, story(told.lines))
    expect(page.get_by_role("heading", name="Documents", exact=True)).to_be_visible()
    expect(row(page, told.name)).to_have_attribute("data-state", "indexed", timeout=READ)
    expect(row(page, told.name)).to_contain_text("3 pages")

    page.get_by_role("link", name="Search").click()
    page.get_by_test_id("review").fill(told.review)
    page.get_by_test_id("search-box").fill(told.question)
    page.get_by_role("button", name="Search").click()
    hits = asked(page)
    expect(hits.first).to_contain_text(f"{told.name}, page 2")
    expect(hits.first.locator("mark").filter(has_text=told.lines[1].split()[1])).not_to_have_count(0)
    count = hits.count()
    has_highlights(told, saved(page, page.get_by_test_id("export-pdf").click, tmp_path), count)

    hits.first.get_by_test_id("hit-link").click()
    looked_at(page)
    page.get_by_label("Your name").fill("Ann")
    page.get_by_label("Note").fill("says it in so many words")
    verdict(page, "relevant").click()
    expect(verdict(page, "relevant")).to_have_attribute("aria-pressed", "true")
    is_highlighted(told, saved(page, page.get_by_test_id("download-png").click, tmp_path))
    page.get_by_role("button", name="Next hit (j)").click()
    expect(page.get_by_test_id("hit-position")).to_contain_text("hit 2 of")
    looked_at(page)
    expect(verdict(page, "relevant")).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_label("Note")).to_have_value("")
    verdict(page, "not_relevant").click()
    expect(verdict(page, "not_relevant")).to_have_attribute("aria-pressed", "true")

    page.get_by_role("link", name="Verdicts").click()
    expect(page.get_by_test_id("verdict-row")).to_have_count(2)
    expect(page.get_by_test_id("review-filter")).to_have_value(told.review)
    for format in ("csv", "json"):
        judged(told, "Ann", saved(page, page.get_by_test_id(f"export-{format}").click, tmp_path))
    relevant = saved(page, page.get_by_role("button", name="PDF of the relevant pages").click, tmp_path)
    has_highlights(told, relevant, 1)


@pytest.mark.slow
def test_from_a_chosen_file_to_verdicts_and_exports_by_keyboard(new_page: NewPage, tmp_path: Path) -> None:
    told = LAMP
    page = new_page(address("drop"))
    page.on("filechooser", lambda _: None)  # so that the browser asks the test from the start, not a person
    keyboard = page.keyboard
    page.get_by_test_id("search-box").wait_for()
    tab_to(page, page.get_by_role("link", name="Documents"))
    keyboard.press("Enter")
    page.get_by_test_id("documents-summary").wait_for()
    tab_to(page, page.get_by_test_id("upload"))
    with page.expect_file_chooser() as waiting:
        keyboard.press("Enter")
    waiting.value.set_files({"name": told.name, "mimeType": "application/pdf", "buffer": story(told.lines)})
    expect(row(page, told.name)).to_have_attribute("data-state", "indexed", timeout=READ)
    expect(row(page, told.name)).to_contain_text("3 pages")

    keyboard.press("/")
    expect(page.get_by_test_id("search-box")).to_be_focused()
    keyboard.type(told.question)
    keyboard.press("Enter")
    hits = asked(page)
    expect(hits.first).to_contain_text(f"{told.name}, page 2")
    count = hits.count()
    tab_to(page, page.get_by_test_id("export-pdf"))
    has_highlights(told, saved(page, lambda: keyboard.press("Enter"), tmp_path), count)
    keyboard.press("j")
    expect(hits.first.get_by_test_id("hit-link")).to_be_focused()
    keyboard.press("Enter")
    looked_at(page)

    keyboard.press("y")
    expect(verdict(page, "relevant")).to_have_attribute("aria-pressed", "true")
    tab_to(page, page.get_by_label("Note"))
    keyboard.type("says it in so many words, jkyn?")
    keyboard.press("Escape")
    expect(page.get_by_test_id("notice")).to_contain_text("Note kept.")
    tab_to(page, page.get_by_test_id("download-png"), key="Shift+Tab")
    is_highlighted(told, saved(page, lambda: keyboard.press("Enter"), tmp_path))
    keyboard.press("j")
    expect(page.get_by_test_id("hit-position")).to_contain_text("hit 2 of")
    looked_at(page)
    keyboard.press("n")
    expect(verdict(page, "not_relevant")).to_have_attribute("aria-pressed", "true")
    keyboard.press("k")
    expect(page.get_by_test_id("hit-position")).to_contain_text("hit 1 of")
    expect(page.get_by_label("Note")).to_have_value("says it in so many words, jkyn?")

    keyboard.press("Escape")
    expect(hits.first.get_by_test_id("hit-link")).to_be_focused()
    expect(hits.first).to_contain_text("Relevant")
    expect(hits.nth(1)).to_contain_text("Not relevant")
    tab_to(page, page.get_by_role("link", name="Verdicts"), key="Shift+Tab")
    keyboard.press("Enter")
    expect(page.get_by_test_id("verdict-row")).to_have_count(2)
    for format in ("csv", "json"):
        tab_to(page, page.get_by_test_id(f"export-{format}"))
        judged(told, "", saved(page, lambda: keyboard.press("Enter"), tmp_path))


def test_a_verdict_is_withdrawn_by_giving_it_again(new_page: NewPage) -> None:
    page = new_page(address("samples", view="page", q="Who audited the accounts?", review="again",
                            open="harrowmere-annual-report.pdf", page=5))  # fmt: skip
    looked_at(page)
    for _ in range(2):
        page.keyboard.press("n")
        expect(verdict(page, "not_relevant")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("n")
        expect(verdict(page, "not_relevant")).to_have_attribute("aria-pressed", "false")
    page.get_by_role("link", name="Verdicts").click()
    expect(page.get_by_text("No verdict in this review.")).to_be_visible()


def test_what_is_being_typed_stays_while_the_page_moves_on(new_page: NewPage) -> None:
    page = new_page(address("samples", view="page", q="year pass", open="harrowmere-annual-report.pdf", page=3))
    looked_at(page)
    for field, text in (("reviewer", "Ann"), ("review", "spring"), ("note", "a price")):
        page.get_by_test_id(field).press_sequentially(text)
        page.get_by_test_id("stage").hover()
        page.mouse.move(500, 400, steps=3)
        expect(page.get_by_test_id("readout")).not_to_have_text("Point at the page to read its values.")
        expect(page.get_by_test_id(field)).to_have_value(text)
    page.get_by_test_id("verdict-relevant").click()
    expect(page.get_by_test_id("notice")).to_contain_text("Judged relevant.")
    page.get_by_role("link", name="Verdicts").click()
    expect(page.get_by_test_id("review-filter")).to_have_value("spring")
    for text in ("Relevant", "Ann", "a price"):
        expect(page.get_by_test_id("verdict-row")).to_contain_text(text)


def test_keys_are_letters_where_somebody_types_and_can_be_turned_off(new_page: NewPage) -> None:
    page = new_page(address("samples", view="page", q="year pass", open="harrowmere-annual-report.pdf", page=3))
    looked_at(page)
    page.get_by_label("Note").press_sequentially("y n j ?")
    expect(page.get_by_label("Note")).to_have_value("y n j ?")
    expect(verdict(page, "relevant")).to_have_attribute("aria-pressed", "false")
    page.get_by_label("Note").fill("")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    dialog = page.get_by_test_id("help")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Single keys are active").uncheck()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.keyboard.press("y")
    page.keyboard.press("b")
    page.wait_for_timeout(200)
    expect(verdict(page, "relevant")).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_test_id("boxes")).to_be_checked()
