"""A plugin of pytest: a test that is not marked `slow` fails when it uses more than sixty CPU seconds.

CPU time and not the clock, so that a busy machine changes little: of this process and of the children that it has
waited for. What fixtures use does not count. The bound is ten times the six seconds from which a test is to be marked:
it finds what was forgotten, and must not fail a right test. On a slow machine, or where two threads share a core, it is
as many times more as a fixed piece of work takes, measured before the first test and when one is over the bound.
"""

import os
import subprocess
import sys
from collections.abc import Generator

import pytest

LIMIT_S = 60.0
WORK = (
    "import argparse, asyncio, email, html, json, unittest, urllib.request; print(sum(i * i for i in range(3_000_000)))"
)
WORK_S = 0.4
"""CPU seconds of it on the machine that the bound is meant for, with nothing beside it."""
seen = [1.0]
"""How slow this machine was found to be."""


def cpu_seconds() -> float:
    """CPU time of this process and of its ended children, in seconds."""
    return sum(os.times()[:4])


def slowness() -> float:
    """How many times longer than it should a new process of Python takes, in CPU seconds; at least 1."""
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", WORK], check=True, stdout=subprocess.DEVNULL)
    return max(1.0, (cpu_seconds() - before) / WORK_S)


def bound() -> float:
    """CPU seconds that a test may use: by the slowest that this machine was, now or before."""
    seen.append(slowness())
    return LIMIT_S * max(seen)


def pytest_sessionstart() -> None:
    seen.append(slowness())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    before = cpu_seconds()
    yield
    used = cpu_seconds() - before
    if used <= LIMIT_S or item.get_closest_marker("slow") is not None:
        return
    if used > (allowed := bound()):
        reason = f"took {used:.0f} CPU s, {allowed:.0f} allowed here: mark it slow or make it faster"
        pytest.fail(reason, pytrace=False)
