"""The odd set, handed in to a real server: each file is refused with its reason, or is a document with its state."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server, finished, serving, upload

pytestmark = [pytest.mark.data, pytest.mark.slow]

LONG = ("gen__5000_blank_pages.pdf", "unstructured__DA-619p.pdf")
OPTIONS = '{"ocr": "off", "page_timeout": 20}'


@pytest.fixture(scope="module")
def server(samples_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("odd")
    shutil.copytree(samples_path, folder / "drop")
    with serving(folder, {"drop": folder / "drop"}, "--rate", "100000") as server:
        yield server


@pytest.mark.timeout(900)
def test_every_odd_file_is_refused_or_a_document(data: Path, server: Server) -> None:
    folder = data / "odd"
    if not folder.is_dir():
        pytest.skip("no odd set")
    expected = {row["file"]: row for row in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}
    client, asking = server.client(), server.client()
    done = threading.Event()
    slowest = [0.0]

    def search_on() -> None:
        while not done.wait(0.2):
            begun = time.monotonic()
            answer = asking.get("/v1/collections/drop/search", params={"q": "What does a year pass cost?"})
            assert answer.status_code == 200, answer.text
            slowest[0] = max(slowest[0], time.monotonic() - begun)

    searching = threading.Thread(target=search_on)
    searching.start()
    states: Counter[str] = Counter()
    try:
        taken = {}
        for name in sorted(expected):
            answer = upload(client, "drop", name, (folder / "pdfs" / name).read_bytes(), options=OPTIONS)
            if answer.status_code == 202:
                taken[name] = answer.json()["id"]
                continue
            problem = answer.json()
            assert (name, answer.status_code, problem["code"]) == (name, 415, "document")
            assert problem["document"] == name
            assert problem["reason"] in ("corrupt", "unsupported")
            assert expected[name]["expected"] == "error"
            assert str(server.folder) not in answer.text
            states["refused"] += 1
        for id in map(taken.pop, LONG):  # nobody waits for them: they are taken out in the midst of the work
            assert client.delete(f"/v1/collections/drop/documents/{id}").status_code == 204
            assert client.get(f"/v1/collections/drop/documents/{id}").status_code == 404
        for name, id in taken.items():
            found = finished(client, "drop", id, 600)
            states[found["state"]] += 1
            told = expected[name]
            assert str(server.folder.parent) not in json.dumps(found), name
            assert found["pages"] == found["indexed"] + found["failed"], name
            assert all(failure["reason"] and failure["message"] for failure in found["failures"]), name
            if found["state"] == "indexed":
                assert (name, found["failures"]) == (name, [])
                assert told["expected"] != "password", name
                assert client.get(f"/v1/collections/drop/documents/{id}/pages/1/image?side=200").status_code == 200, (
                    name
                )
            else:
                assert found["state"] in ("partial", "failed"), name
                assert found["failures"], name
            if told["expected"] == "password":
                assert [failure["reason"] for failure in found["failures"]] == ["password"], name
    finally:
        done.set()
        searching.join()
    assert sum(states.values()) == len(expected) - len(LONG)
    assert states["indexed"] > len(expected) / 2
    assert slowest[0] < 10
    assert client.get("/v1/ready").status_code == 200
    failures = client.get("/v1/collections/drop/failures").json()["failures"]
    assert {failure["document"] for failure in failures} <= set(expected)
    assert "Traceback" not in server.log
