"""A site file: what `bingo submit` must know about a cluster, in TOML. Unknown keys are refused with the known ones.

partition = "gpu"
nodes = 2
ranks_per_node = 8
gpus_per_node = 8

[cpu]                    # the same keys, for jobs of one rank that need no GPU: packing, bags, export
partition = "cpu"
"""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bingo.errors import UserError, did_you_mean


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
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read the site file {path}: {error.strerror}; see docs/cluster.md for one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the site file {path} is not TOML: {error}") from None
    cpu = values.pop("cpu", {})
    one = {"nodes": 1, "ranks_per_node": 1, "gpus_per_node": 0, "gres": None}
    return Cluster(path, _site(values, path), _site({**values, **one, **cpu}, path))


def _site(values: dict[str, Any], path: Path) -> Site:
    known = {f.name for f in dataclasses.fields(Site)}
    for key in values:
        if key not in known:
            raise UserError(f"{path}: unknown key {key!r}; {did_you_mean(key, known)}")
    return Site(**values)
