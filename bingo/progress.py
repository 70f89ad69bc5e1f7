"""How far work is: a bar on a terminal, a line in the log now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)
FIRST_S, MOST_S = 30, 300
"""Seconds until the first line in a log, and at most between two."""
Clock = Callable[[], float]


class Due:
    """Says when the next line in a log is due: the longer the work has taken, the rarer."""

    def __init__(self, clock: Clock = time.monotonic, first_s: float = FIRST_S) -> None:
        self.clock, self.first_s, self.began = clock, first_s, clock()
        self._next = self.began + first_s

    def __call__(self) -> bool:
        """Whether a line is due now; it then counts as written."""
        now = self.clock()
        if now < self._next:
            return False
        self._next = now + max(self.first_s, min(MOST_S, (now - self.began) / 50))
        return True


class Pace:
    """Images per second and the time left, from what was done since the start, as words or ""."""

    def __init__(self, start: int, images: int, clock: Clock) -> None:
        self.start, self.images, self.clock, self.began = start, images, clock, clock()

    def rate(self, done: int) -> str:
        seconds, images = self.clock() - self.began, (done - self.start) * self.images
        return rate_words(images / seconds if seconds > 0 else 0)

    def left(self, done: int, total: int | None) -> str:
        seconds, units = self.clock() - self.began, done - self.start
        return f"{duration((total - done) * seconds / units)} left" if total and units > 0 else ""


@contextmanager
def progress_bar(
    label: str,
    total: int | None = None,
    start: int = 0,
    *,
    unit: str = "",
    images: int = 0,
    show: bool = True,
    clock: Clock = time.monotonic,
) -> Iterator[Callable[..., None]]:
    """A bar on stderr if that is a terminal, otherwise a line in the log now and then.

    Call what it yields with what is done, the total if that is new, and a `note`: words about the work.
    unit: what is counted. images: how many of them a unit stands for, 0 if that is of no interest.
    """
    pace = Pace(start, images, clock)
    if not show:
        yield lambda done, total=None, note="": None
    elif sys.stderr is not None and sys.stderr.isatty():
        with _bar(label, total, start, pace) as advance:
            yield advance
    else:
        yield _lines(label, total, unit, pace, Due(clock))


def _lines(label: str, total: int | None, unit: str, pace: Pace, due: Due) -> Callable[..., None]:
    known = total

    def advance(done: int, total: int | None = None, note: str = "") -> None:
        nonlocal known
        known = total or known
        if due():
            count = f"{label} {done}" + (f" of {known}" if known else "") + (f" {unit}" if unit else "")
            log.info("%s", _joined(count, note, pace.rate(done), pace.left(done, known)))

    return advance


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)


@contextmanager
def _bar(label: str, total: int | None, start: int, pace: Pace) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Told(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields["told"], no_wrap=True, overflow="ellipsis")

    whole = [Column(no_wrap=True) for _ in range(3)]  # a narrow terminal cuts what is told
    columns = (
        TextColumn("{task.description}", table_column=whole[0]),
        BarColumn(bar_width=12, table_column=whole[1]),
        MofNCompleteColumn(table_column=whole[2]),
        Told(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=start, told="")
        known = total

        def advance(done: int, total: int | None = None, note: str = "") -> None:
            nonlocal known
            known = total or known
            told = _joined(pace.left(done, known), note, pace.rate(done))
            bar.update(task, completed=done, total=total, told=told)  # None leaves the total as it is

        yield advance


def rate_words(rate: float) -> str:
    """Such as `1234 images/s`, `0.52 images/s`; nothing for none."""
    return f"{rate:.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s" if rate > 0 else ""


def duration(seconds: float) -> str:
    """Such as `45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
