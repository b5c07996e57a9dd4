"""What the server's tests share: indexes of the samples that may be changed, and a server over one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server, serving

from visrag import Index


@pytest.fixture
def index_copy(samples_path: Path, tmp_path: Path) -> Path:
    """An index of the samples (ingested once for all tests) of the test's own."""
    return Path(shutil.copytree(samples_path, tmp_path / "index"))


@pytest.fixture(scope="session")
def empty_path(tmp_path_factory: pytest.TempPathFactory, samples_path: Path) -> Path:
    """An index without documents, to be copied."""
    path = Path(shutil.copytree(samples_path, tmp_path_factory.mktemp("empty") / "index"))
    with Index(path) as index:
        for document in index.documents():
            index.remove(document.name)
    return path


@pytest.fixture(scope="module")
def served(samples_path: Path, empty_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without keys of the collections "samples" (not to be changed) and "drop", for uploads of up to 8 MiB."""
    folder = tmp_path_factory.mktemp("served")
    collections = {name: folder / name for name in ("samples", "drop")}
    shutil.copytree(samples_path, collections["samples"])
    shutil.copytree(empty_path, collections["drop"])
    with serving(folder, collections, "--max-upload", "8", "--rate", "100000") as server:
        yield server
