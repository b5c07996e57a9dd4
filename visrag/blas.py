"""Numpy's matrix products on one thread."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


class _OneBlasThread:
    """Holds numpy's products to one thread while any thread of ours is in it.

    Products this small are slower on several, and on a busy machine 10 to 50 times as slow.
    """

    def __init__(self) -> None:
        self._blas = ThreadpoolController()
        self._lock = threading.Lock()
        self._inside = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limit = self._blas.limit(limits=1, user_api="blas")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limit.restore_original_limits()


@cache
def one_blas_thread() -> _OneBlasThread:
    """A context in which numpy's matrix products run on one thread."""
    return _OneBlasThread()
