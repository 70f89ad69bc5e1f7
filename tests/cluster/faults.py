"""Everything that may go wrong with a job, as data: what happens inside a rank, what a test does from outside, and
which end is the right one.

The first are carried out by `injector/` in the rank itself at one step, the second by `tests.cluster.outside` once that
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
CONTROLLER_AWAY_S = 75.0
STORAGE_AWAY_S = 20.0
STARTS = 4
"""The most starts of a job that never makes progress."""

End = Literal["done", "stopped", "refused"]
"""Completed with the weights of an uninterrupted run; not started again, in words; not even sent, in one sentence."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault and what must be found out about it.

    action: of the injector. outside: what the test does then (`tests.cluster.outside`). causes: kinds that the first
    attempt's end may be given; none: it ends only once all is done. blames: a rank and its node must be named, or a
    node alone. within_s: until the nodes are free.
    """

    action: str | tuple[str, ...]
    causes: tuple[str, ...] = ()
    outside: str = ""
    blames: Literal["rank", "node", ""] = ""
    within_s: float | None = None
    ends: tuple[End, ...] = ("done",)
    stop: str = ""
    """Of a job that stops: a pattern that the cause of its last start, in words, must match."""
    starts: int | None = None
    """The most that are allowed."""
    mended: bool = False
    """After the stop somebody mends it by hand and types `bingo repair`; then it must end well."""
    told: str = ""
    """A pattern that a line of the job's logs must match."""
    all_steps: bool = True
    """Whether each step must be in metrics.jsonl; otherwise those that are there must be there once."""
    variants: tuple[str, ...] = ("",)
    """Ways to carry it out; the seed chooses."""
    waits: bool = False
    """The rank waits at its step until the test lets it go on."""
    again: bool = False
    """The same rank is killed once more, before the next start is as far as the first one was."""
    partition: str = "debug"
    user_signal: bool = False
    alone: bool = False
    """Slurm's own daemons are its target: the trial has a cluster of its own."""
    nodes: int = 2
    memory_mb: int | None = None
    rank: int | None = None
    earliest: int = 3
    """The first step that it may hit."""
    tmpfs: bool = False
    env: tuple[tuple[str, str], ...] = ()
    """Set by the site file."""


