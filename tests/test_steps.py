"""A document's way through the queue: the same result as the local ingest, whatever happens on the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from checkpoints import make_checkpoint
from pdfs import pdf_bytes, rectangle, text, write
from queue_cases import Hand

from visrag import Index, IngestSettings
from visrag.dispatch import sweep
from visrag.models import Models
from visrag.records import Failure, Filter, PageRef, Piece
from visrag.render import Renderer
from visrag.settings import Route
from visrag.steps import ATTEMPTS, PIECE_PAGES, encode_pages, end
from visrag.store.local import LocalStore
from visrag.store.remote import Downloads

NO_OCR = IngestSettings(ocr="off", jobs=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny models with random weights."""
    root = tmp_path_factory.mktemp("models")
    return {
        "text": str(make_checkpoint("ColBERT", root / "text")),
        "vision": str(make_checkpoint("ColQwen2ForRetrieval", root / "vision")),
    }


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer() as renderer:
        yield renderer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore.open(tmp_path / "index", create=True) as store:
        yield store


@pytest.fixture
def hand(store: LocalStore, models: dict[str, str], renderer: Renderer, tmp_path: Path) -> Iterator[Hand]:
    encoders = Models(models["text"], None, "cpu").for_ingest(store)
    with Downloads(tmp_path / "downloads") as downloads:
        yield Hand(store, encoders, renderer, downloads)


def pdf(path: Path, pages: int, word: str = "walrus") -> Path:
    return write(path, pdf_bytes([text(72, 700, f"{word} number {page}") for page in range(1, pages + 1)]))


def texts(store: LocalStore, name: str, pages: int) -> list[str]:
    return [store.page(PageRef(name, number)).text for number in range(1, pages + 1)]


def leftovers(store: LocalStore) -> list[Path]:
    """What must not be there when nothing is in the queue."""
    waiting = store.folder / "waiting"
    return list(waiting.rglob("*")) if waiting.exists() else []


def test_the_same_as_a_local_ingest(store: LocalStore, hand: Hand, models: dict[str, str], tmp_path: Path) -> None:
    count = 2 * PIECE_PAGES + 3
    file = pdf(tmp_path / "a.pdf", count)
    hand.enqueue(file, NO_OCR, {"year": "2024"})
    [done] = hand.work()
    assert hand.done == ["ingest", *["render"] * 3, *["text"] * 3]
    with Index(tmp_path / "local", text=models["text"], device="cpu") as local:
        local.ingest(file, tags={"year": "2024"}, settings=NO_OCR)
        assert local.documents() == store.documents() == [done]
    assert store.jobs() == []
    assert leftovers(store) == []
    with LocalStore.open(tmp_path / "local") as other:
        for number in range(1, count + 1):
            ref = PageRef("a.pdf", number)
            assert store.page(ref) == other.page(ref)
            ours, theirs = store.vectors("tokens", ref), other.vectors("tokens", ref)
            assert ours is not None
            assert theirs is not None
            np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=0.01)
            np.testing.assert_array_equal(ours.places.packed, theirs.places.packed)


@pytest.mark.parametrize("route", ["auto", "both"])
def test_pages_find_their_encoders(
    tmp_path: Path, store: LocalStore, models: dict[str, str], renderer: Renderer, route: Route
) -> None:
    drawn = text(72, 790, "costs") + rectangle(50, 80, 495, 660, "0.2 0.6 0.3")
    file = write(tmp_path / "a.pdf", pdf_bytes([text(72, 700, "walrus"), drawn]))
    settings = IngestSettings(ocr="off", jobs=1, route=route)
    encoders = Models(models["text"], models["vision"], "cpu").for_ingest(store)
    with Downloads(tmp_path / "downloads") as downloads:
        hand = Hand(store, encoders, renderer, downloads)
        hand.enqueue(file, settings)
        hand.work()
    assert hand.done[:2] == ["ingest", "render"]
    assert set(hand.done[2:]) == ({"text", "encode"} if route == "auto" else {"encode"})
    with Index(tmp_path / "local", **models, device="cpu") as local:
        local.ingest(file, settings=settings)
    with LocalStore.open(tmp_path / "local") as other:
        for leg in ("tokens", "patches"):
            for number in (1, 2):
                ours, theirs = (found.vectors(leg, PageRef("a.pdf", number)) for found in (store, other))
                assert (ours is None) == (theirs is None)
                if ours is not None and theirs is not None:
                    np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=0.01)
                    assert ours.places.grid == theirs.places.grid


