"""How many pages go through a vision model at once: found while it works."""

from __future__ import annotations

from ..errors import UsageError

FIRST = 1024  # tokens with which the search begins: a page or two
MOST = 65_536  # tokens beyond which no device of today gains
GAIN = 1.05  # by what a doubled batch must be the faster, for each token
TIMES = 2  # batches of a size that are timed; the first is slow for other reasons
PATIENCE = 8  # batches in a row that are not full, after which there is nothing more to be found


class BatchSize:
    """The size of a batch in tokens, so that it holds for pages of any number of patches.

    It is doubled as long as that makes a token at least 5% cheaper, memory lasts, and there are as many pages; what was
    found then stays.
    ``pages``: a fixed size instead. Raises UsageError for less than one.
    """

    def __init__(self, pages: int | None = None) -> None:
        if pages is not None and pages < 1:
            raise UsageError(f"batch_size={pages}: must be at least 1")
        self._fixed = pages
        self._tokens = FIRST
        self._seconds: list[float] = []  # a token took, in batches of this size
        self._before = float("inf")  # the best of the size before
        self._short = 0  # batches in a row that were not full
        self.searching = pages is None

    def pages(self, tokens: int) -> int:
        """How many pages of so many tokens go through the model at once."""
        return self._fixed or max(1, self._tokens // tokens)

    def took(self, tokens: int, pages: int, seconds: float) -> None:
        """A batch of ``pages`` pages of ``tokens`` tokens took so long, from the host's call to the last vector."""
        if not self.searching:
            return
        if pages < self.pages(tokens):
            self._short += 1
            self.searching = self._short < PATIENCE
            return
        self._short = 0
        self._seconds.append(seconds / (pages * tokens))
        if len(self._seconds) < TIMES:
            return
        best = min(self._seconds)
        if best * GAIN > self._before:
            self._tokens, self.searching = self._tokens // 2, False
        elif 2 * self._tokens > MOST:
            self.searching = False
        else:
            self._tokens, self._before, self._seconds = 2 * self._tokens, best, []

    def too_many(self, tokens: int, pages: int) -> None:
        """The memory was too small for a batch of ``pages`` pages of ``tokens`` tokens: half of it from now on."""
        half = max(1, pages // 2)
        self.searching = False
        if self._fixed is not None:
            self._fixed = half
        else:
            self._tokens = half * tokens
