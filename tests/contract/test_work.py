"""The queue that every store keeps: nothing is lost, nothing is done twice, documents take turns."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest
from store_cases import document, page, put, unit

from visrag.errors import NotFound, StoreError
from visrag.records import Failure, Filter, Load, Order, PageRef, Piece

LONG = 60.0


def begin(store, *names):
    """Documents in the queue, whose ingest pieces are claimed."""
    generations = store.enqueue([Order(name, f"/in/{name}") for name in names])
    return [store.claim(Piece(generation, "ingest").id, "opener", LONG) for generation in generations]


def render(generation, pages, turn=0.0):
    return Piece(generation, "render", tuple(pages), turn)


def vectors(seed, n=3):
    return unit(np.random.default_rng(seed), n)


def test_a_document_in_the_queue_is_listed_with_what_was_asked(store):
    before = time.time()
    first, second = store.enqueue(
        [Order("a.pdf", "s3://bucket/a.pdf", {"ocr": "off"}, {"year": "2024"}), Order("b.pdf", "/in/b.pdf")]
    )
    job = store.job(first)
    assert job == store.jobs()[0]
    assert job.order == Order("a.pdf", "s3://bucket/a.pdf", {"ocr": "off"}, {"year": "2024"})
    assert (job.document.name, job.document.state, job.document.pages) == ("a.pdf", "ingesting", 0)
    assert before - 1 <= job.queued <= time.time() + 1
    assert [found.generation for found in store.jobs()] == [first, second]
    assert store.job(second).order.tags is None
    assert {found.name: found.state for found in store.documents()} == {"a.pdf": "ingesting", "b.pdf": "ingesting"}


def test_it_stays_when_the_process_that_queued_it_ends(open_store):
    [generation] = open_store().enqueue([Order("a.pdf", "/in/a.pdf")])
    assert open_store().job(generation) is not None
    assert open_store().load() == {"ingest": Load(waiting=1)}


def test_what_was_found_out_is_written_down(store):
    [piece] = begin(store, "a.pdf")
    found = document("a.pdf", "abc", tags={"k": "v"}, pages=3, path="/in/a.pdf", renderer="pdfium")
    store.describe(piece.generation, found)
    known = store.job(piece.generation).document
    assert (known.content, known.settings, known.media_type) == ("abc", "settings", "application/pdf")
    assert (known.tags, known.pages, known.path, known.renderer) == ({"k": "v"}, 3, "/in/a.pdf", "pdfium")
    store.abandon(piece.generation)
    with pytest.raises(StoreError):
        store.describe(piece.generation, found)


def test_a_piece_is_held_by_one_worker_at_a_time(store):
    [generation] = store.enqueue([Order("a.pdf", "/in/a.pdf")])
    name = Piece(generation, "ingest").id
    held = store.claim(name, "one", LONG)
    assert (held.generation, held.queue, held.pages, held.attempts) == (generation, "ingest", (), 1)
    assert store.claim(name, "two", LONG) is None
    assert store.load() == {"ingest": Load(held=1)}


def test_an_expired_piece_is_claimed_by_another_or_waits_again(store):
    [generation] = store.enqueue([Order("a.pdf", "/in/a.pdf")])
    name = Piece(generation, "ingest").id
    store.claim(name, "one", 0.01)
    time.sleep(0.05)
    assert store.claim(name, "two", 0.01).attempts == 2
    time.sleep(0.05)
    assert [(piece.id, piece.attempts) for piece in store.expire()] == [(name, 2)]
    assert store.expire() == []
    assert store.load() == {"ingest": Load(waiting=1)}


def test_a_renewed_piece_does_not_expire(store):
    [generation] = store.enqueue([Order("a.pdf", "/in/a.pdf")])
    name = Piece(generation, "ingest").id
    store.claim(name, "one", 0.01)
    store.renew([name], "two", LONG)  # is not the holder
    store.renew([name, "gone"], "one", LONG)
    time.sleep(0.05)
    assert store.expire() == []
    assert store.claim(name, "two", LONG) is None


def test_a_piece_given_back_does_not_count_as_an_attempt(store):
    [piece] = begin(store, "a.pdf")
    store.give_back(piece.id, "another")
    assert store.load() == {"ingest": Load(held=1)}
    store.give_back(piece.id, "opener")
    assert store.load() == {"ingest": Load(waiting=1)}
    assert store.claim(piece.id, "opener", LONG).attempts == 1


def test_pieces_are_handed_out_up_to_a_number(store):
    generations = store.enqueue([Order(f"{i}.pdf", f"/in/{i}.pdf") for i in range(5)])
    assert [piece.generation for piece in store.take("ingest", 2)] == generations[:2]
    assert store.take("ingest", 2) == []
    assert store.load() == {"ingest": Load(waiting=3, sent=2)}
    store.claim(Piece(generations[0], "ingest").id, "one", LONG)
    assert [piece.generation for piece in store.take("ingest", 2)] == generations[2:3]


def test_pieces_whose_message_was_lost_wait_again(store):
    generations = store.enqueue([Order(f"{i}.pdf", f"/in/{i}.pdf") for i in range(2)])
    store.take("ingest", 2)
    store.claim(Piece(generations[0], "ingest").id, "one", LONG)
    assert store.recall("ingest", time.time() - LONG) == 0
    assert store.recall("render", time.time() + 1) == 0
    assert store.recall("ingest", time.time() + 1) == 1
    assert store.load() == {"ingest": Load(waiting=1, held=1)}


def test_a_small_document_overtakes_a_large_one(store):
    [large] = begin(store, "large.pdf")
    store.finish(large, follow=[render(large.generation, [i + 1], i) for i in range(100)])
    for _ in range(10):
        for piece in store.take("render", 1):
            store.finish(store.claim(piece.id, "one", LONG))
    [small] = begin(store, "small.pdf")
    store.finish(small, follow=[render(small.generation, [i + 1], i) for i in range(3)])
    order = []
    for _ in range(8):
        [piece] = store.take("render", 1)
        order.append(piece.generation)
        store.finish(store.claim(piece.id, "one", LONG))
    assert sorted(order[:6]) == sorted([small.generation] * 3 + [large.generation] * 3)
    assert order[6:] == [large.generation] * 2


def test_the_way_of_a_document(store):
    [piece] = begin(store, "a.pdf")
    generation = piece.generation
    store.describe(generation, document("a.pdf", pages=3))
    assert store.finish(piece, follow=[render(generation, [1, 2]), render(generation, [3], 1)]) == 2
    assert store.load() == {"render": Load(waiting=2, pages=3)}
    first, second = store.take("render", 9)
    assert (first.pages, second.pages) == ((1, 2), (3,))
    store.put_parcel(Piece(generation, "text", (1, 2)), b"one")
    assert store.finish(first, follow=[Piece(generation, "text", (1, 2))]) == 2
    gone = Failure("a.pdf", 3, "corrupt", "it is broken")
    assert store.finish(second, failures=[gone]) == 1
    text = store.claim(f"{generation}.text.1", "one", LONG)
    assert store.parcel(text) == b"one"
    known = store.job(generation).document
    assert (known.pages, known.indexed, known.failed) == (3, 0, 1)
    assert store.unfinished() == []
    assert store.finish(text, [page(1, "first", tokens=vectors(1)), page(2, "second")]) == 0
    with pytest.raises(NotFound):
        store.parcel(text)
    assert store.page_count(Filter()) == 0  # not yet committed
    assert store.unfinished() == [generation]
    done = store.commit(generation, 3)
    assert (done.state, done.pages, done.indexed, done.failed) == ("partial", 3, 2, 1)
    assert store.failures() == [gone]
    assert store.jobs() == []
    assert store.job(generation) is None
    assert store.load() == {}
    assert store.vectors("tokens", PageRef("a.pdf", 1)).vectors.shape == (3, 16)


def test_a_second_result_changes_nothing(store):
    [piece] = begin(store, "a.pdf")
    generation = piece.generation
    follow = [Piece(generation, "text", (1,))]
    assert store.finish(piece, follow=follow) == 1
    assert store.finish(piece, follow=[render(generation, [1])]) is None
    [text] = store.take("text", 1)
    assert store.finish(text, [page(1, "kept", tokens=vectors(1))]) == 0
    assert store.finish(text, [page(1, "late", tokens=vectors(2))]) is None
    store.commit(generation, 1)
    assert store.finish(text, [page(1, "later", tokens=vectors(3))]) is None
    assert store.page(PageRef("a.pdf", 1)).text == "kept"
    assert store.claim(text.id, "one", LONG) is None
    store.give_back(text.id, "one")
    store.renew([text.id], "one", LONG)
    assert store.load() == {}


def test_a_result_counts_only_while_no_other_has_the_piece(store):
    [piece] = begin(store, "a.pdf")
    store.renew([piece.id], "opener", -1.0)
    again = store.claim(piece.id, "other", LONG)
    assert store.finish(piece, failures=[Failure("a.pdf", None, "timeout", "late")]) is None
    assert store.load() == {"ingest": Load(held=1)}
    store.renew([piece.id], "other", -1.0)
    assert [found.id for found in store.expire()] == [piece.id]
    assert store.finish(again) == 0  # nobody has it
    assert store.commit(piece.generation, 0).state == "indexed"


def test_a_piece_may_be_cut_into_pages(store):
    [piece] = begin(store, "a.pdf")
    store.finish(piece, follow=[render(piece.generation, [1, 2, 3])])
    whole = store.claim(f"{piece.generation}.render.1", "one", LONG)
    assert store.finish(whole, follow=[render(piece.generation, [number]) for number in whole.pages]) == 3
    single = store.claim(f"{piece.generation}.render.1", "one", LONG)
    assert (single.pages, single.attempts) == ((1,), 1)


def test_a_document_queued_again_replaces_what_was_on_its_way(store):
    put(store, "a.pdf", [page(1, "old")])
    [first] = begin(store, "a.pdf")
    store.put_parcel(first, b"parcel")
    [second] = store.enqueue([Order("a.pdf", "/in/a.pdf")])
    assert store.job(first.generation) is None
    assert store.finish(first) is None
    assert [job.generation for job in store.jobs()] == [second]
    assert store.page(PageRef("a.pdf", 1)).text == "old"
    assert [found.state for found in store.documents()] == ["indexed"]


def test_a_removed_document_leaves_the_queue(store):
    [piece] = begin(store, "a.pdf")
    store.remove("a.pdf")
    assert store.job(piece.generation) is None
    assert store.finish(piece, [page(1, "late")]) is None
    assert store.load() == {}
    with pytest.raises(StoreError):
        store.commit(piece.generation, 1)
    assert store.documents() == []


def test_what_a_late_worker_leaves_is_tidied(store):
    pieces = begin(store, "a.pdf", "b.pdf")
    store.abandon(pieces[0].generation)
    for piece in pieces:
        store.put_parcel(piece, b"parcel")
    assert store.tidy() == 1
    assert store.tidy() == 0
    assert store.parcel(pieces[1]) == b"parcel"
    with pytest.raises(NotFound):
        store.parcel(pieces[0])


def test_the_parcel_of_a_piece_whose_worker_died_after_it_is_tidied(store):
    [piece] = begin(store, "a.pdf")
    store.describe(piece.generation, document("a.pdf"))
    store.finish(piece, [page(1, "new")])
    store.commit(piece.generation, 1)
    store.put_parcel(piece, b"parcel")
    assert store.tidy() == 1
    assert store.tidy() == 0
    with pytest.raises(NotFound):
        store.parcel(piece)
    assert store.page(PageRef("a.pdf", 1)).text == "new"


def test_the_original_of_a_document_in_the_queue(store, tmp_path):
    file = tmp_path / "a.pdf"
    file.write_bytes(b"%PDF")
    [piece] = begin(store, "a.pdf")
    with pytest.raises(NotFound):
        store.original("a.pdf", piece.generation)
    content = hashlib.sha256(b"%PDF").hexdigest()
    store.describe(piece.generation, document("a.pdf", content))
    store.put_original(file, content, link=False)
    file.unlink()
    assert store.original("a.pdf", piece.generation).read_bytes() == b"%PDF"
    with pytest.raises(NotFound):
        store.original("a.pdf")  # not yet visible
    store.finish(piece)
    store.commit(piece.generation, 0)
    assert store.original("a.pdf").read_bytes() == b"%PDF"


def test_a_failure_of_the_whole_document(store):
    [piece] = begin(store, "a.pdf")
    assert store.finish(piece, failures=[Failure("a.pdf", None, "password", "it is locked")]) == 0
    done = store.commit(piece.generation, 0)
    assert (done.state, done.failed) == ("failed", 0)
    assert store.failures() == [Failure("a.pdf", None, "password", "it is locked")]
