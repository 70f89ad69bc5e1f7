"""The wish that a run leaves: heard as a flag, the first one kept."""

import os
import signal
from collections.abc import Iterator

import pytest

from bingo.watch import LEAVE_SIGNALS, Watch

pytestmark = pytest.mark.quick


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of this process, put back afterwards."""
    before = {number: signal.getsignal(number) for number in LEAVE_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("order", [LEAVE_SIGNALS, LEAVE_SIGNALS[::-1]])
def test_the_first_signal_is_kept_and_none_ends_the_process(order: tuple[signal.Signals, ...]) -> None:
    watch = Watch()
    assert watch.asked is None
    watch.listen()
    for number in order:
        os.kill(os.getpid(), number)
    assert watch.asked == order[0].name


def test_what_it_is_told_goes_nowhere() -> None:
    watch = Watch()
    watch.event("stage", name="a fact may have any name")
    watch.beat(3)
    assert vars(watch) == {"asked": None}
