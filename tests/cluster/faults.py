"""Everything that may go wrong with a job, as data: what happens inside a rank, what a test does from outside.

The first are carried out by `injector/` in the rank itself at one step, the second by `tests.cluster.trial` once that
step is reached. What is random in a fault (rank, step, moment) is a function of its kind and a seed.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

EPOCHS, PER_EPOCH = 4, 16
STEPS = EPOCHS * PER_EPOCH
CHECKPOINT_EVERY = 7
COLLECTIVE_TIMEOUT_S = 15
NODES = 2


@dataclass(frozen=True)
class Kind:
    """A kind of fault and what must be found out about it.

    action: of the injector. outside: what the test does at that moment. causes: kinds that the first attempt's end may
    be given. blames: a rank and its node must be named, or a node alone. within_s: until the nodes are free.
    """

    action: str | tuple[str, ...]
    causes: tuple[str, ...]
    outside: str = ""
    blames: Literal["rank", "node", ""] = ""
    within_s: float | None = None
    partition: str = "debug"
    user_signal: bool = False
    memory_mb: int | None = None
    rank: int | None = None
    tmpfs: bool = False


CRASH_S, HANG_S = 5.0, COLLECTIVE_TIMEOUT_S + 15.0
KINDS = {
    "exception": Kind("raise", ("exception",), blames="rank", within_s=CRASH_S),
    "sigkill": Kind("kill", ("killed",), blames="rank", within_s=CRASH_S),
    "hang": Kind(("hang", "hang-deaf", "stop"), ("hang",), blames="rank", within_s=HANG_S),
    "out-of-memory": Kind("eat-memory", ("out-of-memory",), blames="rank", within_s=CRASH_S, memory_mb=1500),
    "usr2-imports": Kind("", ("left",), "usr2-early"),
    "usr2-step": Kind("mark", ("left",), "usr2"),
    "usr2-collective": Kind("late", ("left",), "usr2"),
    "preempt-term": Kind("mark", ("left", "preempted"), "preempt", partition="low"),
    "preempt-user": Kind("mark", ("left", "preempted"), "preempt", partition="low", user_signal=True),
    "slurmd": Kind("mark", ("node lost",), "slurmd", blames="node"),
    "node": Kind("mark", ("node lost",), "node", blames="node"),
    "checkpoint": Kind("tear", ("killed",), blames="rank", within_s=CRASH_S, rank=0),
    "disk-full": Kind("fill-disk", ("disk full",), "free-disk", blames="rank", within_s=CRASH_S, rank=0, tmpfs=True),
    "requeue": Kind("mark", ("requeued",), "requeue"),
}


@dataclass(frozen=True)
class Fault:
    """One fault, as the injector reads it.

    step: 0-based; attempt: the start of the job that it hits. pace_s: every step lasts so much longer, or all would be
    over before a test can do anything. share: of a checkpoint's bytes that are written. leave: bytes left on a full
    disk. late_s: how late the rank comes to a collective.
    """

    kind: str
    seed: int
    action: str
    rank: int
    step: int
    attempt: int = 0
    pace_s: float = 0.05
    share: float = 0.0
    leave: int = 0
    late_s: float = 3.0
    delay_s: float = 0.0
    """Between the moment and what the test does then."""
    down_s: float = 0.0
    """How long a daemon stays away."""
    slow_s: float = 0.0
    """How long every step of this attempt lasts after the fault: long enough for Slurm to notice what is gone."""
    whole_root: bool = False
    """The full disk holds the submission too, not only the run."""
    marks: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def draw(kind: str, seed: int, marks: Path) -> Fault:
    """The fault of a kind that belongs to a seed; the step is at least three and leaves work to do."""
    rng = random.Random(zlib.crc32(kind.encode()) * 1000 + seed)
    facts = KINDS[kind]
    actions = (facts.action,) if isinstance(facts.action, str) else facts.action
    rank = rng.randrange(NODES) if facts.rank is None else facts.rank
    last = STEPS - 2 * CHECKPOINT_EVERY
    delays: dict[str, Callable[[], float]] = {
        "usr2-early": lambda: rng.uniform(0, 6),
        "usr2": lambda: rng.uniform(0, 0.5),
    }
    return Fault(
        kind=kind,
        seed=seed,
        action=actions[seed % len(actions)],
        rank=rank,
        step=rng.randrange(3, last),
        share=rng.random(),
        leave=rng.choice((0, 4096, 16384)),
        delay_s=delays.get(facts.outside, lambda: 0.0)(),
        # Every other daemon is back before Slurm gives its node up, the rest long after.
        down_s=(3.0, 45.0)[seed % 2] if facts.outside == "slurmd" else 0.0,
        slow_s={"slurmd": (0.0, 3.0)[seed % 2], "preempt": 1.0}.get(facts.outside, 0.0),
        whole_root=facts.tmpfs and seed % 2 == 1,
        marks=str(marks),
    )
