"""``visrag.Client`` against a real server in a child process: what it gives is what ``visrag.Index`` gives."""

from __future__ import annotations

import inspect
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from pdfs import pdf_bytes, text, write
from PIL import Image

import visrag
from visrag import (
    AccessError,
    Client,
    DocumentError,
    Hit,
    Index,
    IngestSettings,
    LimitError,
    NotFound,
    ServerError,
    UsageError,
    VisragError,
)
from visrag import errors as every_error
from visrag.connection import Connection
from visrag.errors import CODES, FileChanged, Reason, code_of, error_of
from visrag.ids import document_id, document_name
from visrag.ingest import Silent
from visrag.records import Failure
from visrag.server.keys import KeyFile
from visrag.settings import Rank
from visrag.sources import Source

REPORT = "harrowmere-annual-report.pdf"
PASS = "What does a year pass cost?"
FROST = "When did frost damage the orchard plots?"
UNICODE = "Zürich/東京 🍏 <b>&?#%2F.pdf"
NO_OCR = IngestSettings(ocr="off")

Answers = Callable[[list[tuple[int, dict[str, str], str]]], str]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Served:
    """visrag serve in a process of its own."""

    def __init__(self, folder: Path, *options: str | Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        beside = ("--keys", folder / "keys.json", "--cache", folder / "cache", "--port", str(self.port))
        command = [sys.executable, "-m", "visrag", "serve", *map(str, (*options, *beside))]
        self.log = folder / "server.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        with httpx.Client(trust_env=False) as client:
            for _ in range(300):
                assert self.process.poll() is None, self.log.read_text()
                try:
                    if client.get(f"{self.url}/v1/ready").is_success:
                        return
                except httpx.TransportError:
                    time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def stop(self, by: int = signal.SIGTERM) -> None:
        self.process.send_signal(by)
        self.process.wait(30)


@pytest.fixture(scope="module")
def served(samples_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of the samples ("samples"), and of an index without documents ("empty")."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(samples_path, folder / "empty")
    with Index(folder / "empty") as index:
        for document in index.documents():
            index.remove(document.name)
    options = ("--index", f"samples={samples_path}", "--index", folder / "empty", "--max-upload", "8")
    server = Served(folder, *options)
    yield server
    server.stop()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, collection="samples") as client:
        yield client


@pytest.fixture
def empty(served: Served) -> Iterator[Client]:
    with Client(served.url, collection="empty") as client:
        for document in client.documents():
            client.remove(document.name)
        yield client


@pytest.fixture
def scripted() -> Iterator[Answers]:
    """An HTTP server that gives these answers (status, headers, body) one after another, the last for ever: its URL."""
    servers = []

    def start(answers: list[tuple[int, dict[str, str], str]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                left = int(self.headers.get("Content-Length", 0))
                while left:
                    left -= len(self.rfile.read(min(left, 65_536)))
                status, headers, body = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body.encode()))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


SESSION = json.dumps({"collections": [{"name": "c"}], "limits": {"upload_bytes": 10**12}})


def pdf(path: Path, *pages: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, pdf_bytes([text(72, 700, page) for page in pages]))


# Ids


@pytest.mark.parametrize(
    ("name", "id"), [("a", "YQ"), ("ü", "w7w"), ("???", "Pz8_"), ("~~>", "fn4-"), ("a/b.pdf", "YS9iLnBkZg")]
)
def test_an_id_is_base64url_without_padding(name: str, id: str) -> None:
    assert document_id(name) == id
    assert document_name(id) == name


def test_every_name_comes_back() -> None:
    for name in (UNICODE, "..", " ", "\x00", "é", "é", "a" * 1000):
        assert document_name(document_id(name)) == name


@pytest.mark.parametrize("id", ["", "Y", "YR", "YQ=", "YQ==", " YQ", "YQ\n", "_w", "Pz8/", "../..", "ü", "A" * 5])
def test_what_is_no_id_is_not_found(id: str) -> None:
    with pytest.raises(NotFound, match="is no document's id"):
        document_name(id)


def test_a_name_that_is_no_unicode_has_an_id_that_no_document_has() -> None:
    with pytest.raises(NotFound):
        document_name(document_id("\udcff.pdf"))


# Errors


def test_every_error_has_a_code_and_every_code_an_error() -> None:
    classes = {kind for kind in vars(every_error).values() if inspect.isclass(kind) and issubclass(kind, VisragError)}
    assert set(CODES.values()) == classes - {VisragError}
    assert len(set(CODES.values())) == len(CODES)


def test_the_code_of_a_derived_error_is_its_own_not_its_bases() -> None:
    class Special(every_error.FileChanged):
        pass

    assert code_of(Special("x")) == code_of(every_error.FileChanged("x")) == "file_changed"
    assert code_of(every_error.StoreError("x")) == "store"
    assert code_of(VisragError("x")) == "server"


def test_an_error_comes_back_as_what_it_was() -> None:
    error = DocumentError("a.pdf", 3, Reason.TIMEOUT, "took long")
    members = {"document": "a.pdf", "page": 3, "reason": "timeout"}
    found = error_of(code_of(error), str(error), members)
    assert isinstance(found, DocumentError)
    assert (str(found), found.document, found.page, found.reason, found.message) == (
        "a.pdf, page 3: took long", "a.pdf", 3, Reason.TIMEOUT, "took long",
    )  # fmt: skip
    assert type(error_of("index_mismatch", "x", {})) is every_error.IndexMismatch
    assert type(error_of("of the future", "x", {})) is ServerError
    assert str(error_of("missing_extra", "there", {})) == "there"


# The same methods as Index


def public(kind: type) -> dict[str, inspect.Signature]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in methods if not name.startswith("_")}


