"""Exported pages: highlights on the words, nothing that could act, pictures where files cannot be taken over."""

from __future__ import annotations

import io
import os
import random
import re
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pdfs
import pikepdf
import psutil
import pypdfium2
import pytest
from numpy.typing import NDArray
from pdf2image import convert_from_bytes
from PIL import Image

from visrag.annotate import Mark, MarkedPage, annotated_pdf, marks_of, quad
from visrag.errors import DocumentError, MissingExtra, Reason, UsageError
from visrag.pdf import PdfiumDocument
from visrag.records import Page, Region, Word

GREEN = Image.new("RGB", (200, 250), (0, 160, 0))
SIZE = (400.0, 500.0)
YELLOW = (255, 230, 128)  # white under yellow (1, 0.8, 0) at half opacity
Pixels = NDArray[np.int16]


def pdfium(data: bytes, page: int = 0) -> Pixels:
    """A page drawn by pdfium, at 2 pixels a point."""
    with pypdfium2.PdfDocument(data) as pdf:
        pdf.init_forms()
        return np.asarray(pdf[page].render(scale=2).to_pil().convert("RGB"), np.int16)


def poppler(data: bytes, page: int = 0) -> Pixels:
    """A page drawn by poppler, at 2 pixels a point."""
    pages = convert_from_bytes(data, dpi=144, first_page=page + 1, last_page=page + 1, use_cropbox=True)
    return np.asarray(pages[0].convert("RGB"), np.int16)


def edges(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is True."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def is_picture(data: bytes, page: int = 0) -> bool:
    """Whether a page is GREEN all over."""
    return bool((np.abs(pdfium(data, page) - np.array([0, 160, 0])) < 6).all())


def marked(path: Path | None, *marks: Mark, page: int = 1, image: Any = GREEN, size: Any = SIZE) -> MarkedPage:
    return MarkedPage("report.pdf", page, path, image, *size, marks)


def saved(data: bytes) -> bytes:
    """A PDF with its objects where its table says that they are."""
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(data)) as pdf:
        pdf.save(out)
    return out.getvalue()


def plain(data: bytes) -> bytes:
    """A PDF with every stream and object written out."""
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(data)) as pdf:
        pdf.save(out, qdf=True, object_stream_mode=pikepdf.ObjectStreamMode.disable)
    return out.getvalue()


@pytest.mark.parametrize("draw", [pdfium, poppler])
@pytest.mark.parametrize(
    ("rotate", "crop", "entries"),
    [
        (0, None, ""),
        (90, None, ""),
        (180, None, ""),
        (270, None, ""),
        (-90, (60, 40, 390, 460), ""),
        (90, (390, 460, 60, 40), ""),  # corners the other way round
        (180, (-50, 40, 330, 460), ""),  # beyond the media box
        (0, (60, 40, 390, 460), "/UserUnit 2"),
        (90, None, "/UserUnit 2"),
    ],
)
def test_a_highlight_lies_on_the_planted_word(
    draw: Callable[[bytes], Pixels], rotate: int, crop: Any, entries: str, tmp_path: Path
) -> None:
    content = "1 0 0 rg " + pdfs.text(110, 330, "planted", 20) + "0 g " + pdfs.text(190, 200, "other words", 20)
    data = pdfs.pdf_bytes([content], SIZE, rotate, crop)
    data = saved(data.replace(b"/Rotate", entries.encode() + b"/Rotate"))
    path = pdfs.write(tmp_path / "a.pdf", data)
    source = PdfiumDocument(path, "a.pdf", [])
    page, _ = source.content(1)
    source.close()
    boxes = next(word.boxes for word in page.words if word.text == "planted")
    result = annotated_pdf("?", [marked(path, Mark(boxes, "planted", 1.0), size=(page.width, page.height))])
    before, after = draw(data), draw(result)
    assert before.shape == after.shape
    changed = np.abs(after - before).max(axis=2) > 8
    ink = (before[..., 0] > 150) & (before[..., 1] < 100)
    assert np.abs(np.subtract(edges(changed), edges(ink))).max() <= 3
    white = changed & (before.min(axis=2) == 255)
    assert np.abs(np.median(after[white], axis=0) - YELLOW).max() <= 2
    assert (after[ink][:, 0] > 150).all()  # the word is still red
    with pypdfium2.PdfDocument(result) as pdf:
        assert "planted" in pdf[0].get_textpage().get_text_range()


