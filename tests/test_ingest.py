"""The write path, with the real renderer, encoder and store."""

from __future__ import annotations

import contextlib
import io
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pypdfium2
import pytest
from pdfs import pdf_bytes, rectangle, text, write
from PIL import Image, ImageDraw, ImageFont

from visrag import Index, IngestSettings, NotFound, UsageError
from visrag.encode.text import TextEncoder
from visrag.encoders import Encoders
from visrag.errors import EncoderError
from visrag.ingest import Silent, ingest
from visrag.records import Page, PageRef, PatchVectors, QueryVectors
from visrag.settings import RendererName
from visrag.sources import Source, find_sources
from visrag.store import local
from visrag.store.local import LocalStore

NO_OCR = IngestSettings(ocr="off", jobs=1)


def pdf(path: Path, *pages: str) -> Path:
    return write(path, pdf_bytes([text(72, 700, page) for page in pages]))


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load(device="cpu")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "index")


def found(index: Index, question: str) -> list[tuple[str, int]]:
    return [(hit.document, hit.page) for hit in index.search(question, rank="fulltext")]


def test_the_same_again_is_free_and_changed_replaces(index: Index, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", "walrus on the first page", "heron on the second")
    with index:
        first = index.ingest(file, settings=NO_OCR)
        assert (first.documents, first.pages, first.unchanged, first.failures) == (1, 2, 0, [])
        assert first.peak_memory_mb > 50
        again = index.ingest(file, settings=NO_OCR)
        assert (again.documents, again.pages, again.unchanged) == (0, 0, 1)
        pdf(file, "only an otter")
        changed = index.ingest(file, settings=NO_OCR)
        assert (changed.documents, changed.pages) == (1, 1)
        assert found(index, "otter") == [("a.pdf", 1)]
        assert found(index, "walrus") == []
        assert [(d.name, d.pages, d.state) for d in index.documents()] == [("a.pdf", 1, "indexed")]
        assert len(list((index.path / "originals").iterdir())) == 1


def test_an_ingest_that_replaces_most_gives_the_bytes_back(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WORTH", 10_000)

    def size() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "index" / "vectors").iterdir())

    with index:
        file = pdf(tmp_path / "a.pdf", *["a walrus and a heron " * 20] * 6)
        index.ingest(file, settings=NO_OCR)
        before = size()
        index.ingest(pdf(tmp_path / "b.pdf", "a newt"), settings=NO_OCR)
        assert size() > before  # nothing was replaced
        index.ingest(pdf(file, "an otter"), settings=NO_OCR)
        assert size() < before / 3
        assert {document.indexed for document in index.documents()} == {1}
        assert found(index, "otter")[0] == ("a.pdf", 1)


