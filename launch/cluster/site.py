"""A site file: what `bingo submit` must know about a cluster, in TOML. Unknown keys are refused with the known ones.

partition = "gpu"
nodes = 2
ranks_per_node = 8
gpus_per_node = 8

[cpu]                    # the same keys, for jobs of one rank that need no GPU: packing, bags, export
partition = "cpu"
"""

import dataclasses
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from bingo.errors import UserError, brief, did_you_mean
from bingo.files import first_line
from bingo.launch.cluster.environment import drops
from bingo.paths import as_path, as_text
from bingo.variables import for_ranks

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
    max_starts: int = 0
    """How often a job may start under one id, whatever ended it before; 0: as often as there is progress."""
    max_hours: float = 0.0
    """Hours of all starts of a job together after which it does not start again; 0: no limit."""
    exclusive: bool = False
    setup: tuple[str, ...] = ()
    """Lines of the batch script before anything runs: `module load ...`. One that fails stops nothing, since many do so
    for no reason; it is named where the start then fails before its first step. `set -e` and `exit` end the job."""
    env: dict[str, str] = field(default_factory=dict)
    """Exported in the batch script, which others may read: NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, ..."""
    pass_env: tuple[str, ...] = ()
    """Names of variables of the shell that sends a job, for what no file may hold: WANDB_API_KEY, ..."""
    srun_args: tuple[str, ...] = ()
    sbatch: dict[str, Any] = field(default_factory=dict)
    """More `#SBATCH --key=value` lines."""
    python: str | None = None
    """The interpreter on the nodes; the one that submits otherwise."""
    notify: str | None = None
    """A command of the shell that tells you of a chain that failed, is stuck or is done; see docs/cluster.md."""
    container: Container | None = None


@dataclass(frozen=True)
class Cluster:
    """A site file: the settings of jobs on all ranks, and of jobs on one CPU rank."""

    path: Path
    jobs: Site
    cpu: Site
    own: frozenset[str] = frozenset()
    """Keys that [cpu] has itself, those of its table `sbatch` too."""
    given: frozenset[str] = frozenset()
    """Keys whose values are replaced by flags, see `with_flags`."""

    def site(self, parallel: bool) -> Site:
        return self.jobs if parallel else self.cpu

    def flagged(self, parallel: bool) -> frozenset[str]:
        """The keys whose values a job of this kind has from flags."""
        return self.given if parallel else self.given - self.own - {*OF_RANKS}

    def shown(self, key: str, parallel: bool) -> str:
        """A setting of such a job as its user wrote it: `--partition gpu`, or `site.toml: cpu.partition = 'gpu'`."""
        value = getattr(self.site(parallel), key)
        if key in self.flagged(parallel):
            return f"{FLAGS[key]} {brief(value)}"
        return f"{self.path}: {'' if parallel else 'cpu.'}{key} = {_shown(value)}"


FLAGS = {
    "nodes": "--nodes",
    "ranks_per_node": "--ranks-per-node",
    "time_min": "--time",
    "max_starts": "--max-starts",
    "max_hours": "--max-hours",
    **{key: f"--{key}" for key in (
        "partition", "qos", "account", "constraint", "reservation", "exclude", "nodelist"
    )},
}  # fmt: skip
"""Keys of a site file, or of its table `sbatch`, that a flag replaces for one submission, and the flag."""
OF_RANKS = ("nodes", "ranks_per_node", "nodelist")
"""Keys that only jobs on all ranks have."""


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
    if "notify" in cpu:
        raise UserError(f"{path}: cpu.notify is not allowed: it is for whole chains; write it above [cpu]")
    one = {"nodes": 1, "ranks_per_node": 1, "gpus_per_node": 0, "gres": None}
    jobs, alone = _checked(Site, values, path), _checked(Site, {**values, **one, **cpu}, path, "cpu.")
    cluster = Cluster(path, jobs, alone, frozenset([*cpu, *cpu.get("sbatch", {})]))
    _check(cluster)
    return cluster


def with_flags(cluster: Cluster, values: Mapping[str, Any]) -> Cluster:
    """The same cluster with other values of keys in `FLAGS`, as if its file said so; None: the file's own value.

    A key that [cpu] has itself stays as it is for jobs on one rank. `UserError`, which names the flag, for a value that
    is not allowed.
    """
    given = {key: value for key, value in values.items() if value is not None}
    found = dataclasses.replace(cluster, given=frozenset(given))
    alone = {key: value for key, value in given.items() if key in found.flagged(parallel=False)}
    found = dataclasses.replace(found, jobs=_replaced(cluster.jobs, given), cpu=_replaced(cluster.cpu, alone))
    _check(found)
    return found