def told(record: object) -> list[object]:
    """The plain values in a record, in order."""
    if isinstance(record, Hit):
        return told(record.as_dict())
    if is_dataclass(record):
        return told([getattr(record, field.name) for field in fields(record)])
    if isinstance(record, dict):
        return told(list(record.items()))
    if isinstance(record, list | tuple):
        return [value for part in record for value in told(part)]
    return [record]


def near(record: object) -> list[object]:
    """As ``told``, to compare with: what BLAS computes depends a little on where arrays lie."""
    return [pytest.approx(value, abs=1e-5) if isinstance(value, float) else value for value in told(record)]


def test_the_client_has_the_methods_of_the_index() -> None:
    own, other = public(Client), public(Index)
    for name in ("open", "load", "check", "compact", "info"):  # its store, its models, its files
        del other[name]
    assert own.keys() == other.keys()
    for name, signature in own.items():
        assert signature == other[name], name


def test_importing_the_package_imports_no_http_client() -> None:
    code = "import sys, visrag, visrag.client; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert visrag.Client is Client


@pytest.mark.parametrize("rank", ["fusion", "maxsim", "fulltext"])
@pytest.mark.parametrize("question", [PASS, FROST, "会議室の定員は何名ですか", "<script>alert('&')</script> pass?"])
def test_the_hits_are_the_same(question: str, rank: Rank, client: Client, samples_index: Index) -> None:
    found, expected = client.search(question, 8, rank=rank), samples_index.search(question, 8, rank=rank)
    assert told(found) == near(expected)
    assert [hit.text for hit in found] == [hit.text for hit in expected]
    assert told([(hit.shares, hit.marks) for hit in found]) == near([(hit.shares, hit.marks) for hit in expected])


def test_the_hits_are_the_same_with_filters_and_past_the_first(client: Client, samples_index: Index) -> None:
    documents = [REPORT, "orchard-trial-appendix.pdf"]
    for index in (client, samples_index):
        assert [hit.rank for hit in index.search(PASS, 2, offset=3)] == [4, 5]
        assert index.search(PASS, tags={"kind": "other"}) == []
        assert index.search(PASS, documents=[]) == []
    for asked in ((PASS, 2, documents, None, "fusion", 1), (PASS, 9, None, {"kind": "sample"})):
        assert told(client.search(*asked)) == near(samples_index.search(*asked))


