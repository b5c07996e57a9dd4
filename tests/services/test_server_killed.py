"""The server and what it starts are killed and ended at work: what was acknowledged is there, and nothing else."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from checks import compare, damaged, left_behind
from documents import paper
from live_clients import Clients, upload
from live_server import LiveServer, all_ended
from services import wait_until

from visrag import Index, IngestSettings, uploads
from visrag.uploads import Uploads

pytestmark = pytest.mark.slow

SEED = int(os.environ.get("VISRAG_CHAOS_SEED", "20250704"))
ROUNDS = int(os.environ.get("VISRAG_CHAOS_ROUNDS", "2"))  # kills at each kind of moment
JUDGED = "judged.pdf"
FILES, PAGES = 8, 4
BIG, BIG_PAGES = "big.pdf", 200
MOMENT, DONE = 90.0, 90.0  # seconds for something to happen, for all documents to be indexed
END = 10.0  # seconds from SIGTERM, or from the death of the server, to the end of all that it started


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("papers")
    return [paper(folder / f"paper {number:02}.pdf", PAGES, lines=6) for number in range(FILES)]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paper(tmp_path_factory.mktemp("big") / BIG, BIG_PAGES, lines=6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of one document. To be copied."""
    folder = tmp_path_factory.mktemp("base")
    with Index(folder / "index") as index:
        index.ingest(paper(folder / JUDGED, 1, lines=3), settings=IngestSettings(ocr="off", jobs=1))
    return folder / "index"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, base: Path, files: list[Path], big: Path) -> Path:
    """What the index must be like in the end: all documents, without a server."""
    folder = Path(shutil.copytree(base, tmp_path_factory.mktemp("reference") / "index"))
    with Index(folder) as index:
        index.ingest(*files, big, settings=IngestSettings(ocr="off", jobs=1))
    return folder


@pytest.fixture
def server(tmp_path: Path, base: Path) -> Iterator[LiveServer]:
    index = Path(shutil.copytree(base, tmp_path / "index"))
    with LiveServer(index, tmp_path / "server", "--rate", "100000") as server:
        yield server


def documents(server: LiveServer) -> dict[str, dict[str, Any]]:
    answer = httpx.get(f"{server.api}/documents", params={"limit": 1000}, timeout=30, trust_env=False)
    assert answer.status_code == 200
    return {document["document"]: document for document in answer.json()["documents"]}


def indexed(server: LiveServer, name: str) -> int:
    return int(documents(server)[name]["indexed"])


def at_rest(server: LiveServer) -> bool:
    return not any(document["state"] in ("queued", "working") for document in documents(server).values())


def judged(server: LiveServer) -> list[str]:
    answer = httpx.get(f"{server.api}/feedback", params={"review": "r"}, timeout=30, trust_env=False)
    return [verdict["question"] for verdict in answer.json()["feedback"]]


def ends_well(server: LiveServer, reference: Path, names: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's documents are these, as in the reference, and when it has ended nothing is left of the work."""
    wait_until(lambda: at_rest(server), DONE, "all documents are indexed")
    assert set(documents(server)) == names
    left = server.descendants()
    server.terminate(END)
    all_ended([*left, *server.orphans], END)
    assert left_behind(server.index, server.temp) == []
    assert damaged(server.index) == []
    assert compare(server.index, reference, sorted(names)).problems == []
    monkeypatch.setattr(uploads, "YOUNG", -1.0)  # as if the last upload were a minute ago
    Uploads(str(server.index)).sweep(list)
    assert [path for path in (server.index / "uploads").rglob("*") if path.is_file()] == []
    log = server.log.read_text()
    assert log.count("Traceback") == log.count("Task cancelled, timeout graceful shutdown exceeded")  # of uvicorn


def test_a_server_that_is_killed_again_and_again(
    server: LiveServer, files: list[Path], reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(SEED)
    clients = Clients(server, files, JUDGED)

    def verdicts() -> Callable[[], bool]:
        most = len(clients.judged) + chance.randrange(1, 20)
        return lambda: len(clients.judged) >= most

    moments: dict[str, Callable[[], Callable[[], bool]]] = {
        "an upload is half sent": lambda: clients.halfway.is_set,
        "a document is being read": lambda: lambda: not at_rest(server),
        "some verdicts are in": verdicts,
    }
    rounds = [name for name in moments for _ in range(ROUNDS)]
    chance.shuffle(rounds)
    for moment in rounds:
        server.start()
        clients.start()
        try:
            wait_until(moments[moment](), MOMENT, moment, every=0.002)
            time.sleep(chance.uniform(0, 0.4))
        finally:
            server.kill()
            clients.stop()
    assert clients.wrong == []
    assert len(clients.judged) > ROUNDS
    all_ended(server.orphans, END)
    server.start()
    clients.start()
    wait_until(lambda: len(clients.uploaded) == FILES, MOMENT, "the last file is sent")
    clients.stop()
    assert clients.wrong == []
    found = judged(server)
    assert set(clients.judged) <= set(found)
    assert len(found) == len(set(found)) <= len(clients.judged) + len(rounds)  # one a death, not acknowledged
    ends_well(server, reference, {JUDGED, *clients.uploaded}, monkeypatch)


def test_a_child_that_is_killed_costs_no_search(
    server: LiveServer, big: Path, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    assert upload(server, big).status_code == 202
    wait_until(lambda: 0 < indexed(server, BIG) < BIG_PAGES, MOMENT, "some pages are in", every=0.05)
    child = server.child()
    family = [child, *child.children(recursive=True)]
    child.kill()
    for _ in range(5):
        found = httpx.get(f"{server.api}/search", params={"q": "water and heat"}, timeout=30, trust_env=False)
        assert found.status_code == 200
        assert found.json()["hits"]
    all_ended(family, END)
    wait_until(server.descendants, MOMENT, "there is another")
    assert server.child().pid != child.pid
    ends_well(server, reference, {JUDGED, BIG}, monkeypatch)


def test_sigterm_amid_the_work(server: LiveServer, big: Path, reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.start()
    assert upload(server, big).status_code == 202
    wait_until(lambda: 0 < indexed(server, BIG) < BIG_PAGES, MOMENT, "some pages are in", every=0.05)
    left = server.descendants()
    assert len(left) == 2  # the child, and its process that reads
    took = server.terminate(END)
    all_ended(left, END - took)
    server.start()
    assert set(documents(server)) == {JUDGED, BIG}
    assert 0 < indexed(server, BIG) < BIG_PAGES
    ends_well(server, reference, {JUDGED, BIG}, monkeypatch)


def test_sigterm_waits_for_no_client_that_hangs(
    server: LiveServer, files: list[Path], reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    halfway, ended = threading.Event(), threading.Event()
    answers: list[str] = []

    def hang() -> None:
        halfway.set()
        ended.wait(MOMENT)

    def upload_half() -> None:
        try:
            answers.append(str(upload(server, files[0], halfway=hang).status_code))
        except httpx.TransportError as error:
            answers.append(type(error).__name__)

    sender = threading.Thread(target=upload_half)
    with httpx.stream("GET", f"{server.api}/events", timeout=30, trust_env=False) as events:
        assert events.status_code == 200
        sender.start()
        wait_until(halfway.is_set, MOMENT, "half of a file is sent")
        left = server.descendants()
        took = server.terminate(END)
        all_ended(left, END - took)
    ended.set()
    sender.join()
    assert len(answers) == 1
    assert answers != ["202"]
    assert list((server.index / "uploads" / ".parts").iterdir()) == []
    server.start()
    ends_well(server, reference, {JUDGED}, monkeypatch)
