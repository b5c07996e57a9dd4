"""Documents that mean harm, handed in to a real server: their names, what they hold, and where they say they lie."""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest
from lines import ask, head
from pdfs import pdf_bytes, stream, text
from PIL import Image
from serving import Server, finished, serving, upload

from visrag.ids import document_id

DOCUMENTS = "/v1/collections/drop/documents"
SCRIPT = "<script>alert(1)</script>"
HTML = b"<!doctype html><html><body><script>alert(1)</script>Apples and pears.</body></html>"
GIB = 1 << 30


@pytest.fixture(scope="module")
def client(served: Server) -> httpx.Client:
    return served.client()


@pytest.fixture(scope="module")
def with_script(served: Server, client: httpx.Client) -> str:
    """The id of a PDF whose name, tags and text are scripts."""
    words = "<img src=x onerror=alert(1)> Zanzibar \\(" + SCRIPT + "\\) {{7*7}} ${7*7}"
    data = pdf_bytes([text(50, 700, words)])
    tags = {SCRIPT: '"><svg onload=alert(1)>', "a": "\u2028'`"}
    answer = upload(client, "drop", f"a{SCRIPT.replace('/', '')}\"'&.pdf", data, tags=json.dumps(tags))
    assert answer.status_code == 202, answer.text
    found = finished(client, "drop", answer.json()["id"])
    assert found["state"] == "indexed"
    assert found["tags"] == tags
    return str(found["id"])


def left(server: Server) -> list[str]:
    """What uploads left behind, but for files that were kept for the queue and are not yet swept."""
    folder = server.folder / "drop" / "uploads"
    return [path.name for path in folder.rglob("*") if path.is_file() and path.parent != folder]


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Names.


