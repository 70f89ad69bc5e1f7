"""A site file: what `bingo submit` must know about a cluster, in TOML. Unknown keys are refused with the known ones.

partition = "gpu"
nodes = 2
ranks_per_node = 8
gpus_per_node = 8

[cpu]                    # the same keys, for jobs of one rank that need no GPU: packing, bags, export
partition = "cpu"
"""

import dataclasses
import re
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bingo.errors import UserError, brief, did_you_mean
from bingo.files import first_line
from bingo.paths import as_path, as_text

T = TypeVar("T")


@dataclass(frozen=True)
class Container:
    """A pyxis/enroot container for every rank; `python` of the site is then the container's."""

    image: str
    mounts: tuple[str, ...] = ()
    workdir: str | None = None


@dataclass(frozen=True)
class Site:
    """Settings of one kind of job on one cluster; None or 0: Slurm's default."""

    partition: str | None = None
    qos: str | None = None
    account: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclude: str | None = None
    nodes: int = 1
    ranks_per_node: int = 1
    gpus_per_node: int = 0
    gres: str | None = None
    """In place of gpus_per_node, for clusters that want `gres = "gpu:h100:8"`."""
    cpus_per_rank: int = 1
    mem_gb: float = 0
    """Per node."""
    time_min: int = 1440
    signal_delay_s: int = 180
    """Seconds before the time limit at which ranks are asked to leave: at least three times as long as a checkpoint."""
    collective_timeout_s: int = 300
    """Seconds after which a rank gives up waiting for another: nodes of a hung job are freed this late."""
    exclusive: bool = False
    setup: tuple[str, ...] = ()
    """Lines of the batch script before anything runs: `module load ...`."""
    env: dict[str, str] = field(default_factory=dict)
    """Exported in the batch script: NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, ..."""
    srun_args: tuple[str, ...] = ()
    sbatch: dict[str, Any] = field(default_factory=dict)
    """More `#SBATCH --key=value` lines."""
    python: str | None = None
    """The interpreter on the nodes; the one that submits otherwise."""
    container: Container | None = None


@dataclass(frozen=True)
class Cluster:
    """A site file: the settings of jobs on all ranks, and of jobs on one CPU rank."""

    path: Path
    jobs: Site
    cpu: Site

    def site(self, parallel: bool) -> Site:
        return self.jobs if parallel else self.cpu


def read_site(path: Path) -> Cluster:
    """Read a site file; `UserError` for what is missing, unknown or of the wrong type."""
    try:
        values = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UserError(f"cannot read the site file {path}: {error.strerror}; see docs/cluster.md for one") from None
    except RecursionError:
        raise UserError(f"the site file {path} is nested too deep; see docs/cluster.md for one") from None
    except ValueError as error:  # also a number of thousands of digits, and bytes that are no text
        raise UserError(f"the site file {path} is not TOML: {first_line(error)}") from None
    cpu = values.pop("cpu", {})
    if not isinstance(cpu, dict):
        raise UserError(f"{path}: cpu = {_shown(cpu)} is not allowed: it must be a table, [cpu]")
    for key in ("nodes", "ranks_per_node"):
        if key in cpu:
            raise UserError(f"{path}: cpu.{key} is not allowed: jobs of [cpu] have one rank; leave it out")
    one = {"nodes": 1, "ranks_per_node": 1, "gpus_per_node": 0, "gres": None}
    cluster = Cluster(path, _checked(Site, values, path), _checked(Site, {**values, **one, **cpu}, path, "cpu."))
    for site, prefix in ((cluster.jobs, ""), (cluster.cpu, "cpu.")):
        _check_ranges(site, path, prefix)
    return cluster


def with_size(cluster: Cluster, nodes: int | None, ranks_per_node: int | None) -> Cluster:
    """The same cluster with another number of nodes or ranks per node for its jobs on all ranks."""
    given = {"nodes": nodes, "ranks_per_node": ranks_per_node}
    for name, value in given.items():
        if value is not None and not 1 <= value <= MOST:
            most = "at least 1" if value < 1 else f"at most {MOST}"
            raise UserError(f"--{name.replace('_', '-')} {brief(value)} is not allowed: it must be {most}")
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(cluster, jobs=dataclasses.replace(cluster.jobs, **changes))


