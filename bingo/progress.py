"""Progress bars on a terminal; nothing elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    label: str, total: int | None = None, start: int = 0, *, show: bool = True
) -> Iterator[Callable[..., None]]:
    """A bar on stderr if that is a terminal; call what it yields with what is done, and the total if that is new."""
    if not (show and sys.stderr.isatty()):
        yield lambda done, total=None: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=start)

        def advance(done: int, total: int | None = None) -> None:
            bar.update(task, completed=done, total=total)  # None leaves the total as it is

        yield advance