@pytest.mark.parametrize(
    "name",
    ["../evil.pdf", "../../../../etc/passwd", "a/../../evil.pdf", "/etc/passwd", "//evil", "..", ".", "a//b.pdf", "a/",
     "./a.pdf", "..\\evil.pdf", "C:\\evil.pdf", "a\\..\\b.pdf", "a\x00.pdf", "a\r\nX-Evil: 1.pdf", "a\nb.pdf",
     "a\x1b[2J.pdf", "a\u202efdp.exe", "a\u2028b.pdf", "\ufeffa.pdf", "x" * 1001, "a\x7f.pdf"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere_or_hides_is_refused(name: str, served: Server, client: httpx.Client) -> None:
    before = entries(served.folder) | entries(served.folder / "drop") | {"uploads"}
    answer = upload(client, "drop", name, pdf_bytes([text(50, 700, "Apples")]))
    assert (answer.status_code, answer.json()["code"]) == (400, "usage")
    assert client.get(DOCUMENTS).json()["documents"] == [] or name not in client.get(DOCUMENTS).text
    assert entries(served.folder) | entries(served.folder / "drop") <= before
    assert left(served) == []


@pytest.mark.parametrize(
    ("filename", "name"),
    [("../../evil.txt", "evil.txt"), ("C:\\Users\\ann\\report.txt", "report.txt"), ("/etc/passwd.txt", "passwd.txt"),
     ('a"; filename="b.txt', "b.txt"), ("%2e%2e%2fevil.txt", "%2e%2e%2fevil.txt")],
)  # fmt: skip
def test_of_a_path_that_a_program_sends_the_last_name_counts(
    filename: str, name: str, served: Server, client: httpx.Client
) -> None:
    body = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n\r\nApples.\r\n--x--\r\n'
    sent = client.post(DOCUMENTS, content=body.encode(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert sent.status_code == 202, sent.text
    assert sent.json()["document"] == name
    client.delete(f"{DOCUMENTS}/{sent.json()['id']}")


@pytest.mark.parametrize(
    "name", ["folder/Zürich 東京 🍏.txt", "a; b=c, d.txt", "%0d%0aX-Evil: 1.txt", "%2e%2e%2fa.txt"]
)
def test_odd_names_are_kept_and_cannot_add_a_header(name: str, served: Server, client: httpx.Client) -> None:
    answer = upload(client, "drop", name, b"Zanzibar apples.")
    assert answer.status_code == 202, answer.text
    id = answer.json()["id"]
    assert answer.headers["Location"] == f"{DOCUMENTS}/{id}"
    assert finished(client, "drop", id)["document"] == name
    original = client.get(f"{DOCUMENTS}/{id}/original")
    assert original.status_code == 200
    assert original.content == b"Zanzibar apples."
    assert "x-evil" not in original.headers
    assert original.headers["Content-Disposition"].startswith("attachment; ")
    raw = ask(served.port, head("GET", f"{DOCUMENTS}/{id}/original", "Connection: close"))
    assert "x-evil" not in raw.headers
    assert client.delete(f"{DOCUMENTS}/{id}").status_code == 204


@pytest.mark.parametrize(
    "id",
    ["..", ".", "%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "Li4vLi4vZXRjL3Bhc3N3ZA", "Li4", "Lw", "AA", "eA==", "e_-",
     "%e2%82%ac", "a" * 5000, "%ff%fe", "eA%0d%0aX-Evil:1", "index.db", "~", "*", "eA;eA", "%252e%252e"],
)  # fmt: skip
def test_an_id_leads_nowhere_but_to_a_document(id: str, served: Server) -> None:
    page = "/pages/1"
    for below in ("/original", page, f"{page}/image", f"{page}/crop?box=0,0,1,1", f"{page}/heatmap?q=a", "/events", ""):
        for method in ("GET", "DELETE"):
            answer = ask(served.port, head(method, f"{DOCUMENTS}/{id}{below}", "Connection: close"))
            assert (below, answer.status) in [(below, 404), (below, 405)]
            assert answer.headers["content-type"] == "application/problem+json"
            assert "x-evil" not in answer.headers


@pytest.mark.parametrize("name", ["..", "%2e%2e", "samples%2f..%2fdrop", "drop%00", "%ff", "none", "a" * 300])
def test_a_collection_is_only_found_by_its_name(name: str, served: Server) -> None:
    path = f"/v1/collections/{name}/documents"
    assert ask(served.port, head("GET", path, "Connection: close")).status in (404, 422)


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/%2e%2e%2f%2e%2e%2ferrors.py",
     "/static/%00", "/static/", "/static", "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/..\\app.py",
     "/static/" + "a" * 5000],
)  # fmt: skip
def test_the_pages_files_are_all_that_is_given_out(path: str, served: Server) -> None:
    answer = ask(served.port, head("GET", path, "Connection: close"))
    assert answer.status in (404, 405)
    assert b"import" not in answer.body


# What they hold.


def test_what_scripts_are_in_comes_as_json_that_no_browser_runs(
    with_script: str, served: Server, client: httpx.Client
) -> None:
    page = f"{DOCUMENTS}/{with_script}/pages/1"
    question = f'Zanzibar {SCRIPT} "><svg onload=alert(1)>'
    asked = {"params": {"q": question}}
    answers = [
        client.get("/v1/collections/drop/search", params={"q": question, "include": "heatmap,text"}),
        client.post("/v1/collections/drop/search", json={"question": question}),
        client.get(page),
        client.get(f"{page}/heatmap", **asked),
        client.get(f"{page}/regions", **asked),
        client.get(f"{page}/account", **asked),
        client.get(DOCUMENTS),
        client.get(f"{DOCUMENTS}/{with_script}"),
        client.get("/v1/collections/drop/search", params={"q": "a", "include": SCRIPT}),
        client.get(f"/v1/collections/{SCRIPT.replace('/', '')}/documents"),
        client.post("/v1/collections/drop/search", json={SCRIPT: 1}),
        client.post("/v1/collections/drop/documents/from-uri", json={"uri": SCRIPT}),
    ]
    for answer in answers:
        assert answer.headers["Content-Type"] in ("application/json", "application/problem+json")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert [answer.status_code for answer in answers] == [200] * 8 + [400, 404, 422, 403]
    first = answers[0].json()["hits"][0]
    assert first["id"] == with_script
    assert first["text"] == answers[2].json()["text"]
    assert SCRIPT in first["text"]


def test_a_pdf_is_shown_and_what_a_browser_would_run_is_handed_out(
    with_script: str, served: Server, client: httpx.Client
) -> None:
    shown = client.get(f"{DOCUMENTS}/{with_script}/original")
    assert shown.headers["Content-Type"] == "application/pdf"
    assert shown.headers["Content-Disposition"].startswith("inline; filename*=utf-8''")
    assert "<" not in shown.headers["Content-Disposition"]
    policy = shown.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><text>Apples</text></svg>'
    files = {"page.html": HTML, "note.md": HTML, "note.txt": HTML, "drawing.svg": svg, "plain": HTML}
    for name, data in files.items():
        answer = upload(client, "drop", name, data)
        assert answer.status_code == 202, answer.text
        finished(client, "drop", answer.json()["id"])
        original = client.get(f"{DOCUMENTS}/{answer.json()['id']}/original")
        assert original.content == data
        assert original.headers["Content-Type"] == "application/octet-stream"
        assert original.headers["Content-Disposition"].startswith("attachment; ")
        assert original.headers["X-Content-Type-Options"] == "nosniff"
        client.delete(f"{DOCUMENTS}/{answer.json()['id']}")


def test_a_file_that_is_a_page_and_a_pdf_is_given_out_as_a_pdf(served: Server, client: httpx.Client) -> None:
    data = HTML + b"\n" + pdf_bytes([text(50, 700, "Apples")])
    answer = upload(client, "drop", "both.html", data)
    assert answer.status_code == 202
    found = finished(client, "drop", answer.json()["id"])
    original = client.get(f"{DOCUMENTS}/{found['id']}/original")
    if found["state"] == "failed":
        assert original.status_code in (200, 404)
    if original.status_code == 200:
        assert original.headers["Content-Type"] in ("application/pdf", "application/octet-stream")
        assert original.headers["X-Content-Type-Options"] == "nosniff"
    client.delete(f"{DOCUMENTS}/{found['id']}")


def test_an_export_has_the_question_as_text_and_no_script(
    with_script: str, served: Server, client: httpx.Client
) -> None:
    import pikepdf

    name = client.get(f"{DOCUMENTS}/{with_script}").json()["document"]
    question = f"Zanzibar ) >> {SCRIPT} /JS (app.alert(1))"
    pages = [{"document": name, "page": 1}]
    answer = client.post("/v1/collections/drop/export", json={"question": question, "pages": pages})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Disposition"] == 'attachment; filename="pages.pdf"'
    with pikepdf.open(io.BytesIO(answer.content)) as pdf:
        assert "/OpenAction" not in pdf.Root
        assert "/Names" not in pdf.Root or "/JavaScript" not in pdf.Root.Names
        for page in pdf.pages:
            assert not [note for note in page.get("/Annots", []) if "/A" in note or "/AA" in note]


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("../../evil.txt", "a" * 100)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("archive.pdf", zipped(), "does not begin as a .pdf file does"),
        ("page.pdf", HTML, "is an HTML page named .pdf"),
        ("page.png", HTML, "is an HTML page named .png"),
        ("archive.txt", zipped(), "of a kind that visrag does not read"),
        ("archive", zipped(), "of a kind that visrag does not read"),
        ("archive.docx", zipped(), "of a kind that visrag does not read"),
        ("empty.pdf", b"", "is empty"),
        ("program.pdf", b"\x7fELF" + b"\0" * 100, "does not begin as a .pdf file does"),
        ("late.pdf", b" " * 2000 + b"%PDF-1.7\n", "does not begin as a .pdf file does"),
    ],
)
def test_what_is_not_what_it_says_is_refused(
    name: str, data: bytes, says: str, served: Server, client: httpx.Client
) -> None:
    answer = upload(client, "drop", name, data)
    assert (answer.status_code, answer.json()["code"]) == (415, "document")
    assert says in answer.json()["detail"]
    assert answer.json()["document"] == name
    assert client.get(f"{DOCUMENTS}/{document_id(name)}").status_code == 404
    assert left(served) == []