def test_the_corners_of_a_box_under_rotation() -> None:
    shown = (-100.0, 50.0, 300.0, 550.0)  # 400 wide, 500 high
    box = (0.25, 0.2, 0.5, 0.3)
    assert quad(box, shown, 0) == pytest.approx((0, 450, 100, 450, 0, 400, 100, 400))
    assert quad(box, shown, 90) == pytest.approx((-20, 175, -20, 300, 20, 175, 20, 300))
    assert quad(box, shown, 180) == pytest.approx((200, 150, 100, 150, 200, 200, 100, 200))
    assert quad(box, shown, 270) == pytest.approx((220, 425, 220, 300, 180, 425, 180, 300))


def test_the_annotations_and_what_they_say(tmp_path: Path) -> None:
    path = pdfs.write(tmp_path / "a.pdf", pdfs.pdf_bytes([pdfs.text(50, 400, "Größe")], SIZE))
    two = Mark(((0.25, 0.2, 0.5, 0.3), (0.25, 0.4, 0.75, 0.5)), "zwei Zeilen: Größe 水\ud800", 2.5)
    result = annotated_pdf("Wie groß?", [marked(path, two, Mark(((0, 0, 0.1, 0.1),), "", 0.25)), marked(path)])
    with pikepdf.open(io.BytesIO(result)) as pdf:
        first, second = (annotation for annotation in pdf.pages[0].Annots)
        assert list(pdf.pages[1].get("/Annots", [])) == []
        assert (first.Subtype, first.T, first.F, first.P.objgen) == ("/Highlight", "visrag", 4, pdf.pages[0].objgen)
        quads = [100, 400, 200, 400, 100, 350, 200, 350, 100, 300, 300, 300, 100, 250, 300, 250]
        assert [float(value) for value in first.QuadPoints] == quads
        assert [float(value) for value in first.Rect] == [100, 250, 300, 400]
        assert [float(value) for value in first.C] == [1, 0.8, 0]
        assert float(first.CA) == 0.5
        assert first.AP.N.Resources.ExtGState.G.BM == "/Multiply"
        assert str(first.Contents) == "zwei Zeilen: Größe 水?\nevidence 1 of 2, score 2.500"
        assert str(second.Contents) == "evidence 2 of 2, score 0.250"
        assert str(pdf.docinfo["/Title"]) == "Wie groß?"
        with pdf.open_outline() as outline:
            assert [item.title for item in outline.root] == ["report.pdf, page 1", "report.pdf, page 1"]
    assert str(tmp_path).encode() not in plain(result)


def test_words_of_a_region_line_by_line() -> None:
    boxes = [(0.1, 0.1, 0.2, 0.12), (0.22, 0.105, 0.3, 0.125), (0.1, 0.13, 0.2, 0.15), (0.7, 0.13, 0.8, 0.15)]
    words = tuple(Word("word", 5 * index, (box,)) for index, box in enumerate(boxes))
    page = Page(1, 400, 500, "word word word word", words, "text_layer")
    regions = [Region((0.09, 0.1, 0.4, 0.145), 2.0, "word word word"), Region((0.5, 0.5, 0.6, 0.6), 1.0, "")]
    first, second, third = marks_of(page, [*regions, Region((0.0, 0.13, 0.9, 0.15), 0.5, "word word")])
    assert first == Mark(((0.1, 0.1, 0.3, 0.125), (0.1, 0.13, 0.2, 0.15)), "word word word", 2.0)
    assert second == Mark(((0.5, 0.5, 0.6, 0.6),), "", 1.0)
    assert third.boxes == ((0.1, 0.13, 0.2, 0.15), (0.7, 0.13, 0.8, 0.15))  # 0.5 apart: 200 points, the line is 10 high


DRAWING = pdfs.stream(b"0 0 1 rg 0 0 60 30 re f", "/Type /XObject /Subtype /Form /BBox [0 0 60 30]")
HOSTILE = [
    b"<< /S /JavaScript /JS (app.alert\\(1\\)) /Next 11 0 R >>",  # 10
    b"<< /Type /Action /S /Launch /F (calc.exe) >>",
    (
        b"<< /Type /Annot /Subtype /Link /Rect [50 50 90 90] /C [1 0 0] /Border [0 0 3] /A << /S /URI"
        b" /URI (http://evil.example/) >> /PA 11 0 R /Dest [13 0 R /Fit] /AA << /E 10 0 R >> >>"
    ),
    (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (field) /V (typed) /Rect [100 100 160 130] /AP << /N 14 0 R >>"
        b" /A 10 0 R /AA << /F 10 0 R >> >>"
    ),
    DRAWING,
    b"<< /Type /Annot /Subtype /FileAttachment /Rect [200 100 260 130] /FS 16 0 R /AP << /N 14 0 R >> >>",
    b"<< /Type /Filespec /F (payload.exe) /EF << /F 17 0 R >> >>",
    pdfs.stream(b"MZ payload", "/Type /EmbeddedFile"),
    pdfs.stream(
        b"0 1 0 rg 0 0 9 9 re f", "/Subtype /Form /BBox [0 0 9 9] /Ref << /F (http://evil.example/x) /Page 1 >>"
    ),
    b"<< /Type /Annot /Subtype /Square /Rect [300 100 360 130] /C [1 0 0] /Contents (kept) /A 10 0 R >>",
    b"<< /Type /Annot /Subtype /Text /F 2 /Rect [10 10 30 30] /RichMediaContent 16 0 R /Popup 10 0 R >>",
]
ANNOTATIONS = "/AA << /O 10 0 R >> /Annots [12 0 R 13 0 R 15 0 R 19 0 R 20 0 R] /AF [16 0 R] /Metadata 17 0 R"