def test_an_answer_says_where_the_servers_time_went(client: Client, samples_index: Index) -> None:
    answer = client.answer(PASS)
    assert answer.question == PASS
    assert answer.timings.keys() == samples_index.answer(PASS).timings.keys()
    assert all(seconds >= 0 for seconds in answer.timings.values())


def test_the_account_is_the_same(client: Client, samples_index: Index) -> None:
    for asked in ({}, {"rank": "maxsim"}, {"documents": [REPORT]}, {"tags": {"kind": "sample"}}):
        found = client.account(PASS, REPORT, 3, **asked)
        assert told(found) == near(samples_index.account(PASS, REPORT, 3, **asked))
        assert sum(share.score for share in found.shares) == pytest.approx(found.score, abs=1e-3)


def test_the_evidence_is_the_same(client: Client, samples_index: Index) -> None:
    for page in (1, 3, 6):
        assert told(client.regions(PASS, REPORT, page)) == near(samples_index.regions(PASS, REPORT, page))
        found, expected = client.token_maps(PASS, REPORT, page), samples_index.token_maps(PASS, REPORT, page)
        assert found is not None
        assert expected is not None
        assert found.tokens == expected.tokens
        assert found.values.dtype == expected.values.dtype
        np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
        np.testing.assert_array_equal(found.weights, expected.weights)
        np.testing.assert_array_equal(found.content, expected.content)
        np.testing.assert_allclose(found.places.boxes(), expected.places.boxes(), atol=1e-5)
        assert ((found.places.vectors >= 0) == (expected.places.vectors >= 0)).all()


@pytest.mark.parametrize("token", [None, "pass"])
def test_the_highlighted_page_is_the_same_to_the_pixel(token: str | None, client: Client, samples_index: Index) -> None:
    found = client.highlight(PASS, REPORT, 3, token, 900)
    expected = samples_index.highlight(PASS, REPORT, 3, token, 900)
    assert found.image.mode == "RGB"
    assert found.image.size == expected.image.size
    np.testing.assert_allclose(np.asarray(found.image, int), np.asarray(expected.image, int), atol=1)
    assert told(found.regions) == near(expected.regions)
    hit = client.search(PASS, 1)[0]
    assert (hit.document, hit.page) == (REPORT, 3)
    np.testing.assert_allclose(np.asarray(hit.heatmap(token, 900), int), np.asarray(expected.image, int), atol=1)


def test_the_page_is_the_same_but_for_its_words(client: Client, samples_index: Index) -> None:
    for document in samples_index.documents():
        assert client.page(document.name, 1) == replace(samples_index.page(document.name, 1), words=(), drawn=0.0)


def test_the_picture_is_the_same_as_a_jpeg_can_be(client: Client, samples_index: Index) -> None:
    found, expected = client.page_image(REPORT, 3, 700), samples_index.page_image(REPORT, 3, 700)
    assert (found.mode, found.size) == (expected.mode, expected.size)
    difference = np.abs(np.asarray(found, np.int16) - np.asarray(expected, np.int16))
    assert difference.mean() < 1.5
    assert isinstance(client.search(PASS, 1)[0].image(300), Image.Image)


def test_the_documents_are_the_same_but_for_their_paths(client: Client, samples_index: Index) -> None:
    expected = [replace(document, path="") for document in samples_index.documents()]
    assert client.documents() == expected
    assert client.document(REPORT) == next(document for document in expected if document.name == REPORT)
    assert client.failures() == []


def test_the_exported_pages_hold_the_same_marks(client: Client, samples_index: Index) -> None:
    pikepdf = pytest.importorskip("pikepdf")
    pages = [(REPORT, 3), (REPORT, 6)]
    counts = []
    for index in (client, samples_index):
        data = index.export(PASS, pages)
        assert data.startswith(b"%PDF-")
        with pikepdf.open(BytesIO(data)) as opened:
            counts.append([len(page.get("/Annots", [])) for page in opened.pages])
    assert counts[0] == counts[1]
    assert len(counts[0]) == 2
    assert counts[0][0] > 0


