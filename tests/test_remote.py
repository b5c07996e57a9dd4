"""Files by URI and folders of files: here, in memory, over http, and on moto's S3 server."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from visrag.errors import DocumentError, NotFound, Reason, StoreError, UsageError
from visrag.sources import Source, find_sources
from visrag.store.remote import Downloads, Folder, fetch, is_url, listing, local_path

s3fs = pytest.importorskip("s3fs")
pytest.importorskip("moto")

ODD = "Zahlen/2024 é/a*[1]?#%20 ü.pdf"


class Front(ThreadingHTTPServer):
    """An HTTP server before moto's: it counts what is got, and can fail or stall in the middle of a file."""

    daemon_threads = True

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = behind
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.got: Counter[str] = Counter()
        self.failing = 0  # requests that are still to fail
        self.stalled = ""  # the file that is sent halfway only
        self.going_on = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Front
    protocol_version = "HTTP/1.1"  # which answers "Expect: 100-continue"

    def forward(self) -> None:
        if self.server.failing:
            self.server.failing -= 1
            self.send_error(503)
            return
        behind = http.client.HTTPConnection("127.0.0.1", self.server.behind)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        behind.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k != "Expect"})
        answer = behind.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("connection", "content-length", "date", "server", "transfer-encoding"):
                self.send_header(key, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        name = unquote(self.path).rpartition("/")[2]
        half = 0
        if self.command == "GET":
            self.server.got[name] += 1
            if name == self.server.stalled:
                half = len(data) // 2
                self.wfile.write(data[:half])
                self.wfile.flush()
                self.server.going_on.wait()
        self.wfile.write(data[half:])
        behind.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port, log = free_port(), tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as server:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert server.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)
            yield port
        finally:
            server.terminate()


@pytest.fixture
def front(moto: int) -> Iterator[Front]:
    with Front(moto) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.going_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def settings(front: Front, tmp_path: Path) -> dict[str, str]:
    """The environment of a user of that server."""
    return {
        "AWS_ENDPOINT_URL": front.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }


@pytest.fixture
def bucket(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket."""
    for key, value in settings.items():
        monkeypatch.setenv(key, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"b{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "local":
        return Folder(tmp_path / "files")
    if request.param == "memory":
        return Folder(f"memory://{uuid.uuid4().hex}/files/", tmp_path / "cache")
    return Folder(f"{request.getfixturevalue('bucket')}/files", tmp_path / "cache")


def start(code: str, settings: dict[str, str]) -> subprocess.Popen[str]:
    """Python code in a process of its own, with nothing set that a file system takes note of but these."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "FSSPEC_", "XDG_"))}
    code = f"from pathlib import Path\nfrom visrag.store.remote import *\n{code}"
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.Popen(command, env=clean | settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def last_line(process: subprocess.Popen[str]) -> str:
    """The end of what a process said on standard error, once it has ended."""
    return process.communicate(timeout=60)[1].strip().splitlines()[-1]


def until(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def all_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a.pdf", True),
        ("S3://bucket/a.pdf", True),
        ("https://example.org/a", True),
        ("abfs://x", True),
        ("file:///tmp/a.pdf", False),
        ("FILE:///tmp/a.pdf", False),
        ("C:/a.pdf", False),
        ("c://a.pdf", False),
        ("C:", False),
        ("/tmp/s3://a", False),
        ("folder/a.pdf", False),
        ("s3:/bucket/a.pdf", False),
        ("simplecache::s3://bucket/a.pdf", False),
    ],
)
def test_is_url(text: str, expected: bool) -> None:
    assert is_url(text) is expected


def test_local_path() -> None:
    assert local_path("a/b c.pdf") == Path("a/b c.pdf")
    assert local_path("file:///tmp/b%20c%23.pdf") == Path("/tmp/b c#.pdf")
    assert local_path("file://localhost/tmp/ü.pdf") == Path("/tmp/ü.pdf")
    assert os.fsencode(local_path("file:///tmp/%FF")) == b"/tmp/\xff"
    with pytest.raises(UsageError, match="no path of this machine"):
        local_path("file://elsewhere/tmp/a.pdf")


def test_a_local_file_is_fetched_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"x")
    for uri in (str(tmp_path / "a.pdf"), f"file://{tmp_path}/a.pdf"):
        assert fetch(uri, tmp_path / "downloads") == tmp_path / "a.pdf"
    assert not (tmp_path / "downloads").exists()


