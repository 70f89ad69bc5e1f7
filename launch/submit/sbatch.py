"""Hands jobs to Slurm and takes them back. A refusal is one sentence that names the key of the site file to change."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bingo.errors import UserError
from bingo.launch.cluster.site import Cluster, Site
from bingo.launch.cluster.slurm import run

# What sbatch says -> (key of the site file, what to do). Slurm's words, 22.05 to 25.05; the first that fits.
REFUSALS = (
    (r"invalid partition|invalid partition name", "partition", "`sinfo -s` lists the partitions"),
    (r"invalid account|account/partition combination", "account", "`sacctmgr show assoc user=$USER` lists yours"),
    (r"invalid qos", "qos", "`sacctmgr show qos` lists them"),
    (r"invalid feature", "constraint", "`sinfo -o %f` lists the features of nodes"),
    (r"reservation", "reservation", "`scontrol show reservation` lists them"),
    (r"accounting|policy", "qos or account", "a limit of yours is reached"),
    (r"time limit", "time_min", "`sinfo -s` shows the limits"),
    (r"memory specification|memory required|\bmem\b", "mem_gb", "it is per node"),
    (r"generic resource|gres", "gpus_per_node (or gres)", "`sinfo -o '%N %G'` shows what nodes have"),
    (r"node count|too many nodes", "nodes", "`sinfo -s` shows how many there are"),
    (r"invalid node name", "exclude", "`sinfo -N` lists the nodes"),
    (r"job array", "limit", "arrays are shorter here (MaxArraySize): --set fewer values"),
    (r"node configuration|processors|cpu count", "nodes, ranks_per_node, cpus_per_rank, mem_gb or gpus_per_node",
     "no nodes of this partition are like that"),
)  # fmt: skip


def sbatch_words(
    script: Path, after: Sequence[str] = (), gone: Sequence[str] = (), array: str | None = None
) -> list[str]:
    """The command that hands a script over.

    after: ids of jobs that must end well first; gone: of jobs that must have ended; array: tasks in place of the
    script's, `0,3%2`.
    """
    words = ["sbatch", "--parsable"]
    needs = [f"{kind}:{':'.join(ids)}" for kind, ids in (("afterok", after), ("afterany", gone)) if ids]
    if needs:
        words.append(f"--dependency={','.join(needs)}")
    if array is not None:
        words.append(f"--array={array}")
    return [*words, str(script)]


def sbatch(words: list[str], site_file: Path) -> str:
    """Hand a job over; returns its id. Raises `UserError` with the key of the site file that a refusal is about."""
    # Variables of the job or session that this process runs in would become those of the new job.
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_") or k == "SLURM_CONF"}
    try:
        # A session of its own: an interrupt from the keyboard does not stop it between Slurm's yes and our record.
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", env=environ, start_new_session=True, timeout=180,
            check=False,
        )  # fmt: skip
    except OSError:
        raise UserError(
            "no Slurm here (sbatch is not on PATH); go to a login node of the cluster, load its Slurm module, or "
            "use --cluster local"
        ) from None
    except subprocess.TimeoutExpired:
        raise UserError("sbatch gave no answer in 180 s; the controller hangs, try again later") from None
    if done.returncode == 0 and (found := re.match(r"(\d+)", done.stdout.strip().splitlines()[-1])):
        return found[1]
    raise UserError(refusal(done.stderr or done.stdout, site_file))


def refusal(text: str, site_file: Path) -> str:
    """What sbatch printed when it refused, as one sentence."""
    lines = [re.sub(r"^sbatch: (error|fatal): ", "", line.strip()) for line in text.splitlines() if line.strip()]
    said = "; ".join(dict.fromkeys(re.sub("^Batch job submission failed: ", "", line) for line in lines))
    lower = said.lower()
    if "contact slurm controller" in lower or "timed out" in lower or "configuration source" in lower:
        return f"the controller of this cluster does not answer ({said}); try again later, or see `scontrol ping`"
    option = re.search(r"unrecognized option '--([\w-]+)", said)
    if option:
        return f"{site_file}: sbatch knows no option --{option[1]}: change the key sbatch.{option[1]}"
    for pattern, key, hint in REFUSALS:
        if re.search(pattern, lower):
            return f"{site_file}: sbatch refuses the job ({said}): change the key {key}; {hint}"
    return f"{site_file}: sbatch refuses the job ({said or 'it printed no reason'})"


def scancel(ids: Sequence[str]) -> None:
    """Cancel jobs, waiting or running, arrays with all their tasks; those that have ended are passed over."""
    if ids:
        run(["scancel", "--quiet", *ids], timeout=60)


def check_partitions(cluster: Cluster, parallel: bool) -> None:
    """Refuse before anything is staged what sbatch takes and then lets wait for ever.

    Where EnforcePartLimits is off (the default), a job beyond its partition's time limit or nodes is accepted.
    """
    rows = [line.split("|") for line in run(["sinfo", "-h", "-a", "-o", "%P|%l|%s|%D"]).splitlines()]
    partitions = {name.rstrip("*"): (minutes(limit), size, int(n)) for name, limit, size, n in rows}
    default = next((name.rstrip("*") for name, *_ in rows if name.endswith("*")), None)
    for site, prefix in [(cluster.jobs, "")] * parallel + [(cluster.cpu, "cpu.")]:
        _check_partition(site, partitions, default, f"{cluster.path}: {prefix}")


def _check_partition(
    site: Site, partitions: dict[str, tuple[float, str, int]], default: str | None, where: str
) -> None:
    names = (site.partition or default or "").split(",")
    if names == [""]:  # no default: sbatch knows what to say
        return
    for name in names:
        if name not in partitions:
            raise UserError(f"{where}partition = {site.partition!r} is not here; there are: {', '.join(partitions)}")
    limit = max(partitions[name][0] for name in names)
    if site.time_min > limit:
        raise UserError(f"{where}time_min = {site.time_min} is more than the {limit:.0f} min of partition {names[0]}")
    most = max(_most_nodes(partitions[name][1], partitions[name][2]) for name in names)
    if site.nodes > most:
        raise UserError(f"{where}nodes = {site.nodes} is more than the {most} that a job may have in {names[0]}")


def _most_nodes(size: str, nodes: int) -> int:
    """sinfo's job size (`1-infinite`, `2-8`, `4`) and the number of nodes -> the most that one job can have."""
    most = size.split("-")[-1]
    return min(nodes, int(most)) if most.isdigit() else nodes


def minutes(limit: str) -> float:
    """Slurm's time limit, `infinite` or `[days-]hours:minutes:seconds` with parts left out, in minutes."""
    if not limit[:1].isdigit():
        return float("inf")
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    seconds = sum(part * unit for part, unit in zip(reversed(parts), (1, 60, 3600), strict=False))
    return int(days or 0) * 1440 + seconds / 60
