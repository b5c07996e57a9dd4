"""Limits of time, size and number, against a real server: what comes too slowly, too long, or too often."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from lines import ask, closed_within, head, line, parsed, read_all
from serving import Server, serving, upload

from visrag.ids import document_id
from visrag.uploads import YOUNG

REPORT = "harrowmere-annual-report.pdf"
GIB = 1 << 30
MIB = 1 << 20
DOCUMENTS = "/v1/collections/drop/documents"
UPLOAD = MIB  # bytes that the server takes
HEAD_SECONDS, BODY_SECONDS = 1.0, 2.0
LATE = 6.0  # seconds more than that, on a busy machine
FORM = "Content-Type: multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="big.txt"\r\n\r\n'
CONNECTIONS, LISTENERS, SENDERS = 40, 6, 4  # of all callers: half of the last two are one's own


@pytest.fixture(scope="module")
def tight(samples_path: Path, empty_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with little patience."""
    folder = tmp_path_factory.mktemp("tight")
    collections = {"samples": folder / "samples", "drop": folder / "drop"}
    shutil.copytree(samples_path, collections["samples"])
    shutil.copytree(empty_path, collections["drop"])
    limits = {"header_seconds": HEAD_SECONDS, "body_seconds": BODY_SECONDS, "connections": CONNECTIONS}
    limits |= {"listeners": LISTENERS, "senders": SENDERS, "upload_bytes": UPLOAD, "searches": 1, "waiting": 2}
    with serving(folder, collections, limits={**limits, "rate": 1e6, "burst": 10**6}) as server:
        server.client().post("/v1/collections/samples/search", json={"question": "apples"})  # all is loaded
        yield server


def left_in(server: Server) -> list[Path]:
    """What lies where uploads are kept."""
    return [path for path in (server.folder / "drop" / "uploads").rglob("*") if path.is_file()]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until it holds. Raises AssertionError."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def memory(server: Server) -> int:
    """Bytes in use by a server without its children."""
    return int(psutil.Process(server.pid).memory_info().rss)


# Size.


def test_a_body_that_is_announced_as_2_gb_is_refused_before_it_comes(tight: Server) -> None:
    for method, path in (("POST", DOCUMENTS), ("POST", "/v1/collections/drop/search"), ("GET", "/v1/health")):
        request = head(method, path, FORM, f"Content-Length: {2 * GIB}", "Expect: 100-continue")
        with line(tight.port) as made:
            made.sendall(request)
            answer = parsed(read_all(made))  # which ends: the server has closed
        assert (path, answer.status, answer.json()["code"]) == (path, 413, "limit")
        assert answer.headers["connection"] == "close"
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "statuses", "most"),
    [
        (DOCUMENTS, (413,), UPLOAD + MIB),
        ("/v1/collections/drop/search", (413,), MIB),
        ("/v1/session", (413,), MIB),
        ("/v1/collections/none/documents", (404,), 0),
        (f"{DOCUMENTS}/eA/retry", (404,), 0),
        ("/v1/health", (405,), 0),
        ("/", (405,), 0),
    ],
)
def test_a_body_of_2_gb_that_is_not_announced_is_cut_off(
    path: str, statuses: tuple[int, ...], most: int, tight: Server
) -> None:
    before = memory(tight)
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    sent = 0
    with line(tight.port) as made:
        made.sendall(head("POST", path, FORM, "Transfer-Encoding: chunked"))
        made.sendall(b"%x\r\n%s\r\n" % (len(PART), PART))
        with contextlib.suppress(ConnectionError):
            while sent < 2 * GIB:
                made.sendall(chunk)
                sent += len(chunk)
        answer = parsed(read_all(made))
    assert answer.status in statuses
    assert answer.headers["connection"] == "close"
    assert sent < most + 16 * MIB  # what lies between the two ends
    assert memory(tight) - before < 64 * MIB
    assert left_in(tight) == []


def test_an_upload_over_the_limit_within_the_form_is_refused(tight: Server) -> None:
    client = tight.client()
    assert upload(client, "drop", "long.txt", b"a" * (UPLOAD + MIB)).status_code == 413
    assert upload(client, "drop", "tags.txt", b"a", tags='{"a": "' + "b" * 70_000 + '"}').status_code == 400
    assert left_in(tight) == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip", "x"])
