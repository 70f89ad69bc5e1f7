"""Parts of a long measurement in processes of their own: a crash or a hang costs one check.

A child appends lines of JSON to a file: {"begin": i} before item i of its group, {"end": i, "record": ...} after it,
{"done": true} at the end. The parent reads them while they come. A child that dies, or says nothing for too long, is
replaced by one that goes on after the item it died in.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from bingo.bench import fresh_process
from bingo.bench.gpu.record import Check

POLL_SECONDS = 0.2
START_SECONDS = 120.0


class Message(TypedDict, total=False):
    """A line of a child: begin, or end with the record, hold the item's number in its group."""

    begin: int
    end: int
    record: Check
    done: bool


class Child:
    """`function(*arguments)`, of a module and with JSON values, in a fresh interpreter with its output in a file."""

    def __init__(self, function: Callable[..., None], arguments: Sequence[Any], log: Path) -> None:
        command, environment = fresh_process.command(function, arguments), fresh_process.environment()
        self.log = log
        with open(log, "ab") as file:
            self.process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)

    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """Kill it; a process that the driver holds on to is not waited for long."""
        if self.running():
            self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)

    def last_words(self) -> str:
        """The last line of its output, with how it ended."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"exit status {self.process.poll()}" + (f", last output: {lines[-1].strip()[:200]}" if lines else "")


@dataclass
class Group:
    """A list of items that one child after the other works through."""

    name: str
    items: list[str]
    child: Child
    path: Path
    heard: float
    read: int = 0
    begun: int | None = None
    next: int = 0
    done: bool = False


def work_through(
    groups: dict[str, list[str]], start: Callable[[str, int, Path], Child], folder: Path, *,
    parallel: int, deadline: float, silence: Callable[[str], float],
    ended: Callable[[str, str, Check], None], lost: Callable[[str, str, str, bool], None],
) -> None:  # fmt: skip
    """Run every group, `parallel` at a time, until the deadline (time.monotonic).

    start(group, first item, file of lines) starts a child. ended(group, item, record) takes each result;
    lost(group, item, why, in_time) each item that has none: in_time is false for what the deadline cut off.
    silence(item): seconds without a line after which a child that works on it counts as hung.
    """
    waiting, active = list(groups), list[Group]()
    try:
        while (waiting or active) and time.monotonic() < deadline:
            while waiting and len(active) < parallel:
                name = waiting.pop(0)
                path = folder / f"{len(groups) - len(waiting)}.jsonl"
                active.append(Group(name, groups[name], start(name, 0, path), path, time.monotonic()))
            for group in active:
                _tend(group, start, silence, ended, lost)
            active = [group for group in active if not group.done]
            time.sleep(POLL_SECONDS)
    finally:
        for group in active:
            group.child.stop()
    for group in active:
        _listen(group, ended)
        for item in group.items[group.next :]:
            lost(group.name, item, "the time was up", False)
    for name in waiting:
        for item in groups[name]:
            lost(name, item, "the time was up", False)


def _tend(
    group: Group, start: Callable[[str, int, Path], Child], silence: Callable[[str], float],
    ended: Callable[[str, str, Check], None], lost: Callable[[str, str, str, bool], None],
) -> None:  # fmt: skip
    """Hear a group's child; replace it if it has died or hangs."""
    dead = not group.child.running()  # asked before its last lines are read
    _listen(group, ended)
    limit = START_SECONDS if group.begun is None else silence(group.items[group.begun])
    hung = not dead and time.monotonic() - group.heard > limit
    if group.done or not (dead or hung):
        if group.done:
            group.child.stop()
        return
    group.child.stop()
    _listen(group, ended)
    why = f"no answer for {limit:.0f} s" if hung else f"the process died: {group.child.last_words()}"
    if group.begun is None:  # it never got to an item: neither would another
        for item in group.items[group.next :]:
            lost(group.name, item, why, True)
        group.done = True
        return
    if group.begun >= group.next:
        lost(group.name, group.items[group.begun], why, True)
        group.next = group.begun + 1
    group.done = group.next >= len(group.items)
    if not group.done:
        group.begun = None
        group.heard = time.monotonic()
        group.child = start(group.name, group.next, group.path)


def _listen(group: Group, ended: Callable[[str, str, Check], None]) -> None:
    """Take the whole lines that have come since."""
    if not group.path.exists():
        return
    text = group.path.read_bytes()[group.read :]
    whole = text[: text.rfind(b"\n") + 1]
    group.read += len(whole)
    for line in whole.splitlines():
        group.heard = time.monotonic()
        message: Message = json.loads(line)
        if "begin" in message:
            group.begun = message["begin"]
        elif "end" in message:
            group.next = message["end"] + 1
            ended(group.name, group.items[message["end"]], message["record"])
        group.done |= message.get("done", False)


def say(path: Path, message: Message) -> None:
    """Append one line, at once, as a child does."""
    with open(path, "a") as file:
        file.write(json.dumps(message) + "\n")
