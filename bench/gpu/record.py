"""What `bingo bench gpu` writes to gpu.json: the `State`, a `Part` for each measurement, a `Check` for each check."""

from typing import TYPE_CHECKING, Any, Generic, Literal, Required, TypedDict, TypeVar

if TYPE_CHECKING:
    from bingo.bench import neighbours
    from bingo.bench.kernels.record import GpuResult
    from bingo.bench.step import record as step

AnyResult = TypeVar("AnyResult")
PartName = Literal["correctness", "kernels", "step", "bags"]


class Check(TypedDict):
    """One check: it passed if error <= bound."""

    group: str
    name: str
    status: str
    """passed, failed, skipped (it does not apply here) or missed (the time was up)."""
    ok: bool | None
    """None where it was skipped or missed."""
    error: float | str | None
    """A word where it is no number; None where nothing was computed."""
    bound: float | None
    note: str
    seconds: float


class Part(TypedDict, Generic[AnyResult], total=False):
    """What a part has found so far. error, skipped, note: why something is not there."""

    quick: bool
    """Correctness: small shapes."""
    checks: list[Check]
    """Correctness: those that have ended."""
    result: AnyResult
    table: list[str]
    """Kernels: the benchmark's own table."""
    error: str
    skipped: str
    note: str
    took_seconds: float


class State(TypedDict, total=False):
    """All of gpu.json; a part is there once it has begun."""

    environment: Required[dict[str, Any]]
    failures: Required[int]
    """Checks that failed or were missed, and parts with an error."""
    seconds: float
    correctness: Part[None]
    kernels: "Part[GpuResult]"
    step: "Part[step.Result]"
    bags: "Part[neighbours.Result]"
