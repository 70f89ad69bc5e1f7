"""Ranks: reads only the standard variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT)."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from bingo.config_parts import Runtime
from bingo.errors import UserError

TIMEOUT = timedelta(minutes=5)
# At a barrier ranks wait for work of unequal length: rank 0 alone may pack a dataset. A dead peer is noticed at once.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device
    threads: int
    patient: dist.ProcessGroup | None = None
    """The group of the barriers, with a long time limit."""

    @property
    def main(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.patient)

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
        """Replace floating-point tensors by their mean over the ranks, in one collective."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([t.detach().reshape(-1).float() for t in tensors])
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


def shard(count: int, rank: int, world: int) -> tuple[int, int]:
    """First and past-the-last index of a rank's contiguous share."""
    return count * rank // world, count * (rank + 1) // world


@contextlib.contextmanager
def world(runtime: Runtime) -> Iterator[World]:
    """Join the process group when WORLD_SIZE > 1 (NCCL on GPUs, gloo on the CPU) and leave it at the end."""
    rank, size, local = (
        int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    device = pick_device(runtime, local)
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    threads = runtime.threads or max(1, len(os.sched_getaffinity(0)) // local_size)
    torch.set_num_threads(threads)
    if size > 1:
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            timeout=TIMEOUT,
            rank=rank,
            world_size=size,
            device_id=device if device.type == "cuda" else None,
        )
    try:
        patient: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None
        yield World(rank, size, device, threads, patient)
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
