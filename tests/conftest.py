"""What all tests share: no model hub, one index of the samples, and the evaluation data where there is any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # torch's threads that wait leave the cores to other processes

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data() -> Path:
    """The evaluation data; its README.md says what is there."""
    folder = Path(os.environ.get("VISRAG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no evaluation data: set VISRAG_DATA")
    return folder


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of sample documents."""
    return ROOT / "samples"


@pytest.fixture(scope="session")
def samples_path(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Path:
    """An index of the samples. Not to be changed."""
    from visrag import Index

    path = tmp_path_factory.mktemp("samples") / "index"
    with Index(path) as index:
        summary = index.ingest(samples, tags={"kind": "sample"})
    assert summary.failures == []
    return path


@pytest.fixture
def samples_index(samples_path: Path) -> Iterator[object]:
    from visrag import Index

    with Index(samples_path) as index:
        yield index
