"""How many pages go through a vision model at once: found while it works."""

from __future__ import annotations

from ..errors import UsageError

FIRST = 1024  # tokens with which the search begins: a page or two
MOST = 65_536  # tokens beyond which no device of today gains
GAIN = 1.05  # by what a size must be faster than the best before it, for each token
TIMES = 2  # batches of a size that are timed; the first is slow for other reasons
POOR = 2  # sizes in a row that are no faster, after which the search ends; a single one may have been disturbed


class BatchSize:
    """The size of a batch in tokens, so that it holds for pages of any number of patches.

    It is doubled, as soon as there are as many pages, until two sizes in a row make a token no cheaper by 5%, or memory
    ends; the best that was timed then stays.
    ``pages``: a fixed size instead. Raises UsageError for less than one.
    """

    def __init__(self, pages: int | None = None) -> None:
        if pages is not None and pages < 1:
            raise UsageError(f"batch_size={pages}: must be at least 1")
        self._fixed = pages
        self._tokens = FIRST
        self._timed: list[tuple[float, int]] = []  # what a token took, and how many there were, in batches of this size
        self._best = (float("inf"), FIRST)
        self._poor = 0  # sizes in a row that were no faster
        self._searching = pages is None

    def pages(self, tokens: int) -> int:
        """How many pages of so many tokens go through the model at once."""
        return self._fixed or max(1, self._tokens // tokens)

    def times(self, tokens: int, pages: int) -> bool:
        """Whether ``took`` is to be told of such a batch: of a full one, while the best size is searched for."""
        return self._searching and pages >= self.pages(tokens)

    def took(self, tokens: int, pages: int, seconds: float) -> None:
        """A batch of ``pages`` pages of ``tokens`` tokens took so long, from the host's call to the last vector."""
        self._timed.append((seconds / (pages * tokens), pages * tokens))
        if len(self._timed) < TIMES:
            return
        found, self._timed = min(self._timed), []
        if found[0] * GAIN <= self._best[0]:
            self._best, self._poor = found, 0
        else:
            self._poor += 1
        self._tokens = 2 * pages * tokens  # of the batch, so that pages larger than the size are doubled, too
        if self._poor == POOR or self._tokens > MOST:
            self._tokens, self._searching = self._best[1], False

    def too_many(self, tokens: int, pages: int) -> None:
        """The memory was too small for a batch of ``pages`` pages of ``tokens`` tokens: half of it from now on."""
        half = max(1, pages // 2)
        self._searching = False
        if self._fixed is not None:
            self._fixed = half
        else:
            self._tokens = half * tokens
