"""Every store, for the contract tests: ``open_store`` opens the same index again, as another process would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from visrag.store import Store
from visrag.store.local import LocalStore

OpenStore = Callable[[], Store]


@pytest.fixture(params=["local"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    with ExitStack() as opened:

        def open_local() -> Store:
            store = LocalStore.open(tmp_path / "index", create=True)
            opened.callback(store.close)
            return store

        yield {"local": open_local}[request.param]


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()