def test_fetch_from_s3(bucket: str, tmp_path: Path) -> None:
    files = s3fs.S3FileSystem()
    data = os.urandom(3 * 2**20)
    files.pipe_file(f"{bucket}/{ODD}", data)
    first, second = (fetch(f"{bucket}/{ODD}", tmp_path / "d") for _ in range(2))
    assert first.read_bytes() == second.read_bytes() == data
    assert first.suffix == second.suffix == ".pdf"
    assert sorted((tmp_path / "d").iterdir()) == sorted([first, second])
    files.pipe_file(f"{bucket}/Zahlen/neu", b"x")
    assert fetch(f"{bucket}/Zahlen/neu", tmp_path / "d").suffix == ""


def test_what_is_not_there_is_missing(bucket: str, tmp_path: Path) -> None:
    s3fs.S3FileSystem().pipe_file(f"{bucket}/folder/a.pdf", b"x")
    for uri, why in [
        (f"{bucket}/gone.pdf", "is not there: check the URL"),
        (f"{bucket}/folder", "is a folder"),
        ("s3://no-such-bucket/a.pdf", "bucket is not there"),
        ("s3://Not_a_bucket!/a.pdf", "Invalid bucket name"),
        (f"memory://{uuid.uuid4().hex}/a.pdf", "is not there"),
    ]:
        with pytest.raises(DocumentError, match=why) as caught:
            fetch(uri, tmp_path / "d")
        assert (caught.value.document, caught.value.page, caught.value.reason) == (uri, None, Reason.MISSING)
    assert all_files(tmp_path / "d") == []


def test_protocols_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nope:// is not known"):
        fetch("nope://a/b.pdf", tmp_path)
    with pytest.raises(UsageError, match="nope:// is not known"):
        find_sources(["nope://a/b.pdf"])
    with pytest.raises(UsageError, match="keeps no files there"):
        Folder("https://example.org/files")
    code = "import sys\nsys.modules['s3fs'] = None\n"  # as if it were not installed
    asks = ("listing('s3://bucket/a.pdf')", "fetch('S3A://bucket/a.pdf', Path())", "Folder('s3://bucket').get('a')")
    for process in [start(code + ask, {}) for ask in asks]:
        said = last_line(process)
        assert said.startswith("visrag.errors.MissingExtra: s3")
        assert said.endswith("pip install 'visrag[s3]'")


