"""The pieces that a process holds: renewed while it works, and no longer than it may."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from visrag.leases import Leases
from visrag.records import Load, Order, Piece
from visrag.store.local import LocalStore

LEASE = 3.0  # seconds; on a busy machine it is renewed late

HOLD = """
import sys
from visrag.leases import Leases
from visrag.records import Piece
from visrag.store.local import LocalStore

generation, lease, limit = int(sys.argv[1]), *map(float, sys.argv[2:])
with LocalStore.open("index") as store:
    leases = Leases(store, lease, limit)
    with leases.hold(Piece(generation, "ingest").id) as piece:
        assert piece is not None
        print("holds", flush=True)
        sys.stdin.read()
    with leases.hold("none") as nothing:
        assert nothing is None
"""


def hold(folder: Path, generation: int, limit: float) -> subprocess.Popen[str]:
    """A process that holds the document's first piece until its standard input ends."""
    command = [sys.executable, "-c", HOLD, *map(str, (generation, LEASE, limit))]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


@pytest.mark.slow
def test_a_piece_stays_its_workers_while_it_works_and_its_watchdog_ends_what_hangs(tmp_path: Path) -> None:
    with LocalStore.open(tmp_path / "index", create=True) as store:
        first, second = store.enqueue([Order("a.pdf", "x"), Order("b.pdf", "y")])
        with hold(tmp_path, first, 600.0) as works, hold(tmp_path, second, 1.0) as hangs:
            assert works.stdout is not None
            assert hangs.stderr is not None
            assert works.stdout.readline() == "holds\n"
            assert hangs.wait(60) == 70
            assert "this process ends" in hangs.stderr.read()
            time.sleep(2 * LEASE)
            assert [piece.generation for piece in store.expire()] == [second]
            assert store.claim(Piece(second, "ingest").id, "other", 60.0) is not None
            assert store.load() == {"ingest": Load(held=2)}
            assert works.communicate(timeout=60) == ("", "")
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
