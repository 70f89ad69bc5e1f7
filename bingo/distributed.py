"""Ranks: this process among its peers, and what they do together."""

import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from bingo.config_parts import Runtime
from bingo.errors import UserError
from bingo.rendezvous import meet
from bingo.variables import place
from bingo.watch import Leaving, Watch

log = logging.getLogger(__name__)
TIMEOUT_S = 300.0
"""Longest wait for a peer inside a step, in seconds: a rank that hangs holds every node of a job."""
# At a barrier ranks wait for work of unequal length: rank 0 alone may pack a dataset. A dead peer is noticed at once.
PATIENCE = timedelta(days=7)


class Question:
    """The largest number of any rank, asked at one time and answered at a later one: nobody waits in between."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self._pending: tuple[torch.Tensor, Any] | None = None

    def ask(self, number: int) -> None:
        largest = torch.tensor(number)
        self._pending = largest, dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.group, async_op=True)

    def answer(self) -> int:
        """The answer to what was asked last; 0 if nothing was."""
        if self._pending is None:
            return 0
        (largest, work), self._pending = self._pending, None
        work.wait()
        return int(largest)


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device
    threads: int
    patient: dist.ProcessGroup | None = None
    """The group of the barriers, with a long time limit."""
    control: Question | None = None
    """Asked over a group on the CPU, with the ordinary time limit: a rank that hangs must be noticed."""
    watch: Watch = field(default_factory=Watch)
    planned: int = 0
    """The ranks that a run counts as, see `ranks`; 0: as many as there are processes."""

    @property
    def main(self) -> bool:
        return self.rank == 0

    @property
    def ranks(self) -> int:
        """The number of ranks that a run counts as; each process plays `shares` of them, `first_share` and the next."""
        return self.planned if self.planned and self.planned % self.size == 0 else self.size

    @property
    def shares(self) -> int:
        return self.ranks // self.size

    @property
    def first_share(self) -> int:
        return self.rank * self.shares

    def counting_as(self, ranks: int) -> "World":
        """The same processes for a run that was begun with `ranks` ranks."""
        found = replace(self, planned=ranks)
        if found.ranks != ranks and self.main:
            log.warning(
                "a run of %d ranks does not divide among %d processes: it goes on with %d, the same images in the same "
                "order, other batch-norm batches",
                ranks, self.size, found.ranks,
            )  # fmt: skip
        return found

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.patient)

    def leaving(self, *, now: bool = False) -> bool:
        """Whether a rank was asked to leave; all ranks get the same answer at the same call.

        Asked at one call and answered at the next, so that a step waits for no message (now: answered at once).
        Afterwards `watch.asked` is set on every rank.
        """
        if self.control is None:
            return self.watch.asked is not None
        number = self.control.answer()
        if not number:
            self.control.ask(signal.Signals[self.watch.asked] if self.watch.asked else 0)
            number = self.control.answer() if now else 0
        if number:
            self.watch.asked = self.watch.asked or signal.Signals(number).name
        return bool(number)

    def settle(self) -> None:
        """Wait for the answer that is under way: called when no rank will call `leaving` in this loop any more."""
        if self.control is not None:
            self.control.answer()

    def leave(self, step: int, where: str) -> NoReturn:
        """End this rank's work for now; all of it is on disk, and `leaving` has told every rank."""
        self.watch.event("left", step=step, signal=self.watch.asked)
        raise Leaving(f"left {where} because of {self.watch.asked}")

    def gather_rows(self, rows: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Start gathering B x C rows of every rank; call the result for the (size*B) x C rows in rank order."""
        if self.size == 1:
            return lambda: rows
        out = rows.new_empty(self.size * len(rows), *rows.shape[1:])
        # One collective under two names: torch 2.14 renamed it, 2.11 has only the old one.
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
        work = gather(out, rows.contiguous(), async_op=True)

        def wait() -> torch.Tensor:
            assert work is not None
            work.wait()
            return out

        return wait

    def average(self, tensors: list[torch.Tensor]) -> None:
        """Replace floating-point tensors by their mean over the processes, in one collective.

        In fp64: an fp32 sum would depend on a tensor's place among the others.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.detach().reshape(-1).double() for t in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather_shards(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """Join the contiguous shards of `count` rows (see `shard`) into count x D, on every rank."""
        if self.size == 1:
            return rows
        bounds = [shard(count, rank, self.size) for rank in range(self.size)]
        longest = max(hi - lo for lo, hi in bounds)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = self.gather_rows(padded)().split(longest)
        return torch.cat([part[: hi - lo] for part, (lo, hi) in zip(gathered, bounds, strict=True)])

    def gather_lists(self, items: list[Any]) -> list[Any]:
        """Every rank's list, joined in rank order; only a number travels while all of them are empty."""
        if self.size == 1:
            return items
        count = torch.tensor(len(items), device=self.device)
        dist.all_reduce(count)
        if not int(count):
            return []
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def broadcast(self, tensors: list[torch.Tensor]) -> None:
        """Copy rank 0's tensors to every rank."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def main_says(self, answer: bool) -> bool:
        """Rank 0's answer, on every rank; waits for it as a barrier does."""
        if self.size == 1:
            return answer
        told = torch.tensor(int(answer and self.main))
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.patient)
        return bool(told)


def shard(count: int, rank: int, world: int) -> tuple[int, int]:
    """First and past-the-last index of a rank's contiguous share."""
    return count * rank // world, count * (rank + 1) // world


@contextlib.contextmanager
def world(
    runtime: Runtime, watch: Watch | None = None, timeout_s: float | None = None, ranks: int | None = None
) -> Iterator[World]:
    """Join the process group when WORLD_SIZE > 1 (NCCL on GPUs, gloo on the CPU) and leave it at the end.

    timeout_s: how long a rank waits for its peers at the start, and in a collective inside a step for one; 300 s by
    default and at most. ranks: how many a run that is begun here counts as, where fewer processes may have to do
    (`World.ranks`). Raises what `place` and `meet` do, before there is a group.
    """
    here = place()
    rank, size = here.rank, here.size
    device = pick_device(runtime, here.local_rank)
    threads = runtime.threads or max(1, len(os.sched_getaffinity(0)) // here.local_size)
    torch.set_num_threads(threads)
    watch, limit_s = watch or Watch(), min(timeout_s or TIMEOUT_S, TIMEOUT_S)
    timeout = timedelta(seconds=limit_s)
    if size > 1:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=meet(here, watch, limit_s),
            timeout=timeout,
            rank=rank,
            world_size=size,
            device_id=device if device.type == "cuda" else None,
        )
    try:
        patient: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None
        agree: Any = dist.new_group(backend="gloo", timeout=timeout) if size > 1 else None
        watch.event("joined", rank=rank, size=size)
        yield World(
            rank, size, device, threads, patient, Question(agree) if size > 1 else None, watch, planned=ranks or 0
        )
    finally:
        if size > 1:
            dist.destroy_process_group()


def pick_device(runtime: Runtime, local_rank: int = 0) -> torch.device:
    """The rank's device; `UserError` when a GPU is asked for and there is none."""
    available = torch.cuda.is_available()
    if runtime.device == "cuda" and not available:
        raise UserError(
            "runtime.device=cuda was asked for but torch sees no GPU; set --runtime.device cpu, or see `bingo doctor`"
        )
    if runtime.device == "cpu" or not available:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"local rank {local_rank} has no GPU of its own: this node has {torch.cuda.device_count()}; "
            "use fewer ranks per node"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
