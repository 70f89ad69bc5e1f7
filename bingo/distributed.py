"""Ranks: this process among its peers, and what they do together."""

import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
import torch.distributed as dist

from bingo.config_parts import Runtime
from bingo.errors import PeerError, TransientError, UserError, of_peer
from bingo.files import first_line
from bingo.rendezvous import LINGER_S, POLL_S, meet
from bingo.variables import Place, node, place
from bingo.watch import Leaving, Watch

log = logging.getLogger(__name__)
TIMEOUT_S = 300.0
"""Longest wait for a peer inside a step, in seconds: a rank that hangs holds every node of a job."""
# At a barrier ranks wait for work of unequal length: rank 0 alone may pack a dataset. A dead peer is noticed at once.
PATIENCE = timedelta(days=7)
T = TypeVar("T")
MOST_TOLD = 3
"""Differences between ranks that a message names."""


class Said(NamedTuple):
    """What a rank tells its peers of what it has just read: facts that must be the same on all, or why it failed.

    error: of a `UserError` its sentence, of another exception also its type; own: it is such another one.
    """

    node: str
    facts: Mapping[str, Any] = {}
    error: str = ""
    own: bool = False


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

    def together(self, work: Callable[[], T], facts: Callable[[T], Mapping[str, Any]] | None = None) -> T:
        """What `work` returns on this rank, once all ranks have done it and have seen the same.

        work: waits for no other rank. facts: name -> value (picklable) of what it found, equal on every rank.
        Whatever a rank raises is told to all, so that none waits for one that has failed. Raises on every rank the
        `UserError` that each of them had; `TransientError`, which names ranks, nodes and values, where only some had
        one or facts differ. Where a rank raises anything else it does so itself, and the others `PeerError`.
        """
        if self.size == 1:
            return work()
        try:
            found = work()
            said = Said(node(), dict(facts(found)) if facts else {})
        except Exception as error:
            own = not isinstance(error, UserError)
            text = f"{type(error).__name__}: {first_line(error)}" if own else str(error)
            compare(self.everyone(Said(node(), error=text, own=own)), self.rank)
            raise
        compare(self.everyone(said), self.rank)
        return found

    def agree(self, what: str, value: object) -> None:
        """`TransientError` on every rank, naming ranks, nodes and values, unless all ranks have the same value."""
        self.together(lambda: {what: value}, dict)

    def by_main(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0 (picklable), on every rank; waits for it as a barrier does.

        A `UserError` and `Leaving` of rank 0 are raised on every rank; for anything else the others raise `PeerError`.
        """
        if self.size == 1:
            return work()
        told: list[Any] = [None]
        if self.main:
            try:
                told[0] = work(), None, ""
            except Exception as error:
                kind = type(error) if isinstance(error, UserError | Leaving) else PeerError
                text = str(error) if kind is not PeerError else f"rank 0 on {node()}: {type(error).__name__}: {error}"
                dist.broadcast_object_list([(None, kind, text)], 0, group=self.patient)
                raise
        dist.broadcast_object_list(told, 0, group=self.patient)
        found, kind, text = told[0]
        if kind is not None:
            raise kind(text)
        return found

    def everyone(self, value: T) -> list[T]:
        """Every rank's value (picklable), in rank order; waits as a barrier does."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.patient)
        return values

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


def compare(said: Sequence[Said], rank: int) -> None:
    """Raise what `World.together` raises on `rank`; nothing where that rank raises its own error, or all agree."""
    own = [number for number, one in enumerate(said) if one.own]
    if own and rank not in own:
        raise PeerError("; ".join(f"{_place(n, said)}: {said[n].error}" for n in own[:MOST_TOLD]))
    errors = _by_value([one.error for one in said])
    if own or (len(errors) == 1 and said[0].error):
        return
    if len(errors) > 1:
        parts = [f"{_places(ranks, said)}: {text}" for text, ranks in errors.items() if text]
        rest = "; the other ranks do not see that" if "" in errors else ""
        raise TransientError("; ".join(parts[:MOST_TOLD]) + rest)
    names = dict.fromkeys(name for one in said for name in one.facts)
    parts = []
    for name in names:
        values = _by_value([repr(one.facts[name]) if name in one.facts else "missing" for one in said])
        if len(values) > 1:
            shown = ", ".join(f"{_short(value)} on {_places(ranks, said)}" for value, ranks in values.items())
            parts.append(f"{name} is {shown}")
    if parts:
        more = f"; and {len(parts) - MOST_TOLD} more" if len(parts) > MOST_TOLD else ""
        raise TransientError(
            f"the ranks do not see the same: {'; '.join(parts[:MOST_TOLD])}{more}; a node may see old files or another "
            "disk: compare what it has mounted there"
        )


def _by_value(values: Sequence[str]) -> dict[str, list[int]]:
    """Value -> the ranks that have it, in rank order."""
    found: dict[str, list[int]] = {}
    for rank, value in enumerate(values):
        found.setdefault(value, []).append(rank)
    return found


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:97] + "..."