def test_many_threads_may_ask_at_once(served: Served, samples_index: Index) -> None:
    expected = samples_index.search(PASS)
    found = []
    with Client(served.url, collection="samples") as client:
        threads = [threading.Thread(target=lambda: found.append(client.search(PASS))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 8
    for hits in found:  # questions that are encoded together differ in the last digits
        assert [(hit.document, hit.page) for hit in hits] == [(hit.document, hit.page) for hit in expected]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-5)


# Wrong use


def test_the_errors_are_the_same(client: Client, samples_index: Index) -> None:
    for index in (client, samples_index):
        with pytest.raises(UsageError, match="the question is empty"):
            index.search("  ")
        with pytest.raises(NotFound, match=r"no document nothing\.pdf"):
            index.search(PASS, documents=["nothing.pdf"])
        with pytest.raises(UsageError, match="the question has no token tram"):
            index.highlight(PASS, REPORT, 3, "tram")
        for act in (index.document, index.remove):
            with pytest.raises(NotFound):
                act("nothing.pdf")
        for number, name in ((99, REPORT), (1, UNICODE)):
            with pytest.raises(NotFound):
                index.page(name, number)
            with pytest.raises(NotFound):
                index.page_image(name, number)
    with pytest.raises(NotFound, match="is no document's id"):
        client.page("\udcff", 1)
    with pytest.raises(UsageError, match="no Unicode"):
        client.search(PASS, documents=["\udcff"])


def test_a_collection_must_be_named_where_there_are_several(served: Served) -> None:
    with Client(served.url) as client, pytest.raises(UsageError, match="there are samples, empty"):
        client.search(PASS)
    with Client(served.url, collection="säm ple?") as client, pytest.raises(NotFound, match="no collection"):
        client.search(PASS)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "", "http://[::1", "/v1"])
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(UsageError, match="no URL"):
        Client(url)


def test_what_a_server_cannot_do_is_said_before_anything_is_sent(empty: Client, tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "one")
    with pytest.raises(UsageError, match="which folder"):
        empty.ingest(path, sync=True)
    with pytest.raises(UsageError, match="VISRAG_PASSWORDS"):
        empty.ingest(path, settings=replace(NO_OCR, passwords=("secret",)))
    with pytest.raises(UsageError, match="cannot link"):
        empty.ingest(path, settings=replace(NO_OCR, link=True))
    with pytest.raises(UsageError, match="no such file"):
        empty.ingest(tmp_path / "missing")
    with pytest.raises(UsageError, match="settings that it has"):
        empty.retry(settings=NO_OCR)
    assert empty.documents() == []


def test_a_url_outside_the_servers_roots_is_refused(empty: Client) -> None:
    with pytest.raises(AccessError, match="--root"):
        empty.ingest("s3://bucket/secret.pdf")


def test_the_key_is_in_no_message(served: Served) -> None:
    with Client(served.url, "visrag_secret", "samples") as client:
        assert "secret" not in repr(client)
    with pytest.raises(UsageError, match="the key holds") as raised:
        Client(served.url, "visrag_secret\nX-Header: 1")
    assert "secret" not in str(raised.value)


# Bringing documents in


