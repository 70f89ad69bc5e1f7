"""Hands jobs to Slurm and takes them back. A refusal is one sentence that names the key or flag to change."""

import re
import subprocess
import time
from collections.abc import Container, Sequence
from pathlib import Path

from bingo.errors import TransientError, UserError
from bingo.launch.cluster.environment import clean_environment
from bingo.launch.cluster.site import FLAGS, Cluster
from bingo.launch.cluster.slurm import AWAY, PAUSES_S, run

# What sbatch says -> (key of the site file, or "" for the number of runs; what to do). The first that fits counts.
# Slurm's words, 22.05 to 25.05.
REFUSALS = (
    (r"invalid partition|invalid partition name", "partition", "`sinfo -s` lists the partitions"),
    (r"invalid account|account/partition combination", "account", "`sacctmgr show assoc user=$USER` lists yours"),
    (r"invalid qos", "qos", "`sacctmgr show qos` lists them"),
    (r"invalid feature", "constraint", "`sinfo -o %f` lists the features of nodes"),
    (r"reservation", "reservation", "`scontrol show reservation` lists them"),
    (r"submitjob", "", "so many jobs of yours may not wait and run at a time, and each run of a sweep is one: give "
     "--set fewer values, or wait until others have ended"),
    (r"accounting|policy", "qos or account", "a limit of yours is reached; each run of a sweep counts as a job"),
    (r"time limit", "time_min", "`sinfo -s` shows the limits"),
    (r"memory specification|memory required|\bmem\b", "mem_gb", "it is per node"),
    (r"generic resource|gres", "gpus_per_node (or gres)", "`sinfo -o '%N %G'` shows what nodes have"),
    (r"invalid number of nodes", "nodes or nodelist", "the list has more nodes than the job"),
    (r"node count|too many nodes", "nodes", "`sinfo -s` shows how many there are"),
    (r"invalid node name", "exclude or nodelist", "`sinfo -N` lists the nodes"),
    (r"job array", "", "give --set fewer values: a sweep has at most as many runs as `scontrol show config` says under "
     "MaxArraySize, less one"),
    (r"temporarily unavailable|temporarily unable to accept|queue full|create job record", "", "the cluster holds as "
     "many jobs as it can (MaxJobCount): wait, or give --set fewer values"),
    (r"node configuration|processors|cpu count",
     "nodes, ranks_per_node, cpus_per_rank, mem_gb, gpus_per_node or exclude",
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


class LostAnswer(TransientError):
    """Slurm may have taken the job all the same: look before it is sent again."""


# What sbatch says where nobody has heard it: sending once more makes no second job.
UNHEARD = re.compile(
    r"(?i)connect(?:ion)? failure|connection (?:refused|limit)|standby mode|protocol authentication error|"
    r"invalid authentication credential|munge encode failed|no route to host|network is unreachable"
)


def sbatch(words: list[str], site_file: Path, flagged: Container[str] = ()) -> str:
    """Hand a job over; returns its id. Raises `UserError` with the key of the site file that a refusal is about, and
    `LostAnswer`, without a second try, where the controller may have heard it.

    flagged: keys whose values came from flags; then a refusal names the flag.
    """
    for pause in PAUSES_S:
        try:
            return _sbatch(words, site_file, flagged)
        except LostAnswer:
            raise
        except TransientError:
            time.sleep(pause)
    return _sbatch(words, site_file, flagged)


def _sbatch(words: list[str], site_file: Path, flagged: Container[str]) -> str:
    try:
        # A session of its own: an interrupt from the keyboard does not stop it between Slurm's yes and our record.
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", env=clean_environment(), start_new_session=True,
            timeout=180, check=False,
        )  # fmt: skip
    except OSError:
        raise UserError(
            "no Slurm here (sbatch is not on PATH); go to a login node of the cluster, load its Slurm module, or "
            "use --cluster local"
        ) from None
    except subprocess.TimeoutExpired:
        raise LostAnswer("sbatch gave no answer in 180 s") from None
    if done.returncode == 0 and (found := re.search(r"^(\d+)\b.*\s*\Z", done.stdout, re.MULTILINE)):
        return found[1]
    said = done.stderr or done.stdout
    last = said.strip().rpartition("\n")[2]
    away = AWAY.search(said)
    if done.returncode == 0 or (away and not UNHEARD.search(last)):
        raise LostAnswer(f"sbatch has not said whether Slurm took the job ({' / '.join(said.strip().splitlines())})")
    raise (TransientError if away else UserError)(refusal(said, site_file, flagged))


def refusal(text: str, site_file: Path, flagged: Container[str] = ()) -> str:
    """What sbatch printed when it refused, as one sentence."""
    lines = [re.sub(r"^sbatch: (error|fatal): ", "", line.strip()) for line in text.splitlines() if line.strip()]
    said = "; ".join(dict.fromkeys(re.sub("^Batch job submission failed: ", "", line) for line in lines))
    lower = said.lower()
    if AWAY.search(said) or "configuration source" in lower:
        return f"the controller of this cluster does not answer ({said}); try again later, or see `scontrol ping`"
    option = re.search(r"unrecognized option '--([\w-]+)", said)
    if option:
        return f"{site_file}: sbatch knows no option --{option[1]}: change the key sbatch.{option[1]}"
    for pattern, key, hint in REFUSALS:
        if re.search(pattern, lower):
            if not key:  # of no key: the number of runs
                return f"sbatch refuses the job ({said}): {hint}"
            named = re.sub(r"\w+", lambda word: FLAGS[word[0]] if word[0] in flagged else word[0], key)
            where, what = (f"{site_file}: ", "the key ") if named == key else ("", "")
            return f"{where}sbatch refuses the job ({said}): change {what}{named}; {hint}"
    return f"{site_file}: sbatch refuses the job ({said or 'it printed no reason'})"


def scancel(ids: Sequence[str]) -> None:
    """Cancel jobs, waiting or running, arrays with all their tasks; those that have ended are passed over."""
    if ids:
        run(["scancel", "--quiet", *ids], pauses=PAUSES_S)


SINFO = ["sinfo", "-h", "-a", "-o", "%P|%l|%s|%D"]


def check_partitions(cluster: Cluster, parallel: bool) -> None:
    """Refuse before anything is staged what sbatch takes and then lets wait for ever.

    Where EnforcePartLimits is off (the default), a job beyond its partition's time limit or nodes is accepted.
    """
    rows = [line.split("|") for line in run(SINFO, pauses=PAUSES_S).splitlines()]
    partitions = {name.rstrip("*"): (minutes(limit), size, int(n)) for name, limit, size, n in rows}
    default = next((name.rstrip("*") for name, *_ in rows if name.endswith("*")), None)
    for kind in [True] * parallel + [False]:
        _check_partition(cluster, kind, partitions, default)


def _check_partition(
    cluster: Cluster, parallel: bool, partitions: dict[str, tuple[float, str, int]], default: str | None
) -> None:
    site = cluster.site(parallel)
    names = (site.partition or default or "").split(",")
    if names == [""]:  # no default: sbatch knows what to say
        return
    for name in names:
        if name not in partitions:
            raise UserError(f"{cluster.shown('partition', parallel)} is not here; there are: {', '.join(partitions)}")
    limit = max(partitions[name][0] for name in names)
    if site.time_min > limit:
        raise UserError(
            f"{cluster.shown('time_min', parallel)} is more than the {limit:.0f} min of partition {names[0]}"
        )
    most = max(_most_nodes(partitions[name][1], partitions[name][2]) for name in names)
    if site.nodes > most:
        raise UserError(f"{cluster.shown('nodes', parallel)} is more than the {most} that a job may have in {names[0]}")


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