def _place(rank: int, said: Sequence[Said]) -> str:
    return f"rank {rank} on {said[rank].node}"


def _places(ranks: Sequence[int], said: Sequence[Said]) -> str:
    """`rank 1 on c2`, or the first and the number of the others."""
    return _place(ranks[0], said) + (f" and {len(ranks) - 1} more" if len(ranks) > 1 else "")


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
    (`World.ranks`). Raises what `place` and `meet` do, before there is a group; `PeerError` for a peer that is lost.
    """
    here = place()
    rank, size = here.rank, here.size
    device, wrong = _device(runtime, here.local_rank, alone=size == 1)
    threads = runtime.threads or max(1, len(os.sched_getaffinity(0)) // here.local_size)
    torch.set_num_threads(threads)
    watch, limit_s = watch or Watch(), min(timeout_s or TIMEOUT_S, TIMEOUT_S)
    timeout = timedelta(seconds=limit_s)
    if size > 1:
        store = meet(here, watch, limit_s)
        _check_devices(store, here, device, wrong)
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            timeout=timeout,
            rank=rank,
            world_size=size,
            device_id=device if device.type == "cuda" else None,
        )
    try:
        patient: Any = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None
        agree: Any = dist.new_group(backend="gloo", timeout=timeout) if size > 1 else None
        watch.event("joined", rank=rank, size=size)
        control = Question(agree) if size > 1 else None
        try:
            yield World(rank, size, device, threads, patient, control, watch, planned=ranks or 0)
        except RuntimeError as error:
            if size > 1 and of_peer(error):
                raise PeerError(f"lost another rank, whose own output says why: {first_line(error)}") from error
            raise
    finally:
        if size > 1:
            dist.destroy_process_group()


def _device(runtime: Runtime, local_rank: int, *, alone: bool) -> tuple[torch.device, str]:
    """The rank's device, and with peers, which must hear of it, why there is none, or ""."""
    try:
        return pick_device(runtime, local_rank), ""
    except UserError as error:
        if alone:
            raise
        return torch.device("cpu"), str(error)


def _check_devices(store: dist.Store, here: Place, device: torch.device, wrong: str) -> None:
    """As `World.together`, before there is a group: a node that has lost its GPU would wait in one of another kind."""
    mine = Said(node(), {} if wrong else {"the device": device.type}, wrong)
    try:
        store.set(f"device/{here.rank}", json.dumps(mine))
        said = [Said(*json.loads(store.get(f"device/{rank}"))) for rank in range(here.size)]
        store.add("heard", 1)
    except RuntimeError as error:  # DistNetworkError and others of the store's
        raise PeerError(f"lost rank 0 before all {here.size} ranks had begun: {first_line(error)}") from error
    try:
        compare(said, here.rank)
        if wrong:
            raise UserError(wrong)
    except UserError:
        end = time.monotonic() + LINGER_S  # the store ends with rank 0's process
        while here.rank == 0 and store.add("heard", 0) < here.size and time.monotonic() < end:
            time.sleep(POLL_S)
        raise


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
