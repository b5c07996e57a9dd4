"""The batch finds its own size: by what a token takes, and by the memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from visrag.encode.sizing import FIRST, MOST, BatchSize
from visrag.errors import UsageError

PAGE = 512  # tokens


def search(seconds: Callable[[int], float], page: int = PAGE) -> list[int]:
    """The sizes of batches, in pages of so many tokens, until the search ends, where so many pages take ``seconds``."""
    size, sizes = BatchSize(), []
    while size.times(page, size.pages(page)):
        pages = size.pages(page)
        sizes.append(pages)
        size.took(page, pages, seconds(pages))
    return [*sizes, size.pages(page)]


def test_it_is_doubled_as_long_as_that_pays() -> None:
    assert search(lambda pages: 1.0 if pages <= 8 else pages / 8) == [2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 8]


def test_it_stays_small_where_a_batch_costs_as_much_as_its_pages() -> None:
    assert search(lambda pages: 1.0 * pages) == [2, 2, 4, 4, 8, 8, 2]


@pytest.mark.parametrize("page", [790, 1031, 1100, 1290, 1800, 4000])
def test_pages_of_more_tokens_than_the_first_size_are_doubled_too(page: int) -> None:
    """A page of ColPali has 1,031: twice 1,024 tokens are no two of them."""
    assert search(lambda pages: 1.0 if pages <= 4 else pages / 4, page) == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 4]


def test_one_size_that_was_disturbed_does_not_end_it() -> None:
    """By more than twice what it gains; it stays the best that was timed only where the next does not pay, either."""
    assert search(lambda pages: 1.0 if pages != 2 else 2.2, 790)[-1] == 64
    assert search(lambda pages: 1.0 if pages <= 4 else pages / 4 if pages != 8 else 8.0, 790)[-1] == 4


def test_pages_of_two_sizes_are_one_search() -> None:
    """What pays is found with whatever comes: here a batch costs as much as one of 8,000 tokens, or as its own."""
    size, pages = BatchSize(), [1031, 700, 300]
    for batch in range(100):
        tokens = pages[batch % 3]
        count = size.pages(tokens)
        if size.times(tokens, count):
            size.took(tokens, count, max(8000, count * tokens) / 8000)
    assert not size.times(1031, size.pages(1031))
    assert 4000 < size.pages(1) <= 16_000


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


def test_batches_that_are_not_full_are_not_timed_and_the_search_waits_for_more_pages() -> None:
    """Of documents of a page or two there is nothing to be learnt, but the next one may have hundreds."""
    size = BatchSize()
    assert not any(size.times(PAGE, 1) for _ in range(100))
    assert size.times(PAGE, FIRST // PAGE)


def test_a_fixed_size_is_not_searched_for() -> None:
    assert not BatchSize(8).times(PAGE, 8)


def test_it_is_of_tokens_so_that_smaller_pages_are_more() -> None:
    size = BatchSize()
    assert [size.pages(tokens) for tokens in (128, 256, 1024, 5000)] == [8, 4, 1, 1]


def test_memory_halves_it_for_good() -> None:
    size = BatchSize()
    size.too_many(PAGE, 2)
    assert (size.pages(PAGE), size.times(PAGE, 1)) == (1, False)
    fixed = BatchSize(8)
    fixed.too_many(PAGE, 8)
    assert (fixed.pages(PAGE), fixed.pages(1)) == (4, 4)


def test_a_size_that_is_none() -> None:
    with pytest.raises(UsageError, match="batch_size=0"):
        BatchSize(0)
