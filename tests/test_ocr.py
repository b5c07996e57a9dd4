"""OCR: words where they stand, and only where there is no text layer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pdfs import A4, image, pdf_bytes, text, write
from PIL import Image, ImageDraw, ImageFont

from visrag import ocr
from visrag.boxes import WHOLE_PAGE
from visrag.ocr import OcrLine, in_reading_order
from visrag.ocr_models import ReadLine
from visrag.records import Page, Word
from visrag.render import Renderer, RenderOptions
from visrag.words import compose, without_breaks

IMAGE = "/XObject << /I0 10 0 R >>"


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer() as renderer:
        yield renderer


def with_words(*lines: str, size: tuple[int, int] = (1000, 400)) -> Image.Image:
    """Lines of black text from (60, 60) on, 80 pixels apart."""
    picture = Image.new("RGB", size, "white")
    font = ImageFont.load_default(40)
    for index, line in enumerate(lines):
        ImageDraw.Draw(picture).text((60, 60 + 80 * index), line, "black", font)
    return picture


def saved(picture: Image.Image, path: Path) -> Path:
    picture.save(path, dpi=(150, 150))
    return path


def one_page(renderer: Renderer, path: Path, options: RenderOptions | None = None) -> Page:
    (page,) = renderer.pages(path, path.name, options or RenderOptions())
    assert isinstance(page, Page)
    return page


def ink(picture: Image.Image, box: tuple[float, float, float, float]) -> float:
    """The share of dark pixels in a box."""
    x0, y0, x1, y1 = np.rint(np.multiply(box, (*picture.size, *picture.size))).astype(int)
    return float((np.asarray(picture.convert("L"))[y0:y1, x0:x1] < 128).mean())


def test_a_picture_of_a_sentence_is_read_with_its_words_in_their_boxes(renderer: Renderer, tmp_path: Path) -> None:
    picture = with_words("The quick brown fox jumps", "over 37 lazy dogs")
    page = one_page(renderer, saved(picture, tmp_path / "a.png"))
    assert page.text == "The quick brown fox jumps\nover 37 lazy dogs"
    assert page.text_source == "ocr"
    assert all(page.text[word.start : word.start + len(word.text)] == word.text for word in page.words)
    font = ImageFont.load_default(40)
    for word in page.words:
        number = page.text.count("\n", 0, word.start)
        before = page.text[: word.start].rpartition("\n")[2]
        x0, y0, x1, y1 = np.multiply(word.boxes[0], (1000, 400, 1000, 400))
        expected = 60 + font.getlength(before), 60 + font.getlength(before + word.text)
        assert (x0, x1) == pytest.approx(expected, abs=18)
        assert y0 < 85 + 80 * number < y1
        assert ink(picture, word.boxes[0]) > 0.05
    blank = picture.copy()
    for word in page.words:
        x0, y0, x1, y1 = np.multiply(word.boxes[0], (1000, 400, 1000, 400))
        ImageDraw.Draw(blank).rectangle((x0 - 12, y0 - 8, x1 + 12, y1 + 8), "white")
    assert ink(blank, (0, 0, 1, 1)) == 0


def test_a_scan_in_a_pdf_is_read_whole_and_counts_as_drawn(renderer: Renderer, tmp_path: Path) -> None:
    scan = with_words("Dear Madam", "your parcel arrived")
    objects = [image(scan.tobytes(), *scan.size)]
    data = pdf_bytes([f"q {A4[0]} 0 0 {A4[0] * 0.4} 0 400 cm /I0 Do Q"], objects=objects, resources=IMAGE)
    page = one_page(renderer, write(tmp_path / "a.pdf", data))
    assert page.text == "Dear Madam\nyour parcel arrived"
    assert page.text_source == "ocr"
    top = 1 - (400 + A4[0] * 0.4) / A4[1]
    assert page.words[0].boxes[0][0] == pytest.approx(0.06, abs=0.02)
    assert page.words[0].boxes[0][1] == pytest.approx(top + 60 / 1000 * A4[0] / A4[1], abs=0.02)


def test_a_scan_turned_by_its_page_is_read_as_displayed(renderer: Renderer, tmp_path: Path) -> None:
    sideways = with_words("Turned letter", size=(800, 300)).rotate(90, expand=True)
    objects = [image(sideways.tobytes(), *sideways.size)]
    content = f"q {A4[0]} 0 0 {A4[1]} 0 0 cm /I0 Do Q"
    data = pdf_bytes([content], rotate=90, objects=objects, resources=IMAGE)
    page = one_page(renderer, write(tmp_path / "a.pdf", data))
    assert page.width > page.height
    assert page.text == "Turned letter"
    assert page.words[0].boxes[0][2] < 0.5
    assert page.drawn == 1.0


def mixed(tmp_path: Path) -> Path:
    """A page with a text layer, and a picture of other words in its lower half."""
    chart = with_words("Revenue 2018", "Costs 2019")
    content = text(72, 780, "Annual report of the board") + f"q {A4[0]} 0 0 {A4[0] * 0.4} 0 100 cm /I0 Do Q"
    return write(
        tmp_path / "mixed.pdf", pdf_bytes([content], objects=[image(chart.tobytes(), *chart.size)], resources=IMAGE)
    )


def test_words_in_a_large_image_are_added_to_the_text_layer(renderer: Renderer, tmp_path: Path) -> None:
    page = one_page(renderer, mixed(tmp_path))
    assert page.text == "Annual report of the board\nRevenue 2018\nCosts 2019"
    assert page.text_source == "both"
    assert all(page.text[word.start : word.start + len(word.text)] == word.text for word in page.words)
    assert all(0.6 < word.boxes[0][1] < 0.9 for word in page.words[5:])


def test_ocr_off_leaves_the_text_layer(renderer: Renderer, tmp_path: Path) -> None:
    page = one_page(renderer, mixed(tmp_path), RenderOptions(ocr="off"))
    assert (page.text, page.text_source) == ("Annual report of the board", "text_layer")


def test_ocr_always_replaces_the_text_layer(renderer: Renderer, tmp_path: Path) -> None:
    page = one_page(renderer, mixed(tmp_path), RenderOptions(ocr="always"))
    assert page.text_source == "ocr"
    assert page.text.splitlines() == ["Annual report of the board", "Revenue 2018", "Costs 2019"]


def test_words_that_the_text_layer_has_are_not_read_twice(renderer: Renderer, tmp_path: Path) -> None:
    scan = with_words("Hidden layer")
    hidden = "BT 3 Tr /F1 24 Tf 36 531 Td (Hidden layer) Tj ET"
    content = f"q {A4[0]} 0 0 {A4[0] * 0.4} 0 350 cm /I0 Do Q " + hidden
    data = pdf_bytes([content], objects=[image(scan.tobytes(), *scan.size)], resources=IMAGE)
    page = one_page(renderer, write(tmp_path / "a.pdf", data))
    assert (page.text, page.text_source) == ("Hidden layer", "text_layer")


class Pretended:
    """A document of one page, for what is read of it."""

    pages, renderer, locked = 1, "pretended", False

    def __init__(self, page: Page, images: tuple[tuple[float, float, float, float], ...]) -> None:
        self._content = page, images

    def content(self, number: int) -> tuple[Page, tuple[tuple[float, float, float, float], ...]]:
        return self._content

    def picture(self, number: int, side: int) -> Image.Image:
        raise AssertionError("nothing is to be read")

    def close(self) -> None: ...


def page_with(rows: int) -> Page:
    text, words = compose(("word", [(0.1, row / 40, 0.9, row / 40 + 0.015)]) for row in range(rows))
    return Page(1, 600, 800, text, words, "text_layer")


def test_a_scan_under_a_full_text_layer_is_not_read() -> None:
    page = page_with(20)
    assert ocr.with_ocr(Pretended(page, (WHOLE_PAGE,)), 1, always=False, threads=1) == page


def test_small_images_are_not_read() -> None:
    page = page_with(1)
    assert ocr.with_ocr(Pretended(page, ((0, 0, 0.2, 0.2), (0.5, 0.5, 0.6, 0.6))), 1, always=False, threads=1) == page


def test_strips_of_a_scan_are_one_image() -> None:
    strips = [(0.1, n / 50, 0.9, (n + 1) / 50) for n in range(50)]
    (merged,) = ocr._merged(strips)
    assert merged == pytest.approx((0.1, 0, 0.9, 1))


def test_a_blank_page_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "_networks", lambda threads: pytest.fail("the networks were loaded"))
    assert ocr.read(Image.new("RGB", (500, 500), (250, 249, 240))) == []


def test_a_blank_page_has_no_text(renderer: Renderer, tmp_path: Path) -> None:
    page = one_page(renderer, write(tmp_path / "a.pdf", pdf_bytes([""])))
    assert (page.text, page.words, page.text_source, page.drawn) == ("", (), "none", 0)


def test_reading_needs_no_network_and_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    ocr._networks.cache_clear()
    (line,) = ocr.read(with_words("Quiet words", size=(600, 200)), threads=1)
    assert line.text == "Quiet words"
    assert capfd.readouterr() == ("", "")


def line(text: str, x0: float, y0: float, x1: float) -> OcrLine:
    return OcrLine(text, (x0, y0, x1, y0 + 0.02), ((x0, y0, x1, y0 + 0.02),))


def test_columns_are_read_one_after_the_other_under_their_title() -> None:
    title = line("title", 0.1, 0.05, 0.9)
    left = [line(f"l{n}", 0.1, 0.1 + n * 0.03, 0.45) for n in range(4)]
    right = [line(f"r{n}", 0.55, 0.105 + n * 0.03, 0.9) for n in range(4)]
    mixed = [line for pair in zip(right, left, strict=True) for line in pair]
    expected = ["title", "l0", "l1", "l2", "l3", "r0", "r1", "r2", "r3"]
    assert [line.text for line in in_reading_order([*mixed, title])] == expected


def test_a_table_is_read_row_by_row() -> None:
    cells = [
        line(f"{'abc'[col]}{row}", 0.1 + 0.3 * col, 0.1 + 0.04 * row + 0.004 * col, 0.2 + 0.3 * col)
        for col in (2, 0, 1)
        for row in (1, 0)
    ]
    assert [line.text for line in in_reading_order(cells)] == ["a0 b0 c0", "a1 b1 c1"]


def test_a_word_reaches_half_a_character_beyond_its_own_and_not_into_the_next() -> None:
    at = np.array([0.1, 0.2, 0.3, 0.45, 0.5, 0.6, 0.9])  # a, b, space, c, d, e, f
    read_line = ReadLine("ab cdef", 1.0, at, np.zeros((4, 2), np.float32))
    # "ab" is 0.1 a character: from 0.05 to 0.25. "cdef" is 0.15 a character: from 0.375 to 0.975.
    assert list(ocr._spans(read_line)) == [pytest.approx((0.05, 0.25)), pytest.approx((0.375, 0.975))]
    japanese = ReadLine("日本", 1.0, np.array([0.3, 0.8]), np.zeros((4, 2), np.float32))
    assert list(ocr._spans(japanese)) == [pytest.approx((0.05, 0.55)), pytest.approx((0.55, 1))]


LETTER = ("Dear members of the board", "the second quarter was quiet", "with sales of 4812 lamps", "Yours, M. Okafor")


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_picture_that_was_turned_is_read_and_its_words_are_where_they_stand(quarters: int) -> None:
    picture = with_words(*LETTER, size=(1000, 420))
    upright = ocr.read(picture, threads=1)
    assert [line.text for line in upright] == list(LETTER)
    turned = ocr.read(picture.rotate(90 * quarters, expand=True), threads=1)
    assert [line.text for line in turned] == list(LETTER)
    x0, y0, x1, y1 = upright[2].boxes[3]  # "4812"
    # Turned to the left, (x, y) comes to (y, 1 - x).
    expected = {1: (y0, 1 - x1, y1, 1 - x0), 2: (1 - x1, 1 - y1, 1 - x0, 1 - y0), 3: (1 - y1, x0, 1 - y0, x1)}
    assert turned[2].boxes[3] == pytest.approx(expected[quarters], abs=0.02)


def test_a_label_that_stands_upright_beside_a_chart_is_read_either_way() -> None:
    label = with_words("Tonnes of steel", size=(500, 160))
    for angle in (90, 270):
        picture = with_words("Output of the foundry", "by year and by furnace", size=(1000, 600))
        picture.paste(label.rotate(angle, expand=True), (800, 60))
        text = "\n".join(line.text for line in ocr.read(picture, threads=1))
        assert ("Tonnes of steel" in text, "Output of the foundry" in text) == (True, True)


JAPANESE = Path("/usr/share/fonts/truetype/bizud-gothic/BIZUDGothic-Regular.ttf")


@pytest.mark.skipif(not JAPANESE.exists(), reason="needs a Japanese font: Debian's fonts-morisawa-bizud-gothic")
def test_writing_from_top_to_bottom_is_read_column_by_column_from_the_right() -> None:
    columns = ["図書館の利用案内です", "本は二週間まで借りられます", "電話で延長もできます", "休館日は月曜日です"]
    picture = Image.new("RGB", (700, 800), "white")
    font = ImageFont.truetype(str(JAPANESE), 36)
    for index, column in enumerate(columns):
        for row, character in enumerate(column):
            ImageDraw.Draw(picture).text((600 - 80 * index, 60 + 42 * row), character, "black", font)
    lines = ocr.read(picture, threads=1)
    assert [line.text for line in lines] == columns
    first = lines[0].boxes[0]
    assert (first[0] < 618 / 700 < first[2], first[1] < 78 / 800 < first[3]) == (True, True)


def test_small_print_is_read() -> None:
    picture = Image.new("RGB", (1240, 1754), "white")  # A4 at 150 dpi
    font = ImageFont.load_default(12.5)  # 6 points
    notes = [f"{number} Excluding lease liabilities of {1000 + number} thousand" for number in range(1, 13)]
    for index, note in enumerate(notes):
        ImageDraw.Draw(picture).text((100, 100 + 16 * index), note, "black", font)
    text = " ".join(line.text for line in ocr.read(picture, threads=1))
    assert sum(note.split()[-2] in text for note in notes) >= 11


def test_a_word_divided_at_the_end_of_a_line_is_one() -> None:
    lines = [
        ("the infor-", [(0.1, 0.1, 0.2, 0.12), (0.2, 0.1, 0.4, 0.12)]),
        ("mation desk", [(0.1, 0.2, 0.3, 0.22)] * 2),
    ]
    text, words = without_breaks(*compose(lines))
    assert text == "the information desk"
    assert words[1] == Word("information", 4, ((0.2, 0.1, 0.4, 0.12), (0.1, 0.2, 0.3, 0.22)))
    assert words[2].start == 16


def test_a_hyphen_that_belongs_to_a_word_stays() -> None:
    def joined(*lines: str) -> str:
        return without_breaks(*compose((line, [WHOLE_PAGE] * len(line.split())) for line in lines))[0]

    assert joined("a well-known well-", "known man") == "a well-known well-known man"
    assert joined("state-of-the-", "art") == "state-of-the-art"
    assert joined("COVID-", "related costs") == "COVID-related costs"
    assert joined("short-", "and long-term") == "short-\nand long-term"
    assert joined("1990-", "to") == "1990-\nto"
    assert joined("Miller-", "Smith") == "Miller-\nSmith"