def test_no_credentials_no_right_and_no_server(bucket: str, settings: dict[str, str], tmp_path: Path) -> None:
    s3fs.S3FileSystem().pipe_file(f"{bucket}/a.pdf", b"x")
    key = {name: value for name, value in settings.items() if "KEY" in name}
    server = {name: value for name, value in settings.items() if "KEY" not in name}
    code = f"fetch('{bucket}/a.pdf', Path('{tmp_path}/d'))"
    without = start(code, server)
    public = start(code, server | {"FSSPEC_S3_ANON": "true"})
    down = start(code, server | key | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"})
    assert "needs credentials (NoCredentialsError" in last_line(without)
    assert "is refused to the credentials in use (PermissionError: Forbidden" in last_line(public)
    assert "cannot be reached (EndpointConnectionError" in last_line(down)


@pytest.mark.parametrize(
    "names",
    [
        ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ("FSSPEC_S3_ENDPOINT_URL", "FSSPEC_S3_KEY", "FSSPEC_S3_SECRET"),
    ],
)
def test_settings_from_the_environment(
    bucket: str, settings: dict[str, str], names: tuple[str, ...], tmp_path: Path
) -> None:
    s3fs.S3FileSystem().pipe_file(f"{bucket}/a.pdf", b"x")
    values = (settings["AWS_ENDPOINT_URL"], "key", "secret")
    told = dict(zip(names, values, strict=True)) | {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    process = start(f"print(fetch('{bucket}/a.pdf', Path('{tmp_path}/d')).read_bytes())", told)
    assert process.communicate(timeout=60) == ("b'x'\n", "")


def test_http(bucket: str, front: Front, tmp_path: Path) -> None:
    name = bucket.removeprefix("s3://")
    s3fs.S3FileSystem().pipe_file(f"{bucket}/a b.pdf", b"12345")
    s3fs.S3FileSystem().chmod(f"{bucket}/a b.pdf", "public-read")
    url = f"{front.url}/{name}/a%20b.pdf"
    front.failing = 2
    assert fetch(url, tmp_path).read_bytes() == b"12345"
    assert front.failing == 0
    assert find_sources([f"{url}?download=1"]) == [Source(f"{url}?download=1", "a b.pdf", 5)]
    with pytest.raises(DocumentError, match="is not there"):
        fetch(f"{front.url}/{name}/gone.pdf", tmp_path)
    front.failing = 100
    with pytest.raises(DocumentError, match=r"cannot be reached .*503"):
        fetch(url, tmp_path)
    with pytest.raises(UsageError, match="cannot be reached"):
        listing(f"http://127.0.0.1:{free_port()}/a.pdf")
    assert [path.suffix for path in tmp_path.iterdir() if path.is_file()] == [".pdf"]


def test_find_sources_under_a_url(bucket: str, tmp_path: Path) -> None:
    files = s3fs.S3FileSystem()
    found = {"b.PDF": 3, "a b.txt": 1, ODD: 7, "one/two/three.md": 0}
    passed_over = [
        ".hidden.pdf",
        ".git/x.pdf",
        "notes.docx",
        "none",
        "folder.pdf/",
        "old/index.db",
        "old/vectors/1",
        "old/images/p.png",
    ]
    for name, size in found.items():
        files.pipe_file(f"{bucket}/in/{name}", b"x" * size)
    for name in passed_over:
        files.call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key=f"in/{name}", Body=b"x")
    files.pipe_file(f"{bucket}/inner/z.pdf", b"x")  # the prefix is a folder, not the beginning of a name
    (tmp_path / "local.pdf").write_bytes(b"xx")

    expected = [Source(f"{bucket}/in/{name}", name, size) for name, size in sorted(found.items())]
    assert find_sources([f"{bucket}/in"]) == find_sources([f"{bucket}/in/"]) == expected
    assert [source.name for source in find_sources([bucket])] == [f"in/{name}" for name in sorted(found)] + [
        "inner/z.pdf"
    ]
    for source in expected:
        assert fetch(source.uri, tmp_path / "d").stat().st_size == source.size
    alone, here, again = f"{bucket}/in/notes.docx", tmp_path / "local.pdf", f"file://{tmp_path}/local.pdf"
    assert find_sources([alone, here, again]) == [Source(alone, "notes.docx", 1), Source(here, "local.pdf", 2)]
    files.pipe_file(f"{bucket}/in/later.pdf", b"x")
    assert len(find_sources([f"{bucket}/in"])) == 5


def test_sources_that_cannot_be_had(bucket: str, tmp_path: Path) -> None:
    for name in ("a/x.pdf", "b/x.pdf"):
        s3fs.S3FileSystem().pipe_file(f"{bucket}/{name}", b"x")
    (tmp_path / "x.pdf").write_bytes(b"x")
    for other in (f"{bucket}/b", str(tmp_path)):
        with pytest.raises(UsageError, match=r"would both be named x\.pdf"):
            find_sources([f"{bucket}/a", other])
    assert len(find_sources([f"{bucket}/a", f"{bucket}/a/x.pdf"])) == 1
    for url in (f"{bucket}/c", "s3://no-such-bucket", "s3://no-such-bucket/a"):
        with pytest.raises(UsageError, match="is not there"):
            find_sources([url])


def test_a_source_here_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Source(Path("a.pdf"), "a.pdf", 1).uri == str(tmp_path / "a.pdf")
    assert Source(Path("a.pdf"), "a.pdf", 1).path == Path("a.pdf")
    assert Source("s3://b/a.pdf", "a.pdf", 1).uri == "s3://b/a.pdf"
    with pytest.raises(UsageError, match="leave it to workers"):
        Source("s3://b/a.pdf", "a.pdf", 1).path  # noqa: B018


def test_downloads(bucket: str, tmp_path: Path) -> None:
    s3fs.S3FileSystem().pipe_file(f"{bucket}/a.pdf", b"x")
    (tmp_path / "b.pdf").write_bytes(b"y")
    with Downloads(tmp_path / "d") as downloads, Downloads(tmp_path / "d") as others:
        with downloads.file(f"{bucket}/a.pdf") as path:
            assert path.parent == downloads.folder != others.folder
            assert path.read_bytes() == b"x"
        assert not path.exists()
        with downloads.file(str(tmp_path / "b.pdf")) as path:
            assert path == tmp_path / "b.pdf"
        assert path.exists()
        fetch(f"{bucket}/a.pdf", downloads.folder)
    assert list((tmp_path / "d").iterdir()) == []


def test_nothing_is_left_of_a_download_that_was_killed(
    bucket: str, settings: dict[str, str], front: Front, tmp_path: Path
) -> None:
    root, data = tmp_path / "d", os.urandom(2**20)
    s3fs.S3FileSystem().pipe_file(f"{bucket}/a.pdf", data)
    front.stalled = "a.pdf"
    code = f"with Downloads(Path('{root}')) as downloads: fetch('{bucket}/a.pdf', downloads.folder)"
    process = start(code, settings)
    until(lambda: any(path.stat().st_size > 2**18 for path in root.glob("*/*")))
    with Downloads(root):  # that of a living process stays
        assert len(list(root.glob("*/*.pdf.part"))) == 1
    kill(process)
    assert list(root.glob("*/*.pdf")) == []
    with Downloads(root) as downloads:
        assert all_files(root) == [f"{downloads.folder.name}.lock"]


def test_a_folder_of_files(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"0123456789" * 10_000)
    assert folder.names() == []
    folder.put("a.png", b"first")
    folder.put("a.png", b"second")
    folder.put("pages/é 1.webp", b"")
    folder.put("pages/10/1.webp", tmp_path / "big")
    folder.put(ODD, b"odd")
    assert folder.names() == sorted(["a.png", "pages/é 1.webp", "pages/10/1.webp", ODD])
    assert folder.names("pages/") == ["pages/10/1.webp", "pages/é 1.webp"]
    assert folder.names("pages/1") == ["pages/10/1.webp"]
    assert folder.names("pag") == ["pages/10/1.webp", "pages/é 1.webp"]
    assert folder.names("a.png/") == folder.names("none/") == folder.names("x") == []
    assert folder.get("a.png") == b"second"
    assert folder.get("pages/é 1.webp") == b""
    assert folder.get(ODD) == b"odd"
    fetched = folder.fetch("pages/10/1.webp")
    assert fetched.read_bytes() == b"0123456789" * 10_000
    assert fetched.suffix == ".webp"
    assert folder.fetch("pages/10/1.webp") == fetched

    folder.delete(["pages/10/1.webp", "none.png", "none/none.png", ODD, "a.png"])
    folder.delete([])
    assert folder.names() == ["pages/é 1.webp"]
    for name in ("a.png", "pages/10/1.webp", "none", "pages"):
        with pytest.raises(NotFound, match="holds no file"):
            folder.get(name)
    for name in ("a.png", "pages/10/1.webp", "none"):
        with pytest.raises(NotFound, match="holds no file"):
            folder.fetch(name)
    folder.put("pages/10/1.webp", b"again")
    assert folder.fetch("pages/10/1.webp").read_bytes() == b"again"


@pytest.mark.parametrize("name", ["", "..", "../a", "a/../../b", "/a", "a//b", "./a", "a/", "a\0b", ".parts/a"])
def test_names_that_would_leave_a_folder(name: str, tmp_path: Path) -> None:
    for folder in (Folder(tmp_path / "files"), Folder("memory://x", tmp_path)):
        for ask in (folder.get, folder.fetch, lambda name, folder=folder: folder.put(name, b"x")):
            with pytest.raises(UsageError, match="is no name for a file in"):
                ask(name)
        with pytest.raises(UsageError, match="is no name for a file in"):
            folder.delete([name])
    with pytest.raises(UsageError, match="is no name for a file in"):
        Folder(tmp_path / "files").names("../")
    assert all_files(tmp_path) == []


def test_where_a_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Folder("files").url == Folder(f"file://{tmp_path}/files").url == str(tmp_path / "files")
    assert Folder("s3://bucket/files//").url == "s3://bucket/files"
    assert Folder("memory://").url == "memory://"


def test_a_folder_that_cannot_be_used(bucket: str, tmp_path: Path) -> None:
    gone = Folder("s3://no-such-bucket/files", tmp_path / "cache")
    for ask in (
        lambda: gone.put("a", b"x"),
        lambda: gone.get("a"),
        lambda: gone.fetch("a"),
        lambda: gone.delete(["a"]),
        gone.names,
    ):
        with pytest.raises(StoreError, match="bucket is not there"):
            ask()
    (tmp_path / "file").write_bytes(b"x")
    blocked = Folder(tmp_path / "file")
    with pytest.raises(StoreError, match="file"):
        blocked.put("a", b"x")
    for folder in (Folder(tmp_path / "files"), Folder(f"{bucket}/files"), Folder("memory://x")):
        with pytest.raises(StoreError, match="none: "):
            folder.put("a", tmp_path / "none")
        assert folder.names() == []
    Folder(f"{bucket}/files").put("a", b"x")
    with pytest.raises(StoreError, match="file"):
        Folder(f"{bucket}/files", tmp_path / "file").fetch("a")
    with pytest.raises(StoreError, match="file"):
        fetch(f"{bucket}/files/a", tmp_path / "file")


def test_a_put_that_was_killed_leaves_the_old_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "files")
    folder.put("a", b"old")
    os.mkfifo(tmp_path / "pipe")
    process = start(f"Folder('{tmp_path}/files').put('a', Path('{tmp_path}/pipe'))", {})
    with (tmp_path / "pipe").open("wb") as pipe:
        pipe.write(b"new" * 2**20)
        pipe.flush()
        parts = tmp_path / "files" / ".parts"
        until(lambda: [path for path in parts.iterdir() if path.stat().st_size > 2**20])
        assert folder.sweep() == 0  # its writer lives
        assert folder.names() == ["a"]
        kill(process)
    assert len(list(parts.iterdir())) == 1
    assert folder.get("a") == b"old"
    Folder(tmp_path / "files").put("b", b"x")
    assert list(parts.iterdir()) == []
    assert folder.names() == ["a", "b"]


