"""`visrag ingest` killed at random moments; kill_ingest.py by itself does so more often, with the default models."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from checks import COSINE, STEPS
from kill_ingest import Ingest, kill_again_and_again, make_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_an_ingest_that_is_killed_again_and_again(tmp_path: Path) -> None:
    model = make_checkpoint("ColBERT", tmp_path / "model")
    files = make_files(tmp_path / "files", samples=False)
    options = ("--text", str(model), "--ocr", "off", "--jobs", "2", "--device", "cpu")
    ingest = Ingest(tmp_path, files, options, ["thirty page 7 of 30", "the revenue of the northern region"])
    done = kill_again_and_again(ingest, 3, random.Random(4))
    assert done.problems == []
    assert (done.kills, done.finished > 0) == (3, True)
    assert done.pages >= 37
    assert done.cosine >= COSINE
    assert done.steps <= STEPS
