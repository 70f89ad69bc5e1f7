"""A plugin of pytest: a test that is not marked `slow` fails when it uses more than twenty CPU seconds.

CPU time and not the clock, so that a busy machine changes little: of this process and of the children that it has
waited for. What fixtures use does not count. Two threads of one core double it, so the bound is three times the six
seconds from which a test is to be marked.
"""

import os
from collections.abc import Generator

import pytest

LIMIT_S = 20.0


def cpu_seconds() -> float:
    """CPU time of this process and of its ended children, in seconds."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    before = cpu_seconds()
    yield
    used = cpu_seconds() - before
    if used > LIMIT_S and item.get_closest_marker("slow") is None:
        pytest.fail(f"took {used:.0f} CPU s: mark it slow or make it faster", pytrace=False)
