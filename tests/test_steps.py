"""A document's way through the queue: the same result as the local ingest, whatever happens on the way."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from checkpoints import make_checkpoint
from pdfs import pdf_bytes, rectangle, text, write
from queue_cases import Hand

from visrag import Index, IngestSettings
from visrag.dispatch import sweep
from visrag.errors import EncoderError, FileChanged
from visrag.models import Models
from visrag.records import Document, EncodedPage, Filter, Order, Page, PageRef, Piece
from visrag.render import Renderer
from visrag.settings import ModelSettings, QueueSettings, Route
from visrag.steps import AGAIN, ATTEMPTS, HANDED_IN, PIECE_PAGES, encode_pages, end, options_of
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
    encoders = Models(ModelSettings(models["text"], device="cpu")).for_ingest(store)
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
    encoders = Models(ModelSettings(models["text"], models["vision"], "cpu")).for_ingest(store)
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
    assert [outcome.document.name for outcome in sweep(store, {})] == ["a.pdf"]
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
    sweep(store, {})
    assert leftovers(store) == []


def test_a_page_that_kills_its_worker_is_given_up_and_no_other(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 3), NO_OCR)
    hand.do(hand.claim())
    killed = 0
    for _ in range(200):
        sweep(store, {})
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


def test_again_is_not_free(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", 2)
    hand.enqueue(file, NO_OCR)
    hand.work()
    hand.done.clear()
    store.enqueue([Order("a.pdf", str(file), {**options_of(NO_OCR), AGAIN: True})])
    [done] = hand.work()
    assert hand.done == ["ingest", "render", "text"]
    assert (done.indexed, done.path) == (2, str(file))
    assert texts(store, "a.pdf", 2) == ["walrus number 1", "walrus number 2"]


def test_a_file_that_was_handed_in_is_no_path_of_its_document(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    for name, file in (("good.pdf", pdf(tmp_path / "1.pdf", 1)), ("bad.pdf", write(tmp_path / "2.pdf", b"%PDF-1.7"))):
        store.enqueue([Order(name, str(file), {**options_of(NO_OCR), HANDED_IN: True})])
    hand.work()
    (tmp_path / "1.pdf").unlink()
    assert [(found.name, found.state, found.path) for found in store.documents()] == [
        ("bad.pdf", "failed", ""),
        ("good.pdf", "indexed", ""),
    ]
    assert store.original("good.pdf").read_bytes().startswith(b"%PDF")


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


def test_a_linked_file_that_changes_on_the_way_is_read_again(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", 1)
    hand.enqueue(file, IngestSettings(ocr="off", jobs=1, link=True))
    hand.do(hand.claim())
    pdf(file, 1, "otter")
    [done] = hand.work()
    assert (done.state, texts(store, "a.pdf", 1)) == ("indexed", ["otter number 1"])
    assert store.original("a.pdf") == file
    assert list((store.folder / "originals").iterdir()) == []


def test_a_linked_file_that_goes_on_the_way(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", 1)
    hand.enqueue(file, IngestSettings(ocr="off", jobs=1, link=True))
    hand.do(hand.claim())
    hand.do(hand.claim())
    file.unlink()
    [done] = hand.work()
    assert (done.state, store.failures()[0].reason) == ("failed", "missing")


def test_a_file_that_changes_while_it_is_copied(store: LocalStore, tmp_path: Path) -> None:
    file = pdf(tmp_path / "a.pdf", 1)
    store.begin(document := Document("a.pdf", "0" * 64, "settings", "application/pdf"))
    with pytest.raises(FileChanged):
        store.put_original(file, document.content, link=False)
    assert list((store.folder / "originals").iterdir()) == []


def test_a_page_that_cannot_be_stored_costs_no_other(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 3), NO_OCR)
    hand.do(hand.claim())
    hand.do(hand.claim())

    def encode(pages: Sequence[Page], route: Route) -> list[EncodedPage | EncoderError]:
        results = hand.encoders.encode(pages, route)
        assert isinstance(results[1], EncodedPage)
        results[1].legs["tokens"].vectors[0, 0] = np.nan
        return results

    encode_pages(store, hand.claim(), encode)
    [document] = store.documents()
    assert (document.state, document.indexed, document.failed) == ("partial", 2, 1)
    [failure] = store.failures()
    assert (failure.page, failure.reason) == (2, "encoder")


def test_a_late_renderer_does_not_take_pages_away(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 5), NO_OCR)
    hand.do(hand.claim())
    late = hand.claim()
    store.renew([late.id], "hand", -1.0)
    second = store.claim(late.id, "other", 60.0)
    hand.do(second)
    hand.do(late, lambda: True)  # it stops after a page, and its parcel has the same name
    [done] = hand.work()
    assert (done.state, done.indexed, done.failed) == ("indexed", 5, 0)


def test_parcels_that_are_lost_each_time_are_given_up(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 2), NO_OCR)
    while (piece := hand.claim()) is not None:
        if piece.queue == "text":
            shutil.rmtree(store.folder / "waiting", ignore_errors=True)
        hand.do(piece)
    assert [(failure.page, failure.reason) for failure in store.failures()] == [(1, "encoder"), (2, "encoder")]
    assert "do all workers share the files" in store.failures()[0].message


def test_a_locked_document(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    import pikepdf

    plain = pdf(tmp_path / "plain.pdf", 2)
    file = tmp_path / "locked.pdf"
    with pikepdf.open(plain) as opened:
        opened.save(file, encryption=pikepdf.Encryption(user="tide", owner="tide"))
    hand.enqueue(file, NO_OCR)
    hand.work()
    assert store.failures()[0].reason == "password"
    hand.own = IngestSettings(passwords=("tide",))
    hand.enqueue(file, NO_OCR)
    [done] = hand.work()
    assert (done.state, done.indexed) == ("indexed", 2)
    assert store.image_path(PageRef("locked.pdf", 2)) is not None
    assert "tide" not in str([job.order for job in store.jobs()])


def test_memory_is_limited_by_the_worker_and_not_the_order(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.own = QueueSettings.from_environment({"VISRAG_MEMORY": "20"}).own  # MiB: less than Python alone has
    hand.enqueue(pdf(tmp_path / "a.pdf", 1), replace(NO_OCR, memory=0))
    (document,) = hand.work()
    assert (document.state, [failure.reason for failure in store.failures()]) == ("failed", ["too_large"])


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


def test_a_result_counts_only_while_no_other_has_the_piece(store: LocalStore, hand: Hand, tmp_path: Path) -> None:
    hand.enqueue(pdf(tmp_path / "a.pdf", 1), NO_OCR)
    first = hand.claim()
    store.renew([first.id], "hand", -1.0)
    second = store.claim(first.id, "other", 60.0)
    assert second is not None
    hand.do(first)
    assert {queue: load.held for queue, load in store.load().items()} == {"ingest": 1}
    store.renew([second.id], "other", -1.0)
    hand.do(second)  # its time is up, but nobody else has it
    hand.work()
    assert [document.state for document in store.documents()] == ["indexed"]


def test_one_document_that_cannot_be_ended_does_not_keep_the_others(store: LocalStore, hand: Hand) -> None:
    bad, good = store.enqueue([Order("bad.pdf", "x", {"unknown": 1}), Order("good.pdf", "y")])
    for generation in (bad, good):
        store.finish(Piece(generation, "ingest"))
    assert [outcome.document.name for outcome in sweep(store, {}) if outcome.document] == ["good.pdf"]