def hostile() -> bytes:
    content = pdfs.text(50, 400, "text") + "q 1 0 0 1 200 200 cm /X Do Q"
    data = pdfs.pdf_bytes(
        [content], SIZE, objects=HOSTILE, resources="/XObject << /X 18 0 R >> /Properties << /P 16 0 R >>"
    )
    data = data.replace(b"/Type /Page /Parent", f"/Type /Page {ANNOTATIONS} /Parent".encode())
    catalog = b"/Type /Catalog /OpenAction 10 0 R /AA << /WC 10 0 R >> /AcroForm << /Fields [13 0 R] >> /Names <<"
    catalog += b" /JavaScript << /Names [(a) 10 0 R] >> /EmbeddedFiles << /Names [(b) 16 0 R] >> >>"
    return saved(data.replace(b"/Type /Catalog", catalog))


@pytest.mark.parametrize("draw", [pdfium, poppler])
def test_nothing_that_acts_is_taken_over_and_the_page_looks_the_same(
    draw: Callable[[bytes], Pixels], tmp_path: Path
) -> None:
    data = hostile()
    for word in (b"JavaScript", b"evil", b"payload", b"calc.exe"):
        assert word in plain(data)
    path = pdfs.write(tmp_path / "a.pdf", data)
    result = annotated_pdf("?", [marked(path)])
    words = b"JavaScript|/JS|evil|/URI|payload|calc|Launch|OpenAction|/AA|/A |AcroForm|Filespec|/Ref|typed|Widget"
    assert re.findall(words, plain(result)) == []
    assert (draw(data) == draw(result)).all()
    with pikepdf.open(io.BytesIO(result)) as pdf:
        assert [str(each.Subtype) for each in pdf.pages[0].Annots] == ["/Link", "/Square", "/Text"]
        assert set(pdf.pages[0].Annots[0].keys()) == {"/Type", "/Subtype", "/Rect", "/C", "/Border"}
        assert str(pdf.pages[0].Annots[1].Contents) == "kept"


@pytest.mark.parametrize("draw", [pdfium, poppler])
def test_hidden_layers_stay_hidden(draw: Callable[[bytes], Pixels], tmp_path: Path) -> None:
    square = pdfs.rectangle
    content = f"/OC /Off BDC {square(50, 50, 99, 99)} EMC /OC /On BDC {square(200, 200, 99, 99, '0 0 1')} EMC"
    layers = [b"<< /Type /OCG /Name (off) >>", b"<< /Type /OCG /Name (on) >>"]
    data = pdfs.pdf_bytes([content], SIZE, objects=layers, resources="/Properties << /Off 10 0 R /On 11 0 R >>")
    state = b"/Type /Catalog /OCProperties << /OCGs [10 0 R 11 0 R] /D << /BaseState /OFF /ON [11 0 R] >> >>"
    data = saved(data.replace(b"/Type /Catalog", state))
    paths = [pdfs.write(tmp_path / name, data) for name in ("a.pdf", "b.pdf")]
    result = annotated_pdf("?", [marked(path) for path in paths])
    for page in (0, 1):
        assert (draw(result, page) == draw(data)).all()
    assert (draw(result)[::50, ::50].min(axis=2) == 0).sum() == 12  # 3 by 4 points of the blue square, none of the red


