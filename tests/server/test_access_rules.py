"""Who may do what, against a real server with keys: roles, collections, wrong and revoked keys, other sites' pages."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Server, free_port, serving

from visrag.ids import document_id
from visrag.server.keys import KeyFile

REPORT = "harrowmere-annual-report.pdf"
QUESTION = "What does a year pass cost?"
SEEN, OTHER = "samples", "secret"
EVIL = "https://evil.example"

Keys = dict[str, str]


@pytest.fixture(scope="module")
def keys_and_server(samples_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Keys, Server]]:
    """A server of two collections with the same documents, and keys by what they are."""
    folder = tmp_path_factory.mktemp("access")
    collections = {name: Path(shutil.copytree(samples_path, folder / name)) for name in (SEEN, OTHER)}
    file = KeyFile(folder / "keys.json")
    keys = {role: file.create(role, None, f"the {role}") for role in ("reader", "writer", "admin")}
    keys |= {f"{name} {role}": file.create(role, [name]) for name in (SEEN, OTHER) for role in ("reader", "admin")}
    (folder / "root").mkdir()
    (folder / "root" / "note.txt").write_text("A note on apples.")
    with serving(folder, collections, "--root", folder / "root") as server:
        yield keys, server


@pytest.fixture(scope="module")
def keys(keys_and_server: tuple[Keys, Server]) -> Keys:
    return keys_and_server[0]


@pytest.fixture(scope="module")
def server(keys_and_server: tuple[Keys, Server]) -> Server:
    return keys_and_server[1]


def requests_of(server: Server, collection: str) -> dict[tuple[str, str], dict[str, Any]]:
    """A valid request for each route below a collection, by method and the route's path below it."""
    asked = {"params": {"q": QUESTION}}
    judged = {"question": QUESTION, "document": REPORT, "page": 1, "verdict": "relevant"}
    exported = {"question": QUESTION, "pages": [{"document": REPORT, "page": 1}]}
    page = "/documents/{id}/pages/{page}"
    return {
        ("GET", "/search"): asked,
        ("POST", "/search"): {"json": {"question": QUESTION, "include": ["image", "heatmap", "text"]}},
        ("GET", page): {},
        ("GET", f"{page}/image"): {},
        ("GET", f"{page}/heatmap"): asked,
        ("GET", f"{page}/heatmap.png"): asked,
        ("GET", f"{page}/regions"): asked,
        ("GET", f"{page}/account"): asked,
        ("GET", f"{page}/crop"): {"params": {"box": "0,0,1,1"}},
        ("GET", "/documents"): {},
        ("GET", "/documents/{id}"): {},
        ("GET", "/documents/{id}/original"): {},
        ("GET", "/documents/{id}/events"): {},
        ("GET", "/events"): {},
        ("GET", "/failures"): {},
        ("GET", "/feedback"): {},
        ("POST", "/feedback"): {"json": judged},
        ("GET", "/feedback/export"): {},
        ("POST", "/export"): {"json": exported},
        ("POST", "/documents"): {"files": {"file": ("more.txt", b"More apples.")}},
        ("POST", "/documents/from-uri"): {"json": {"uri": str(server.folder / "root" / "note.txt")}},
        ("POST", "/documents/{id}/retry"): {},
        ("DELETE", "/documents/{id}"): {},
    }


def path_of(collection: str, route: str) -> str:
    filled = route.replace("{id}", document_id(REPORT)).replace("{page}", "1")
    return f"/v1/collections/{collection}{filled}"


def status_of(client: httpx.Client, method: str, path: str, **request: Any) -> int:
    """Of an answer whose body need not end."""
    with client.stream(method, path, **request) as response:
        return response.status_code


def tree(folder: Path) -> dict[str, int]:
    """The files of an index that hold what users brought, and their sizes."""
    kept = [path for name in ("uploads", "originals", "images") for path in (folder / name).rglob("*")]
    return {str(path): path.stat().st_size for path in kept if path.is_file()}


def test_every_route_is_in_the_table(server: Server) -> None:
    paths = server.client().get("/v1/openapi.json").json()["paths"]
    prefix = "/v1/collections/{collection}"
    routes = {
        (method.upper(), path.removeprefix(prefix))
        for path, methods in paths.items()
        if path.startswith(prefix)
        for method in methods
    }
    assert routes == set(requests_of(server, SEEN))