class Filling(Silent):
    """Lets no file grow beyond a size once a document is in."""

    def finish(self, source: Source) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_bytes_that_cannot_be_given_back_cost_an_ingest_nothing(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "WORTH", 10_000)
    kept = pdf(tmp_path / "a.pdf", *["a walrus and a heron " * 20] * 4)
    file = pdf(tmp_path / "b.pdf", *["a walrus and a heron " * 20] * 8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with index:
        index.ingest(kept, file, settings=NO_OCR)
        try:
            summary = index.ingest(pdf(file, "an otter"), progress=Filling(), settings=NO_OCR)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert (summary.documents, summary.pages, summary.failures) == (1, 1, [])
        assert found(index, "otter") == [("b.pdf", 1)]
        assert index.check().orphans == []
        assert index.compact() > 100_000  # what was not given back then


def test_other_settings_make_other_pages(index: Index, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", "walrus")
    with index:
        index.ingest(file, settings=NO_OCR)
        assert index.ingest(file, settings=IngestSettings(ocr="off", renderer="poppler")).documents == 1


def test_what_fails_is_recorded_and_the_rest_goes_on(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pdf(folder / "good.pdf", "walrus")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    (folder / "page.pdf").write_text("<!doctype html><html>not a PDF</html>")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n but no picture")
    with index:
        summary = index.ingest(folder, settings=NO_OCR)
        assert summary.documents == 4
        assert {(f.document, f.page, f.reason) for f in summary.failures} == {
            ("broken.pdf", None, "corrupt"),
            ("page.pdf", None, "corrupt"),
            ("picture.png", None, "corrupt"),
        }
        assert set(index.failures()) == set(summary.failures)
        assert {d.name: d.state for d in index.documents()}["good.pdf"] == "indexed"
        assert {d.name: d.state for d in index.documents()}["broken.pdf"] == "failed"
        assert found(index, "walrus") == [("good.pdf", 1)]


def test_retry_takes_a_mended_file(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "a.pdf"
    file.write_bytes(b"%PDF-1.7 and nothing else")
    with index:
        index.ingest(file, tags={"year": "2024"}, settings=NO_OCR)
        pdf(file, "walrus")
        assert index.retry(settings=NO_OCR).failures == []
        assert index.failures() == []
        assert index.documents()[0].tags == {"year": "2024"}
        assert found(index, "walrus") == [("a.pdf", 1)]


def test_retry_takes_no_page_that_is_there(index: Index, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", "walrus " * 5, "heron " * 9, "otter")

    def at_most(words: int) -> IngestSettings:
        return replace(NO_OCR, max_words=words)

    with index:
        assert [(f.page, f.reason) for f in index.ingest(file, settings=at_most(8)).failures] == [(2, "too_large")]
        told = index.failures()
        summary = index.retry(settings=at_most(4))
        assert [failure.page for failure in summary.failures] == [1, 2]
        assert all(failure.message.endswith("; the document stays as it was") for failure in summary.failures)
        assert (summary.pages, index.failures(), found(index, "walrus")) == (0, told, [("a.pdf", 1)])
        assert index.retry(settings=at_most(8)).pages == 2  # what failed before may fail again
        assert index.retry(settings=at_most(9)).failures == []
        assert found(index, "heron") == [("a.pdf", 2)]
        other = replace(at_most(4), ocr="auto")  # other settings make other pages
        assert index.ingest(file, settings=other).pages == 1
        assert [failure.page for failure in index.failures()] == [1, 2]


def test_sync_removes_what_has_gone_from_the_folder_only(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    pdf(folder / "a.pdf", "walrus")
    pdf(folder / "sub" / "b.pdf", "heron")
    other = pdf(tmp_path / "c.pdf", "otter")
    with index:
        index.ingest(folder, other, settings=NO_OCR)
        assert [d.name for d in index.documents()] == ["a.pdf", "c.pdf", "sub/b.pdf"]
        (folder / "a.pdf").unlink()
        assert index.ingest(folder, settings=NO_OCR).removed == 0
        assert index.ingest(folder, sync=True, settings=NO_OCR).removed == 1
        assert [d.name for d in index.documents()] == ["c.pdf", "sub/b.pdf"]


def test_a_scan_is_read_and_ocr_can_be_off(index: Index, samples: Path) -> None:
    letter = samples / "depot-letter-scan.pdf"
    with index:
        index.ingest(letter)
        (hit,) = index.search("depot", rank="fulltext")
        assert "depot" in hit.text.lower()
        index.ingest(letter, settings=NO_OCR)
        assert index.search("depot", rank="fulltext") == []
        assert index.documents()[0].state == "indexed"  # a page without vectors, not a failure


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "webp"])
def test_images_are_documents_of_one_page(index: Index, tmp_path: Path, kind: str) -> None:
    picture = Image.new("RGB", (900, 400), "white")
    ImageDraw.Draw(picture).text((60, 150), "Walrus feeding times", "black", ImageFont.load_default(60))
    picture.save(tmp_path / f"notice.{kind}")
    with index:
        assert index.ingest(tmp_path / f"notice.{kind}").failures == []
        assert found(index, "walrus") == [(f"notice.{kind}", 1)]


def test_text_documents(index: Index, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a walrus\n" * 200)
    (tmp_path / "b.md").write_text("# Birds\n\nA *heron* stands.\n")
    (tmp_path / "c.html").write_text("<html><script>otter()</script><p>A beaver swims.</p></html>")
    with index:
        assert index.ingest(*(tmp_path / name for name in ("a.txt", "b.md", "c.html"))).failures == []
        long, *short = index.documents()
        assert (long.name, long.pages > 1) == ("a.txt", True)
        assert [(document.name, document.pages) for document in short] == [("b.md", 1), ("c.html", 1)]
        assert found(index, "heron") == [("b.md", 1)]
        assert found(index, "beaver") == [("c.html", 1)]
        assert found(index, "otter") == []
        assert index.page_image("b.md", 1).size == (1131, 1600)


def encrypted(path: Path, password: str, *contents: str) -> Path:
    """A PDF that asks for a password, made by pikepdf's qpdf."""
    pikepdf = pytest.importorskip("pikepdf")
    plain = io.BytesIO(pdf_bytes(contents))
    with pikepdf.open(plain) as document:
        document.save(path, encryption=pikepdf.Encryption(user=password, owner=password))
    return path


@pytest.mark.parametrize("renderer", ["pdfium", "poppler"])
def test_password(index: Index, tmp_path: Path, renderer: RendererName) -> None:
    if renderer == "poppler" and shutil.which("pdftoppm") is None:
        pytest.skip("poppler-utils is not installed")
    file = encrypted(tmp_path / "locked.pdf", "s3same-0pen", text(72, 700, "a secret walrus"))
    with index:
        (failure,) = index.ingest(file, settings=IngestSettings(ocr="off", renderer=renderer)).failures
        assert failure.reason == "password"
        wrong = IngestSettings(ocr="off", renderer=renderer, passwords=("not-this-0ne",))
        (failure,) = index.ingest(file, settings=wrong).failures
        assert "not-this" not in failure.message
        right = IngestSettings(ocr="off", renderer=renderer, passwords=("not-this-0ne", "s3same-0pen"))
        assert index.ingest(file, settings=right).failures == []
        assert found(index, "walrus") == [("locked.pdf", 1)]
        picture = index.page_image("locked.pdf", 1, 800)  # from the one kept at ingest
        assert picture.size == (566, 800)
        words = (65, 115, 160, 140)
        assert picture.convert("L").crop(words).getextrema()[0] < 100
        lit = index.highlight("walrus", "locked.pdf", 1, side=800).image
        assert lit.crop(words).tobytes() != picture.crop(words).tobytes()
        (failure,) = index.ingest(file, settings=IngestSettings(ocr="auto", renderer=renderer)).failures
        assert failure.reason == "password"  # other settings would make other pages, but what is there stays
        assert found(index, "walrus") == [("locked.pdf", 1)]
    for kept in index.path.rglob("*"):
        if kept.is_file():
            assert b"s3same-0pen" not in kept.read_bytes()


def test_link_keeps_no_copy(index: Index, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", "walrus")
    with index:
        index.ingest(file, settings=IngestSettings(ocr="off", link=True))
        assert list((index.path / "originals").iterdir()) == []
        assert index.page_image("a.pdf", 1, 842).size == (595, 842)
        file.unlink()
        with pytest.raises(NotFound, match="put it back"):
            index.page_image("a.pdf", 1)


def test_names(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / ".hidden").mkdir(parents=True)
        pdf(tmp_path / folder / "a.pdf", "x")
        pdf(tmp_path / folder / ".hidden" / "b.pdf", "x")
        (tmp_path / folder / "notes.docx").write_bytes(b"x")
    assert [source.name for source in find_sources([tmp_path])] == ["one/a.pdf", "two/a.pdf"]
    with pytest.raises(UsageError, match=r"would both be named a\.pdf"):
        find_sources([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(UsageError, match="no such file"):
        find_sources([tmp_path / "three"])


class Fussy:
    """The real encoder, but it fails on a page with a certain word."""

    needs_image = False

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self.legs = encoder.legs
        self.encode_query = encoder.encode_query

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        if any("walrus" in page.text for page in pages):
            raise EncoderError("no walruses")
        return self._encoder.encode_pages(pages)


def test_a_page_that_cannot_be_encoded_costs_no_other(tmp_path: Path, encoder: TextEncoder) -> None:
    file = pdf(tmp_path / "a.pdf", "heron", "walrus", "otter")
    levels = {leg.name: (0.0, 0.0) for leg in encoder.legs}
    with LocalStore.open(tmp_path / "index", create=True) as store:
        summary = ingest(store, Encoders(Fussy(encoder), None, levels), find_sources([file]), NO_OCR)
        assert [(f.page, f.reason, f.message) for f in summary.failures] == [(2, "encoder", "no walruses")]
        (document,) = store.documents()
        assert (document.state, document.pages, document.indexed, document.failed) == ("partial", 3, 2, 1)


class Watching:
    """A vision encoder that gives no vectors and remembers the pages that it was shown."""

    needs_image = True
    legs = ()

    def __init__(self) -> None:
        self.seen: list[int] = []

    def encode_query(self, text: str) -> dict[str, QueryVectors]:
        return {}

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        self.seen += [page.number for page in pages]
        return [{} for _ in pages]


def test_pages_of_a_locked_document_are_routed_as_others_and_all_their_pictures_kept(
    tmp_path: Path, encoder: TextEncoder
) -> None:
    chart = text(72, 700, "chart") + rectangle(100, 100, 300, 300, "0.2 0.4 0.6")
    file = encrypted(tmp_path / "a.pdf", "s3same-0pen", text(72, 700, "words"), chart, "")
    levels = {leg.name: (0.0, 0.0) for leg in encoder.legs}
    vision = Watching()
    settings = IngestSettings(ocr="off", jobs=1, passwords=("s3same-0pen",))
    with LocalStore.open(tmp_path / "index", create=True) as store:
        assert ingest(store, Encoders(encoder, vision, levels), find_sources([file]), settings).failures == []
        assert vision.seen == [2]
        assert all(store.image_path(PageRef("a.pdf", number)) for number in (1, 2, 3))


class Rewriting(Silent):
    """Rewrites a file when its first page is done."""

    def page(self, source: Source, pages: int) -> None:
        pdf(source.path, "another", "content", "altogether")


def test_a_file_that_changes_while_it_is_read_is_not_half_of_each(index: Index, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", "walrus", "heron")
    with index:
        (failure,) = index.ingest(file, progress=Rewriting(), settings=NO_OCR).failures
        assert (failure.page, failure.reason) == (None, "missing")
        assert "while it was read" in failure.message
        assert found(index, "walrus") == []
        assert index.ingest(file, settings=NO_OCR).pages == 3
        (failure,) = index.ingest(pdf(file, "heron"), progress=Rewriting(), settings=NO_OCR).failures
        assert failure.reason == "missing"
        assert index.documents()[0].indexed == 3  # what was there is still there


class Removing(Silent):
    """Has another process remove a document when a page of it is done."""

    def __init__(self, index: Path) -> None:
        self._index = index

    def page(self, source: Source, pages: int) -> None:
        if source.name == "a.pdf":
            with LocalStore.open(self._index) as other, contextlib.suppress(NotFound):
                other.remove("a.pdf")


def test_a_document_that_is_removed_while_it_is_read_costs_no_other(tmp_path: Path, encoder: TextEncoder) -> None:
    files = [pdf(tmp_path / "a.pdf", "walrus", "heron", "otter"), pdf(tmp_path / "b.pdf", "newt")]
    encoders = Encoders(encoder, None, {leg.name: (0.0, 0.0) for leg in encoder.legs}, batch=1)
    with LocalStore.open(tmp_path / "index", create=True) as store:
        summary = ingest(store, encoders, find_sources(files), NO_OCR, progress=Removing(tmp_path / "index"))
        (failure,) = summary.failures
        assert (failure.document, failure.page, failure.reason) == ("a.pdf", None, "missing")
        assert "was removed from the index while it was read: ingest it again" in failure.message
        assert [(document.name, document.state) for document in store.documents()] == [("b.pdf", "indexed")]


class Interrupting(Silent):
    """Ctrl-C once the first document is done."""

    def finish(self, source: Source) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_loses_nothing_that_was_done(index: Index, tmp_path: Path) -> None:
    for i in range(6):
        pdf(tmp_path / f"{i}.pdf", f"walrus {i}")
    files = [tmp_path / f"{i}.pdf" for i in range(6)]
    with index:
        with pytest.raises(KeyboardInterrupt):
            index.ingest(*files, progress=Interrupting(), settings=NO_OCR)
        states = {document.state for document in index.documents()}
        assert states == {"indexed"}
        assert len(index.documents()) == 1
        assert index.ingest(*files, settings=NO_OCR).unchanged == 1
        assert len(index.documents()) == 6


def test_a_page_without_text_is_indexed_without_vectors(index: Index, tmp_path: Path) -> None:
    file = write(tmp_path / "blank.pdf", pdf_bytes(["", text(72, 700, "walrus")]))
    with index:
        index.ingest(file)
        (document,) = index.documents()
        assert (document.state, document.indexed) == ("indexed", 2)
        assert [hit.page for hit in index.search("walrus")] == [2]


def test_pages_are_those_of_the_file(samples_index: Index, samples: Path) -> None:
    for document in samples_index.documents():
        if document.name.endswith(".pdf"):
            with pypdfium2.PdfDocument(samples / document.name) as opened:
                assert document.pages == document.indexed == len(opened)


def test_poppler_reads_what_pdfium_does(index: Index, samples: Path) -> None:
    if shutil.which("pdftoppm") is None:
        pytest.skip("poppler-utils is not installed")
    with index:
        index.ingest(samples / "harrowmere-annual-report.pdf", settings=IngestSettings(renderer="poppler", ocr="off"))
        assert index.documents()[0].renderer == "poppler"
        assert index.search("How many million journeys were made on Line 2?")[0].page == 3
        assert index.page_image("harrowmere-annual-report.pdf", 3, 1000).size == (708, 1000)


def test_watch_gives_what_is_complete(tmp_path: Path) -> None:
    from visrag.watch import arrivals

    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if 3 <= now[0] < 3.5:
            (tmp_path / "b.pdf").write_bytes(b"half")
        if 4 <= now[0] < 4.5:
            (tmp_path / "b.pdf").write_bytes(b"half and whole")

    pdf(tmp_path / "a.pdf", "x")
    lots = arrivals(tmp_path, settled=2.0, sleep=sleep, clock=lambda: now[0])
    assert [source.name for source in next(lots)] == ["a.pdf"]
    assert now[0] == pytest.approx(2.0)
    assert [source.name for source in next(lots)] == ["b.pdf"]
    assert now[0] >= 6.0
