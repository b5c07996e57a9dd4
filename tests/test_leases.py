"""The pieces that a process holds: renewed while it works, and no longer than it may."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from visrag.leases import Leases
from visrag.records import Load, Order, Piece
from visrag.store.local import LocalStore

HOLD = """
import sys, time
from visrag.leases import Leases
from visrag.records import Piece
from visrag.store.local import LocalStore

generation, lease, limit, seconds = int(sys.argv[1]), *map(float, sys.argv[2:])
with LocalStore.open("index") as store:
    leases = Leases(store, lease, limit)
    with leases.hold(Piece(generation, "ingest").id) as piece:
        assert piece is not None
        time.sleep(seconds)
    with leases.hold("none") as nothing:
        assert nothing is None
"""


def hold(folder: Path, generation: int, lease: float, limit: float, seconds: float) -> subprocess.Popen[str]:
    """A process that holds the document's first piece for some seconds."""
    numbers = map(str, (generation, lease, limit, seconds))
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, *numbers], cwd=folder, text=True, stderr=subprocess.PIPE, env=dict(os.environ)
    )


def test_a_piece_stays_its_workers_while_it_works_and_its_watchdog_ends_what_hangs(tmp_path: Path) -> None:
    with LocalStore.open(tmp_path / "index", create=True) as store:
        first, second = store.enqueue([Order("a.pdf", "x"), Order("b.pdf", "y")])
        works, hangs = hold(tmp_path, first, 0.6, 60.0, 3.0), hold(tmp_path, second, 0.6, 1.0, 60.0)
        while store.load() != {"ingest": Load(held=2)}:
            time.sleep(0.02)
            assert works.poll() is None
        time.sleep(1.5)  # more than twice the lease
        assert works.poll() is None
        assert [piece.generation for piece in store.expire()] in ([], [second])
        assert "this process ends" in hangs.communicate(timeout=30)[1]
        assert hangs.returncode == 70
        time.sleep(0.7)
        store.expire()
        assert store.claim(Piece(second, "ingest").id, "other", 60.0) is not None
        assert works.communicate(timeout=30)[1] == ""
        assert works.returncode == 0


def test_what_is_given_back_was_no_attempt(tmp_path: Path) -> None:
    with LocalStore.open(tmp_path / "index", create=True) as store:
        first, second = (
            Piece(generation, "ingest").id for generation in store.enqueue([Order("a", "x"), Order("b", "y")])
        )
        leases = Leases(store, 60.0, 60.0)
        with leases.hold(first) as one, leases.hold(second):
            assert one is not None
            assert one.attempts == 1
            with leases.hold(first) as nothing:
                assert nothing is None
            leases.give_back()
            assert store.load() == {"ingest": Load(waiting=2)}
        claimed = store.claim(first, "other", 60.0)
        assert claimed is not None
        assert claimed.attempts == 1
        leases.close()