def test_a_copy_is_downloaded_once_by_all_processes(
    bucket: str, settings: dict[str, str], front: Front, tmp_path: Path
) -> None:
    data = os.urandom(2**20)
    Folder(f"{bucket}/files").put("a.webp", data)
    front.stalled = "a.webp"
    code = f"print(Folder('{bucket}/files').fetch('a.webp'))"
    processes = [start(code, settings) for _ in range(3)]
    until(lambda: front.got["a.webp"] == 1)
    time.sleep(2)  # time for the others to come to it
    front.stalled = ""
    front.going_on.set()
    printed = {process.communicate(timeout=60) for process in processes}
    assert len(printed) == 1
    path, complaints = printed.pop()
    assert complaints == ""
    assert Path(path.strip()).read_bytes() == data
    assert front.got["a.webp"] == 1
    assert Folder(f"{bucket}/files").fetch("a.webp") == Path(path.strip())
    assert front.got["a.webp"] == 1
    assert all_files(tmp_path / "cache") == ["visrag/" + Path(path.strip()).name, "visrag/lock"]


def test_half_a_copy_is_not_taken_for_whole(
    bucket: str, settings: dict[str, str], front: Front, tmp_path: Path
) -> None:
    data = os.urandom(2**20)
    folder = Folder(f"{bucket}/files")
    folder.put("a.webp", data)
    folder.put("b.webp", b"b")
    front.stalled = "a.webp"
    code = f"Folder('{bucket}/files').fetch('a.webp')"
    cache = tmp_path / "cache" / "visrag"
    for _ in range(2):
        process = start(code, settings)
        until(lambda: any(path.stat().st_size > 2**18 for path in cache.glob("*.part")))
        kill(process)
        assert list(cache.glob("*.webp")) == []
        front.going_on.set()
        front.going_on = threading.Event()
        if _ == 0:
            assert folder.fetch("b.webp").read_bytes() == b"b"  # makes room: what was left of it goes
            assert list(cache.glob("*.part")) == []
            folder.delete(["b.webp"])
            for path in cache.glob("*.webp"):
                path.unlink()
    front.stalled = ""
    assert folder.fetch("a.webp").read_bytes() == data
    assert [path.suffix for path in cache.iterdir() if path.name != "lock"] == [".webp"]


def test_a_file_that_changes_has_another_copy(folder: Folder) -> None:
    folder.put("a.png", b"12")
    assert folder.fetch("a.png").read_bytes() == b"12"
    folder.put("a.png", b"34")
    assert folder.fetch("a.png").read_bytes() == b"34"


def test_the_copies_longest_unused_go(tmp_path: Path) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    folder = Folder(url, tmp_path / "cache", cache_bytes=250)
    copies = []
    for i in range(4):
        folder.put(f"{i}.png", bytes(100))
        if i < 3:
            copies.append(folder.fetch(f"{i}.png"))
    assert all(copy.exists() for copy in copies)  # over the limit, but just used
    for copy, hours in zip(copies, (2, 3, 1), strict=True):
        then = time.time() - 3600 * hours
        os.utime(copy, (then, then))
    copies.append(folder.fetch("3.png"))
    assert [copy.exists() for copy in copies] == [False, False, True, True]
    then = time.time() - 3600 * 5
    os.utime(copies[3], (then, then))
    assert folder.fetch("3.png") == copies[3]  # which makes it the newest
    folder.fetch("0.png")
    assert [copy.exists() for copy in copies] == [True, False, False, True]
