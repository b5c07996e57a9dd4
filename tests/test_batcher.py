"""Batches: filled from many threads, halved where memory runs out; an error costs only the piece that it is in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from visrag.batcher import Batcher, Stopped
from visrag.encoders import BATCH, GROW_AFTER, Encoders
from visrag.errors import EncoderError
from visrag.records import EncodedPage, Leg, Page, PatchVectors, Places, QueryVectors

SOON = 60.0  # seconds in which whatever is waited for comes, on a loaded machine


class Panic(BaseException):
    """As the one of tokenizers, written in Rust: no Exception."""


FAULTS = {"bug": ZeroDivisionError("a library's fault"), "panic": Panic("index out of bounds"), "end": SystemExit()}


class Counting:
    """An encoder whose vector of a page is the page's number; ``room``: pages that its memory is enough for. It fails
    on pages whose text is one of ``FAULTS``, and once it is ``broken`` on every page."""

    needs_image = False
    legs = (Leg("tokens", "counting", 1, "1"),)

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.broken = False
        self.batches: list[int] = []
        self.open = threading.Event()
        self.open.set()

    def encode_pages(self, pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        self.batches.append(len(pages))
        self.open.wait(SOON)
        if len(pages) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        if self.broken:
            raise ZeroDivisionError("a fault of the device")
        for page in pages:
            if page.text in FAULTS:
                raise FAULTS[page.text]
        nowhere = Places.of_boxes([], [])
        return [{"tokens": PatchVectors(np.full((1, 1), page.number, np.float32), nowhere)} for page in pages]

    def encode_query(self, question: str) -> Mapping[str, QueryVectors]:
        raise NotImplementedError


def encoders(encoder: Counting) -> Encoders:
    return Encoders(encoder, None, {"tokens": (0.0, 0.0)})


def pages(*numbers: int, text: str = "") -> list[Page]:
    return [Page(number, 1.0, 1.0, text) for number in numbers]


def values(results: Sequence[EncodedPage | EncoderError]) -> list[float]:
    return [float(found.legs["tokens"].vectors[0, 0]) for found in results if isinstance(found, EncodedPage)]


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_waits_is_encoded_together_and_each_gets_its_own() -> None:
    encoder = Counting()
    encoder.open.clear()
    observed: list[tuple[int, int]] = []
    batcher = Batcher(encoders(encoder), lambda count, room: observed.append((count, room)))
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(batcher.encode, pages(0), "text")
        until(lambda: bool(encoder.batches))
        others = [threads.submit(batcher.encode, pages(10 * i, 10 * i + 1), "text") for i in range(1, 9)]
        until(lambda: len(batcher._orders) == 8)
        encoder.open.set()
        assert values(first.result()) == [0.0]
        assert [values(other.result()) for other in others] == [[10.0 * i, 10.0 * i + 1] for i in range(1, 9)]
    assert encoder.batches == [1, 16]
    until(lambda: len(observed) == 2)  # told after the results
    assert observed == [(1, BATCH), (16, BATCH)]


def test_when_it_is_stopped_nothing_more_is_encoded_and_its_threads_end() -> None:
    encoder = Counting()
    encoder.open.clear()
    before = set(threading.enumerate())
    batcher = Batcher(encoders(encoder))
    threads = set(threading.enumerate()) - before
    begun = batcher.submit(pages(0), "text")
    until(lambda: bool(encoder.batches))
    waiting = batcher.submit(pages(1), "text")
    batcher.stop()
    batcher.stop()
    late = batcher.submit(pages(2), "text")
    encoder.open.set()
    assert values(begun.result(SOON)) == [0.0]
    for order in (waiting, late):
        with pytest.raises(Stopped):
            order.result(SOON)
    for thread in threads:
        thread.join(SOON)
    assert len(threads) == 1
    assert not any(thread.is_alive() for thread in threads)
    assert encoder.batches == [1]


def test_an_error_costs_only_its_piece() -> None:
    encoder = Counting()
    encoder.open.clear()
    batcher = Batcher(encoders(encoder))
    with ThreadPoolExecutor(3) as threads:
        threads.submit(batcher.encode, pages(0), "text")
        until(lambda: bool(encoder.batches))
        good = threads.submit(batcher.encode, pages(1), "text")
        bad = threads.submit(batcher.encode, pages(2, text="end"), "text")
        until(lambda: len(batcher._orders) == 2)
        encoder.open.set()
        assert values(good.result()) == [1.0]
        with pytest.raises(SystemExit):
            bad.result(10)


def test_a_batch_is_halved_when_memory_runs_out_and_grows_back() -> None:
    encoder = Counting(room=9)
    found = encoders(encoder)
    assert values(found.encode(pages(*range(40)), "text")) == list(range(40))
    assert encoder.batches == [32, 16, 8, 8, 8, 8, 8]
    encoder.room, encoder.batches = 1000, []
    found.encode(pages(*range(8 * GROW_AFTER + 100)), "text")
    assert (max(encoder.batches), found.batch) == (16, 16)


def test_a_batch_that_takes_too_long_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second a page: a batch of 32 takes half a minute, and progress would not show before."""
    clock = [0.0]
    monkeypatch.setattr("visrag.encoders.time.monotonic", lambda: clock[0])
    encoder = Counting()
    encode_pages = encoder.encode_pages

    def slow(pages: Sequence[Page]) -> list[Mapping[str, PatchVectors]]:
        clock[0] += len(pages)
        return encode_pages(pages)

    encoder.encode_pages = slow  # type: ignore[method-assign]
    found = encoders(encoder)
    assert values(found.encode(pages(*range(80)), "text")) == list(range(80))
    assert encoder.batches == [32, 16, 8, 8, 8, 8]


def test_a_page_too_large_for_the_memory_fails_alone() -> None:
    results = encoders(Counting(room=0)).encode(pages(1, 2), "text")
    assert [type(result) for result in results] == [EncoderError, EncoderError]
    assert "memory" in str(results[0])


@pytest.mark.parametrize(
    ("text", "message"), [("bug", "ZeroDivisionError: a library's fault"), ("panic", "Panic: index out of bounds")]
)
def test_a_page_that_a_library_fails_on_costs_no_other(text: str, message: str) -> None:
    before, bad, after = encoders(Counting()).encode([*pages(1), *pages(2, text=text), *pages(3)], "text")
    assert values([before, after]) == [1.0, 3.0]
    assert isinstance(bad, EncoderError)
    assert str(bad) == message


def test_a_model_that_fails_on_every_page_is_at_fault_itself() -> None:
    encoder = Counting()
    encoder.broken = True
    with pytest.raises(EncoderError, match=r"counting fails on every page now \(ZeroDivisionError: .*: start again"):
        encoders(encoder).encode(pages(1, 2), "text")