def _checked(cls: type[T], values: dict[str, Any], path: Path, prefix: str = "") -> T:
    """A dataclass from a TOML table; `UserError` naming the key for whatever is not as its annotation says."""
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            known = [*hints, "cpu"] if cls is Site and not prefix else list(hints)
            hint = did_you_mean(key, known).partition("known:")[0]
            raise UserError(
                f"{path}: unknown key {prefix}{_shown(key)[1:-1]}; {hint and hint + ' '}keys: {', '.join(known)}"
            )
    found = {key: _value(hints[key], value, path, prefix + key) for key, value in values.items()}
    for field_ in dataclasses.fields(cls):  # type: ignore[arg-type]
        required = field_.default is field_.default_factory is dataclasses.MISSING
        if required and field_.name not in values:
            raise UserError(f"{path}: {prefix}{field_.name} is missing")
    for key in ("python", "image"):  # a path on the nodes: they are taken to have the same home folder
        if str(found.get(key, "")).startswith("~"):
            found[key] = as_text(as_path(found[key]))
    return cls(**found)


def _value(hint: Any, value: Any, path: Path, key: str) -> Any:
    """A TOML value as a field of type `hint`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(args[0], value, path, key)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return _checked(hint, value, path, f"{key}.")
    plain = origin or hint
    if isinstance(value, str) and not value.isprintable() and not key.rpartition(".")[2].startswith("setup["):
        raise UserError(f"{path}: {key} = {_shown(value)} is not allowed: it must be one line of plain text")
    if plain is tuple and isinstance(value, list):
        return tuple(_value(args[0], item, path, f"{key}[{at}]") for at, item in enumerate(value))
    if plain is dict and isinstance(value, dict):
        return {name: _value(args[1], item, path, f"{key}.{name}") for name, item in value.items()}
    if plain is Any and isinstance(value, str | int | float):
        return value
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if plain is not Any and isinstance(value, plain) and (plain is bool or not isinstance(value, bool)):
        return value
    raise UserError(f"{path}: {key} = {_shown(value)} is not allowed: it must be {WORDS.get(plain, 'a table')}")


WORDS = {
    str: 'text, in "quotes"',
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: 'a list of texts, ["..."]',
    Any: "text, a number, or true or false",
}


def _shown(value: Any) -> str:
    """A value as TOML has it, shortened."""
    text = str(value).lower() if isinstance(value, bool) else brief(value)
    return text if len(text) <= 60 else text[:57] + "..."


LEAST = {
    "nodes": 1,
    "ranks_per_node": 1,
    "gpus_per_node": 0,
    "cpus_per_rank": 1,
    "mem_gb": 0,
    "time_min": 1,
    "signal_delay_s": 0,
    "collective_timeout_s": 1,
}
MOST = 10**6  # of anything that is counted
MOST_SIGNAL_DELAY_S = 65535  # Slurm's own limit
OURS = (
    "array", "chdir", "cpus-per-task", "dependency", "error", "export", "gpus-per-node", "job-name",
    "kill-on-invalid-dep", "mem", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable", "requeue",
    "signal", "time", "wrap",
)  # fmt: skip


def _check_ranges(site: Site, path: Path, prefix: str) -> None:
    def refuse(key: str, why: str) -> None:
        raise UserError(f"{path}: {prefix}{key} {why}")

    for key, least in LEAST.items():
        value = getattr(site, key)
        if not least <= value <= MOST:
            what = f"at most {MOST}" if value > MOST else f"at least {least}"
            refuse(key, f"= {_shown(value)} is not allowed: it must be {what}")
    if site.gres is not None and site.gpus_per_node:
        refuse("gres", "and gpus_per_node exclude each other: keep the one that this cluster wants")
    most = min(MOST_SIGNAL_DELAY_S, 60 * site.time_min - 1)
    if site.signal_delay_s > most:
        refuse(
            "signal_delay_s", f"= {site.signal_delay_s} is not allowed: it must be at most {most} (time_min ends it)"
        )
    for key in site.sbatch:
        if key.replace("_", "-") in OURS:
            refuse(f"sbatch.{key}", "is not allowed: bingo sets it itself" + _instead(key))
    for key in site.env:
        if not re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII):
            refuse(f"env.{key}", "is not allowed: it is no name of an environment variable")


def _instead(key: str) -> str:
    """The site's own key for one of sbatch's."""
    own = {"cpus-per-task": "cpus_per_rank", "mem": "mem_gb", "time": "time_min", "signal": "signal_delay_s"}
    own |= {"ntasks-per-node": "ranks_per_node", "nodes": "nodes", "gpus-per-node": "gpus_per_node", "export": "env"}
    name = own.get(key.replace("_", "-"))
    return f"; use the key {name}" if name else "; leave it out"