CRASH_S, HANG_S = 5.0, COLLECTIVE_TIMEOUT_S + 15.0
TWO_CHECKPOINTS = 2 * CHECKPOINT_EVERY + 1
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
    "slurmd": Kind("mark", ("node lost",), "slurmd", blames="node", variants=("back in time", "late")),
    "node": Kind("mark", ("node lost",), "node", blames="node"),
    "checkpoint": Kind("tear", ("killed",), blames="rank", within_s=CRASH_S, rank=0),
    "disk-full": Kind(
        "fill-disk", ("disk full",), "free-disk", blames="rank", within_s=CRASH_S, rank=0, tmpfs=True,
        variants=("run", "submission"),
    ),
    "requeue": Kind("mark", ("requeued",), "requeue"),
    "four-sigkill": Kind("kill", ("killed",), blames="rank", within_s=CRASH_S, nodes=4),
    "four-hang": Kind(("hang", "hang-deaf", "stop"), ("hang",), blames="rank", within_s=HANG_S, nodes=4),
    # What a start finds is not what the one before left.
    "checkpoint-differs": Kind(
        "kill", ("killed",), "checkpoint-differs", blames="rank", starts=1 + STARTS, earliest=TWO_CHECKPOINTS,
        variants=("older", "other", "empty", "EIO"),
    ),
    "damaged-twice": Kind(
        "kill", ("killed",), "damaged-twice", blames="rank", starts=3, again=True, earliest=3 * CHECKPOINT_EVERY,
        variants=("flipped", "cut", "zeros"),
    ),
    "metrics-damaged": Kind(
        "kill", ("killed",), "metrics-damaged", blames="rank", starts=2, earliest=TWO_CHECKPOINTS, all_steps=False,
        told=r"metrics\.jsonl.* steps \d", variants=("cut", "removed", "zeros"),
    ),
    "records-zeroed": Kind(
        "kill", ("killed", "unknown"), "records-zeroed", starts=2, waits=True,
        variants=("beats", "events", "beats later", "events later"),
    ),
    "input-changed": Kind(
        "kill", ("killed",), "input-changed", blames="rank", ends=("stopped",), stop="image|teacher|data", starts=2,
        mended=True, earliest=CHECKPOINT_EVERY + 1, variants=("touched", "added", "removed", "replaced"),
    ),
    "new-code": Kind(
        "refuse", ("user",), "new-code", ends=("stopped",), stop="injected", starts=1, mended=True,
        earliest=CHECKPOINT_EVERY + 1,
    ),
    # Slurm, storage and the machine.
    "controller-crash": Kind(
        "kill", ("killed",), "controller", blames="rank", waits=True, alone=True, starts=2, variants=("term", "kill")
    ),
    "controller-usr2": Kind(
        "mark", ("left",), "controller", waits=True, alone=True, starts=2, variants=("term USR2", "kill USR2")
    ),
    "erofs-run": Kind("mark", ("storage",), "erofs", rank=0, starts=1 + STARTS, variants=("run",)),
    "erofs-logs": Kind("kill", ("killed",), "erofs", waits=True, starts=1 + STARTS, variants=("submissions",)),
    "interpreter-gone": Kind("kill", ("killed",), "interpreter", waits=True, starts=1 + STARTS, variants=("back",)),
    "interpreter-lost": Kind(
        "kill", ("killed",), "interpreter", waits=True, ends=("stopped",), stop="interpreter|python",
        starts=1 + STARTS, variants=("lost",),
    ),
    "interface": Kind(
        "slow-start", ("user", "network", "machine", "exception"), ends=("stopped",), stop="ib0", starts=STARTS,
        env=(("GLOO_SOCKET_IFNAME", "ib0"),), variants=("imports", "at once"),
    ),
    # What is typed.
    "environment": Kind("kill", ("killed",), "environment", blames="rank", ends=("done", "refused"), starts=2,
                        variants=("ranks", "Slurm")),
    "odd-path": Kind("kill", ("killed",), blames="rank", ends=("done", "refused"), starts=2,
                     variants=("50% done", "a%jb", "back\\slash", "a\\%j")),
    "two-roots": Kind("mark", (), "two-roots", starts=1,
                      variants=("alive", "waiting", "done", "alive other", "waiting other", "done other")),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One fault, as the injector reads it.

    step: 0-based; attempt: the start of the job that it hits. pace_s: every step lasts so much longer, or all would be
    over before a test can do anything. share: of a checkpoint's bytes that are written. leave: bytes left on a full
    disk. late_s: how late the rank comes to a collective.
    """

    kind: str
    seed: int
    variant: str
    action: str
    rank: int
    step: int
    attempt: int = 0
    waits: bool = False
    again: int | None = None
    """The step of a second kill, in the start after the first."""
    pace_s: float = 0.05
    share: float = 0.0
    leave: int = 0
    late_s: float = 3.0
    delay_s: float = 0.0
    """Between the moment and what the test does then."""
    down_s: float = 0.0
    """How long a daemon, or storage, stays away."""
    slow_s: float = 0.0
    """How long every step of this attempt lasts after the fault: long enough for Slurm to notice what is gone."""
    marks: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def draw(kind: str, seed: int, marks: Path) -> Fault:
    """The fault of a kind that belongs to a seed; the step leaves work to do."""
    rng = random.Random(zlib.crc32(kind.encode()) * 1000 + seed)
    facts = KINDS[kind]
    actions = (facts.action,) if isinstance(facts.action, str) else facts.action
    variant = facts.variants[seed % len(facts.variants)]
    rank = rng.randrange(facts.nodes) if facts.rank is None else facts.rank
    step = rng.randrange(facts.earliest, STEPS - 2 * CHECKPOINT_EVERY)
    delays: dict[str, Callable[[], float]] = {
        "usr2-early": lambda: rng.uniform(0, 6),
        "usr2": lambda: rng.uniform(0, 0.5),
    }
    away = {"controller": CONTROLLER_AWAY_S, "erofs": STORAGE_AWAY_S, "interpreter": STORAGE_AWAY_S}
    in_time = (
        variant == "back in time"
    )  # every other daemon is back before Slurm gives its node up, the rest long after
    return Fault(
        kind=kind,
        seed=seed,
        variant=variant,
        action=actions[seed % len(actions)],
        rank=rank,
        step=step,
        waits=facts.waits,
        again=rng.randrange(CHECKPOINT_EVERY + 2, step - 1) if facts.again else None,
        share=rng.random(),
        leave=rng.choice((0, 4096, 16384)),
        delay_s=delays.get(facts.outside, lambda: 0.0)(),
        down_s=(3.0 if in_time else 45.0) if facts.outside == "slurmd" else away.get(facts.outside, 0.0),
        slow_s={"slurmd": 0.0 if in_time else 3.0, "preempt": 1.0}.get(facts.outside, 0.0),
        marks=str(marks),
    )
