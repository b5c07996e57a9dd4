"""Real servers and workers; without a redis-server these tests fail in CI and are skipped elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from services import Cluster, end_on_sigterm, tail

running: list[Cluster] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """A test that failed shows the ends of the logs."""
    report = yield
    if report.failed:
        for cluster in running:
            report.sections += [(f"{name} ({path})", tail(path)) for name, path in cluster.logs().items()]
    return report


@pytest.fixture(scope="session", autouse=True)
def redis_server() -> None:
    end_on_sigterm()
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("no redis-server: apt-get install redis-server")
        pytest.skip("no redis-server: apt-get install redis-server")


MakeCluster = Callable[..., Cluster]


@contextmanager
def clusters(factory: pytest.TempPathFactory) -> Iterator[MakeCluster]:
    """Makes clusters, whose broker runs and whose workers are to be started; ends them."""
    with ExitStack() as stack:

        def make(*arguments: Any, **options: Any) -> Cluster:
            cluster = stack.enter_context(Cluster(factory.mktemp("cluster"), *arguments, **options))
            running.append(cluster)
            stack.callback(running.remove, cluster)
            return cluster

        yield make


@pytest.fixture
def make_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCluster]:
    with clusters(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="module")
def make_lasting_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCluster]:
    """For a cluster that the tests of a module share."""
    with clusters(tmp_path_factory) as make:
        yield make
