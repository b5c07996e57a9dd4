"""What encode.py measures of an ingest: how long it takes, and how much of that is its start and its end."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from visrag import Index
from visrag.settings import IngestSettings
from visrag.sources import Source


class Clock:
    """A Progress that keeps when each page was stored."""

    def __init__(self) -> None:
        self.stored: list[float] = []

    def start(self, size: int) -> None: ...

    def page(self, source: Source, pages: int) -> None:
        self.stored.append(time.perf_counter())

    def finish(self, source: Source) -> None: ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Of an ingest, in seconds: ``start`` until the first page is stored, ``end`` from the last page on."""

    pages: int
    whole: float
    start: float
    end: float
    steady: float | None  # pages a second in between, as they are stored; None where they were stored at once

    @property
    def rate(self) -> float:
        return self.pages / self.whole


def timed(index: Index, files: Sequence[Path], settings: IngestSettings) -> Timing:
    """One ingest. Raises RuntimeError where a page fails."""
    clock, begun = Clock(), time.perf_counter()
    done = index.ingest(*files, settings=settings, progress=clock)
    ended = time.perf_counter()
    if done.failures:
        raise RuntimeError(f"{len(done.failures)} pages failed: {done.failures[0]}")
    steady = slope(clock.stored)
    return Timing(done.pages, ended - begun, clock.stored[0] - begun, ended - clock.stored[-1], steady)


def slope(moments: Sequence[float], least: float = 1.0) -> float | None:
    """How many come a second, by the line through them: they come in bursts. None for less than ``least`` seconds."""
    if moments[-1] - moments[0] < least:
        return None
    return statistics.linear_regression(moments, range(len(moments))).slope


def median(timings: Sequence[Timing]) -> Timing:
    """The one whose rate is the median, of an even number the lower."""
    return sorted(timings, key=lambda timing: timing.rate)[(len(timings) - 1) // 2]


def copies(files: Sequence[Path], folder: Path, times: int = 1) -> list[Path]:
    """The files, so many times over, by other names: documents that the index does not know."""
    folder.mkdir(parents=True)
    return [Path(shutil.copy(file, folder / f"{folder.name}-{i:05}.pdf")) for i, file in enumerate([*files] * times)]
