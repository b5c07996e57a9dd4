"""Every store, for the contract tests: ``open_store`` opens the same index again, as another process would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from store_places import NO_SERVER, SERVER, core_server, drop_collections, place_of

from visrag.store import Store
from visrag.store.opening import open_store as open_any

OpenStore = Callable[[], Store]


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of Qdrant's core, which serves all tests."""
    with core_server(tmp_path_factory.mktemp("core")) as url:
        yield url


@pytest.fixture(
    params=["local", "qdrant", "core", pytest.param("server", marks=pytest.mark.skipif(not SERVER, reason=NO_SERVER))]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | Path]:
    url = request.getfixturevalue("core") if request.param == "core" else SERVER
    where = place_of(request.param, tmp_path, url)
    yield where
    if request.param in ("core", "server"):
        drop_collections(str(where))


@pytest.fixture
def open_store(place: str | Path) -> Iterator[OpenStore]:
    with ExitStack() as opened:

        def open_again() -> Store:
            store = open_any(place, create=True)
            opened.callback(store.close)
            return store

        yield open_again


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


@pytest.fixture
def mean_length(place: str | Path) -> float | None:
    """The mean length of pages, in terms, that a store's BM25 reckons with; None for that of the pages it holds."""
    if isinstance(place, Path):
        return None
    from visrag.store.qdrant_points import MEAN_LENGTH

    return MEAN_LENGTH
