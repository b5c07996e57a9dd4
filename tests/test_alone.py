"""The queue without a broker: from an upload to a document that is found, and what goes wrong on the way."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from checkpoints import make_checkpoint
from pdfs import pdf_bytes, text, write

from visrag import Index, IngestSettings, alone
from visrag.alone import Alone
from visrag.errors import UsageError
from visrag.records import Document, Order, PageRef
from visrag.settings import ModelSettings
from visrag.steps import options_of
from visrag.store.local import LocalStore
from visrag.uploads import Uploads, retry_order, upload_order

NO_OCR = IngestSettings(ocr="off")
SOON = 60.0  # seconds for a small document


class Place:
    """An index, and the process that works for it."""

    def __init__(self, folder: Path, model: Path, passwords: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.store = LocalStore.open(folder, create=True)
        self.uploads = Uploads(str(folder))
        self.alone = Alone(str(folder), ModelSettings(str(model), device="cpu"), passwords=passwords, lease=3.0)

    def upload(self, name: str, data: bytes, tags: dict[str, str] | None = None) -> None:
        with self.uploads.part() as part:
            part.write_bytes(data)
            self.store.enqueue([upload_order(name, self.uploads.keep(part, name), NO_OCR, tags)])
        self.alone.wake()

    def wait(self, name: str) -> Document:
        """The document, once it has left the queue."""
        until(lambda: name not in [job.order.name for job in self.store.jobs()])
        found = self.store.document(name)
        assert found is not None
        return found

    def close(self) -> None:
        self.alone.close()
        self.store.close()


def until(done: Callable[[], bool], seconds: float = SOON) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("ColBERT", tmp_path_factory.mktemp("models") / "text")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("alone") / "index", model, ("tide",))
    try:
        yield found
    finally:
        found.close()


def pdf(*lines: str) -> bytes:
    return pdf_bytes([text(72, 700, line) for line in lines])


def test_an_upload_is_found(place: Place) -> None:
    place.upload("trams.pdf", pdf("The tram has 61 seats", "The depot is closed"), {"year": "2024"})
    done = place.wait("trams.pdf")
    assert (done.state, done.pages, done.indexed, done.tags) == ("indexed", 2, 2, {"year": "2024"})
    with Index(place.folder, device="cpu") as index:
        assert [(hit.document, hit.page) for hit in index.search("depot", k=1, rank="fulltext")] == [("trams.pdf", 2)]
        assert index.search("depot", k=1)[0].document == "trams.pdf"


def test_text_is_known_by_the_name_that_it_was_given(place: Place) -> None:
    place.upload("notes.md", b"# Orchard\n\nThe *apples* are red.\n")
    done = place.wait("notes.md")
    assert (done.state, done.media_type) == ("indexed", "text/markdown")
    assert "*" not in place.store.page(PageRef("notes.md", 1)).text


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("page.pdf", b"<!doctype html><html><body>Not found</body></html>", "corrupt"),
        ("empty.pdf", b"", "corrupt"),
        ("archive.zip", b"PK\x03\x04" + bytes(100), "unsupported"),
        ("broken.pdf", b"%PDF-1.7\n" + bytes(range(256)), "corrupt"),
    ],
)
def test_an_odd_file_is_a_failure_with_its_reason(place: Place, name: str, data: bytes, reason: str) -> None:
    place.upload(name, data)
    assert place.wait(name).state == "failed"
    assert [(failure.page, failure.reason) for failure in place.store.failures(name)] == [(None, reason)]
    assert place.alone.alive


def test_a_locked_file_opens_with_the_passwords(place: Place, tmp_path: Path) -> None:
    import pikepdf

    with pikepdf.open(write(tmp_path / "plain.pdf", pdf("secret"))) as opened:
        opened.save(tmp_path / "locked.pdf", encryption=pikepdf.Encryption(user="tide", owner="tide"))
    place.upload("locked.pdf", (tmp_path / "locked.pdf").read_bytes())
    assert place.wait("locked.pdf").state == "indexed"
    process = psutil.Process(place.alone.pid)
    assert "tide" not in " ".join(process.cmdline()) + " ".join(process.environ().values())


def test_a_document_is_read_once_more(place: Place) -> None:
    data = pdf("page 1", "page 2", "page 3").replace(b"/Kids [", b"/Kids [ 99 0 R ", 1)
    place.upload("partial.pdf", data)
    before = place.wait("partial.pdf")
    assert (before.state, before.pages, before.indexed, before.failed) == ("partial", 3, 2, 1)
    first = place.store.page(PageRef("trams.pdf", 1))
    for name in ("partial.pdf", "trams.pdf"):
        place.store.enqueue([retry_order(place.store, place.uploads, name, NO_OCR)])
        place.alone.wake()
        place.wait(name)
    assert place.store.document("partial.pdf") == before
    assert place.store.page(PageRef("trams.pdf", 1)) == first
    assert place.wait("trams.pdf").tags == {"year": "2024"}


def test_what_another_process_puts_into_the_queue_is_found(place: Place, tmp_path: Path) -> None:
    file = write(tmp_path / "other.pdf", pdf("Kestrel"))
    with LocalStore.open(place.folder) as other:
        other.enqueue([Order("other.pdf", str(file), options_of(NO_OCR))])
    done = place.wait("other.pdf")
    assert (done.state, done.path) == ("indexed", str(file))


@pytest.mark.slow
def test_a_file_that_does_not_rest_keeps_no_other_waiting(place: Place, tmp_path: Path) -> None:
    file = write(tmp_path / "restless.pdf", pdf("restless"))
    rest = threading.Event()

    def change() -> None:
        while not rest.is_set():
            os.utime(file)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        place.store.enqueue([Order("restless.pdf", str(file), options_of(NO_OCR))])
        place.upload("prompt.pdf", pdf("prompt"))
        assert place.wait("prompt.pdf").state == "indexed"
        assert [job.order.name for job in place.store.jobs()] == ["restless.pdf"]
    finally:
        rest.set()
        changing.join()
    assert place.wait("restless.pdf").state == "indexed"


def test_nothing_is_left_over(place: Place) -> None:
    until(lambda: not place.store.jobs())
    assert [path for path in (place.folder / "waiting").rglob("*") if path.is_file()] == []
    assert list((place.folder / "uploads" / ".parts").iterdir()) == []


@pytest.mark.slow
def test_a_process_that_has_nothing_to_do_makes_room(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    monkeypatch.setattr(alone, "_START", start + "from visrag import alone; alone.IDLE = 1; alone.serve(sys.argv[2])")
    found = Place(tmp_path / "index", model)
    try:
        for name in ("first.pdf", "second.pdf"):
            child = found.alone.pid
            found.upload(name, pdf("text"))
            assert found.wait(name).state == "indexed"
            until(lambda before=child: found.alone.pid != before and found.alone.alive)
    finally:
        found.close()
    assert caplog.text == ""


def test_an_index_that_no_second_process_can_open() -> None:
    with pytest.raises(UsageError, match="local mode is for one process"):
        Alone("qdrant:///folder/papers")
