"""What a measured job leaves: the samples of every rank, as samples.json of its folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from bingo.errors import UserError
from bingo.files import read_object, write_json

FILE = "samples.json"
KINDS = ("together", "alone")
REMEDY = "delete the folder that it is in, and type the same command again"


class Burst(TypedDict):
    """Seconds per step of one burst: `seconds` of the wall, `cpu` of the process with all threads, `loader` waited."""

    seconds: float
    cpu: float
    loader: float


class RankSamples(TypedDict):
    """One rank: where it ran, and its bursts with messages and without, in the order they were taken."""

    rank: int
    host: str
    device: str
    threads: int
    together: list[Burst]
    alone: list[Burst]


def write_samples(folder: Path, ranks: Sequence[RankSamples], *, gradient_bytes: int) -> None:
    """gradient_bytes: what DDP sums over the ranks in a step."""
    write_json(folder / FILE, {"gradient_bytes": gradient_bytes, "ranks": list(ranks)})


def read_samples(folder: Path) -> tuple[list[RankSamples], int]:
    """The samples of a finished job by rank, and the bytes of its gradients; `UserError` for a damaged file."""
    value = read_object(folder / FILE, {"gradient_bytes": int, "ranks": list}, remedy=REMEDY)
    ranks = sorted(value["ranks"], key=lambda one: one["rank"] if _whole(one) else -1)
    if not ranks or not all(map(_whole, ranks)) or len({len(one[kind]) for one in ranks for kind in KINDS}) != 1:
        raise UserError(f"{folder / FILE} does not hold the samples of ranks; {REMEDY}")
    return ranks, value["gradient_bytes"]


def _whole(rank: Any) -> bool:
    """Whether this is a `RankSamples` with at least one burst of each kind."""
    names = {"rank": int, "host": str, "device": str, "threads": int, "together": list, "alone": list}
    if not isinstance(rank, dict) or not all(isinstance(rank.get(name), kind) for name, kind in names.items()):
        return False
    bursts = [burst for kind in KINDS for burst in rank[kind]]
    figures = Burst.__annotations__
    return bool(bursts) and all(
        isinstance(burst, dict) and all(isinstance(burst.get(name), float) for name in figures) for burst in bursts
    )
