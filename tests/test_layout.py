"""Text laid out on virtual pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from visrag.errors import DocumentError, Reason
from visrag.layout import MARGIN, MAX_BYTES, PAGE_HEIGHT, PAGE_WIDTH, LaidOutDocument
from visrag.records import Page
from visrag.render import Renderer, RenderOptions
from visrag.words import WORD


def laid_out(tmp_path: Path, text: str | bytes, kind: str = "text/plain") -> LaidOutDocument:
    path = tmp_path / "document"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return LaidOutDocument(path, "document", kind)


def page_of(document: LaidOutDocument, number: int = 1) -> Page:
    page, images = document.content(number)
    assert images == ()
    assert all(page.text[word.start : word.start + len(word.text)] == word.text for word in page.words)
    return page


def test_a_text_keeps_its_lines_and_says_where_its_words_stand(tmp_path: Path) -> None:
    page = page_of(laid_out(tmp_path, "Dear all,\n\nthe meeting   is moved.\n"))
    assert page.text == "Dear all,\nthe meeting   is moved."
    assert [word.text for word in page.words] == ["Dear", "all,", "the", "meeting", "is", "moved."]
    assert (page.width, page.height, page.text_source, page.drawn) == (595, 842, "layout", 0)
    first = page.words[0].boxes[0]
    assert first[:2] == pytest.approx((MARGIN / PAGE_WIDTH, MARGIN / PAGE_HEIGHT))
    lefts = [word.boxes[0][0] for word in page.words]
    assert lefts[0] == lefts[2] < lefts[3] < lefts[4] < lefts[5]


@pytest.mark.parametrize("text", ["Horse meadow\n\nGiraffe", "山のホテル\n東京"])
def test_the_picture_has_its_ink_in_the_boxes(tmp_path: Path, text: str) -> None:
    document = laid_out(tmp_path, text)
    picture = document.picture(1, 1600)
    assert picture.size == (1131, 1600)
    dark = np.asarray(picture.convert("L")) < 128
    for word in page_of(document).words:
        x0, y0, x1, y1 = np.rint(np.multiply(word.boxes[0], (1131, 1600) * 2)).astype(int)
        assert dark[y0:y1, x0:x1].any()
        dark[y0 - 3 : y1 + 4, x0 - 3 : x1 + 4] = False
    assert not dark.any()


def test_long_lines_wrap_between_words_and_inside_a_word_wider_than_the_page(tmp_path: Path) -> None:
    page = page_of(laid_out(tmp_path, "word " * 100 + "x" * 300))
    assert page.text.count("word") == 100
    assert sum(word.text.count("x") for word in page.words) == 300
    right = 1 - MARGIN / PAGE_WIDTH
    assert all(word.boxes[0][2] <= right + 1e-6 for word in page.words)
    assert len(page.text.splitlines()) > 5


def test_a_long_text_has_pages_that_lose_nothing(tmp_path: Path) -> None:
    lines = [f"line {n} of many" for n in range(1000)]
    document = laid_out(tmp_path, "\n".join(lines))
    assert document.pages > 10
    assert "\n".join(page_of(document, n).text for n in range(1, document.pages + 1)).splitlines() == lines
    assert page_of(document, 3) == page_of(document, 3)


def test_a_paragraph_over_two_pages_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(5000)]
    document = laid_out(tmp_path, " ".join(words))
    found = [word.text for n in range(1, document.pages + 1) for word in page_of(document, n).words]
    assert document.pages > 3
    assert found == words


def test_a_form_feed_begins_a_page(tmp_path: Path) -> None:
    document = laid_out(tmp_path, "one\n\ftwo\fthree")
    assert [page_of(document, n).text for n in range(1, document.pages + 1)] == ["one", "two", "three"]


def test_an_empty_text_is_one_blank_page(tmp_path: Path) -> None:
    document = laid_out(tmp_path, "")
    assert document.pages == 1
    assert (page_of(document).words, page_of(document).text_source) == ((), "none")


def test_cjk_wraps_by_character_and_each_is_a_word(tmp_path: Path) -> None:
    page = page_of(laid_out(tmp_path, "東京都" * 40))
    assert len(page.words) == 120
    assert page.text.replace("\n", "") == "東京都" * 40
    assert {len(line) for line in page.text.splitlines()[:-1]} == {43}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("net sales, 2018", ["net", "sales,", "2018"]),
        ("ABC社の利益は5%", ["ABC", "社", "の", "利", "益", "は", "5%"]),
        ("か\u3099く", ["か\u3099", "く"]),
        ("ภาษาไทย", ["ภ", "า", "ษ", "า", "ไ", "ท", "ย"]),
        ("한국어 문서", ["한국어", "문서"]),
        ("\u3000全 角", ["全", "角"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert WORD.findall(text) == words


def test_markdown_headings_lists_tables_and_code(tmp_path: Path) -> None:
    source = "# Results\n\nSales *grew* by [5%](http://x).\n\n- one\n- two\n\n"
    source += "| a | b |\n|--|--|\n| 1 | 2 |\n\n```\nx  =  1\n```\n"
    page = page_of(laid_out(tmp_path, source, "text/markdown"))
    assert page.text.splitlines() == ["Results", "Sales grew by 5%.", "• one", "• two", "a   b", "1   2", "x  =  1"]
    heights = [word.boxes[0][3] - word.boxes[0][1] for word in page.words]
    assert heights[0] > 1.5 * heights[1]


def test_html_is_read_without_scripts_styles_and_tags(tmp_path: Path) -> None:
    source = (
        "<html><head><title>Fees</title><style>p {}</style><script>var a = 1</script></head><body><!-- no -->"
        "<h1>All fees</h1><p>One\n  <b>day</b>: 5&nbsp;&euro;<br>two</p><script>x()</script>"
        "<table><tr><th>Kind</th><td>Price <i>net</i></td></tr></table><div>open <p>nested"
    )
    page = page_of(laid_out(tmp_path, source, "text/html"))
    expected = ["Fees", "All fees", "One day: 5 €", "two", "Kind   Price net", "open", "nested"]
    assert page.text.splitlines() == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = "Grüße aus Köln, où l'été fut très agréable à la plage"
    assert page_of(laid_out(tmp_path, text.encode(encoding))).text == text


def test_control_characters_are_dropped(tmp_path: Path) -> None:
    assert page_of(laid_out(tmp_path, "a\x00b\x1b[0m\tc\r\nd")).text == "ab[0m   c\nd"


def test_a_text_over_the_limit_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "big.txt"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DocumentError, match="64 MiB") as caught:
        LaidOutDocument(path, "big.txt", "text/plain")
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_text_goes_through_the_renderer(tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("# Notes\n\nwords")
    with Renderer() as renderer:
        opened = renderer.pages(path, "notes.md", RenderOptions(image="all", image_side=500))
        assert (opened.pages, opened.renderer, opened.media_type) == (1, "layout", "text/markdown")
        (page,) = opened
        assert isinstance(page, Page)
        assert page.image is not None
        assert page.image().height == 500
        assert renderer.page_image(path, 1, 300).height == 300