class Told(Silent):
    """A Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.size = 0
        self.pages: list[tuple[str, int]] = []
        self.finished: list[str] = []

    def start(self, size: int) -> None:
        self.size = size

    def page(self, source: Source, pages: int) -> None:
        self.pages.append((source.name, pages))

    def finish(self, source: Source) -> None:
        self.finished.append(source.name)


def test_files_become_documents_that_are_found(empty: Client, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    one = pdf(folder / "Zürich" / "東京 <b>.pdf", "Pelicans nest on the roof", "Herons do not")
    two = write(folder / "notes 🍏.md", b"# Tram depot\n\nThe depot has nine gates.\n")
    told = Told()
    summary = empty.ingest(folder, tags={"städte": "a=b"}, progress=told, settings=NO_OCR)
    assert (summary.documents, summary.pages, summary.unchanged, summary.failures) == (2, 3, 0, [])
    assert summary.seconds > 0
    assert told.size == one.stat().st_size + two.stat().st_size
    assert sorted(told.pages) == [("Zürich/東京 <b>.pdf", 2), ("Zürich/東京 <b>.pdf", 2), ("notes 🍏.md", 1)]
    assert sorted(told.finished) == ["Zürich/東京 <b>.pdf", "notes 🍏.md"]

    hit = empty.search("Where do pelicans nest?", tags={"städte": "a=b"}, documents=["Zürich/東京 <b>.pdf"])[0]
    assert (hit.document, hit.page) == ("Zürich/東京 <b>.pdf", 1)
    assert "Pelicans nest" in hit.text
    assert empty.page_image(hit.document, 2, 200).height == 200
    assert [document.tags for document in empty.documents()] == [{"städte": "a=b"}] * 2

    again = empty.ingest(folder, settings=NO_OCR)
    assert (again.documents, again.pages, again.unchanged) == (0, 0, 2)
    pdf(one, "Storks nest there now")
    changed = empty.ingest(folder, settings=NO_OCR)
    assert (changed.documents, changed.pages, changed.unchanged) == (1, 1, 1)
    assert empty.document(hit.document).pages == 1
    assert empty.document(hit.document).tags == {"städte": "a=b"}
    other = empty.ingest(folder, tags={}, settings=NO_OCR)
    assert (other.documents, other.unchanged) == (2, 0)

    empty.remove(hit.document)
    assert [document.name for document in empty.documents()] == ["notes 🍏.md"]


def test_what_fails_is_in_the_summary_and_the_rest_goes_on(empty: Client, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    pdf(folder / "good.pdf", "The depot has nine gates")
    write(folder / "torn.pdf", b"%PDF-1.7\n% nothing follows\n")
    write(folder / "page.pdf", b"<!doctype html><html>no PDF</html>")
    with (folder / "vast.pdf").open("wb") as file:
        file.truncate((8 << 20) + 1)
    told = Told()
    summary = empty.ingest(folder, progress=told, settings=NO_OCR)
    assert summary.pages == 1
    reasons = {failure.document: failure.reason for failure in summary.failures}
    assert reasons == {"torn.pdf": "corrupt", "page.pdf": "corrupt", "vast.pdf": "too_large"}
    assert summary.documents == 4
    assert sorted(told.finished) == ["good.pdf", "page.pdf", "torn.pdf", "vast.pdf"]
    kept = empty.failures()
    assert [(failure.document, failure.page, failure.reason) for failure in kept] == [("torn.pdf", None, "corrupt")]
    assert kept[0] in summary.failures

    retried = empty.retry()
    assert (retried.documents, retried.pages) == (1, 0)
    assert retried.failures == kept


def test_a_name_that_the_server_refuses_is_named(empty: Client, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no control characters"):
        empty.ingest(pdf(tmp_path / "a\nb.pdf", "one"))


def test_texts_become_documents_by_name(empty: Client) -> None:
    empty.ingest_texts({"passage 1": "Pelicans nest on the roof.", "größe": "Der Bus fährt um neun."})
    assert [(document.name, document.media_type) for document in empty.documents()] == [
        ("größe", "text/plain"), ("passage 1", "text/plain"),
    ]  # fmt: skip
    assert empty.search("Where do pelicans nest?", 1)[0].text == "Pelicans nest on the roof."
    with pytest.raises(DocumentError, match=r"x\.pdf"):
        empty.ingest_texts({"x.pdf": "no PDF"})


def test_watch_sends_what_is_dropped(empty: Client, tmp_path: Path) -> None:
    pdf(tmp_path / "dropped.pdf", "Pelicans nest on the roof")
    summaries = empty.watch(tmp_path, tags={"from": "inbox"}, settings=NO_OCR)
    assert next(summaries).pages == 1
    assert empty.document("dropped.pdf").tags == {"from": "inbox"}


def test_an_upload_is_not_read_into_memory(scripted: Answers, tmp_path: Path) -> None:
    with (tmp_path / "large.pdf").open("wb") as file:
        file.truncate(200 << 20)
    problem = {"code": "document", "detail": "large.pdf: is odd", "document": "large.pdf", "page": None}
    listing = json.dumps({"total": 0, "documents": []})
    refusal = json.dumps({**problem, "reason": "corrupt"})
    url = scripted([(200, {}, SESSION), (200, {}, listing), (415, {}, refusal)])
    with Client(url) as client:
        tracemalloc.start()
        try:
            summary = client.ingest(tmp_path / "large.pdf")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert summary.failures == [Failure("large.pdf", None, "corrupt", "is odd")]
    assert peak < 8 << 20


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_file_that_changes_while_it_is_sent_is_an_error(size: int, scripted: Answers) -> None:
    class Shrinking(BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            return super().read(size) if not self.tell() else b""

    connection = Connection(scripted([(200, {}, "{}")]), None, 5.0)
    with pytest.raises(FileChanged, match="was changed while it was sent"):
        connection.upload("/", Shrinking(b"x" * (1 << 20)), {})
    connection.close()


@pytest.mark.slow
def test_an_ingest_survives_a_kill_of_the_server(samples_path: Path, tmp_path: Path) -> None:
    shutil.copytree(samples_path, tmp_path / "index")
    paths = [pdf(tmp_path / f"{number}.pdf", *(f"Pelican {page} of {number}" for page in range(30))) for number in "ab"]
    server = Served(tmp_path, "--index", tmp_path / "index")
    summaries = []
    with Client(server.url) as client:
        thread = threading.Thread(target=lambda: summaries.append(client.ingest(*paths, settings=NO_OCR)))
        thread.start()
        while not {"a.pdf", "b.pdf"} <= {document.name for document in client.documents()}:
            time.sleep(0.02)
        server.stop(signal.SIGKILL)
        server = Served(tmp_path, "--index", tmp_path / "index", port=server.port)
        thread.join(120)
        assert [(summary.documents, summary.pages, summary.failures) for summary in summaries] == [(2, 60, [])]
    server.stop()


# Judging


def test_verdicts_are_kept_and_taken_back(empty: Client, tmp_path: Path) -> None:
    empty.ingest(pdf(tmp_path / "größe.pdf", "The depot has nine gates"), settings=NO_OCR)
    begun = time.time()
    found = empty.judge("How many gates? ü", "größe.pdf", 1, "relevant", "see «line» 1", "spring", "ann")
    assert (found.question, found.document, found.page, found.verdict) == (
        "How many gates? ü", "größe.pdf", 1, "relevant",
    )  # fmt: skip
    assert (found.note, found.review, found.reviewer) == ("see «line» 1", "spring", "ann")
    assert begun - 1 <= found.time <= time.time() + 1
    empty.judge("How many gates? ü", "größe.pdf", 1, "not_relevant", review="", reviewer="ann")
    assert [said.verdict for said in empty.feedback()] == ["relevant", "not_relevant"]
    assert [said.verdict for said in empty.feedback("")] == ["not_relevant"]
    assert empty.feedback("spring") == empty.feedback("spring", "How many gates? ü") == [found]
    assert empty.feedback(question="another") == []
    empty.judge("How many gates? ü", "größe.pdf", 1, None, review="spring", reviewer="ann")
    assert empty.feedback("spring") == []
    with pytest.raises(NotFound):
        empty.judge("How many gates?", "größe.pdf", 2, "relevant")
    empty.judge("How many gates? ü", "größe.pdf", 1, None, reviewer="ann")


# Keys


@pytest.fixture(scope="module")
def guarded(samples_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, dict[str, str]]]:
    """A server with keys, which takes no documents, and a key of each role, "other": of another collection."""
    folder = tmp_path_factory.mktemp("guarded")
    kept = KeyFile(folder / "keys.json")
    keys = {"reader": kept.create("reader", ["samples"], "Ann"), "admin": kept.create("admin")}
    keys["other"] = kept.create("writer", ["another"])
    server = Served(folder, "--index", f"samples={samples_path}", "--index", f"more={samples_path}", "--no-ingest")
    yield server, keys
    server.stop()


def test_a_server_with_keys_wants_one(guarded: tuple[Served, dict[str, str]]) -> None:
    server, keys = guarded
    for wrong in (None, "visrag_000000000000_wrong", keys["reader"][:-1], "x"):
        with Client(server.url, wrong, "samples") as client, pytest.raises(AccessError, match="wants"):
            client.search(PASS)


def test_a_key_sees_its_collections(guarded: tuple[Served, dict[str, str]], samples_index: Index) -> None:
    server, keys = guarded
    with Client(server.url, keys["reader"]) as client:  # the only one that it sees
        assert told(client.search(PASS)) == near(samples_index.search(PASS))
        with pytest.raises(AccessError, match="writer"):
            client.remove(REPORT)
    with Client(server.url, keys["admin"]) as client, pytest.raises(UsageError, match="there are samples, more"):
        client.search(PASS)
    for key, collection in (("reader", "more"), ("other", "samples")):
        with Client(server.url, keys[key], collection) as client:
            for act in (client.documents, client.failures, client.feedback, lambda: client.search(PASS)):
                with pytest.raises(NotFound, match="does not see it"):
                    act()
    with Client(server.url, keys["other"]) as client, pytest.raises(UsageError, match="this key sees none"):
        client.documents()


def test_a_server_that_takes_no_documents_says_so(guarded: tuple[Served, dict[str, str]], tmp_path: Path) -> None:
    server, keys = guarded
    with Client(server.url, keys["admin"], "samples") as client, pytest.raises(UsageError, match="--no-ingest"):
        client.ingest(pdf(tmp_path / "a.pdf", "one"))


# What goes wrong on the way


def test_a_server_that_is_not_there_is_named_with_the_cure() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(ServerError, match=f"{url}.*visrag serve") as raised:
        client.search(PASS)
    assert isinstance(raised.value.__cause__, httpx.ConnectError)


def test_a_server_that_does_not_answer_is_given_up() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url, timeout=0.2) as client, pytest.raises(ServerError, match=r"nothing came for 0\.2 s"):
            client.search(PASS)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, "<html>not here</html>"), "answers 404, and not as a server of visrag does"),
        ((302, {"Location": "https://example.org/"}, ""), "with https://example.org/"),
        ((200, {}, "<html>hello</html>"), "does not understand"),
        ((200, {}, '{"collections": 3}'), "does not understand"),
        ((500, {}, '{"code": "server", "detail": "the server failed"}'), "the server failed"),
        ((422, {}, '{"code": "document", "detail": "x"}'), "does not understand"),
    ],
)
def test_what_is_no_answer_of_visrags_is_an_error(
    answer: tuple[int, dict[str, str], str], message: str, scripted: Answers
) -> None:
    with Client(scripted([answer])) as client, pytest.raises(ServerError, match=message):
        client.search(PASS)


BUSY = '{"code": "limit", "detail": "too many requests"}'


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(status: int, scripted: Answers) -> None:
    found = json.dumps({"failures": []})
    url = scripted([(status, {"Retry-After": "0.01"}, BUSY)] * 3 + [(200, {}, SESSION), (200, {}, found)])
    with Client(url) as client:
        assert client.failures() == []


def test_a_limit_that_stays_is_raised_with_the_time_to_wait(scripted: Answers) -> None:
    for wait, expected in (("0.01", 0.01), ("3600", 3600.0), (None, None)):
        url = scripted([(429, {} if wait is None else {"Retry-After": wait}, BUSY)])
        with Client(url) as client, pytest.raises(LimitError, match="too many requests") as raised:
            client.failures()
        assert raised.value.retry_after == expected
