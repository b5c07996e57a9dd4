"""Handing out work: bounded, fair, and put right after losses."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from visrag.dispatch import SENT, Dispatch, sweep
from visrag.records import Load, Order, Piece
from visrag.steps import PIECE_PAGES
from visrag.store.local import LocalStore

READY = {"models": {"text": "some"}, "legs": []}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore.open(tmp_path / "index", create=True) as store:
        store.write_settings(READY)
        yield store


def rendering(store: LocalStore, name: str, pieces: int) -> int:
    """A document with so many pieces to render."""
    [generation] = store.enqueue([Order(name, name)])
    pages = [tuple(range(i * PIECE_PAGES + 1, (i + 1) * PIECE_PAGES + 1)) for i in range(pieces)]
    store.finish(Piece(generation, "ingest"), follow=[Piece(generation, "render", p, i) for i, p in enumerate(pages)])
    return generation


def test_a_bounded_number_is_handed_out(store: LocalStore) -> None:
    store.enqueue([Order(f"{i}.pdf", "x") for i in range(100)])
    sent: list[Piece] = []
    dispatch = Dispatch(store, sent.append)
    assert dispatch() == len(sent) == SENT
    assert dispatch() == 0
    store.claim(sent[0].id, "one", 60.0)
    assert dispatch() == 1


def test_nothing_is_opened_before_the_index_has_its_models(store: LocalStore) -> None:
    store.enqueue([Order("a.pdf", "x")])
    sent: list[Piece] = []
    assert Dispatch(store, sent.append, ["text", "vision"])() == 0
    store.write_settings({"models": {"text": "some", "vision": "other"}, "legs": []})
    assert Dispatch(store, sent.append, ["text", "vision"])() == 1


def test_rendering_does_not_run_far_ahead_of_the_encoders(store: LocalStore) -> None:
    generation = rendering(store, "a.pdf", 20)
    waiting = 4 * PIECE_PAGES
    for expected in (4, 0):
        sent = [piece for piece in _sent(store, waiting) if piece.queue == "render"]
        assert len(sent) == expected
        held = [claimed for piece in sent if (claimed := store.claim(piece.id, "one", 60.0)) is not None]
        assert [piece for piece in _sent(store, waiting) if piece.queue == "render"] == []  # as many are held
        for piece in held:
            store.finish(piece, follow=[Piece(generation, "text", piece.pages)])
    assert (store.load()["text"].pages, store.load()["render"].waiting) == (waiting, 16)
    store.finish(Piece(generation, "text", (1,)))
    assert [piece.queue for piece in _sent(store, waiting)] == ["render"]


def _sent(store: LocalStore, waiting: int) -> list[Piece]:
    sent: list[Piece] = []
    Dispatch(store, sent.append, waiting_pages=waiting)()
    return sent


def test_a_broker_that_is_down_loses_nothing(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    store.enqueue([Order("a.pdf", "x"), Order("b.pdf", "y")])

    def refuse(piece: Piece) -> None:
        raise ConnectionError("refused")

    with caplog.at_level(logging.WARNING):
        Dispatch(store, refuse)()
    assert "the broker took no message (refused)" in caplog.text
    assert store.load()["ingest"] == Load(waiting=2)
    assert len(_sent(store, 512)) == 2


def test_messages_are_recalled_only_where_the_broker_has_fewer_than_were_sent(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.enqueue([Order("a.pdf", "x"), Order("b.pdf", "y")])
    _sent(store, 512)
    sweep(store, {})
    assert store.load()["ingest"] == Load(sent=2)  # sent just now
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    sweep(store, {"ingest": 2})
    assert store.load()["ingest"] == Load(sent=2)
    sweep(store, {"ingest": 1, "render": 9})
    assert store.load()["ingest"] == Load(waiting=2)
