"""The plan of a measurement: which numbers of ranks, with which batches, as which stages."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bingo.bench.scaling.flags import MODES, REPLACED
from bingo.config_parts import Augmentation, Contrast, Runtime
from bingo.config_scaling import ScalingConfig
from bingo.errors import UserError
from bingo.launch.cluster.site import FLAGS, Cluster, read_site, with_flags
from bingo.launch.submit.graph import absolute
from bingo.stages import Stage

USUAL = {
    True: {"student": "resnet18", "teacher": "resnet50", "size": 224, "batch": 256, "queue": 65536, "dim": 128,
           "hidden": 2048, "precision": "bf16"},
    False: {"student": "tiny-4", "teacher": "tiny-8", "size": 32, "batch": 16, "queue": 512, "dim": 16, "hidden": 32,
            "precision": "fp32"},
}  # fmt: skip
"""Whether ranks have GPUs -> what is measured where no flag says otherwise."""


@dataclass(frozen=True)
class Point:
    """One number of ranks with one batch: the jobs that measure it, and the curves that it is a part of."""

    nodes: int
    ranks_per_node: int
    batch: int
    modes: tuple[str, ...]
    stages: tuple[Stage, ...]
    local: bool

    @property
    def ranks(self) -> int:
        return self.nodes * self.ranks_per_node

    @property
    def size(self) -> str:
        return f"{self.ranks} ranks" if self.local else f"{self.nodes} nodes x {self.ranks_per_node} ranks"

    @property
    def case(self) -> str:
        """Without the mode."""
        config = self.stages[0].config
        source = "random crops" if config.data is None else "with loader"
        return f"{self.size}, {self.batch} per rank, {self.step}, {config.runtime.precision}, {source}"

    @property
    def step(self) -> str:
        """What every rank does, whatever their number."""
        config = self.stages[0].config
        return f"{config.student} from {config.teacher}, {config.augment.size} px"


@dataclass(frozen=True)
class Plan:
    """What the flags ask for. cluster: the site for the largest number of nodes; None: ranks here."""

    out: Path
    cluster: Cluster | None
    gpus: bool
    points: tuple[Point, ...]
    settings: dict[str, Any]
    """What must be the same when the same folder is used again."""
    overrides: dict[str, Any]
    """Keys of the site file -> the values of flags."""

    @property
    def stages(self) -> list[Stage]:
        """In the order in which they are measured: all points once, then again, backwards in every other turn."""
        turns = range(len(self.points[0].stages))
        ordered = [self.points if turn % 2 == 0 else self.points[::-1] for turn in turns]
        return [point.stages[turn] for turn in turns for point in ordered[turn]]


def plan_of(options: argparse.Namespace, gpus_here: bool) -> Plan:
    """What is to be measured; `UserError` for flags that do not fit together, and for a site file that is none."""
    counts = _counts(options)
    overrides = {key: getattr(options, key, None) for key in FLAGS}
    cluster = None
    if options.local is None:
        cluster = with_flags(read_site(options.cluster), {**overrides, "nodes": max(counts)})
        overrides["nodes"] = max(counts)
    gpus = gpus_here if cluster is None else bool(cluster.jobs.gpus_per_node or cluster.jobs.gres)
    step = {name: getattr(options, name) or usual for name, usual in USUAL[gpus].items()}
    per_node = 1 if cluster is None else cluster.jobs.ranks_per_node
    points = _points(options, counts, per_node, step)
    site = {name: overrides[name] for name in REPLACED if overrides[name] is not None}
    names = ("steps", "rounds", "compile", "threads")
    settings = {
        "measurement": "scaling", "where": "here" if cluster is None else "cluster",
        "data": options.data and str(options.data.absolute()), **step,
        **{name: getattr(options, name) for name in names}, **site, "ranks_per_node": per_node,
    }  # fmt: skip
    return Plan(options.out.absolute(), cluster, gpus, points, settings, overrides)


def _counts(options: argparse.Namespace) -> tuple[int, ...]:
    """The numbers of nodes or ranks, ascending."""
    if options.local is not None:
        given = ["--cluster", "--nodes", *(f"--{name}" for name in ("ranks-per-node", *REPLACED, "time"))]
        for flag in given:
            if getattr(options, {"--time": "time_min"}.get(flag, flag[2:].replace("-", "_"))) is not None:
                raise UserError(f"--local is about ranks here, and {flag} about a cluster: leave one of them out")
        return tuple(sorted(set(options.local)))
    if options.cluster is None or options.nodes is None:
        absent = "--cluster FILE" if options.cluster is None else "--nodes 1,2,4"
        raise UserError(f"missing: {absent}; or measure ranks on this machine: --local 1,2,4")
    return tuple(sorted(set(options.nodes)))


def _points(
    options: argparse.Namespace, counts: tuple[int, ...], per_node: int, step: dict[str, Any]
) -> tuple[Point, ...]:
    """Each number with the batch of each mode; two modes that mean the same are one point."""
    found: dict[tuple[int, int], list[str]] = {}
    for mode in dict.fromkeys(options.mode or MODES):
        for count in counts:
            whole = step["batch"] * counts[0]
            if mode == "strong" and whole % count:
                unit = "nodes" if options.local is None else "ranks"
                raise UserError(
                    f"strong scaling: what {counts[0]} {unit} take at --batch {step['batch']} does not divide among "
                    f"{count} {unit}; set --batch to a multiple of {count}, or add --mode weak"
                )
            found.setdefault((count, whole // count if mode == "strong" else step["batch"]), []).append(mode)
    return tuple(_point(options, per_node, step, *key, tuple(modes)) for key, modes in sorted(found.items()))


def _point(
    options: argparse.Namespace, per_node: int, step: dict[str, Any], count: int, batch: int, modes: tuple[str, ...]
) -> Point:
    local = options.local is not None
    nodes, per_node = (1, count) if local else (count, per_node)
    unit = "ranks" if local else "nodes"
    stages = []
    for repeat in range(options.repeats):
        name = f"{count} {unit} batch {batch} repeat {repeat}"
        out = options.out / "points" / name.replace(" ", "-")
        config = absolute(_config(options, step, out, nodes * per_node, batch, repeat))
        stages.append(Stage(name, "scaling", config))
    return Point(nodes, per_node, batch, modes, tuple(stages), local)


def _config(
    options: argparse.Namespace, step: dict[str, Any], out: Path, ranks: int, batch: int, repeat: int
) -> ScalingConfig:
    queue_dtype: Literal["fp32", "bf16"] = "bf16" if step["precision"] == "bf16" else "fp32"
    compiled = None if options.compile is None else options.compile == "yes"
    # A CUDA graph is for runs of one process: every number of ranks takes the same step.
    runtime = Runtime(precision=step["precision"], compile=compiled, graph="no", threads=options.threads)
    return ScalingConfig(
        out=out, ranks=ranks, batch=batch, data=options.data, student=step["student"], teacher=step["teacher"],
        steps=options.steps, rounds=options.rounds, seed=repeat, runtime=runtime,
        contrast=Contrast(step["dim"], step["hidden"], step["queue"], queue_dtype),
        augment=Augmentation(size=step["size"]),
    )  # fmt: skip
