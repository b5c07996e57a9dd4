"""An inbox folder that a worker watches: a file is taken when it is complete, and moved when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checks import busy
from documents import broken, paper
from services import Cluster, wait_until

pytestmark = pytest.mark.slow

SOON = 60.0


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inbox")


@pytest.fixture(scope="module")
def cluster(make_lasting_cluster: Callable[..., Cluster], inbox: Path) -> Cluster:
    watching = ("ingest", "render", "--processes", "1", "--inbox", str(inbox))
    found = make_lasting_cluster(
        {"VISRAG_SWEEP": "2", "VISRAG_LEASE": "10"}, workers={"watch": watching, "text": ("text",)}
    )
    found.start()
    return found


def indexed(cluster: Cluster, name: str) -> int:
    with cluster.store() as store:
        found = store.document(name)
    return 0 if found is None or found.state == "ingesting" else found.indexed


def test_a_file_is_taken_when_it_is_complete(cluster: Cluster, inbox: Path, tmp_path: Path) -> None:
    data = paper(tmp_path / "slow.pdf", 3, lines=30).read_bytes()
    with (inbox / "slow.pdf").open("wb") as file:
        for start in range(0, len(data), len(data) // 6 + 1):
            file.write(data[start : start + len(data) // 6 + 1])
            file.flush()
            time.sleep(1)
            with cluster.store() as store:
                assert store.document("slow.pdf") is None
    wait_until((inbox / "done" / "slow.pdf").exists, SOON, "it is done")
    assert indexed(cluster, "slow.pdf") == 3
    assert not (inbox / "slow.pdf").exists()
    assert (inbox / "done" / "slow.pdf").read_bytes() == data


def test_what_fails_has_its_reason_beside_it(cluster: Cluster, inbox: Path) -> None:
    broken(inbox / "broken.pdf")
    wait_until((inbox / "failed" / "broken.pdf").exists, SOON, "it is found out")
    assert not (inbox / "broken.pdf").exists()
    [reason] = [path for path in (inbox / "failed").iterdir() if path.name != "broken.pdf"]
    assert reason.name.startswith("broken.pdf")
    assert "corrupt" in reason.read_text()


def test_the_same_file_dropped_twice_is_one_document(cluster: Cluster, inbox: Path, tmp_path: Path) -> None:
    for _ in range(2):
        paper(inbox / "twice.pdf", 2)
        wait_until(lambda: not (inbox / "twice.pdf").exists(), SOON, "it is taken")
    assert (inbox / "done" / "twice.pdf").exists()
    assert indexed(cluster, "twice.pdf") == 2
    with cluster.store() as store:
        assert [found.name for found in store.documents() if "twice" in found.name] == ["twice.pdf"]


def test_a_folder_in_the_inbox_keeps_its_place(cluster: Cluster, inbox: Path) -> None:
    (inbox / "2024").mkdir()
    paper(inbox / "2024" / "report.pdf", 2)
    wait_until((inbox / "done" / "2024" / "report.pdf").exists, SOON, "it is done")
    assert indexed(cluster, "2024/report.pdf") == 2


def test_a_worker_that_starts_again_goes_on(cluster: Cluster, inbox: Path) -> None:
    paper(inbox / "long.pdf", 100, lines=30)
    wait_until(lambda: "long.pdf" in cluster.jobs(), SOON, "it is taken")
    cluster.stop("watch")
    paper(inbox / "meanwhile.pdf", 2)
    cluster.start("watch")
    for name in ("long.pdf", "meanwhile.pdf"):
        wait_until((inbox / "done" / name).exists, 2 * SOON, f"{name} is done")
    assert indexed(cluster, "long.pdf") == 100
    assert indexed(cluster, "meanwhile.pdf") == 2
    assert busy(cluster) == []


def test_a_worker_that_dies_goes_on(cluster: Cluster, inbox: Path) -> None:
    paper(inbox / "died.pdf", 100, lines=30)
    wait_until(lambda: "died.pdf" in cluster.jobs(), SOON, "it is taken")
    cluster.workers["watch"].kill()
    wait_until((inbox / "done" / "died.pdf").exists, 2 * SOON + 60, "it is done")
    assert indexed(cluster, "died.pdf") == 100
