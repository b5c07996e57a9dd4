"""The batch finds its own size: by what a token takes, and by the memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from visrag.encode.sizing import FIRST, MOST, PATIENCE, BatchSize
from visrag.errors import UsageError

PAGE = 512  # tokens


def search(seconds: Callable[[int], float]) -> list[int]:
    """The sizes of batches, in pages, until the search ends, where so many pages take ``seconds``."""
    size, sizes = BatchSize(), []
    while size.searching:
        pages = size.pages(PAGE)
        sizes.append(pages)
        size.took(PAGE, pages, seconds(pages))
    return [*sizes, size.pages(PAGE)]


def test_it_is_doubled_as_long_as_that_pays() -> None:
    assert search(lambda pages: 1.0 if pages <= 8 else pages / 8) == [2, 2, 4, 4, 8, 8, 16, 16, 8]


def test_it_stays_small_where_a_batch_costs_as_much_as_its_pages() -> None:
    assert search(lambda pages: 1.0 * pages) == [2, 2, 4, 4, 2]


def test_it_ends_where_devices_do() -> None:
    sizes = search(lambda pages: 1.0)
    assert sizes[-1] == MOST // PAGE == max(sizes)


def test_the_first_of_a_size_may_be_slow() -> None:
    """Kernels are chosen and memory is taken then."""
    seen: set[int] = set()

    def seconds(pages: int) -> float:
        first = pages not in seen
        seen.add(pages)
        return 50.0 if first else (1.0 if pages <= 4 else pages / 4)

    assert search(seconds)[-1] == 4


def test_batches_that_are_not_full_tell_nothing_but_that_there_are_no_more_pages() -> None:
    """Otherwise, as a batch is waited for as long as its size is searched for, nothing would ever overlap."""
    size = BatchSize()
    for _ in range(PATIENCE - 1):
        size.took(PAGE, 1, 1e-9)
    assert size.searching
    size.took(PAGE, 1, 1e-9)
    assert not size.searching
    assert size.pages(PAGE) == FIRST // PAGE


def test_it_is_of_tokens_so_that_smaller_pages_are_more() -> None:
    size = BatchSize()
    assert [size.pages(tokens) for tokens in (128, 256, 1024, 5000)] == [8, 4, 1, 1]


def test_memory_halves_it_for_good() -> None:
    size = BatchSize()
    size.too_many(PAGE, 2)
    assert (size.pages(PAGE), size.searching) == (1, False)
    fixed = BatchSize(8)
    fixed.too_many(PAGE, 8)
    assert (fixed.pages(PAGE), fixed.pages(1)) == (4, 4)


def test_a_size_that_is_none() -> None:
    with pytest.raises(UsageError, match="batch_size=0"):
        BatchSize(0)
