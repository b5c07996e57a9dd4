"""The inbox: files are taken when they are complete, and moved when they have been through the queue."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from pdfs import pdf_bytes, text, write
from queue_cases import Hand

from visrag.inbox import SETTLED, look
from visrag.models import Models
from visrag.render import Renderer
from visrag.settings import ModelSettings
from visrag.store.local import LocalStore
from visrag.store.remote import Downloads


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint("ColBERT", tmp_path_factory.mktemp("models") / "text"))


@pytest.fixture
def hand(model: str, tmp_path: Path) -> Iterator[Hand]:
    with (
        LocalStore.open(tmp_path / "index", create=True) as store,
        Renderer() as renderer,
        Downloads(tmp_path / "downloads") as downloads,
    ):
        yield Hand(store, Models(ModelSettings(model, device="cpu")).for_ingest(store), renderer, downloads)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def pdf(path: Path, word: str = "walrus") -> Path:
    path.parent.mkdir(exist_ok=True)
    return write(path, pdf_bytes([text(72, 700, word)]))


def settle() -> None:
    time.sleep(SETTLED + 0.1)


def files(inbox: Path) -> set[str]:
    names = {path.relative_to(inbox).as_posix() for path in inbox.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith(".visrag/")}


def test_the_way_of_files(hand: Hand, inbox: Path) -> None:
    pdf(inbox / "good.pdf")
    pdf(inbox / "sub" / "below.pdf", "heron")
    (inbox / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    (inbox / "note.unknown").write_text("not ours")
    (inbox / ".hidden.pdf").write_text("not to be looked at")
    look(hand.store, inbox)
    assert hand.store.jobs() == []  # not yet complete
    settle()
    look(hand.store, inbox)
    look(hand.store, inbox)
    assert [job.order.name for job in hand.store.jobs()] == ["broken.pdf", "good.pdf", "sub/below.pdf"]
    hand.work()
    look(hand.store, inbox)
    assert files(inbox) == {
        "done/good.pdf", "done/sub/below.pdf", "failed/broken.pdf", "failed/broken.pdf.txt", "failed/note.unknown",
        "failed/note.unknown.txt", ".hidden.pdf",
    }  # fmt: skip
    assert not (inbox / "sub").exists()
    reason = (inbox / "failed" / "broken.pdf.txt").read_text()
    assert reason.startswith("document: corrupt: ")
    look(hand.store, inbox)
    assert hand.store.jobs() == []


def test_the_same_file_twice_is_one_document(hand: Hand, inbox: Path) -> None:
    for _ in range(2):
        pdf(inbox / "a.pdf")
        settle()
        look(hand.store, inbox)
        hand.work()
        look(hand.store, inbox)
    assert [document.name for document in hand.store.documents()] == ["a.pdf"]
    assert files(inbox) == {"done/a.pdf", "done/a (2).pdf"}


def test_a_file_that_is_dropped_changed_replaces_the_document(hand: Hand, inbox: Path) -> None:
    for word in ("walrus", "otter"):
        pdf(inbox / "a.pdf", word)
        settle()
        look(hand.store, inbox)
        hand.work()
        look(hand.store, inbox)
    [document] = hand.store.documents()
    assert document.pages == 1
    assert hand.store.term_scores(["otter"], [("a.pdf", 1)])[0, 0] > 0
    assert hand.store.term_scores(["walrus"], [("a.pdf", 1)])[0, 0] == 0


def test_a_file_that_changes_while_it_is_in_the_queue_is_taken_again(hand: Hand, inbox: Path) -> None:
    pdf(inbox / "a.pdf")
    settle()
    look(hand.store, inbox)
    [first] = hand.store.jobs()
    pdf(inbox / "a.pdf", "otter")
    settle()
    look(hand.store, inbox)
    [second] = hand.store.jobs()
    assert second.generation != first.generation


def test_a_file_that_is_still_being_copied_is_left(hand: Hand, inbox: Path) -> None:
    with (inbox / "a.pdf").open("wb") as file:
        for _ in range(3):
            file.write(b"%PDF")
            file.flush()
            time.sleep(SETTLED / 2)
            look(hand.store, inbox)
            assert hand.store.jobs() == []
    os.utime(inbox / "a.pdf", (0, 0))  # an old time of change tells nothing
    look(hand.store, inbox)
    assert hand.store.jobs() == []


def test_a_revoked_file_is_not_taken_again(hand: Hand, inbox: Path) -> None:
    pdf(inbox / "a.pdf")
    settle()
    look(hand.store, inbox)
    [job] = hand.store.jobs()
    hand.store.abandon(job.generation)
    look(hand.store, inbox)
    assert hand.store.jobs() == []
    assert files(inbox) == {"failed/a.pdf", "failed/a.pdf.txt"}
    assert (inbox / "failed" / "a.pdf.txt").read_text() == "it was taken out of the queue\n"
    pdf(inbox / "a.pdf")
    settle()
    look(hand.store, inbox)
    assert len(hand.store.jobs()) == 1


def test_a_name_that_is_no_unicode(hand: Hand, inbox: Path) -> None:
    pdf(Path(os.fsdecode(bytes(inbox) + b"/caf\xe9.pdf")))
    pdf(inbox / "good.pdf")
    settle()
    look(hand.store, inbox)
    hand.work()
    look(hand.store, inbox)
    assert {document.name: document.state for document in hand.store.documents()} == {
        "caf?.pdf": "indexed",
        "good.pdf": "indexed",
    }
    assert len(files(inbox)) == 2
