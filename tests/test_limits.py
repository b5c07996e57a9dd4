"""Files that want too much: each is held to its limits and named by its reason, and what comes after it is read.

And files that would do something: nothing of it is done.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from pdfs import image, pdf_bytes, rectangle, stream, text, write

from visrag import Index, IngestSettings, UsageError
from visrag.cli import main
from visrag.errors import DocumentError, Reason
from visrag.records import Page
from visrag.render import Renderer, RenderOptions
from visrag.settings import RendererName

MB = 1 << 20
NO_OCR = RenderOptions(ocr="off")
WALRUS = text(72, 700, "walrus")


@pytest.fixture
def renderer() -> Iterator[Renderer]:
    with Renderer() as renderer:
        yield renderer


def outcomes(renderer: Renderer, path: Path, options: RenderOptions) -> list[str]:
    """For each page its text, or its reason."""
    pages = renderer.pages(path, path.name, options)
    return [page.text if isinstance(page, Page) else page.reason.value for page in pages]


def swollen(megabytes: int) -> bytes:
    """A stream of so many MB of spaces, in some kB: packed twice."""
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(b" " * MB) for _ in range(megabytes)) + packer.flush()
    return stream(zlib.compress(packed, 9), "/Filter [/FlateDecode /FlateDecode]")


@contextmanager
def largest_child() -> Iterator[list[float]]:
    """The most memory, in MB, that any process below this one has while the block runs."""
    seen, done, this = [0.0], threading.Event(), psutil.Process()

    def look() -> None:
        while not done.wait(0.01):
            for process in this.children(recursive=True):
                try:
                    seen[0] = max(seen[0], process.memory_info().rss / 1e6)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
def test_a_page_that_swells_is_too_large_and_the_next_is_read(renderer: Renderer, tmp_path: Path) -> None:
    data = pdf_bytes(["BOMB", WALRUS]).replace(stream(b"BOMB"), swollen(500))
    path = write(tmp_path / "a.pdf", data)
    assert len(data) < 10_000
    with largest_child() as most:
        assert outcomes(renderer, path, RenderOptions(ocr="off", memory=150 * MB)) == ["too_large", "walrus"]
    assert most[0] < 300


@pytest.mark.slow
def test_a_page_is_not_blamed_for_memory_that_others_left(renderer: Renderer, tmp_path: Path, samples: Path) -> None:
    """OCR leaves its models. What the page swells by, some 240 MB, has room in a process without them."""
    (scan,) = renderer.pages(samples / "depot-letter-scan.pdf", "scan", RenderOptions())
    assert isinstance(scan, Page)
    left, reader = psutil.Process(renderer.pid).memory_info().rss, renderer.pid
    path = write(tmp_path / "a.pdf", pdf_bytes(["BOMB", WALRUS]).replace(stream(b"BOMB"), swollen(120)))
    assert outcomes(renderer, path, RenderOptions(ocr="off", memory=left + 100 * MB)) == ["", "walrus"]
    assert renderer.pid != reader


@pytest.mark.slow
def test_a_program_of_poppler_that_swells_is_bounded(renderer: Renderer, tmp_path: Path) -> None:
    pixels = image(b"\0" * 3, 20_000, 20_000)  # 1.2 GB of samples, of which three bytes are there
    path = write(
        tmp_path / "a.pdf",
        pdf_bytes(["q 500 0 0 500 0 0 cm /X0 Do Q", WALRUS], objects=[pixels], resources="/XObject << /X0 10 0 R >>"),
    )
    options = RenderOptions(ocr="off", renderer="poppler", memory=300 * MB)
    with largest_child() as most:
        assert outcomes(renderer, path, options)[1] == "walrus"
    assert most[0] < 300 + 1100


def black_square(side: int) -> bytes:
    """A PDF with an image of side × side black pixels, packed by JBIG2 into 65 bytes, and a page of text.

    Its JBIG2 is a page of black, and on it a generic region that ends before its first line.
    """

    def segment(number: int, kind: int, data: bytes) -> bytes:
        return struct.pack(">IBBBI", number, kind, 0, 1, len(data)) + data

    page = segment(0, 48, struct.pack(">IIIIBH", side, side, 0, 0, 0b100, 0))
    end_of_facsimile = b"\x00\x10\x01\x00\x10\x01"
    region = segment(1, 38, struct.pack(">IIIIBB", side, side, 0, 0, 0, 1) + end_of_facsimile)
    entries = f"/Type /XObject /Subtype /Image /Width {side} /Height {side} /ColorSpace /DeviceGray"
    square = stream(page + region, f"{entries} /BitsPerComponent 1 /Filter /JBIG2Decode")
    content = "q 500 0 0 500 0 0 cm /X0 Do Q"
    return pdf_bytes([content, WALRUS], objects=[square], resources="/XObject << /X0 10 0 R >>")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pdfium", "poppler"])
def test_a_jbig2_image_of_65535_by_65535_pixels_is_bounded(
    renderer: Renderer, tmp_path: Path, name: RendererName
) -> None:
    small = renderer.page_image(write(tmp_path / "a.pdf", black_square(100)), 1, 842, RenderOptions(renderer=name))
    assert small.getpixel((250, 600)) == (0, 0, 0)  # a smaller one is drawn
    path = write(tmp_path / "b.pdf", black_square(65_535))
    options = RenderOptions(renderer=name, memory=300 * MB, page_timeout=15)
    with largest_child() as most:
        square, walrus = outcomes(renderer, path, options)
    assert square in ("too_large", "timeout")  # poppler is killed amid it, or found to have been too large
    assert walrus == "walrus"
    assert most[0] < 300 + 1100


@pytest.mark.slow
def test_a_page_that_takes_forever_is_a_timeout_and_the_next_is_read(renderer: Renderer, tmp_path: Path) -> None:
    """Twelve forms, each of which draws the next one ten times."""
    box = "/Type /XObject /Subtype /Form /BBox [0 0 600 900]"
    forms = [
        stream(f"/F{n + 1} Do ".encode() * 10, f"{box} /Resources << /XObject << /F{n + 1} {11 + n} 0 R >> >>")
        for n in range(12)
    ]
    forms.append(stream(rectangle(0, 0, 1, 1).encode(), box))
    path = write(
        tmp_path / "a.pdf", pdf_bytes(["/F0 Do", WALRUS], objects=forms, resources="/XObject << /F0 10 0 R >>")
    )
    options = RenderOptions(ocr="off", image="all", image_side=100, page_timeout=8, memory=0)  # it swells, too
    assert outcomes(renderer, path, options) == ["timeout", "walrus"]


def test_a_page_of_too_many_words_is_too_large(renderer: Renderer, tmp_path: Path) -> None:
    lines = "".join(text(10, 830 - 8 * line, "tram stop " * 30, 4) for line in range(100))
    path = write(tmp_path / "a.pdf", pdf_bytes([lines, WALRUS]))
    assert outcomes(renderer, path, RenderOptions(ocr="off", max_words=5_999)) == ["too_large", "walrus"]
    assert len(outcomes(renderer, path, RenderOptions(ocr="off", max_words=6_000))[0].split()) == 6_000


def test_a_page_of_few_words_that_are_long_is_too_large(renderer: Renderer, tmp_path: Path) -> None:
    """Three words, of 45 characters with the spaces between."""
    path = write(tmp_path / "a.pdf", pdf_bytes([text(72, 700, " ".join(["tramstop", "x" * 20, "depot" * 3])), WALRUS]))
    crowded, walrus = renderer.pages(path, "a", RenderOptions(ocr="off", max_words=4))
    assert isinstance(crowded, DocumentError)
    assert isinstance(walrus, Page)
    assert crowded.reason is Reason.TOO_LARGE
    assert "has 45 characters, more than 10 for each of 4 words: raise the limit" in crowded.message
    assert len(outcomes(renderer, path, RenderOptions(ocr="off", max_words=5))[0]) == 45


@pytest.mark.slow
def test_unless_it_is_said_a_page_may_have_100_000_words(renderer: Renderer, tmp_path: Path) -> None:
    words = ["tram", "stop", "of", "the", "line"]  # pdfium drops what is drawn twice at about the same place
    lines = []
    for row in range(1_700):
        line = " ".join(words[(row * column) % 5] for column in range(1, 61))
        lines.append(f"1 0 0 1 2 {840 - 0.48 * row:.2f} Tm ({line}) Tj")
    path = write(tmp_path / "a.pdf", pdf_bytes(["BT /F1 2 Tf " + "\n".join(lines) + " ET", WALRUS]))
    crowded, walrus = renderer.pages(path, "a", NO_OCR)
    assert isinstance(crowded, DocumentError)
    assert isinstance(walrus, Page)
    assert "has 102000 words, more than 100000" in crowded.message


def claiming(count: int) -> bytes:
    """A PDF with one page that claims to have others."""
    return pdf_bytes([WALRUS]).replace(b"/Count 1 ", b"/Count %d " % count)


def test_a_document_of_too_many_pages_is_too_large(renderer: Renderer, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pdf", claiming(900_000))
    with pytest.raises(DocumentError, match="has 900000 pages, more than 50000") as caught:
        renderer.pages(path, "a", NO_OCR)
    assert caught.value.reason is Reason.TOO_LARGE
    path = write(tmp_path / "b.pdf", claiming(3))
    assert outcomes(renderer, path, NO_OCR) == ["walrus", "corrupt", "corrupt"]


@pytest.mark.parametrize("name", ["pdfium", "poppler"])
def test_a_page_of_2_147_483_648_points_is_read(renderer: Renderer, tmp_path: Path, name: RendererName) -> None:
    path = write(tmp_path / "a.pdf", pdf_bytes([WALRUS], size=(595, 2_147_483_648)))
    for ocr in ("off", "always"):
        options = RenderOptions(renderer=name, ocr=ocr, image="all", image_side=900)
        (page,) = renderer.pages(path, "a", options)
        assert isinstance(page, Page)
        assert (page.width, page.height) == pytest.approx((595, 2_147_483_648), rel=1e-5)
        assert page.image is not None
        assert page.image().size == (1, 900)


def nested_pages(depth: int) -> bytes:
    """A PDF whose one page lies under so many nodes of the page tree."""
    nodes = [b"<< /Type /Pages /Kids [%d 0 R] /Count 1 >>" % (11 + n) for n in range(depth)]
    nodes.append(b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 100 100] >>" % (9 + depth))
    return pdf_bytes([WALRUS], objects=nodes).replace(b"/Pages 2 0 R", b"/Pages 10 0 R")


def looping_table() -> bytes:
    """A PDF whose cross-reference table goes on with itself."""
    data = pdf_bytes([WALRUS])
    at = int(data[data.rindex(b"startxref") + 9 :].split()[0])
    return data.replace(b"/Root 1 0 R >>", b"/Root 1 0 R /Prev %d >>" % at)


def circular_pages() -> bytes:
    """A PDF whose page tree holds itself."""
    return pdf_bytes([WALRUS]).replace(b"/Kids [10 0 R]", b"/Kids [2 0 R 10 0 R]")


def circular_form() -> bytes:
    """A page that draws a form that draws itself."""
    itself = "/XObject << /F0 10 0 R >>"
    form = stream(b"/F0 Do", f"/Type /XObject /Subtype /Form /BBox [0 0 600 900] /Resources << {itself} >>")
    return pdf_bytes([WALRUS + "/F0 Do"], objects=[form], resources=itself)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (nested_pages(3_000), ["corrupt"]),
        (looping_table(), ["walrus"]),
        (circular_pages(), ["walrus"]),
        (circular_form(), ["walrus"]),
    ],
    ids=["deep", "table", "pages", "form"],
)
def test_what_goes_round_in_circles_ends(
    renderer: Renderer, tmp_path: Path, data: bytes, expected: Sequence[str]
) -> None:
    path = write(tmp_path / "a.pdf", data)
    assert outcomes(renderer, path, RenderOptions(ocr="off", image="all", page_timeout=20)) == expected


@pytest.mark.parametrize(
    "crop", [(600.0, 850.0, 700.0, 900.0), (10.0, 10.0, 10.0, 10.0)], ids=["beside-the-page", "empty"]
)
def test_a_page_that_its_crop_box_hides_is_shown_without_it(
    renderer: Renderer, tmp_path: Path, crop: tuple[float, float, float, float]
) -> None:
    path = write(tmp_path / "a.pdf", pdf_bytes([WALRUS], crop=crop))
    (page,) = renderer.pages(path, "a", NO_OCR)
    assert isinstance(page, Page)
    assert (page.width, page.height, page.text) == (595, 842, "walrus")
    assert page.words[0].boxes[0][0] == pytest.approx(72 / 595, abs=0.005)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page_timeout", float("nan")),
        ("page_timeout", 0.0),
        ("page_timeout", float("inf")),
        ("jobs", 0),
        ("memory", -1),
        ("max_pixels", 0),
        ("max_words", 0),
        ("max_pages", 0),
    ],
)
def test_a_limit_that_is_none_is_refused(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name}="):
        IngestSettings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "cure"),
    [("--page-timeout=nan", "page_timeout=nan"), ("--max-words=0", "--max-words"), ("--memory=1", "128")],
)
def test_the_command_refuses_a_limit_that_is_none(tmp_path: Path, option: str, cure: str) -> None:
    path = write(tmp_path / "a.pdf", pdf_bytes([WALRUS]))
    done = CliRunner().invoke(main, ["ingest", str(path), "--index", str(tmp_path / "index"), option])
    assert done.exit_code == 2
    assert cure in done.output
    assert not (tmp_path / "index").exists()


@pytest.mark.slow
def test_an_ingest_keeps_to_its_limits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pdf", pdf_bytes([text(72, 700, "one two three"), WALRUS]))
    with Index(tmp_path / "index", device="cpu") as index:
        (failure,) = index.ingest(path, settings=IngestSettings(ocr="off", max_words=2)).failures
        assert (failure.page, failure.reason) == (1, "too_large")
        assert index.retry(settings=IngestSettings(ocr="off", max_words=3)).failures == []
        (failure,) = index.ingest(path, settings=IngestSettings(ocr="auto", max_pages=1)).failures
        assert (failure.page, failure.reason) == (None, "too_large")
        assert index.documents()[0].indexed == 2  # what was there stays


# Files that would do something.


@pytest.mark.parametrize("name", ["pdfium", "poppler"])
def test_scripts_links_attachments_and_outside_files_are_left_alone(
    renderer: Renderer, tmp_path: Path, name: RendererName
) -> None:
    """Of what the file points to, a server is never called, a named pipe never opened, and a program never run."""
    pipe, mark = tmp_path / "outside", tmp_path / "mark"
    write(tmp_path / "run.sh", f"#!/bin/sh\ntouch {mark}\n".encode()).chmod(0o755)

    os.mkfifo(pipe)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        script = f"this.submitForm('{url}'); app.launchURL('{url}'); this.getURL('{url}')"
        objects = [
            f"<< /S /JavaScript /JS ({script.replace('(', '[').replace(')', ']')}) /Next 11 0 R >>".encode(),
            f"<< /S /Launch /F ({tmp_path}/run.sh) /Next 12 0 R >>".encode(),
            f"<< /S /URI /URI ({url}) /Next 13 0 R >>".encode(),
            f"<< /S /SubmitForm /F << /FS /URL /F ({url}) >> /Fields [] /Flags 4 >>".encode(),
            f"<< /Type /XObject /Subtype /Image /Width 2 /Height 2 /ColorSpace /DeviceRGB /BitsPerComponent 8"
            f" /Length 0 /F ({pipe}) >>\nstream\n\nendstream".encode(),
            f"<< /Type /XObject /Subtype /Image /Width 2 /Height 2 /ColorSpace /DeviceRGB /BitsPerComponent 8"
            f" /Length 0 /F << /FS /URL /F ({url}) >> >>\nstream\n\nendstream".encode(),
            b"<< /Type /Annot /Subtype /Link /Rect [0 0 595 842] /A 12 0 R /AA << /PO 10 0 R /PV 11 0 R >> >>",
            f"<< /Type /Filespec /F ({url}) /EF << /F 14 0 R >> >>".encode(),
        ]
        content = WALRUS + "q 99 0 0 99 0 0 cm /X0 Do Q q 99 0 0 99 200 0 cm /X1 Do Q"
        data = pdf_bytes([content], objects=objects, resources="/XObject << /X0 14 0 R /X1 15 0 R >>")
        acting = b"/OpenAction 10 0 R /AA << /WC 11 0 R >> /AcroForm << /Fields [] /XFA [] >>"
        names = b"/Names << /JavaScript << /Names [(a) 10 0 R] >> /EmbeddedFiles << /Names [(a) 17 0 R] >> >>"
        data = data.replace(b"/Type /Catalog", b"/Type /Catalog %s %s" % (acting, names))
        data = data.replace(b"/Type /Page /Parent", b"/Type /Page /Annots [16 0 R] /AA << /O 10 0 R >> /Parent")
        path = write(tmp_path / "a.pdf", data)
        options = RenderOptions(renderer=name, ocr="off", image="all", image_side=200, page_timeout=20)
        assert outcomes(renderer, path, options) == ["walrus"]  # opening the pipe would have been a timeout
        with pytest.raises(TimeoutError):
            server.accept()
    assert not mark.exists()
