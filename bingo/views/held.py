"""DALI's GPU buffers, kept from being used again until the copies that read them are done.

A clone of a DALI output is only put into the queue of the current stream; the host may be steps ahead of it. What DALI
promises is that an output's buffer is not used again while the output is referenced (its default execution model: a
buffer goes back to the pool with the last reference, `release_outputs` does nothing). So outputs stay referenced here
until an event behind their copies has passed. That is all this rests on; neither the order in which DALI frees nor the
streams it works on matter.

Views are made by the CUDA array interface, not by DLPack: in DALI 2.4 the end of a DLPack tensor hands the buffer to a
thread that calls `cudaDeviceSynchronize` before it lets go. That is safe, too, but promised nowhere, keeps a core busy
at every step, and is an error in that thread while a CUDA graph is captured.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

MOST = 2
"""Batches held besides those that DALI works on. The host waits for the copies of the oldest one beyond that, so it is
at most so many steps ahead of the GPU, which still has a step's work to do then."""


class Event(Protocol):
    """What is used of `torch.cuda.Event`."""

    def query(self) -> bool: ...
    def synchronize(self) -> None: ...


def mark_here(device: torch.device) -> torch.cuda.Event:
    """An event behind all that the current stream of a GPU has been given."""
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def view(output: Any, device: torch.device) -> torch.Tensor:
    """DALI's dense output as a tensor on its device without a copy, valid while the output is referenced."""
    return torch.as_tensor(output.as_tensor(), device=device)


class Held:
    """Outputs that copies on a device still read. mark: makes an event behind those copies."""

    def __init__(self, device: torch.device, mark: Callable[[torch.device], Event] = mark_here) -> None:
        self.device, self.mark = device, mark
        self._held = deque[tuple[Event, Any]]()

    def copies(self, outputs: Sequence[Any]) -> list[torch.Tensor]:
        """A copy of each output, on the current stream; waits only if as many as `MOST` older batches are held."""
        copies = [view(output, self.device).clone() for output in outputs]
        self._held.append((self.mark(self.device), outputs))
        while self._held and self._held[0][0].query():
            self._held.popleft()
        self._let_go(MOST)
        return copies

    def wait(self) -> None:
        """Until all copies are done; nothing is held then."""
        self._let_go(0)

    def _let_go(self, most: int) -> None:
        while len(self._held) > most:
            self._held[0][0].synchronize()
            self._held.popleft()