def test_a_key_of_another_collection_finds_nothing_there(server: Server, keys: Keys) -> None:
    client, own = server.client(keys[f"{SEEN} admin"]), server.client(keys[f"{OTHER} reader"])
    before = own.get(path_of(OTHER, "/documents")).json(), tree(server.folder / OTHER)
    for (method, route), request in requests_of(server, OTHER).items():
        response = client.request(method, path_of(OTHER, route), **request)
        told = response.json()
        assert (method, route, response.status_code, told["code"]) == (method, route, 404, "not_found")
        missing = client.request(method, path_of("missing", route), **request)
        assert missing.status_code == 404  # nor does the answer tell whether there is one
        assert missing.json()["detail"] == told["detail"].replace(OTHER, "missing")
    assert (own.get(path_of(OTHER, "/documents")).json(), tree(server.folder / OTHER)) == before
    assert own.get(path_of(OTHER, "/feedback")).json() == {"feedback": []}


def test_the_same_requests_pass_with_a_key_of_the_collection(server: Server, keys: Keys) -> None:
    client = server.client(keys[f"{SEEN} admin"])
    for (method, route), request in requests_of(server, SEEN).items():
        expected = {"POST /documents": 202, "POST /documents/from-uri": 202, "POST /feedback": 201}
        expected |= {"POST /documents/{id}/retry": 409, "DELETE /documents/{id}": 204}  # nothing of it has failed
        wanted = expected.get(f"{method} {route}", 200)
        if method != "DELETE":
            assert (route, status_of(client, method, path_of(SEEN, route), **request)) == (route, wanted)


def test_what_a_key_does_not_see_is_named_nowhere(server: Server, keys: Keys) -> None:
    client = server.client(keys[f"{SEEN} reader"])
    for path in ("/v1/session", "/v1/collections"):
        told = client.get(path)
        assert [collection["name"] for collection in told.json()["collections"]] == [SEEN]
        assert OTHER not in told.text
    admin = server.client(keys[f"{SEEN} admin"]).get("/metrics")  # an admin, but not of all that is in them
    assert admin.status_code == 403
    assert OTHER not in admin.text
    assert OTHER in server.client(keys["admin"]).get("/metrics").text


def test_readers_change_nothing_and_only_admins_see_metrics(server: Server, keys: Keys) -> None:
    changing = {("POST", "/documents"), ("POST", "/documents/from-uri"), ("DELETE", "/documents/{id}")}
    changing |= {("POST", "/documents/{id}/retry")}
    reader = server.client(keys["reader"])
    requests = requests_of(server, SEEN)
    before = tree(server.folder / SEEN)
    for method, route in changing:
        refused = reader.request(method, path_of(SEEN, route), **requests[method, route])
        assert (route, refused.status_code, refused.json()["code"]) == (route, 403, "access")
    assert tree(server.folder / SEEN) == before
    assert reader.get(path_of(SEEN, "/documents/{id}")).status_code == 200  # it was not deleted
    assert reader.get("/v1/session").json()["collections"][0]["ingest"] is False
    for role, status in (("reader", 403), ("writer", 403), ("admin", 200)):
        assert server.client(keys[role]).get("/metrics").status_code == status


def test_only_an_admin_judges_in_the_name_of_another(server: Server, keys: Keys) -> None:
    judged = {"question": QUESTION, "document": REPORT, "page": 2, "verdict": "relevant", "reviewer": "ann"}
    path = path_of(SEEN, "/feedback")
    for role, status in (("reader", 403), ("writer", 403), ("admin", 201)):
        assert server.client(keys[role]).post(path, json=judged).status_code == status
    own = server.client(keys["reader"]).post(path, json={**judged, "reviewer": ""})
    assert own.json()["reviewer"] == "the reader"


@pytest.mark.parametrize(
    "made",
    [
        lambda key: "visrag",
        lambda key: "visrag__",
        lambda key: key[:-1],
        lambda key: key + "x",
        lambda key: key.upper(),
        lambda key: key.rpartition("_")[0],
        lambda key: key.replace("visrag", "visrah"),
        lambda key: re.sub(r"(visrag_[0-9a-f]+)_.*", r"\1_", key),
        lambda key: "visrag_000000000000_" + key.split("_", 2)[2],
        lambda key: key + "\xff",
        lambda key: "x" * 20_000,
        lambda key: "'; DROP TABLE keys; --",
        lambda key: '{"role": "admin"}',
    ],
)
def test_a_key_that_is_wrong_is_refused(made: Callable[[str], str], server: Server, keys: Keys) -> None:
    given = made(keys["admin"])
    client = server.client()
    tries = [
        {"Authorization": f"Bearer {given}".encode("latin-1")},
        {"Cookie": f"visrag_key={given}".encode("latin-1")},
    ]
    for headers in tries:
        for path in ("/v1/session", "/v1/collections", path_of(SEEN, "/documents"), "/metrics"):
            response = client.get(path, headers=headers)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.headers["Content-Type"] == "application/problem+json"
    if given.isascii():
        assert client.post("/v1/session", json={"key": given[:200]}).status_code == 401