def test_a_worker_that_shall_end_leaves_the_rest_to_others(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 5), NO_OCR)
    hand.do(hand.claim())
    asked = iter([False, True])
    assert hand.do(hand.claim(), lambda: next(asked)).pages == 2
    assert {queue: load.pages for queue, load in store.load().items()} == {"text": 2, "render": 3}
    [done] = hand.work()
    assert (done.pages, done.indexed, done.state) == (5, 5, "indexed")
    assert hand.done.count("render") == 2


@pytest.mark.parametrize("damage", ["lost", "cut short"])
def test_a_parcel_that_is_lost_is_rendered_again(store: LocalStore, hand: Hand, tmp_path: Path, damage: str) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 3), NO_OCR)
    hand.do(hand.claim())
    hand.do(hand.claim())
    [parcel] = [path for path in leftovers(store) if path.is_file()]
    if damage == "lost":
        parcel.unlink()
    else:
        parcel.write_bytes(parcel.read_bytes()[:-30])
    [done] = hand.work()
    assert done.indexed == 3
    assert hand.done == ["ingest", "render", "text", "render", "text"]


def test_a_document_whose_last_worker_died_before_the_commit(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    generation = hand.enqueue(pdf(tmp_path / "a.pdf", 2), NO_OCR)
    hand.do(hand.claim())
    render = hand.claim()
    store.finish(render)  # as if its pages were in, and the worker then died
    assert [document.name for document in sweep(store, 0)] == ["a.pdf"]
    assert store.job(generation) is None
    assert end(store, generation) is None


def test_a_late_result_of_a_worker_that_was_thought_dead(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 2), NO_OCR)
    hand.do(hand.claim())
    hand.do(hand.claim())
    late = hand.claim()
    data = store.parcel(late)
    hand.do(late)
    assert texts(store, "a.pdf", 2) == ["walrus number 1", "walrus number 2"]
    store.put_parcel(late, data)
    assert encode_pages(store, late, hand.encoders.encode).pages == 0
    assert store.page_count(Filter()) == 2
    sweep(store, 0)
    assert leftovers(store) == []


def test_a_page_that_kills_its_worker_is_given_up_and_no_other(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 3), NO_OCR)
    hand.do(hand.claim())
    killed = 0
    for _ in range(200):
        sweep(store, 0)
        piece = hand.claim()
        if piece is None:
            break
        if piece.queue == "render" and 2 in piece.pages:
            killed += 1
            store.renew([piece.id], "hand", -1.0)  # its time is up, and nobody finishes it
        else:
            hand.do(piece)
    assert killed == 2 * ATTEMPTS
    [document] = store.documents()
    assert (document.state, document.indexed, document.failed) == ("partial", 2, 1)
    [failure] = store.failures()
    assert (failure.page, failure.reason) == (2, "renderer_crash")
    assert f"failed {ATTEMPTS} times" in failure.message
    assert texts(store, "a.pdf", 1) == ["walrus number 1"]


