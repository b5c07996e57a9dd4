"""How much memory a piece of work took, and whether it was too little."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

INTERVAL = 0.25  # seconds between two looks


class Peak:
    """The greatest resident memory seen of this process and all below it, in MB (10⁶ bytes): the sum of their RSS, in
    which what several of them share counts for each, so rather too much than too little."""

    def __init__(self) -> None:
        self.megabytes = 0

    def look(self) -> None:
        """Look once."""
        import psutil

        process = psutil.Process()
        total = 0
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                total += each.memory_info().rss
        self.megabytes = max(self.megabytes, round(total / 1e6))


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Look at the memory in use every quarter of a second until the block ends."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(INTERVAL):
            peak.look()

    thread = threading.Thread(target=watch, name="peak-memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.look()


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on a GPU torch raises OutOfMemoryError, a RuntimeError, or one that names the status of a
    library of CUDA, on a CPU a plain RuntimeError."""
    return isinstance(error, MemoryError) or any(
        words in str(error)
        for words in ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
    )