def test_other_ways_of_giving_a_key_are_none(server: Server, keys: Keys) -> None:
    client, key = server.client(), keys["admin"]
    for headers in ({"Authorization": key}, {"Authorization": f"Basic {key}"}, {"X-Api-Key": key}, {"Cookie": key}):
        assert client.get("/v1/session", headers=headers).status_code == 401
    assert client.get("/v1/session", params={"key": key}).status_code == 401


@pytest.mark.parametrize(
    "path",
    ["/v1/../v1/collections", "/v1/./collections", "//v1/collections", "/V1/collections", "/v1%2Fcollections",
     "/static/../v1/collections", "/static/%2e%2e/v1/collections", "/v1/collections/", "/v1;/collections"],
)  # fmt: skip
def test_no_way_of_writing_a_path_goes_past_the_guard(path: str, server: Server, keys: Keys) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as line:
        line.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: line.recv(65_536), b""))
    assert int(answer.split()[1]) in (401, 404)
    assert SEEN.encode() not in answer


def test_the_page_itself_needs_no_key(server: Server) -> None:
    client = server.client()
    for path in ("/", "/v1/health", "/v1/ready", "/v1/openapi.json"):
        assert client.get(path).status_code == 200


def test_a_revoked_key_is_refused_at_once_and_its_events_end(server: Server, keys: Keys) -> None:
    file = KeyFile(server.keys)
    key = file.create("reader", [SEEN], "gone soon")
    id = key.split("_")[1]
    client = server.client(key)
    assert client.get("/v1/session").json()["name"] == "gone soon"
    cookie = httpx.Client(base_url=server.url, trust_env=False, cookies={"visrag_key": key})
    server.clients.append(cookie)
    assert cookie.get("/v1/session").status_code == 200
    with client.stream("GET", path_of(SEEN, "/events")) as events:
        lines = events.iter_lines()
        assert next(lines) == "event: documents"
        file.revoke(id)
        assert client.get("/v1/session").status_code == 401
        assert cookie.get("/v1/session").status_code == 401
        admin = server.client(keys["admin"])
        sent = admin.post(path_of(SEEN, "/documents"), files={"file": ("after.txt", b"After it was revoked.")})
        assert sent.status_code == 202
        assert "after.txt" not in "".join(lines)  # and it ends


def test_keys_that_cannot_be_read_let_nobody_in(server: Server, keys: Keys) -> None:
    client = server.client(keys["admin"])
    assert client.get("/v1/session").status_code == 200
    aside = server.keys.with_name("aside.json")
    server.keys.rename(aside)
    kept = json.loads(aside.read_text())["keys"]
    try:
        odd = [dict(kept[0], role="root"), dict(kept[0], sha256=5), dict(kept[0], collections="samples"), {"id": "x"}]
        texts = ["", "{", "[]", "null", '{"keys": {}}', *(json.dumps({"keys": [each]}) for each in odd), "\xff"]
        for text in texts:
            server.keys.write_text(text, encoding="latin-1")
            response = client.get("/v1/session")
            assert (text, response.status_code) in [(text, 503), ('{"keys": {}}', 401)]
            assert str(server.folder) not in response.text
            server.keys.unlink()
        server.keys.mkdir()
        assert client.get("/v1/collections").status_code == 503
        assert client.post("/v1/session", json={"key": keys["admin"]}).status_code == 503
        server.keys.rmdir()
        assert client.get("/v1/session").status_code == 401  # without the file there are no keys, but there were
        server.keys.write_text('{"keys": []}')
        assert client.get("/v1/session").status_code == 401
    finally:
        aside.replace(server.keys)
    assert client.get("/v1/session").status_code == 200