def _replaced(site: Site, values: Mapping[str, Any]) -> Site:
    """A site with other values. What is no key of its own stands in its table `sbatch`, and nothing else of them."""
    own = {key: value for key, value in values.items() if hasattr(Site, key)}
    more = {key: value for key, value in site.sbatch.items() if key not in own}
    more |= {key: value for key, value in values.items() if key not in own}
    return dataclasses.replace(site, sbatch=more, **own)


def minutes_of(text: str) -> int:
    """A time limit as Slurm reads it, in whole minutes, rounded up: `90`, `90:00`, `1:30:00`, `1-12`, `1-12:00:00`.

    `ValueError` for anything else.
    """
    found = re.fullmatch(r"(?:(\d{1,9})-)?(\d{1,9})(?::(\d{1,9}))?(?::(\d{1,9}))?", text, re.ASCII)
    if not found:
        raise ValueError(text)
    parts = [int(part) for part in found.groups()[1:] if part is not None]
    # Without days one number is minutes and two are minutes and seconds; after days the first is always hours.
    units = (60, 1) if found[1] is None and len(parts) < 3 else (3600, 60, 1)
    seconds = 86400 * int(found[1] or 0) + sum(part * unit for part, unit in zip(parts, units, strict=False))
    return math.ceil(seconds / 60)


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
        shown = "" if re.match(r"(cpu\.)?env\.", key) else f" = {_shown(value)}"  # it may be a password
        raise UserError(f"{path}: {key}{shown} is not allowed: it must be one line of plain text")
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
    "max_starts": 0,
    "max_hours": 0,
}
MOST = 10**6  # of anything that is counted
MOST_SIGNAL_DELAY_S = 65535  # Slurm's own limit
OURS = (
    "array", "chdir", "clusters", "cpus-per-task", "dependency", "error", "export", "export-file", "gpus-per-node",
    "help", "job-name", "kill-on-invalid-dep", "mem", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode",
    "output", "parsable", "requeue", "signal", "tasks-per-node", "test-only", "time", "usage", "version", "wait",
    "wrap",
)  # fmt: skip
WHOLE = ("gpus",)
"""Options of sbatch whose names begin one of `OURS`. It takes any other beginning for the whole name."""


def _check(cluster: Cluster) -> None:
    for parallel in (True, False):
        _check_ranges(cluster, parallel)


def _check_ranges(cluster: Cluster, parallel: bool) -> None:
    site = cluster.site(parallel)

    def wrong(key: str, allowed: str) -> UserError:
        return UserError(f"{cluster.shown(key, parallel)} is not allowed: it must be {allowed}")

    def refuse(key: str, why: str) -> None:
        raise UserError(f"{cluster.path}: {'' if parallel else 'cpu.'}{key} {why}")

    for key, least in LEAST.items():
        value = getattr(site, key)
        if not least <= value <= MOST:
            raise wrong(key, f"at most {MOST}" if value > MOST else f"at least {least}")
    if site.gres is not None and site.gpus_per_node:
        refuse("gres", "and gpus_per_node exclude each other: keep the one that this cluster wants")
    most = min(MOST_SIGNAL_DELAY_S, 60 * site.time_min - 1)
    if site.signal_delay_s > most and "time_min" in cluster.flagged(parallel):
        raise wrong(
            "time_min", f"at least {site.signal_delay_s // 60 + 1}, for the site's signal_delay_s lies before its end"
        )
    if site.signal_delay_s > most:
        raise wrong("signal_delay_s", f"at most {most} (time_min ends it)")
    for key in site.sbatch:
        name = key.replace("_", "-")
        if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
            refuse(f"sbatch.{_shown(key)[1:-1]}", "is not allowed: write the long name of an option of sbatch")
        if whole := [own for own in OURS if own.startswith(name) and name not in WHOLE]:
            own = name if name in whole else whole[0]
            refuse(f"sbatch.{key}", "is not allowed: bingo sets it itself" + _instead(own))
    for key in site.env:
        if why := _no_name(key) or ("each rank gets its own" if for_ranks(key) else ""):
            refuse(f"env.{_shown(key)[1:-1]}", f"is not allowed: {why}")
    for key in site.pass_env:
        twice = "it is in env too; keep one of the two" if key in site.env else ""
        if why := _no_name(key) or ("no job gets it from a shell" if drops(key) else twice):
            refuse("pass_env", f"= [{_shown(key)}] is not allowed: {why}")


def _no_name(key: str) -> str:
    return "" if re.fullmatch(r"[A-Za-z_]\w*", key, re.ASCII) else "it is no name of an environment variable"


def _instead(key: str) -> str:
    """The site's own key for one of sbatch's."""
    own = {"cpus-per-task": "cpus_per_rank", "mem": "mem_gb", "time": "time_min", "signal": "signal_delay_s"}
    own |= {"ntasks-per-node": "ranks_per_node", "nodes": "nodes", "gpus-per-node": "gpus_per_node", "export": "env"}
    name = own.get(key)
    return f"; use the key {name}" if name else "; leave it out"
