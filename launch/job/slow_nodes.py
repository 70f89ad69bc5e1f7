"""Which nodes are slow or faulty, and may the job start without them? Pure functions of the nodes' figures."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

THRESHOLD = 0.7
SHARED = ("write", "read")
"""Figures of a file system that everybody uses: its speed swings, so a node must be twice as far behind."""
PAIR = "all-reduce"
UNITS = {"matmul": "TFLOP/s", "copy": "GB/s", "memory": "GB/s", "write": "GB/s", "read": "GB/s", PAIR: "GB/s"}

Pair = tuple[str, str]


@dataclass(frozen=True)
class Decision:
    """slow: reasons by node, also of faulty ones, worst first; exclude: nodes to leave; why: a sentence about it."""

    slow: dict[str, list[str]]
    exclude: tuple[str, ...]
    why: str


def tournament(players: list[str]) -> list[list[Pair]]:
    """Rounds in which each player meets one other, until all have met: the circle method."""
    seats: list[str | None] = [*players, *([None] if len(players) % 2 else [])]
    rounds = []
    for _ in range(len(seats) - 1):
        half = len(seats) // 2
        pairs = zip(seats[:half], reversed(seats[half:]), strict=True)
        rounds.append([(a, b) for a, b in pairs if a is not None and b is not None])
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return rounds


def with_pairs(figures: dict[str, dict[str, float]], pairs: dict[Pair, float]) -> dict[str, dict[str, float]]:
    """The figures with each node's best pair added: a node is to blame only if it was slow with everyone it met."""
    best: dict[str, float] = {}
    for pair, rate in pairs.items():
        for node in pair:
            best[node] = max(best.get(node, 0.0), rate)
    return {node: {**row, **({PAIR: best[node]} if node in best else {})} for node, row in figures.items()}


def slow_nodes(figures: dict[str, dict[str, float]], threshold: float) -> dict[str, dict[str, float]]:
    """Figures below `threshold` of the median of the other nodes, as fractions of it, by node."""
    found: dict[str, dict[str, float]] = {}
    for node, row in figures.items():
        for name, value in row.items():
            others = [other[name] for key, other in figures.items() if key != node and name in other]
            usual = median(others) if others else 0.0
            least = threshold / 2 if name in SHARED else threshold
            if value < least * usual:
                found.setdefault(node, {})[name] = value / usual
    return found


def most_excluded(nodes: int) -> int:
    """Of two nodes one; otherwise at most a third."""
    return 1 if nodes == 2 else nodes // 3


def decide(
    figures: dict[str, dict[str, float]],
    pairs: dict[Pair, float],
    *,
    silent: tuple[str, ...] = (),
    faults: Mapping[str, Sequence[str]] | None = None,
    kept: Collection[str] = (),
    earlier: tuple[str, ...] = (),
    min_nodes: int = 1,
    idle: int = 0,
    threshold: float = THRESHOLD,
) -> Decision:
    """Exclude the worst of the slow and the faulty nodes as far as the job could start again at once without them.

    figures: rates by node and name; silent: nodes that gave none in time; faults: phrases about what is broken, by
    node, which is worse than slow; kept: nodes that the job was told to have; earlier: nodes that earlier attempts of
    the job excluded; min_nodes: the fewest it starts on; idle: other nodes of the partition that are free for it.
    """
    rows = with_pairs(figures, pairs)
    fractions = {**slow_nodes(rows, threshold), **{node: {"answer": 0.0} for node in silent}}
    broken = {node: phrases for node, phrases in (faults or {}).items() if phrases}
    parts = {node: fractions.get(node, {}) for node in (*broken, *fractions)}
    worst = sorted(parts, key=lambda node: (node not in broken, min(parts[node].values(), default=0.0), node))
    reasons = {
        node: [
            *broken.get(node, ()),
            *(_reason(name, part, rows.get(node, {})) for name, part in parts[node].items()),
        ]
        for node in worst
    }
    if not worst:
        return Decision({}, (), f"no node is below {threshold:g} of the others")
    here = len(figures) + len(silent)
    allowed = max(0, most_excluded(here + len(earlier)) - len(earlier))
    spare = here + idle - min_nodes
    exclude = tuple([node for node in worst if node not in kept][: max(0, min(allowed, spare))])
    if exclude:
        left = [node for node in worst if node not in exclude]
        why = f"starts again without {', '.join(exclude)}" + (f", but with {', '.join(left)}" if left else "")
    elif set(worst) <= set(kept):
        why = f"goes on: the job was told to have {', '.join(worst)} (--nodelist)"
    elif spare < 1:
        why = f"goes on: the job needs {min_nodes} of its {here} nodes and no other node of the partition is free"
    else:
        why = f"goes on: of {here + len(earlier)} nodes at most {most_excluded(here + len(earlier))} may be excluded"
    return Decision(reasons, exclude, why)


def _reason(name: str, part: float, row: dict[str, float]) -> str:
    if name == "answer":
        return "gave no figures in time"
    return f"{name} {row[name]:.3g} {UNITS[name]}, {part:.0%} of the others' median"
