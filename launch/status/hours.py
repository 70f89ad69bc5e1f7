"""Node and GPU hours of a job's starts: what was used, and what of it was lost to which cause.

Used: the nodes that a start held, times its wall time; GPUs as the batch script asks for them, on each node. Lost, of a
start that ended and did not finish its job:
- fruitless: all of it, where no step was kept and no stage finished;
- otherwise start-up (the next start does it again), idle (from the last sign of life of its ranks to its end: a hang,
  the time until a lost node is noticed), and steps (the share of the training whose steps are done again).
What a start lost goes to the account of the cause that ended it. Checkpoints and the queue are no loss.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

GPUS = re.compile(r"^#SBATCH --(gpus-per-node|gres)=(.*)", re.MULTILINE)
ONE = re.compile(r"([^,\[]|\[[^\]]*\])+")
"""A name, or names in brackets, of a list of nodes."""


@dataclass(frozen=True)
class Hours:
    """Of one start. nodes, gpus: what it held, gpus on all its nodes; lost_s: seconds of its wall time by part."""

    nodes: int = 0
    gpus: int = 0
    wall_s: float = 0.0
    lost_s: Mapping[str, float] = field(default_factory=dict)
    node_hours: float = 0.0
    gpu_hours: float = 0.0
    node_hours_lost: float = 0.0
    gpu_hours_lost: float = 0.0


def hours_of(nodes: int, gpus_per_node: int, wall_s: float, lost_s: Mapping[str, float]) -> Hours:
    """Seconds of wall time, on so many nodes, as hours."""
    lost, gpus = sum(lost_s.values()), nodes * gpus_per_node
    each = [count * seconds / 3600 for seconds in (wall_s, lost) for count in (nodes, gpus)]
    return Hours(nodes, gpus, wall_s, lost_s, *each)


def lost_parts(
    wall_s: float, *, fruitless: bool, startup_s: float, idle_s: float, training_s: float, share: float
) -> dict[str, float]:
    """Seconds lost by a start that did not finish its job, by part. share: of its steps, those that are done again."""
    if fruitless:
        return {"fruitless": wall_s}
    idle = min(idle_s, training_s)
    return {"start-up": startup_s, "idle": idle, "steps": (training_s - idle) * share}


@dataclass(frozen=True)
class Sum:
    """Over several starts; kind: of the causes that ended them, "" for all."""

    kind: str
    starts: int
    node_hours: float
    gpu_hours: float
    node_hours_lost: float
    gpu_hours_lost: float


def sum_of(found: Iterable[Hours], kind: str = "") -> Sum:
    """The sum, in which each part counts as it is shown."""
    each = list(found)
    names = ("node_hours", "gpu_hours", "node_hours_lost", "gpu_hours_lost")
    return Sum(kind, len(each), *(math.fsum(getattr(one, name) for one in each) for name in names))


def by_cause(found: Sequence[tuple[str, Hours]]) -> list[Sum]:
    """(Kind of the cause, hours) of starts -> a sum per kind that lost something, the most expensive first."""
    kinds = dict.fromkeys(kind for kind, _ in found)
    sums = [sum_of((hours for name, hours in found if name == kind), kind) for kind in kinds]
    return sorted((one for one in sums if one.node_hours_lost > 0), key=lambda one: -one.node_hours_lost)


def told(total: Sum) -> str:
    """`12.4 node hours, 99 GPU hours; lost 1.3 node hours, 10 GPU hours`."""
    used = _words(total.node_hours, total.gpu_hours, total.gpu_hours)
    return f"{used}; lost {_words(total.node_hours_lost, total.gpu_hours_lost, total.gpu_hours)}"


def told_by_cause(sums: Iterable[Sum]) -> list[str]:
    """`killed: 2 starts, 1.3 node hours lost`, for each."""
    return [
        f"{one.kind}: {one.starts} start{'s' * (one.starts > 1)}, "
        f"{_words(one.node_hours_lost, one.gpu_hours_lost, one.gpu_hours)} lost"
        for one in sums
    ]


def _words(nodes: float, gpus: float, any_gpus: float) -> str:
    return f"{number(nodes)} node hours" + (f", {number(gpus)} GPU hours" if any_gpus else "")


def number(hours: float) -> str:
    """Hours with at least two digits that count."""
    return f"{hours:.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 10 else f"{hours:.2g}" if hours else "0"


def node_count(nodes: str) -> int:
    """How many nodes a list of Slurm's names: `n[03-05,9],m1` -> 5; 0 for ""."""
    return sum(math.prod(map(_numbers, re.findall(r"\[([^\]]*)\]", one[0]))) for one in ONE.finditer(nodes))


def _numbers(text: str) -> int:
    """`03-05,9` -> 4."""
    spans = [re.fullmatch(r"(\d{1,9})-(\d{1,9})", part, re.ASCII) for part in text.split(",")]
    return sum(max(int(span[2]) - int(span[1]) + 1, 0) if span else 1 for span in spans)


def gpus_per_node(job: Path) -> int:
    """GPUs on each node of the job in this folder, as its batch script asks for them (`8`, `gpu:h100:8`); 0: none."""
    try:
        text = (job / "script.sh").read_text(errors="replace")
    except OSError:
        return 0
    found = 0
    for key, value in GPUS.findall(text):
        for one in value.split(","):
            kind, *rest = re.sub("^gres[:/]", "", one.strip()).split(":")
            if kind == "gpu" or key == "gpus-per-node":
                last = (rest or [kind])[-1]
                found += int(last) if re.fullmatch(r"\d{1,9}", last, re.ASCII) else 1
    return found
