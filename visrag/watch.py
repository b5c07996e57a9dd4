"""An inbox folder: what is dropped into it is ingested once it is complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .sources import Source, find_sources

SETTLED = 2.0  # seconds for which a file must not have changed to count as complete
INTERVAL = 0.5  # seconds between two looks


def arrivals(
    inbox: Path,
    settled: float = SETTLED,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[list[Source]]:
    """Lists of files that have come or changed since they were last given, each complete; never ends.

    A file is complete when its size and time of change have stood still for ``settled`` seconds.
    """
    seen: dict[Path, tuple[int, int, float]] = {}  # size, time of change, when it was first seen so
    given: dict[Path, tuple[int, int]] = {}
    while True:
        ready = []
        for source in find_sources([inbox]):
            try:
                status = source.path.stat()
            except FileNotFoundError:
                continue
            state = (status.st_size, status.st_mtime_ns)
            known = seen.get(source.path)
            if known is None or known[:2] != state:
                seen[source.path] = (*state, clock())
            elif given.get(source.path) != state and clock() - known[2] >= settled:
                given[source.path] = state
                ready.append(source)
        if ready:
            yield ready
        else:
            sleep(INTERVAL)
