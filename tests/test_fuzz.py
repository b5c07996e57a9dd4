"""A short run of the fuzzer. python tests/fuzz.py makes a long one."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest

SEED = 11


def test_the_same_seed_gives_the_same_files() -> None:
    files = fuzz.originals()
    once, twice = ([fuzz.mutated(seed, files) for seed in range(40)] for _ in range(2))
    assert once == twice
    assert len({data for _, data in once}) > 35
    originals = {path.read_bytes() for path in files}
    assert sum(data in originals for _, data in once) < 10  # where there was no number to change


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_damaged_files_end_nothing_and_leave_no_memory_behind(tmp_path: Path) -> None:
    report = fuzz.run(100, SEED, tmp_path)
    assert report.faults == []
    assert sum(count for name, count in report.outcomes.items() if name.startswith("document")) == 100
    assert report.outcomes["page"] > 20  # some are read all the same
    assert report.outcomes["document corrupt"] > 10
    assert max(report.parent) - report.parent[20] < 30  # MB
    assert len(report.children) == 1  # none of these ends it


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_ingest_of_damaged_files_accounts_for_each(tmp_path: Path) -> None:
    report = fuzz.ingest(100, SEED, tmp_path)
    assert report.faults == []
    assert report.outcomes["page"] > 20
    assert report.outcomes["document corrupt"] > 10
