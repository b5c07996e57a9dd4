"""The queue without a broker, killed and ended at many moments: nothing is lost, and nothing is left lying about."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from checkpoints import make_checkpoint
from checks import compare
from documents import paper
from services import lives, wait_until

from visrag import Index, IngestSettings
from visrag.alone import Alone
from visrag.records import Load, QueueName
from visrag.settings import ModelSettings
from visrag.store.local import LocalStore
from visrag.uploads import Uploads, upload_order

pytestmark = pytest.mark.slow

NO_OCR = IngestSettings(ocr="off", jobs=1)
PAGES = 200
DONE = 120.0  # seconds for these pages
LEASE = 3.0

PARENT = """
import sys, time
from visrag.alone import Alone
from visrag.settings import ModelSettings
with Alone(sys.argv[1], ModelSettings(sys.argv[2], device="cpu"), lease=3.0) as alone:
    print(alone.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("ColBERT", tmp_path_factory.mktemp("models") / "text")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paper(tmp_path_factory.mktemp("papers") / "big.pdf", PAGES)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, model: Path, file: Path) -> Path:
    """An index of the document as it is without a queue."""
    folder = tmp_path_factory.mktemp("reference") / "index"
    with Index(folder, text=str(model), device="cpu") as index:
        index.ingest(file, settings=NO_OCR)
    return folder


@pytest.fixture
def store(tmp_path: Path, file: Path) -> Iterator[LocalStore]:
    """An index into which the document was handed in."""
    with LocalStore.open(tmp_path / "index", create=True) as store:
        uploads = Uploads(str(store.folder))
        with uploads.part() as part:
            part.write_bytes(file.read_bytes())
            store.enqueue([upload_order(file.name, uploads.keep(part, file.name), NO_OCR)])
        yield store


def load(store: LocalStore, step: QueueName) -> Load:
    return store.load().get(step, Load())


def indexed(store: LocalStore) -> int:
    """Pages of the document that are done, all of them where it is."""
    return sum(job.document.indexed for job in store.jobs()) if store.jobs() else PAGES


def as_undisturbed(store: LocalStore, reference: Path) -> None:
    wait_until(lambda: not store.jobs(), DONE, "the queue is empty")
    assert compare(store.folder, reference).problems == []
    assert [path for path in (store.folder / "waiting").rglob("*") if path.is_file()] == []
    assert len([path for path in (store.folder / "originals").iterdir() if not path.suffix]) == 1


def test_a_child_that_is_killed_again_and_again(store: LocalStore, model: Path, reference: Path) -> None:
    moments: dict[str, Callable[[], bool]] = {
        "it opens the document": lambda: load(store, "ingest").held == 1,
        "it reads": lambda: load(store, "render").held == 1,
        "it encodes": lambda: load(store, "text").held == 1,
        "a quarter is in": lambda: indexed(store) > PAGES / 4,
        "half is in": lambda: indexed(store) > PAGES / 2 and load(store, "text").held == 1,
    }
    with Alone(str(store.folder), ModelSettings(str(model), device="cpu"), lease=LEASE) as alone:
        for name, moment in moments.items():
            wait_until(moment, DONE, name, every=0.002)
            child = alone.pid
            started = psutil.Process(child).children()
            os.kill(child, signal.SIGKILL)
            wait_until(lambda pid=child: alone.pid != pid, 30, "there is another")
            wait_until(lambda found=started: not any(map(lives, found)), 5, "its renderer has ended")
        assert store.jobs()
        as_undisturbed(store, reference)
    assert not alone.alive


def test_a_parent_that_is_killed(store: LocalStore, model: Path, reference: Path) -> None:
    with ExitStack() as stack:
        command = [sys.executable, "-c", PARENT, str(store.folder), str(model)]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        stack.callback(parent.wait)
        stack.callback(parent.kill)
        assert parent.stdout is not None
        stack.enter_context(parent.stdout)
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(lambda: indexed(store) > PAGES / 10, DONE, "some pages are in")
        family = [child, *child.children(recursive=True)]
        assert len(family) == 2  # with the one that renders
        parent.kill()
        wait_until(lambda: not any(map(lives, family)), 10, "what it started has ended")
    assert 0 < indexed(store) < PAGES
    assert not any(found.held for found in store.load().values())  # given back
    with Alone(str(store.folder), ModelSettings(str(model), device="cpu"), lease=LEASE):
        as_undisturbed(store, reference)


def test_the_end_in_the_midst_of_the_work(store: LocalStore, model: Path, reference: Path) -> None:
    for pages in (0, PAGES / 10, PAGES / 3):
        with Alone(str(store.folder), ModelSettings(str(model), device="cpu"), lease=LEASE) as alone:
            wait_until(lambda least=pages: indexed(store) >= least, DONE, "some pages are in")
        assert not alone.alive
        assert not any(found.held for found in store.load().values())
        assert store.jobs()
    attempts = [piece.attempts for step in ("ingest", "render", "text") for piece in store.take(step, 1000)]
    assert set(attempts) == {0}
    with Alone(str(store.folder), ModelSettings(str(model), device="cpu"), lease=LEASE):
        as_undisturbed(store, reference)


def test_sigterm_to_the_child_gives_back_what_it_has(store: LocalStore, model: Path, reference: Path) -> None:
    with Alone(str(store.folder), ModelSettings(str(model), device="cpu"), lease=LEASE) as alone:
        wait_until(lambda: indexed(store) > PAGES / 10, DONE, "some pages are in")
        child = psutil.Process(alone.pid)
        child.terminate()
        wait_until(lambda: not lives(child), 10, "it has ended")
        assert not any(found.held for found in store.load().values())
        as_undisturbed(store, reference)