@contextmanager
def peak(pid: int) -> Iterator[list[int]]:
    """The most memory that a process takes, without its children."""
    most, done = [0], threading.Event()

    def watch() -> None:
        process = psutil.Process(pid)
        while not done.wait(0.05):
            most[0] = max(most[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def bomb(gibibytes: int) -> bytes:
    """So much of spaces, deflated twice."""
    block, count = b" " * (1 << 24), 64 * gibibytes
    deflate, checksum = zlib.compressobj(9, wbits=-15), 1
    packed = deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH)  # which may be said again
    for _ in range(count):
        checksum = zlib.adler32(block, checksum)
    end = zlib.compressobj(9, wbits=-15).flush()
    return zlib.compress(b"\x78\xda" + packed * count + end + checksum.to_bytes(4, "big"), 9)


TWICE = "/Filter [/FlateDecode /FlateDecode]"
PIXELS = f"/Type /XObject /Subtype /Image /Width 36000 /Height 36000 /ColorSpace /DeviceRGB /BitsPerComponent 8 {TWICE}"


@pytest.mark.slow
def test_a_bomb_bursts_where_it_harms_nobody(served: Server, client: httpx.Client) -> None:
    packed = bomb(4)
    assert len(packed) < 100_000
    page = pdf_bytes(["PLACEHOLDER"])
    length, body = b"<< /Length 11  >>\nstream\nPLACEHOLDER", stream(packed, TWICE).removesuffix(b"\nendstream")
    assert length in page
    drawn = pdf_bytes(
        ["q 500 0 0 500 0 0 cm /I Do Q"], objects=[stream(packed, PIXELS)], resources="/XObject << /I 10 0 R >>"
    )
    large = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(large, "PNG")
    with peak(served.pid) as most:
        for name, data in {
            "content.pdf": page.replace(length, body),
            "image.pdf": drawn,
            "large.png": large.getvalue(),
        }.items():
            answer = upload(client, "drop", name, data, options='{"page_timeout": 20}')
            assert answer.status_code == 202, answer.text
            assert client.get("/v1/collections/samples/search", params={"q": "year pass"}).status_code == 200
            found = finished(client, "drop", answer.json()["id"])
            if name != "image.pdf":  # which is drawn without being unpacked whole
                assert found["state"] == "failed"
                assert found["failures"][0]["reason"] in ("too_large", "timeout")
            assert str(served.folder) not in json.dumps(found)
            client.delete(f"{DOCUMENTS}/{found['id']}")
    assert most[0] < GIB


# The form that brings them.


def part(name: str, data: bytes, extra: str = "") -> bytes:
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + data + b"\r\n"


FILE = part("file", b"Apples.", '; filename="form.txt"')
END = b"--x--\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        END,
        b"nonsense",
        FILE,  # without an end
        FILE + FILE + END,
        FILE + part("other", b"1") + END,
        FILE + part("", b"1") + END,
        FILE + b"--x\r\n\r\nno head\r\n" + END,
        part("name", b"form.txt") + END,
        b"--x\r\nContent-Disposition: form-data; name=file; filename*=utf-8''..%2fevil.txt\r\n\r\nA.\r\n" + END,
        b"--x\r\nContent-Disposition: form-data\r\n\r\nA.\r\n" + END,
        b"--x\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\nA.\r\n" + END,
        b"--x\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(5000)) + b"\r\nA.\r\n" + END,
        b"--x\r\nContent-Disposition\r\n\r\nA.\r\n" + END,
        b"\r\n" * 10_000 + b"--y" + FILE + END,
        FILE + part("tags", b"{") + END,
        FILE + part("tags", b"[]") + END,
        FILE + part("tags", b'{"a": 1}') + END,
        FILE + part("tags", b'{"": "a"}') + END,
        FILE + part("tags", b"[" * 60_000) + END,
        FILE + part("tags", b'{"a":' * 10_000) + END,
        FILE + part("tags", b'{"a": NaN}') + END,
        FILE + part("tags", b'{"a": "\\ud800"}') + END,
        FILE + part("tags", b'{"\\ud800": "a"}') + END,
        FILE + part("tags", b"\xff\xfe") + END,
        FILE + part("options", b'{"page_timeout": NaN}') + END,
        FILE + part("options", b'{"page_timeout": 1e999}') + END,
        FILE + part("options", b'{"page_timeout": -1}') + END,
        FILE + part("options", b'{"link": true}') + END,
        FILE + part("options", b'{"passwords": ["a"]}') + END,
        FILE + part("options", b'{"ocr": "../x"}') + END,
        FILE + part("options", b"[" * 60_000) + END,
        FILE + part("name", b"") + part("name", b"..") + END,
    ],
)
def test_a_form_that_is_wrong_is_refused(body: bytes, served: Server, client: httpx.Client) -> None:
    sent = client.post(DOCUMENTS, content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    if b"filename*=" in body:
        assert sent.status_code in (202, 400)
        assert "/" not in sent.json().get("document", "")
        client.delete(f"{DOCUMENTS}/{sent.json().get('id')}")
    else:
        assert (sent.status_code, sent.json()["code"]) == (400, "usage")
    assert left(served) == []


@pytest.mark.parametrize(
    "kind",
    ["", "application/pdf", "multipart/form-data", "multipart/form-data; boundary=", 'multipart/form-data; boundary="',
     "multipart/mixed; boundary=x", "application/x-www-form-urlencoded", "multipart/form-data; boundary=" + "x" * 9000,
     "multipart/form-data; boundary=\xff", ";;;=", "multipart/form-data; boundary*=utf-8''x"],
)  # fmt: skip
def test_what_is_no_form_is_refused(kind: str, served: Server, client: httpx.Client) -> None:
    sent = client.post(DOCUMENTS, content=FILE + END, headers={"Content-Type": kind.encode("latin-1")})
    assert sent.status_code in (400, 415)
    assert left(served) == []


def test_a_form_that_is_slow_to_read_lets_others_be_served(served: Server) -> None:
    """Boundaries that nearly are, and line breaks without end."""
    client, other = served.client(), served.client()
    done = threading.Event()
    waits: list[float] = []

    def ask_again() -> None:
        while not done.is_set():
            begun = time.monotonic()
            assert other.get("/v1/health").status_code == 200
            waits.append(time.monotonic() - begun)

    thread = threading.Thread(target=ask_again)
    thread.start()
    try:
        for filling in (b"\r\n--", b"\r", b"\n", b"\r\n--x\r", b"--x"):
            data = part("file", filling * (4_000_000 // len(filling)), '; filename="slow.pdf"') + END
            sent = client.post(DOCUMENTS, content=data, headers={"Content-Type": "multipart/form-data; boundary=x"})
            assert sent.status_code in (400, 415)
    finally:
        done.set()
        thread.join()
    assert max(waits) < 2


def test_a_disk_that_takes_no_more_is_said_and_leaves_nothing(empty_path: Path, tmp_path: Path) -> None:
    index = shutil.copytree(empty_path, tmp_path / "index")
    with serving(tmp_path / "server", {"drop": index}, "--max-upload", "8") as server:
        psutil.Process(server.pid).rlimit(psutil.RLIMIT_FSIZE, (4 << 20, 4 << 20))
        client = server.client()
        answer = upload(client, "drop", "large.txt", b"a" * (6 << 20))
        assert (answer.status_code, answer.json()["code"]) == (503, "store")
        assert str(tmp_path) not in answer.text
        assert [path for path in (index / "uploads").rglob("*") if path.is_file()] == []
        assert upload(client, "drop", "small.txt", b"Apples.").status_code == 202
        assert "Traceback" not in server.log


def test_a_collection_of_any_name_can_be_used(empty_path: Path, tmp_path: Path) -> None:
    name = "東京 äöü & <b>'"
    index = shutil.copytree(empty_path, tmp_path / "index")
    with serving(tmp_path / "server", {name: index}) as server:
        client = server.client()
        assert [each["name"] for each in client.get("/v1/collections").json()["collections"]] == [name]
        answer = upload(client, quote(name), "a.txt", b"Apples.")
        assert answer.status_code == 202, answer.text
        assert client.get(answer.headers["Location"]).json()["document"] == "a.txt"
        assert client.get("/metrics").status_code == 200
        assert "Traceback" not in server.log


# Where they say they lie.


@pytest.fixture(scope="module")
def rooted(empty_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that may read the folder "given", in which are ways out; and two URLs."""
    folder = tmp_path_factory.mktemp("rooted")
    index = shutil.copytree(empty_path, folder / "index")
    root, beside = folder / "given", folder / "given-beside"
    for made in (root / "docs" / "inner", root / "ways", beside):
        made.mkdir(parents=True)
    (beside / "secret.txt").write_text("A secret of apples.")
    (root / "docs" / "note.txt").write_text("A note on apples.")
    (root / "docs" / "inner" / "note.txt").write_text("A note on pears.")
    os.symlink(root / "docs" / "note.txt", root / "docs" / "inner" / "same.txt")
    os.symlink(beside / "secret.txt", root / "ways" / "out.txt")
    os.symlink(beside, root / "outside")
    os.symlink(root / "circle", root / "circle")
    options = ("--root", root, "--root", "https://files.invalid/docs", "--root", "s3://bucket/docs")
    with serving(folder / "server", {"drop": index}, *options) as server:
        yield server


def from_uri(server: Server, uri: str) -> httpx.Response:
    return server.client().post(f"{DOCUMENTS}/from-uri", json={"uri": uri})


def test_what_lies_under_a_root_is_taken(rooted: Server) -> None:
    root = rooted.folder.parent / "given"
    for uri in (
        f"{root}/docs/note.txt",
        f"file://{root}/docs/note.txt",
        f"file://localhost{root}/docs/../docs/note.txt",
    ):
        taken = from_uri(rooted, uri)
        assert taken.status_code == 202, taken.text
        assert [document["document"] for document in taken.json()["documents"]] == ["note.txt"]
    taken = from_uri(rooted, f"{root}/docs")
    assert [document["document"] for document in taken.json()["documents"]] == [
        "inner/note.txt",
        "inner/same.txt",
        "note.txt",
    ]
    for document in taken.json()["documents"]:
        assert finished(rooted.client(), "drop", document["id"])["state"] == "indexed"


WAYS_OUT = [
    "{folder}/given-beside/secret.txt", "{folder}/given/../given-beside/secret.txt", "{folder}/given/ways/out.txt",
    "{folder}/given/ways", "{folder}/given/outside", "{folder}/given/outside/secret.txt", "{folder}/given/circle",
    "{folder}/given/circle/a.txt", "{folder}", "{folder}/index", "/", "/etc/passwd", "/proc/self/environ", "/dev/zero",
    "file:///etc/passwd", "FILE:///etc/passwd", "file://{folder}/given/../given-beside/secret.txt",
    "file://{folder}/given/%2e%2e/given-beside/secret.txt", "file://{folder}/given/%2E%2E%2Fgiven-beside%2Fsecret.txt",
    "..", "../given-beside/secret.txt", "~/.ssh/id_rsa", "given/docs/note.txt",
    "{folder}/given\x00/../../etc/passwd", "\x00",
    "http://127.0.0.1:1/a.pdf", "http://169.254.169.254/latest/meta-data/", "ftp://evil/a.pdf",
    "https://files.invalid/docs/../secret.pdf", "https://files.invalid/docs/%2e%2e/secret.pdf",
    "https://files.invalid/",
    "https://files.invalid/docsecret.pdf", "https://files.invalid@evil.example/docs/a.pdf",
    "https://files.invalid/docs/..\t/a.pdf", "https://files.invalid/docs/.\n./a.pdf",
    "https://files.invalid/docs/..\\a.pdf",
    "https://evil.example/https://files.invalid/docs/a.pdf", "HTTPS://files.invalid/docs/a.pdf",
    "simplecache::file:///etc/passwd", "s3://bucket/docs/a::file:///etc/passwd", "s3://bucket/other/a.pdf",
    "s3://bucket/docs/../other/a.pdf", "memory://a.pdf", "data://text/plain,a", "zip://a.pdf::file:///etc/a.zip",
    "dir://etc/passwd", "local:///etc/passwd", "github://a:b@c/d.pdf", "javascript:alert(1)", SCRIPT,
    "\\\\evil\\share\\a.pdf",
]  # fmt: skip


@pytest.mark.parametrize("uri", WAYS_OUT)
def test_what_lies_elsewhere_is_refused(uri: str, rooted: Server) -> None:
    answer = from_uri(rooted, uri.format(folder=rooted.folder.parent) if "{folder}" in uri else uri)
    assert (answer.status_code, answer.json()["code"]) == (403, "access")
    assert "secret of apples" not in answer.text


@pytest.mark.parametrize("uri", ["file://evil.example/etc/passwd", "file://", "file:", "", "x" * 5000])
def test_what_is_no_uri_is_refused(uri: str, rooted: Server) -> None:
    long = f"{rooted.folder.parent}/given/{'a' * 3000}"
    assert from_uri(rooted, long).status_code == 400
    assert from_uri(rooted, uri).status_code in (400, 403, 422)


def test_without_roots_nothing_is_taken_by_uri(served: Server, client: httpx.Client) -> None:
    for uri in (str(served.folder / "samples"), "file:///etc/passwd", "https://files.invalid/a.pdf"):
        assert client.post(f"{DOCUMENTS}/from-uri", json={"uri": uri}).status_code == 403


def test_the_server_is_well_after_all_this(served: Server, rooted: Server, client: httpx.Client) -> None:
    found: dict[str, Any] = client.get(
        "/v1/collections/samples/search", params={"q": "What does a year pass cost?"}
    ).json()
    assert found["hits"][0]["document"] == "harrowmere-annual-report.pdf"
    assert left(served) == []
    for server in (served, rooted):
        assert "Traceback" not in server.log