def test_the_same_again_is_free_and_changed_replaces(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", 2)
    for expected in (["ingest", "render", "text"], ["ingest"]):
        hand.done.clear()
        hand.enqueue(file, NO_OCR)
        hand.work()
        assert hand.done == expected
    pdf(file, 1, "otter")
    hand.enqueue(file, NO_OCR)
    hand.work()
    assert texts(store, "a.pdf", 1) == ["otter number 1"]
    assert store.page_count(Filter()) == 1
    assert len(list((store.folder / "originals").iterdir())) == 1


def test_tags_are_kept_where_none_are_given(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", 1)
    hand.enqueue(file, NO_OCR, {"year": "2024"})
    hand.work()
    pdf(file, 2)
    hand.enqueue(file, NO_OCR)
    hand.work()
    assert store.documents()[0].tags == {"year": "2024"}


def test_what_cannot_be_opened_is_recorded(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7 and nothing else")
    hand.enqueue(broken, NO_OCR)
    hand.enqueue(tmp_path / "gone.pdf", NO_OCR)
    hand.enqueue(pdf(tmp_path / "good.pdf", 1), NO_OCR)
    hand.work()
    assert {document.name: document.state for document in store.documents()} == {
        "broken.pdf": "failed",
        "gone.pdf": "failed",
        "good.pdf": "indexed",
    }
    assert {(failure.document, failure.page, failure.reason) for failure in store.failures()} == {
        ("broken.pdf", None, "corrupt"),
        ("gone.pdf", None, "missing"),
    }


def test_a_document_stays_when_its_file_has_gone(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", 1)
    hand.enqueue(file, NO_OCR)
    hand.work()
    file.unlink()
    hand.enqueue(file, NO_OCR)
    hand.work()
    assert [document.state for document in store.documents()] == ["indexed"]
    assert store.jobs() == []


def test_a_linked_file_that_changes_on_the_way(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", 1)
    link = IngestSettings(ocr="off", jobs=1, link=True)
    hand.enqueue(file, link)
    hand.do(hand.claim())
    pdf(file, 1, "otter")
    assert hand.work() == []
    assert store.documents() == []
    hand.enqueue(file, link)
    [done] = hand.work()
    assert done.state == "indexed"
    assert store.original("a.pdf") == file
    assert list((store.folder / "originals").iterdir()) == []


def test_a_locked_document(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    import pikepdf

    plain = pdf(tmp_path / "plain.pdf", 2)
    file = tmp_path / "locked.pdf"
    with pikepdf.open(plain) as opened:
        opened.save(file, encryption=pikepdf.Encryption(user="tide", owner="tide"))
    hand.enqueue(file, NO_OCR)
    hand.work()
    assert store.failures()[0].reason == "password"
    hand.passwords = ("tide",)
    hand.enqueue(file, NO_OCR)
    [done] = hand.work()
    assert (done.state, done.indexed) == ("indexed", 2)
    assert store.image_path(PageRef("locked.pdf", 2)) is not None
    assert "tide" not in str([job.order for job in store.jobs()])


def test_a_document_without_pages_to_encode(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    file = tmp_path / "blank.pdf"
    with pypdfium2.PdfDocument.new() as made:
        made.new_page(200, 200)
        made.save(file)
    hand.enqueue(file, NO_OCR)
    [done] = hand.work()
    assert (done.state, done.indexed, done.failed) == ("indexed", 1, 0)


def test_a_revoked_document_is_not_written(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    generation = hand.enqueue(pdf(tmp_path / "a.pdf", 3), NO_OCR)
    hand.do(hand.claim())
    piece = hand.claim()
    store.abandon(generation)
    assert hand.do(piece).pages == 0
    assert hand.work() == []
    assert (store.documents(), leftovers(store)) == ([], [])
    assert list((store.folder / "originals").iterdir()) == []


def test_an_expired_piece_is_done_by_another(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 1), NO_OCR)
    first = hand.claim()
    store.renew([first.id], "hand", 0.01)
    time.sleep(0.05)
    assert isinstance(store.claim(first.id, "other", 60.0), Piece)
    hand.do(first)  # the first one was only slow
    hand.work()
    assert [document.state for document in store.documents()] == ["indexed"]
    assert store.failures() == list[Failure]()
