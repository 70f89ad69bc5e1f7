"""Work beside the training: one piece at a time in a thread, on a copy of the state that nobody changes any more."""

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any

import torch


class Background:
    """Runs functions in one thread, one after the other; what one raises is raised by the next call here.

    As a context it waits at its end for what runs, also on the way of an exception, which is the one that is raised.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[None] | None = None

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        """Run `work` beside the caller, once what was started before has ended."""
        self.wait()
        self._running = self._pool.submit(work, *arguments)

    def look(self) -> None:
        """Raise what has been raised; waits for nothing."""
        if self._running is not None and self._running.done():
            self.wait()

    def wait(self) -> None:
        """Until nothing runs any more."""
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __enter__(self) -> "Background":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()
        if error is None:
            self.wait()


def snapshot(state: Any, device: torch.device) -> Callable[[], Any]:
    """A copy of nested dicts, lists and tuples as they are now, apart from them; call the result for it on the CPU.

    On a GPU nobody waits here: the copy is made on the device, behind all that the current stream has been asked for
    and before what it is asked for next, and travels while the training goes on, once the result is called (in any
    thread): to pinned memory, on a stream of its own, behind an event that follows the copy. It takes as much of the
    device's memory until then; where there is not so much, this waits for a copy on the CPU.
    """
    if device.type != "cuda":
        there = on_cpu(state)
        return lambda: there
    try:
        copied = mapped(state, lambda tensor: tensor.detach().clone())
    except torch.OutOfMemoryError:
        there = on_cpu(state)
        return lambda: there
    made = torch.cuda.Event()
    made.record()
    return partial(_fetched, copied, made, device)


def _fetched(copied: Any, made: torch.cuda.Event, device: torch.device) -> Any:
    """What lies on the device, in pinned memory; `copied` is held until it has arrived."""
    side = torch.cuda.Stream(device)
    with torch.cuda.stream(side):
        side.wait_event(made)
        found = mapped(copied, _pinned)
    side.synchronize()
    return found


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    there = torch.empty_like(tensor, device="cpu", pin_memory=True)
    return there.copy_(tensor, non_blocking=True)


def on_cpu(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples whose tensors are on the CPU, apart from the originals, bit for bit."""
    return mapped(value, lambda tensor: tensor.detach().to("cpu", copy=True))


def mapped(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Nested dicts, lists and tuples with each tensor changed; the containers are new ones of the same kinds."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        found = copy.copy(value)  # an OrderedDict of modules carries versions beside its items
        found.update((name, mapped(part, change)) for name, part in value.items())
        return found
    if isinstance(value, list | tuple):
        return type(value)(mapped(part, change) for part in value)
    return value
