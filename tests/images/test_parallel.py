"""Results come in the order of the items, and few items are under way at a time."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bingo.images.parallel import in_order

pytestmark = pytest.mark.quick


def test_the_order_is_that_of_the_items() -> None:
    """Item 0 ends only once item 1 has."""
    second = threading.Event()

    def square(item: int) -> int:
        if item == 0:
            assert second.wait(60)
        if item == 1:
            second.set()
        return item * item

    with ThreadPoolExecutor(2) as pool:
        assert list(in_order(pool, square, range(9), ahead=4)) == [item * item for item in range(9)]


def test_no_item_is_taken_further_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, abs, items(), ahead=3)
        assert taken == []
        for done in range(20):
            assert next(results) == done
            assert len(taken) <= done + 3
    assert taken == list(range(20))


def test_an_error_is_raised_in_its_place_and_cancels_what_waits() -> None:
    started: list[int] = []
    go_on = threading.Event()

    def work(item: int) -> int:
        started.append(item)
        if item == 1:
            raise ValueError("item 1")
        if item == 2:
            assert go_on.wait(60)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = in_order(pool, work, range(9), ahead=5)
        assert next(results) == 0
        with pytest.raises(ValueError, match="item 1"):
            next(results)
        go_on.set()
    assert max(started) <= 2
