"""Rendering by pixels: known colours and words at known points, whatever the turn and the crop."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pdfs import A4, image, pdf_bytes, rectangle, stream, text, write
from PIL import Image

from visrag.errors import DocumentError, Reason, UsageError
from visrag.records import Box, Page
from visrag.render import DRAWN_THRESHOLD, Renderer, RenderOptions, media_type
from visrag.settings import RendererName

DATA = Path(os.environ.get("VISRAG_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
NO_OCR = RenderOptions(ocr="off")
WITH_IMAGE = RenderOptions(ocr="off", image="all", image_side=800)
CROP = (100.0, 150.0, 500.0, 750.0)


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer() as renderer:
        yield renderer


@pytest.fixture(params=["pdfium", "poppler"])
def name(request: pytest.FixtureRequest) -> RendererName:
    if request.param == "poppler" and shutil.which("pdftoppm") is None and "CI" not in os.environ:
        pytest.skip("poppler is not installed")
    name: RendererName = request.param
    return name


def pages(renderer: Renderer, path: Path, options: RenderOptions = NO_OCR) -> list[Page]:
    found = [page for page in renderer.pages(path, path.name, options) if isinstance(page, Page)]
    assert len(found) == renderer.pages(path, path.name, options).pages
    return found


def picture_of(page: Page) -> Image.Image:
    assert page.image is not None
    return page.image()


def displayed(x: float, y: float, crop: tuple[float, float, float, float], rotate: int) -> tuple[float, float]:
    """A point of user space → fractions of the page as displayed, worked out apart from the code."""
    left, bottom, right, top = crop
    across, down = (x - left) / (right - left), (top - y) / (top - bottom)
    turned = {0: (across, down), 90: (1 - down, across), 180: (1 - across, 1 - down), 270: (down, 1 - across)}
    return turned[rotate]


def darkness(picture: Image.Image, box: Box) -> float:
    """The darkest shade in a box, 0 for black."""
    width, height = picture.size
    x0, y0 = max(0, round(box[0] * width)), max(0, round(box[1] * height))
    x1, y1 = max(x0 + 1, round(box[2] * width)), max(y0 + 1, round(box[3] * height))
    return float(np.asarray(picture.convert("L"))[y0:y1, x0:x1].min(initial=255))


def assert_word_fills(picture: Image.Image, box: Box, near: float = 0.004) -> None:
    """The box holds dark pixels, and there are none around it (4 strips, a little away)."""
    x0, y0, x1, y1 = box
    assert darkness(picture, box) < 80
    assert darkness(picture, (x0 - 3 * near, y0 - 3 * near, x0 - near, y1 + 3 * near)) > 200
    assert darkness(picture, (x1 + near, y0 - 3 * near, x1 + 3 * near, y1 + 3 * near)) > 200
    assert darkness(picture, (x0 - near, y0 - 3 * near, x1 + near, y0 - near)) > 200
    assert darkness(picture, (x0 - near, y1 + near, x1 + near, y1 + 3 * near)) > 200


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [None, CROP], ids=["whole", "cropped"])
def test_colours_and_words_are_where_they_were_put(
    renderer: Renderer,
    tmp_path: Path,
    name: RendererName,
    rotate: int,
    crop: tuple[float, float, float, float] | None,
) -> None:
    content = rectangle(150, 600, 60, 60, "1 0 0") + rectangle(380, 220, 60, 60, "0 0 1") + text(250, 400, "Horse", 24)
    path = write(tmp_path / "a.pdf", pdf_bytes([content], rotate=rotate, crop=crop))
    options = RenderOptions(renderer=name, ocr="off", image="all", image_side=900)
    (page,) = pages(renderer, path, options)
    picture = picture_of(page)
    seen = crop or (0.0, 0.0, *A4)
    wide, high = seen[2] - seen[0], seen[3] - seen[1]
    assert (page.width, page.height) == pytest.approx((high, wide) if rotate % 180 else (wide, high), abs=0.5)
    assert max(picture.size) == 900
    assert picture.width / picture.height == pytest.approx(page.width / page.height, rel=0.01)
    for x, y, colour in ((180, 630, (255, 0, 0)), (410, 250, (0, 0, 255)), (480, 700, (255, 255, 255))):
        across, down = displayed(x, y, seen, rotate)
        assert picture.getpixel((int(across * picture.width), int(down * picture.height))) == colour
    (word,) = page.words
    assert (word.text, page.text) == ("Horse", "Horse")
    start, end = displayed(250, 400, seen, rotate), displayed(250 + 62, 418, seen, rotate)
    expected = min(start[0], end[0]), min(start[1], end[1]), max(start[0], end[0]), max(start[1], end[1])
    assert word.boxes[0] == pytest.approx(expected, abs=0.02)
    if name == "pdfium":
        assert_word_fills(picture, word.boxes[0])
    else:  # poppler's boxes are as high as the font
        assert darkness(picture, word.boxes[0]) < 80


@pytest.mark.parametrize("side", [200, 1000, 1601])
def test_a_page_image_has_the_side_asked_for(renderer: Renderer, tmp_path: Path, name: RendererName, side: int) -> None:
    path = write(tmp_path / "a.pdf", pdf_bytes([rectangle(0, 421, 297.5, 421, "0 1 0")]))
    picture = renderer.page_image(path, 1, side, RenderOptions(renderer=name))
    assert picture.height == side
    assert picture.getpixel((picture.width // 4, side // 4)) == (0, 255, 0)
    assert picture.getpixel((picture.width * 3 // 4, side // 4)) == (255, 255, 255)


def test_a_page_image_of_a_page_that_is_not_there(renderer: Renderer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pdf", pdf_bytes([""]))
    with pytest.raises(DocumentError, match="1 pages"):
        renderer.page_image(path, 2, 100)


def test_text_has_words_lines_and_offsets(renderer: Renderer, tmp_path: Path) -> None:
    content = text(72, 700, "Net sales grew") + text(72, 680, "in 2018.") + text(72, 640, "The end")
    (page,) = pages(renderer, write(tmp_path / "a.pdf", pdf_bytes([content])))
    assert page.text == "Net sales grew\nin 2018.\nThe end"
    assert [word.text for word in page.words] == ["Net", "sales", "grew", "in", "2018.", "The", "end"]
    assert all(page.text[word.start : word.start + len(word.text)] == word.text for word in page.words)
    assert page.text_source == "text_layer"
    assert page.drawn == 0


def test_a_word_broken_by_a_hyphen_is_one_word_with_two_boxes(renderer: Renderer, tmp_path: Path) -> None:
    content = text(300, 700, "govern-") + text(72, 680, "ment here")
    (page,) = pages(renderer, write(tmp_path / "a.pdf", pdf_bytes([content])), WITH_IMAGE)
    (word,) = [word for word in page.words if word.text == "government"]
    first, second = word.boxes
    assert first[3] < second[1] + 0.01
    assert first[0] > second[2]
    assert_word_fills(picture_of(page), first, 0.003)


def test_a_hyphen_that_belongs_to_a_word_stays(renderer: Renderer, tmp_path: Path) -> None:
    content = text(300, 700, "the out-of-") + text(72, 680, "network fee") + text(72, 600, "nothing")
    (page,) = pages(renderer, write(tmp_path / "a.pdf", pdf_bytes([content])))
    assert "out-of-network" in [word.text for word in page.words]


def test_text_outside_the_crop_box_is_not_there(renderer: Renderer, tmp_path: Path, name: RendererName) -> None:
    content = text(200, 400, "inside") + text(20, 30, "outside") + text(520, 800, "beyond")
    path = write(tmp_path / "a.pdf", pdf_bytes([content], crop=CROP))
    (page,) = pages(renderer, path, RenderOptions(renderer=name, ocr="off"))
    assert page.text == "inside"


def test_invisible_text_counts_as_text(renderer: Renderer, tmp_path: Path) -> None:
    (page,) = pages(renderer, write(tmp_path / "a.pdf", pdf_bytes(["BT 3 Tr /F1 12 Tf 72 700 Td (hidden) Tj ET"])))
    assert page.text == "hidden"


def with_unicode(codes: dict[int, str], shown: bytes) -> bytes:
    """A page that shows bytes in a font whose ToUnicode map gives ``codes`` (hexadecimal UTF-16)."""
    entries = "".join(f"<{code:02X}> <{value}>\n" for code, value in codes.items())
    cmap = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def 1 begincodespacerange <00> <FF>"
        f" endcodespacerange {len(codes)} beginbfchar\n{entries}endbfchar endcmap end end"
    )
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding /ToUnicode 10 0 R >>"
    content = f"BT /F2 20 Tf 72 700 Td <{shown.hex()}> Tj ET"
    return pdf_bytes([content], objects=[stream(cmap.encode()), font], resources="").replace(
        b"/F1 3 0 R", b"/F2 11 0 R"
    )


def test_characters_beyond_the_basic_plane_keep_the_words_apart(renderer: Renderer, tmp_path: Path) -> None:
    codes = {0x41: "D83DDE00", 0x42: "0042", 0x20: "0020", 0x43: "0043"}
    (page,) = pages(renderer, write(tmp_path / "a.pdf", with_unicode(codes, b"AA BC CB")))
    assert [word.text for word in page.words] == ["😀😀", "BC", "CB"]
    lefts = [word.boxes[0][0] * A4[0] for word in page.words]
    assert lefts == pytest.approx([72, 72 + 20 * (2 * 0.667 + 0.278), 72 + 20 * (3 * 0.667 + 0.722 + 2 * 0.278)], abs=3)


def test_cjk_characters_are_words_without_spaces(renderer: Renderer, tmp_path: Path) -> None:
    codes = {0x41: "4E2D", 0x42: "6587", 0x20: "0020", 0x43: "0043"}
    (page,) = pages(renderer, write(tmp_path / "a.pdf", with_unicode(codes, b"ABACC C")))
    assert page.text == "中文中CC C"
    assert [word.text for word in page.words] == ["中", "文", "中", "CC", "C"]
    lefts = [word.boxes[0][0] for word in page.words]
    assert lefts == sorted(lefts)


def test_ligatures_become_letters(renderer: Renderer, tmp_path: Path) -> None:
    (page,) = pages(renderer, write(tmp_path / "a.pdf", with_unicode({0x41: "FB01", 0x42: "006E"}, b"ABAB")))
    assert page.text == "finfin"


def test_a_text_layer_of_control_characters_is_no_text_layer(renderer: Renderer, tmp_path: Path) -> None:
    codes = {0x41: "0001", 0x42: "0002", 0x43: "0003"}
    (page,) = pages(renderer, write(tmp_path / "a.pdf", with_unicode(codes, b"ABCABC")))
    assert (page.text, page.words, page.text_source) == ("", (), "none")


def drawn(renderer: Renderer, tmp_path: Path, content: str, **kinds: object) -> float:
    (page,) = pages(renderer, write(tmp_path / "a.pdf", pdf_bytes([text(72, 780, "Title") + content], **kinds)))  # type: ignore[arg-type]
    return page.drawn


def test_drawn_is_the_share_of_the_page_under_what_is_drawn(renderer: Renderer, tmp_path: Path) -> None:
    box = rectangle(0, 0, A4[0] / 2, A4[1] / 4, "0.2 0.2 0.8")
    assert drawn(renderer, tmp_path, box) == pytest.approx(1 / 8, abs=0.005)
    assert drawn(renderer, tmp_path, box + box) == pytest.approx(1 / 8, abs=0.005)


def test_drawn_looks_into_forms_and_at_images(renderer: Renderer, tmp_path: Path) -> None:
    form = stream(b"/I0 Do", "/Type /XObject /Subtype /Form /BBox [0 0 1 1] /Resources << /XObject << /I0 11 0 R >> >>")
    objects = [form, image(bytes(range(12)), 2, 2)]
    resources = "/XObject << /X0 10 0 R /I0 11 0 R >>"
    content = f"q {A4[0] / 2} 0 0 {A4[1] / 2} 0 0 cm /X0 Do Q"
    assert drawn(renderer, tmp_path, content, objects=objects, resources=resources) == pytest.approx(0.25, abs=0.005)


@pytest.mark.parametrize(
    "content",
    [
        "".join(f"72 {y} m 500 {y} l S " for y in range(100, 700, 20)),
        " ".join(f"72 {y} m 500 {y} l" for y in range(100, 700, 20)) + " S",
        "".join(f"{x} {y} 80 20 re S " for x in range(72, 400, 80) for y in range(100, 700, 20)),
        rectangle(0, 0, *A4, "0.9 0.9 0.6"),
        rectangle(72, 300, 450, 200, "0.85 0.9 1"),
        rectangle(0, 700, A4[0], 60, "0 0.6 0.7"),
        rectangle(500, 780, 60, 40, "0.8 0 0"),
    ],
    ids=["rules", "rules-in-one-path", "table", "background", "shading", "banner", "logo"],
)
def test_lines_tables_backgrounds_and_logos_leave_a_page_text(renderer: Renderer, tmp_path: Path, content: str) -> None:
    assert drawn(renderer, tmp_path, content) < DRAWN_THRESHOLD


def test_a_line_chart_makes_a_page_drawn(renderer: Renderer, tmp_path: Path) -> None:
    points = [(100, 300), (180, 380), (260, 340), (340, 420)]
    lines = "".join(f"{a[0]} {a[1]} m {b[0]} {b[1]} l S " for a, b in itertools.pairwise(points))
    assert drawn(renderer, tmp_path, lines) > DRAWN_THRESHOLD


def test_a_picture_comes_only_for_drawn_pages_if_so_asked(renderer: Renderer, tmp_path: Path) -> None:
    chart = rectangle(100, 100, 300, 300, "0.2 0.4 0.6")
    path = write(tmp_path / "a.pdf", pdf_bytes([text(72, 700, "words"), text(72, 700, "chart") + chart]))
    plain, drawn_page = pages(renderer, path, RenderOptions(ocr="off", image="drawn", image_side=400))
    assert plain.image is None
    assert picture_of(drawn_page).getpixel((120, 300)) == (51, 102, 153)


def test_pages_come_in_order_and_can_be_chosen(renderer: Renderer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pdf", pdf_bytes([text(72, 700, f"page{n}") for n in range(1, 31)]))
    opened = renderer.pages(path, "a", NO_OCR)
    assert (opened.pages, opened.renderer, opened.media_type) == (30, "pdfium", "application/pdf")
    assert [page.text for page in opened if isinstance(page, Page)] == [f"page{n}" for n in range(1, 31)]
    assert [page.number for page in opened.read([7, 3]) if isinstance(page, Page)] == [7, 3]


def test_two_documents_at_a_time_give_each_its_own_pages(renderer: Renderer, tmp_path: Path) -> None:
    data = {name: pdf_bytes([text(72, 700, f"{name}{n}") for n in (1, 2, 3)]) for name in "ab"}
    both = [renderer.pages(write(tmp_path / f"{name}.pdf", data[name]), name, NO_OCR) for name in "ab"]
    found = [[page.text for page in pair if isinstance(page, Page)] for pair in zip(*both, strict=True)]
    assert found == [["a1", "b1"], ["a2", "b2"], ["a3", "b3"]]


# A process that may die.


def many(tmp_path: Path) -> Path:
    return write(tmp_path / "many.pdf", pdf_bytes([text(72, 700, f"page{n}") for n in range(1, 21)]))


def test_a_child_killed_between_pages_is_replaced_and_no_page_is_lost(tmp_path: Path) -> None:
    with Renderer() as renderer:
        found = []
        for page in renderer.pages(many(tmp_path), "a", NO_OCR):
            assert isinstance(page, Page)
            found.append(page.text)
            if len(found) in (3, 9):
                pid = renderer.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
        assert found == [f"page{n}" for n in range(1, 21)]


@pytest.mark.slow
def test_a_child_that_hangs_is_killed_and_the_page_tried_with_poppler(tmp_path: Path) -> None:
    if shutil.which("pdftoppm") is None and "CI" not in os.environ:
        pytest.skip("poppler is not installed")
    with Renderer() as renderer:
        pages = iter(renderer.pages(many(tmp_path), "a", RenderOptions(ocr="off", page_timeout=15)))
        first = next(pages)
        assert isinstance(first, Page)
        pid = renderer.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        rest = list(pages)
        assert [page.text for page in rest if isinstance(page, Page)] == [f"page{n}" for n in range(2, 21)]
        assert renderer.pid != pid


def test_a_page_that_no_renderer_reads_is_an_error_and_the_rest_comes(renderer: Renderer, tmp_path: Path) -> None:
    data = pdf_bytes([text(72, 700, f"page{n}") for n in (1, 2, 3)])
    path = write(tmp_path / "a.pdf", data.replace(b"/Kids [10 0 R 12 0 R", b"/Kids [10 0 R 88 0 R"))
    first, second, third = renderer.pages(path, "reports/a", NO_OCR)
    assert isinstance(first, Page)
    assert isinstance(second, DocumentError)
    assert isinstance(third, Page)
    assert (first.text, third.text) == ("page1", "page3")
    assert (second.document, second.page, second.reason) == ("reports/a", 2, Reason.CORRUPT)


def test_a_child_over_its_memory_is_too_large(tmp_path: Path) -> None:
    with Renderer() as renderer:
        path = many(tmp_path)
        with pytest.raises(DocumentError) as caught:
            [renderer.pages(path, "a", RenderOptions(renderer="poppler", ocr="off", memory=1)) for _ in range(500)]
        assert caught.value.reason is Reason.TOO_LARGE


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from visrag.render import *;"
        "r = Renderer(); print(r.pages(Path(sys.argv[1]), 'a').pages, r.pid, flush=True); time.sleep(60)"
    )
    path = many(tmp_path)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        count, pid = map(int, parent.stdout.readline().split())
        assert count == 20
        os.kill(pid, signal.SIGINT)  # ctrl-C is for the parent
        time.sleep(0.2)
        assert _alive(pid)
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGCONT)
        parent.kill()
    deadline = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_importing_render_loads_no_library_of_its_process() -> None:
    program = "import sys, json, visrag.render; print(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
    heavy = {"torch", "pypdfium2", "rapidocr", "onnxruntime", "cv2", "PIL", "pdf2image", "bs4"}
    assert not heavy & set(json.loads(done.stdout))


# What cannot be opened.


def encrypted(tmp_path: Path) -> Path:
    """A PDF whose password is "sesame", in 40-bit RC4, written by hand."""
    return write(tmp_path / "locked.pdf", _locked(b"sesame"))


_PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def _rc4(key: bytes, data: bytes) -> bytes:
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def _locked(password: bytes) -> bytes:
    from hashlib import md5

    padded = (password + _PAD)[:32]
    owner = _rc4(md5(padded).digest()[:5], padded)
    key = md5(padded + owner + (0xFFFFFFFC).to_bytes(4, "little") + b"0123456789abcdef").digest()[:5]
    plain = pdf_bytes(["BT /F1 12 Tf 72 700 Td (secret) Tj ET "])
    content = b"BT /F1 12 Tf 72 700 Td (secret) Tj ET "
    number = 11
    object_key = md5(key + number.to_bytes(3, "little") + b"\0\0").digest()[:10]
    entries = (
        f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{owner.hex()}> /U <{_rc4(key, _PAD).hex()}> >>"
        f" /ID [<{b'0123456789abcdef'.hex()}> <{b'0123456789abcdef'.hex()}>]"
    )
    return plain.replace(content, _rc4(object_key, content)).replace(b"/Root", entries.encode() + b" /Root")


def test_a_password_opens_what_it_locks(renderer: Renderer, tmp_path: Path, name: RendererName) -> None:
    options = RenderOptions(renderer=name, ocr="off", passwords=("wrong", "sesame"), image="all")
    (page,) = pages(renderer, encrypted(tmp_path), options)
    assert page.text == "secret"


def test_a_locked_document_says_so_and_each_page_has_its_picture(
    renderer: Renderer, tmp_path: Path, name: RendererName
) -> None:
    options = RenderOptions(renderer=name, ocr="off", passwords=("sesame",), image="none", image_side=842)
    opened = renderer.pages(encrypted(tmp_path), "a", options)
    (page,) = opened
    assert (opened.locked, opened.renderer) == (True, name)
    assert isinstance(page, Page)
    assert_word_fills(picture_of(page), (72 / 595, 0.158, 106 / 595, 0.17), 0.01)
    assert page.drawn < DRAWN_THRESHOLD


def test_what_opens_without_the_password_given_is_not_locked(
    renderer: Renderer, tmp_path: Path, name: RendererName
) -> None:
    options = RenderOptions(renderer=name, ocr="off", passwords=("sesame",))
    for path in (many(tmp_path), write(tmp_path / "restricted.pdf", _locked(b""))):
        opened = renderer.pages(path, "a", options)
        first = next(iter(opened))
        assert not opened.locked
        assert isinstance(first, Page)
        assert first.image is None
        assert first.text in ("page1", "secret")


@pytest.mark.parametrize("passwords", [(), ("wrong-one",)])
def test_without_its_password_the_cure_is_named_and_no_password_told(
    renderer: Renderer, tmp_path: Path, name: RendererName, passwords: tuple[str, ...]
) -> None:
    options = RenderOptions(renderer=name, passwords=passwords)
    with pytest.raises(DocumentError, match="--password") as caught:
        renderer.pages(encrypted(tmp_path), "a", options)
    assert caught.value.reason is Reason.PASSWORD
    assert "wrong-one" not in f"{caught.value} {options!r}"


def test_a_pdf_without_pages_is_corrupt_whatever_was_opened_before(renderer: Renderer, tmp_path: Path) -> None:
    with pytest.raises(DocumentError):
        renderer.pages(encrypted(tmp_path), "a", NO_OCR)
    with pytest.raises(DocumentError) as caught:
        renderer.pages(write(tmp_path / "b.pdf", pdf_bytes([])), "b", NO_OCR)
    assert caught.value.reason is Reason.CORRUPT


@pytest.mark.parametrize(
    ("file", "data", "reason", "cure"),
    [
        ("a.pdf", b"", Reason.CORRUPT, "empty"),
        ("a.pdf", b"<!DOCTYPE html><html>", Reason.CORRUPT, "HTML page named .pdf"),
        ("a.pdf", b"plain words", Reason.CORRUPT, "does not begin as a .pdf"),
        ("a.png", b"", Reason.CORRUPT, "empty"),
        ("a.pdf", b"%PDF-1.7\nnothing", Reason.CORRUPT, "damaged"),
        ("a.docx", b"PK\x03\x04\x00\x00", Reason.UNSUPPORTED, "save it as PDF"),
        ("missing.pdf", None, Reason.MISSING, "check the path"),
    ],
)
def test_what_cannot_be_opened_says_why(
    renderer: Renderer, tmp_path: Path, file: str, data: bytes | None, reason: Reason, cure: str
) -> None:
    path = tmp_path / file
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DocumentError, match=cure) as caught:
        renderer.pages(path, "reports/a", NO_OCR)
    assert caught.value.reason is reason
    assert caught.value.document == "reports/a"


def test_a_missing_second_renderer_is_a_wrong_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = many(tmp_path)
    with Renderer() as renderer:
        with pytest.raises(UsageError, match="poppler-utils"):
            renderer.pages(path, "a", RenderOptions(renderer="poppler"))
        with pytest.raises(DocumentError, match="damaged"):
            renderer.pages(write(tmp_path / "b.pdf", b"%PDF-1.7 nothing"), "b")


@pytest.mark.parametrize(
    ("file", "data", "expected"),
    [
        ("a.bin", b"junk before\n%PDF-1.4", "application/pdf"),
        ("a.txt", b"\x89PNG\r\n\x1a\n", "image/png"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("a.tif", b"II*\x00", "image/tiff"),
        ("a.webp", b"RIFF0000WEBP", "image/webp"),
        ("a.md", b"# words", "text/markdown"),
        ("a.txt", b"", "text/plain"),
        ("a.txt", b"\xff\xfea\x00", "text/plain"),
        ("a.htm", b"<p>words", "text/html"),
        ("noname", b"<html><p>words", "text/html"),
    ],
)
def test_media_types_are_told_by_content(tmp_path: Path, file: str, data: bytes, expected: str) -> None:
    assert media_type(write(tmp_path / file, data)) == expected


# Images.


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def two_halves() -> Image.Image:
    picture = Image.new("RGB", (300, 200), (255, 0, 0))
    picture.paste((0, 0, 255), (150, 0, 300, 200))
    return picture


@pytest.mark.parametrize(("suffix", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("tiff", "TIFF"), ("webp", "WEBP")])
def test_an_image_is_a_page(renderer: Renderer, tmp_path: Path, suffix: str, kind: str) -> None:
    path = write(tmp_path / f"a.{suffix}", encoded(two_halves(), kind, dpi=(150, 150)))
    (page,) = pages(renderer, path, WITH_IMAGE)
    picture = picture_of(page)
    assert picture.size == (800, 533)
    assert np.allclose(picture.getpixel((100, 100)), (255, 0, 0), atol=6)
    assert np.allclose(picture.getpixel((700, 400)), (0, 0, 255), atol=6)
    assert (page.width, page.height) == pytest.approx((144, 96), abs=0.1)
    assert (page.drawn, page.text) == (1.0, "")


def test_an_image_is_turned_as_its_exif_says(renderer: Renderer, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90° clockwise: what is left comes to the top
    path = write(tmp_path / "a.jpg", encoded(two_halves(), "JPEG", exif=exif))
    (page,) = pages(renderer, path, WITH_IMAGE)
    assert page.height > page.width
    assert np.allclose(picture_of(page).getpixel((200, 100)), (255, 0, 0), atol=6)


def test_each_frame_of_a_tiff_is_a_page(renderer: Renderer, tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    first, *rest = [Image.new("RGB", (40 + n, 60), colour) for n, colour in enumerate(colours)]
    path = write(tmp_path / "a.tif", encoded(first, "TIFF", save_all=True, append_images=rest))
    assert [picture_of(page).getpixel((5, 5)) for page in pages(renderer, path, WITH_IMAGE)] == colours


def test_transparent_parts_are_white_and_16_bits_are_scaled(renderer: Renderer, tmp_path: Path) -> None:
    clear = write(tmp_path / "a.png", encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 0)), "PNG"))
    assert picture_of(pages(renderer, clear, WITH_IMAGE)[0]).getpixel((5, 5)) == (255, 255, 255)
    shades = np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)
    deep = write(tmp_path / "b.png", encoded(Image.fromarray(shades), "PNG"))
    picture = picture_of(pages(renderer, deep, WITH_IMAGE)[0])
    assert picture.getpixel((400, 5))[0] < 20  # type: ignore[index]
    assert picture.getpixel((400, 795))[0] > 235  # type: ignore[index]


def test_an_image_of_too_many_pixels_is_too_large(renderer: Renderer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", encoded(two_halves(), "PNG"))
    (error,) = renderer.pages(path, "a", RenderOptions(max_pixels=50_000))
    assert isinstance(error, DocumentError)
    assert (error.reason, error.page) == (Reason.TOO_LARGE, 1)


def test_a_truncated_image_is_corrupt(renderer: Renderer, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8))
    path = write(tmp_path / "a.png", encoded(noise, "PNG")[:5000])
    (error,) = renderer.pages(path, "a", WITH_IMAGE)
    assert isinstance(error, DocumentError)
    assert error.reason is Reason.CORRUPT


# Real files.


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "odd").is_dir(), reason="the evaluation data is not here")
@pytest.mark.parametrize("file", ["qpdf__bad35.pdf", "pdfjs__poppler-742-0-fuzzed.pdf"])
def test_what_pdfium_cannot_open_poppler_may(renderer: Renderer, file: str) -> None:
    opened = renderer.pages(DATA / "odd" / "pdfs" / file, file, NO_OCR)
    assert opened.renderer == "poppler"
    assert len(list(opened)) == opened.pages
