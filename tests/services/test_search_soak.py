"""Searches while another process writes; soak_search.py by itself goes on for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
from soak_search import soak_search

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_searches_while_another_process_replaces_removes_and_compacts(tmp_path: Path) -> None:
    done = soak_search(tmp_path, steps=20)
    assert done.problems == []
    assert done.added + done.removed == 20
    assert done.removed > 0
    assert done.compacted == 4
    assert done.searches >= 3