@pytest.mark.parametrize(("user", "extract", "taken"), [("secret", True, False), ("", False, False), ("", True, True)])
def test_encrypted_files(user: str, extract: bool, taken: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    with pikepdf.open(io.BytesIO(pdfs.pdf_bytes([pdfs.text(50, 400, "text")], SIZE))) as pdf:
        pdf.save(
            path, encryption=pikepdf.Encryption(owner="owner", user=user, allow=pikepdf.Permissions(extract=extract))
        )
    result = annotated_pdf("?", [marked(path)])
    assert is_picture(result) is not taken
    with pypdfium2.PdfDocument(result) as opened:
        assert opened[0].get_textpage().get_text_range() == ("text" if taken else "")


def test_what_cannot_be_taken_over_is_a_picture_and_the_rest_goes_on(tmp_path: Path) -> None:
    data = pdfs.pdf_bytes([pdfs.text(50, 400, "text")], SIZE)
    good = pdfs.write(tmp_path / "good.pdf", data)
    pages = [marked(pdfs.write(tmp_path / "cut.pdf", data[:-200])), marked(good, page=7), marked(tmp_path / "none.pdf")]
    pages += [marked(pdfs.write(tmp_path / "zip.pdf", b"PK\x03\x04" + data[:40])), marked(None, image=lambda: GREEN)]
    pages += [marked(good, size=(500.0, 400.0))]
    result = annotated_pdf("?", [*pages, marked(pdfs.write(tmp_path / "other.pdf", data))])
    assert [is_picture(result, number) for number in range(7)] == [True] * 6 + [False]


def test_a_highlight_on_a_picture() -> None:
    result = annotated_pdf(
        "?", [marked(None, Mark(((0.5, 0.5, 1, 1),), "", 1.0), image=Image.new("L", (80, 100), 255))]
    )
    for draw in (pdfium, poppler):
        drawn = draw(result)
        assert drawn.shape == (1000, 800, 3)
        assert np.abs(drawn[505:, 405:] - YELLOW).max() <= 2
        assert (drawn[:495] == 255).all()
        assert (drawn[:, :395] == 255).all()


def test_mutated_files_are_pictures_or_look_as_they_did(tmp_path: Path) -> None:
    chance = random.Random(5)
    data = hostile()
    pages, expected = [], []
    for index in range(24):
        mutated = bytearray(data)
        for _ in range(chance.choice([1, 3, 20])):
            mutated[chance.randrange(len(data))] = chance.randrange(256)
        try:
            looks = pdfium(bytes(mutated))
        except pypdfium2.PdfiumError:
            continue
        size = looks.shape[1] / 2, looks.shape[0] / 2
        pages.append(marked(pdfs.write(tmp_path / f"{index}.pdf", bytes(mutated)), size=size))
        expected.append(looks)
    result = annotated_pdf("?", pages)
    same = [np.array_equal(pdfium(result, number), looks) for number, looks in enumerate(expected)]
    assert all(one or is_picture(result, number) for number, one in enumerate(same))
    assert 3 <= sum(same) < len(same)


@pytest.mark.slow
def test_a_file_that_hangs_is_given_up(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.pdf"
    os.mkfifo(pipe)  # nobody writes: to open it takes for ever
    good = pdfs.write(tmp_path / "good.pdf", pdfs.pdf_bytes([""], SIZE))
    start = time.monotonic()
    result = annotated_pdf("?", [marked(pipe), marked(good)], timeout=40)
    assert 10 <= time.monotonic() - start < 30  # it gets a quarter of the time
    assert [is_picture(result, number) for number in (0, 1)] == [True, False]
    assert [child for child in psutil.Process().children() if "visrag.annotate" in " ".join(child.cmdline())] == []


def test_a_bomb_of_memory_is_given_up(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    head = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = pdfs.stream(head + block * 1500, "/Filter /FlateDecode")
    data = pdfs.pdf_bytes([""], SIZE, objects=[bomb], resources="/XObject << /X 10 0 R >>")
    data = re.sub(rb"/Contents \d+ 0 R", b"/Contents 10 0 R", data)
    path = pdfs.write(tmp_path / "bomb.pdf", data)
    assert is_picture(annotated_pdf("?", [marked(path)]))


def test_a_page_with_neither_file_nor_picture_says_so(tmp_path: Path) -> None:
    def broken() -> Image.Image:
        raise DocumentError("report.pdf", 1, Reason.MISSING, "is gone")

    result = annotated_pdf("?", [marked(None, image=None), marked(tmp_path / "gone.pdf", image=broken)])
    with pypdfium2.PdfDocument(result) as pdf:
        says = [page.get_textpage().get_text_range() for page in pdf]
    assert says == ["report.pdf, page 1 could not be read for this export."] * 2


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="at least one page"):
        annotated_pdf("?", [])
    with pytest.raises(DocumentError, match="fewer at a time"):
        annotated_pdf("?", [marked(None)], timeout=0)
    monkeypatch.setitem(sys.modules, "pikepdf", None)
    with pytest.raises(MissingExtra, match=r"visrag\[server\]"):
        annotated_pdf("?", [marked(None)])