def test_a_compressed_body_is_not_opened(encoding: str, tight: Server) -> None:
    import gzip

    bomb = gzip.compress(b"\0" * (64 * MIB))
    for path in (DOCUMENTS, "/v1/collections/drop/search"):
        answer = tight.client().post(path, content=bomb, headers={"Content-Encoding": encoding})
        assert (answer.status_code, answer.json()["code"]) == (415, "usage")
    inner = {"file": ("bomb.txt", bomb, "text/plain", {"Content-Encoding": "gzip"})}
    answer = tight.client().post(DOCUMENTS, files=inner)
    assert answer.status_code == 415  # a gzip file named .txt, as it is
    assert left_in(tight) == []


def test_a_head_that_is_too_long_is_refused(tight: Server) -> None:
    many = [f"X-{number}: {number}" for number in range(20_000)]
    long = "a" * 1_000_000
    heads = [
        head("GET", "/v1/health", *many),
        head("GET", "/v1/health", f"X: {long}"),
        head("GET", f"/v1/health?{long}"),
    ]
    for flood in (*heads, head("GET", "/v1/health", "Cookie: " + "a=b;" * 250_000)):
        answer = ask(tight.port, flood)
        assert answer.status == 431
        assert answer.headers["content-type"] == "application/problem+json"
    # Without an end it is cut off, too.
    sent = 0
    with line(tight.port) as made, contextlib.suppress(ConnectionError):
        made.sendall(b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        while sent < 16 * MIB:
            made.sendall(b"X-Flood: " + b"a" * 1000 + b"\r\n")
            sent += 1011
    assert sent < 16 * MIB
    assert tight.client().get("/v1/health").status_code == 200


# Time.


def test_a_head_that_comes_slowly_is_cut_off(tight: Server) -> None:
    whole = head("GET", "/v1/health")
    with line(tight.port) as made:  # not a byte
        assert closed_within(made, HEAD_SECONDS + LATE) > HEAD_SECONDS / 2
    with line(tight.port) as made:  # one after another
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < 10:
                made.sendall(b"X")
                time.sleep(0.1)
        assert time.monotonic() - begun < HEAD_SECONDS + LATE
    with line(tight.port) as made:  # of the second request of a connection
        made.sendall(whole)
        assert made.recv(65_536).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in whole * 3:
                made.sendall(bytes([byte]))
                time.sleep(0.1)
        assert time.monotonic() - begun < HEAD_SECONDS + LATE
    with line(tight.port) as made:  # of one that begins together with the first
        made.sendall(whole + b"GET /v1/he")
        begun = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - begun < 15:
                made.sendall(b"a")
                time.sleep(0.1)
        assert time.monotonic() - begun < HEAD_SECONDS + LATE


@pytest.mark.parametrize("pause", [None, 0.2])
def test_an_upload_that_comes_slowly_is_cut_off(pause: float | None, tight: Server) -> None:
    """Either nothing more comes, or a byte now and then."""
    before = left_in(tight)
    with line(tight.port) as made:
        made.sendall(head("POST", DOCUMENTS, FORM, "Content-Length: 500000") + PART)
        begun = time.monotonic()
        made.settimeout(pause or 10)
        data = b""
        while not data and time.monotonic() - begun < 10:
            try:
                data = made.recv(65_536)
            except TimeoutError:
                made.sendall(b"a")
        taken = time.monotonic() - begun
        made.settimeout(5)
        answer = parsed(data + read_all(made))
    assert answer.status == 408
    assert BODY_SECONDS / 2 < taken < BODY_SECONDS + LATE
    assert left_in(tight) == before


def test_a_json_body_that_comes_slowly_is_cut_off(tight: Server) -> None:
    for path in ("/v1/session", "/v1/collections/drop/search"):
        request = head("POST", path, "Content-Type: application/json", "Content-Length: 1000")
        assert ask(tight.port, request + b'{"question": "', timeout=10).status == 408


def test_an_upload_that_goes_on_fast_enough_may_take_longer_than_the_patience(tight: Server) -> None:
    size = 60_000
    body = PART + b"a" * size + b"\r\n--x--\r\n"
    with line(tight.port) as made:
        made.sendall(head("POST", DOCUMENTS, FORM, f"Content-Length: {len(body)}", "Connection: close"))
        begun = time.monotonic()
        for start in range(0, len(body), 12_000):
            made.sendall(body[start : start + 12_000])
            time.sleep(1)
        answer = parsed(read_all(made))
    assert time.monotonic() - begun > 2 * BODY_SECONDS
    assert answer.status == 202
    assert tight.client().delete(f"{DOCUMENTS}/{answer.json()['id']}").status_code == 204


def test_an_upload_whose_sender_goes_away_leaves_nothing(tight: Server) -> None:
    for path in (tight.folder / "drop" / "uploads").glob("*"):  # of tests before: kept for those that may need them
        assert path.is_dir() or time.time() - path.stat().st_mtime < YOUNG
        path.unlink() if path.is_file() else None
    for sent in (b"", PART, PART + b"a" * 100_000):
        with line(tight.port) as made:
            made.sendall(head("POST", DOCUMENTS, FORM, "Content-Length: 500000") + sent)
            time.sleep(0.1)
    until(lambda: left_in(tight) == [])
    assert tight.client().get(DOCUMENTS).json()["total"] == 0
    assert "Traceback" not in tight.log


# Number.


def test_only_so_many_uploads_at_once_and_they_make_room(tight: Server) -> None:
    client = tight.client()
    before = len(left_in(tight))
    with contextlib.ExitStack() as stack:
        for _ in range(SENDERS // 2):
            made = stack.enter_context(line(tight.port))
            made.sendall(head("POST", DOCUMENTS, FORM, "Content-Length: 500000") + PART)
        until(lambda: len(left_in(tight)) == before + SENDERS // 2)
        refused = upload(client, "drop", "third.txt", b"A third.")
        assert (refused.status_code, refused.json()["code"]) == (429, "limit")
        assert int(refused.headers["Retry-After"]) >= 1
        end = time.monotonic() + 20  # in which the slow ones are cut off
        while (taken := upload(client, "drop", "third.txt", b"A third.")).status_code == 429:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert taken.status_code == 202
    assert client.delete(f"{DOCUMENTS}/{taken.json()['id']}").status_code == 204


def test_only_so_many_event_streams_at_once(tight: Server) -> None:
    client = tight.client()
    path = "/v1/collections/samples/events"
    with contextlib.ExitStack() as stack:
        streams = []  # one that is forgotten is closed
        for _ in range(LISTENERS // 2):
            response = stack.enter_context(client.stream("GET", path))
            assert response.headers["Content-Type"].startswith("text/event-stream")
            streams.append(response.iter_lines())
            assert next(streams[-1]) == "event: documents"
        refused = client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (429, "limit")
        assert client.get("/v1/health").status_code == 200
    end = time.monotonic() + 10
    while time.monotonic() < end:  # their places are free again
        with client.stream("GET", path) as response:
            if response.status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("the places of streams that ended are not free")


def test_only_so_many_searches_wait(tight: Server) -> None:
    """One is worked on, two wait; of many that come at once some are refused, and none fails otherwise."""
    client = tight.client(limits=httpx.Limits(max_connections=30))
    question = " ".join(f"apples{number}" for number in range(150))

    def search(number: int) -> httpx.Response:
        asked = {"question": f"{question} {number}", "k": 20, "include": ["heatmap"]}
        return client.post("/v1/collections/samples/search", json=asked)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(search, range(48)))
    counts = {status: sum(answer.status_code == status for answer in answers) for status in (200, 429)}
    assert counts[200] + counts[429] == 48
    assert counts[200] >= 3
    assert counts[429] >= 1
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 429)


def test_too_many_connections_are_turned_away_and_the_others_end(tight: Server) -> None:
    time.sleep(HEAD_SECONDS)
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(line(tight.port)) for _ in range(3 * CONNECTIONS)]
        answers = []
        for each in made[-CONNECTIONS:]:
            each.settimeout(5)
            with contextlib.suppress(TimeoutError):
                answers.append(parsed(read_all(each)).status)
        assert answers == [503] * CONNECTIONS
        for each in made[:CONNECTIONS]:
            closed_within(each, HEAD_SECONDS + LATE)
        assert tight.client().get("/v1/health").status_code == 200
    open_files = psutil.Process(tight.pid).num_fds()
    assert open_files < 4 * CONNECTIONS


def test_a_caller_has_a_rate(samples_path: Path, tmp_path: Path) -> None:
    index = shutil.copytree(samples_path, tmp_path / "index")
    from visrag.server.keys import KeyFile

    folder = tmp_path / "server"
    folder.mkdir()
    keys = [KeyFile(folder / "keys.json").create("reader") for _ in range(2)]
    with serving(folder, {"samples": index}, limits={"rate": 2.0, "burst": 10, "ingest": False}) as server:
        one, other = map(server.client, keys)
        begun = time.monotonic()
        answers = [one.get("/v1/session", headers={"X-Forwarded-For": f"10.0.0.{number}"}) for number in range(30)]
        most = 10 + 2.0 * (time.monotonic() - begun)
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 10 <= len(answers) - len(refused) <= most
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
        assert all(answer.json()["code"] == "limit" for answer in refused)
        assert other.get("/v1/session").status_code == 200  # each key has its own
        time.sleep(1.2)
        assert one.get("/v1/session").status_code == 200
        nobody = server.client()  # nor can keys be tried at leisure
        tried = [nobody.get("/v1/session", headers={"Authorization": f"Bearer {number}"}) for number in range(30)]
        assert {answer.status_code for answer in tried} == {401, 429}


# Connections.


def test_requests_in_one_packet_are_answered_in_their_order(tight: Server) -> None:
    id = document_id(REPORT)
    paths = ["/v1/health", f"/v1/collections/samples/documents/{id}/pages/1", "/v1/missing", "/v1/ready"] * 25
    requests = [head("GET", path) for path in paths[:-1]] + [head("GET", paths[-1], "Connection: close")]
    with line(tight.port) as made:
        sender = threading.Thread(target=made.sendall, args=(b"".join(requests),))
        sender.start()
        data = read_all(made)
        sender.join()
    statuses = []
    while data:
        answer = parsed(data)
        statuses.append(answer.status)
        data = data.partition(b"\r\n\r\n")[2][len(answer.body) :]
    assert statuses == [200, 200, 404, 200] * 25


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /v1/health\r\n\r\n",
        b"GET /v1/h\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\x00b\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\n X: folded\r\n: b\r\n\r\n",
        head("POST", DOCUMENTS, FORM, "Content-Length: -1"),
        head("POST", DOCUMENTS, FORM, "Content-Length: 1e9"),
        head("POST", DOCUMENTS, FORM, "Content-Length: 5", "Content-Length: 6"),
        head("POST", DOCUMENTS, FORM, "Transfer-Encoding: gzip"),
        head("POST", DOCUMENTS, FORM, "Transfer-Encoding: chunked") + b"ffffffffffffffffffffff\r\n",
        head("POST", DOCUMENTS, FORM, "Transfer-Encoding: chunked") + b"nonsense\r\n",
        head("POST", "/v1/collections/drop/search", "Transfer-Encoding: chunked") + b"-5\r\n",
        head("GET", "/v1/health") + b"nonsense\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(data: bytes, tight: Server) -> None:
    answer = ask(tight.port, data)
    if not data.endswith(b"nonsense\r\n\r\n"):  # which comes after a good one
        assert answer.status in (400, 408, 413, 431, 501)
    assert tight.client().get("/v1/health").status_code == 200
    assert "Traceback" not in tight.log


def test_two_ways_of_saying_a_length_do_not_smuggle_a_request(tight: Server) -> None:
    hidden = head("DELETE", f"/v1/collections/samples/documents/{document_id(REPORT)}")
    body = b"0\r\n\r\n" + hidden
    request = head("POST", "/v1/session", f"Content-Length: {len(body)}", "Transfer-Encoding: chunked") + body
    with line(tight.port) as made:
        made.sendall(request)
        made.shutdown(socket.SHUT_WR)
        assert parsed(read_all(made)).status == 400
    assert tight.client().get(f"/v1/collections/samples/documents/{document_id(REPORT)}").status_code == 200


def test_an_upgrade_is_not_made(tight: Server) -> None:
    asked = ("Upgrade: websocket", "Connection: Upgrade, close", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13")
    assert ask(tight.port, head("GET", "/v1/health", *asked)).status == 200


def test_the_server_is_well_after_all_this(tight: Server) -> None:
    client = tight.client()
    found = client.get("/v1/collections/samples/search", params={"q": "What does a year pass cost?"})
    assert found.json()["hits"][0]["document"] == REPORT
    assert "Traceback" not in tight.log