def test_signing_in_sets_a_cookie_that_no_script_and_no_other_site_sends(server: Server, keys: Keys) -> None:
    client = server.client()
    assert client.get("/v1/session").status_code == 401
    answer = client.post("/v1/session", json={"key": keys["reader"]})
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"visrag_key={keys['reader']};")
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "domain" not in cookie.lower()
    assert answer.json() == client.get("/v1/session").json()
    tls = server.client().post("/v1/session", json={"key": keys["reader"]}, headers={"X-Forwarded-Proto": "https"})
    assert "secure" in tls.headers["Set-Cookie"].lower()
    assert client.delete("/v1/session").status_code == 204
    assert client.get("/v1/session").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://[bad"},
        {"Origin": "http://127.0.0.1"},  # another port is another site
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Origin": EVIL, "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_requests_that_another_sites_page_sends_are_refused(
    headers: dict[str, str], server: Server, keys: Keys
) -> None:
    client = server.client()
    client.cookies.set("visrag_key", keys["admin"], domain="127.0.0.1")
    assert client.get("/v1/session").status_code == 200
    upload = {"files": {"file": ("csrf.txt", b"From another site.")}}
    for method, path, request in (
        ("POST", path_of(SEEN, "/documents"), upload),
        ("DELETE", path_of(SEEN, "/documents/{id}"), {}),
        ("POST", path_of(SEEN, "/feedback"), {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
        ("POST", "/v1/session", {"json": {"key": keys["reader"]}}),
        ("DELETE", "/v1/session", {}),
    ):
        response = client.request(method, path, **{**request, "headers": {**request.get("headers", {}), **headers}})
        assert (path, response.status_code) == (path, 403)
        assert "Set-Cookie" not in response.headers
    documents = client.get(path_of(SEEN, "/documents")).json()["documents"]
    assert REPORT in {document["document"] for document in documents}
    assert "csrf.txt" not in {document["document"] for document in documents}


def test_the_pages_own_requests_pass_and_links_from_elsewhere_lead_to_it(server: Server, keys: Keys) -> None:
    client = server.client()
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/session", json={"key": keys["reader"]}, headers=own).status_code == 200
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert client.get("/", headers=followed).status_code == 200
    assert client.get(path_of(SEEN, "/search"), params={"q": QUESTION}, headers=embedded).status_code == 403
    for path in ("/v1/session", path_of(SEEN, "/documents/{id}/pages/{page}/image")):
        response = client.get(path, headers=own)
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in response.headers
    preflight = client.options(
        path_of(SEEN, "/documents"), headers={"Origin": EVIL, "Access-Control-Request-Method": "POST"}
    )
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.lower().startswith("access-control")]


def test_a_cookie_that_is_slow_to_read_is_not_read(server: Server) -> None:
    client = server.client()
    for cookie in ('visrag_key="' + "\\" * 30_000, 'visrag_key="' + "\\134" * 7_500 + '"', ";" * 30_000, "=" * 30_000):
        begun = time.monotonic()
        assert client.get("/v1/session", headers={"Cookie": cookie}).status_code == 401
        assert time.monotonic() - begun < 1


# Without keys: this machine only.


@pytest.mark.parametrize(
    ("host", "status"),
    [("{own}", 200), ("localhost:{port}", 200), ("LOCALHOST", 200), ("[::1]:{port}", 200), ("evil.example", 403),
     ("evil.example:{port}", 403), ("127.0.0.1.evil.example", 403), ("", 403), ("[", 403), ("[::1", 403),
     ("0.0.0.0", 403), ("visrag.test", 200)],
)  # fmt: skip
def test_a_name_that_was_pointed_here_is_not_answered(host: str, status: int, unlocked: Server) -> None:
    host = host.format(own=f"127.0.0.1:{unlocked.port}", port=unlocked.port)
    client = unlocked.client()
    for method, path in (("GET", "/v1/session"), ("GET", "/"), ("DELETE", f"/v1/collections/{SEEN}/documents/eA")):
        expected = 404 if status == 200 and method == "DELETE" else status
        assert client.request(method, path, headers={"Host": host}).status_code == expected


def test_without_keys_other_sites_are_refused_too(unlocked: Server) -> None:
    client = unlocked.client()
    path = path_of(SEEN, "/documents/{id}")
    assert client.delete(path, headers={"Origin": EVIL}).status_code == 403
    assert client.get(path, headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("key", ["any", "東京", "a\r\nSet-Cookie: b=c", 'a"; Domain=evil.example', "\x00"])
def test_without_keys_no_cookie_is_set(key: str, unlocked: Server) -> None:
    answer = unlocked.client().post("/v1/session", json={"key": key})
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers


def test_a_first_key_shuts_an_open_server_at_once(samples_path: Path, tmp_path: Path) -> None:
    index = shutil.copytree(samples_path, tmp_path / "index")
    with serving(tmp_path / "server", {SEEN: index}, "--no-ingest") as server:
        client = server.client()
        assert client.get("/v1/session").json()["access"] == "open"
        key = KeyFile(server.keys).create("reader")
        assert client.get("/v1/session").status_code == 401
        assert server.client(key).get("/v1/session").json()["access"] == "keys"
        KeyFile(server.keys).revoke(key.split("_")[1])
        assert client.get("/v1/session").status_code == 401  # and the last that goes does not open it


@pytest.mark.parametrize("kept", [None, '{"keys": []}'])
def test_other_machines_are_not_served_without_keys(kept: str | None, samples_path: Path, tmp_path: Path) -> None:
    if kept is not None:
        (tmp_path / "keys.json").write_text(kept)
    command = [sys.executable, "-m", "visrag", "serve", "--index", samples_path, "--host", "0.0.0.0"]
    command += ["--port", str(free_port()), "--keys", tmp_path / "keys.json", "--no-ingest"]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "visrag keys create" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.fixture(scope="module")
def unlocked(samples_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("unlocked")
    index = shutil.copytree(samples_path, folder / "index")
    with serving(folder, {SEEN: index}, "--allow-host", "visrag.test") as server:
        yield server
