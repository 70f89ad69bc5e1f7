"""`bingo doctor --cluster`: whether jobs checkpoint here, from the cluster's own settings. Starts no job.

Each statement is a `Finding` of one function of (facts, site), so that a table of settings tests it.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bingo.launch.cluster.facts import Facts, Finding, minutes, read_facts
from bingo.launch.cluster.site import Site, read_site
from bingo.launch.cluster.site_fit import secret_findings, site_findings
from bingo.paths import quoted

DEFAULT_CRED_EXPIRE_S = 120
EARLY_S = 60
"""Slurm sends the signal before a time limit up to a minute early."""


def examine_cluster(site: Path | None) -> dict[str, Any]:
    """All findings as JSON-ready values; `UserError` for a bad site file and without an answer from Slurm."""
    cluster = read_site(site) if site else None
    facts = read_facts()
    sites = {"jobs": cluster.jobs, "cpu jobs": cluster.cpu} if cluster else every_partition(facts)
    return summary(facts, sites)


def every_partition(facts: Facts) -> dict[str, Site]:
    """Without a site file: a job of a day, or of what the partition allows, in each partition that takes jobs."""
    open_ = {name: row for name, row in facts.partitions.items() if row.get("State") == "UP"}
    longest = {name: min(Site.time_min, minutes(row.get("MaxTime", ""))) for name, row in open_.items()}
    return {f"partition {name}": Site(partition=name, time_min=int(longest[name])) for name in open_}


def summary(facts: Facts, sites: dict[str, Site]) -> dict[str, Any]:
    """Findings of each kind of job, then those of the whole cluster."""
    jobs = {
        label: [
            *site_findings(facts, site),
            *secret_findings(site),
            time_limit(facts, site),
            preemption(facts, site),
        ]
        for label, site in sites.items()
    }
    findings = [node_loss(facts), requeue_delay(facts), accounting(facts), dependencies(facts), memory(facts)]
    findings += [arrays(facts), shared_folder(Path.cwd(), Path("/proc/mounts").read_text())]
    every = [f for rows in jobs.values() for f in rows] + findings
    return {
        "slurm": facts.config.get("SLURM_VERSION"),
        "cluster": facts.config.get("ClusterName"),
        "jobs": {label: [asdict(f) for f in rows] for label, rows in jobs.items()},
        "findings": [asdict(f) for f in findings],
        "ask": list(dict.fromkeys(f.ask for f in every if f.ask)),
        "works": not any(f.answer == "no" for f in every),
    }


def show_cluster(found: dict[str, Any]) -> str:
    """The findings for people."""
    lines = [f"Slurm {found['slurm']}, cluster {found['cluster']}"]
    for label, rows in [*found["jobs"].items(), ("everywhere", found["findings"])]:
        lines += ["", f"{label}:"]
        for row in rows:
            lines.append(f"  {row['answer']:7s}{row['topic']}: {row['says']}")
            lines.append(f"         seen: {row['evidence']}")
    lines += ["", "ask your administrators for:", *(f"- {ask}" for ask in found["ask"] or ["nothing"])]
    return "\n".join(lines)


def doctor_cluster(site: Path | None, as_json: bool) -> int:
    """Print the findings; 1 when something will not checkpoint or a job would not start."""
    found = examine_cluster(site)
    print(json.dumps(found, indent=2) if as_json else show_cluster(found))
    return 0 if found["works"] else 1


def time_limit(facts: Facts, site: Site) -> Finding:
    """Does a job that reaches its time limit go on later?"""
    limit_s = 60 * site.time_min
    evidence = f"time_min = {site.time_min}, signal_delay_s = {site.signal_delay_s}"
    evidence += f", KillWait = {facts.config.get('KillWait')}"
    if site.signal_delay_s + EARLY_S >= limit_s:
        says = f"a job of {site.time_min} min would be asked to leave as soon as it starts; raise time_min"
        return Finding("time limit", "no", says, evidence)
    says = (
        f"will checkpoint: {site.signal_delay_s} s before the limit (up to {EARLY_S} s earlier) every rank gets USR2, "
        "all leave at the same step, and the job requeues itself"
    )
    return Finding("time limit", "yes", says, evidence)


def preemption(facts: Facts, site: Site) -> Finding:
    """What happens to a job that is pushed aside: by a partition of a higher tier, or by a QOS."""
    kind = facts.config.get("PreemptType", "preempt/none").removeprefix("preempt/")
    name = site.partition or facts.default_partition() or ""
    row = facts.partitions.get(name, {})
    evidence = f"PreemptType = preempt/{kind}"
    if kind == "partition_prio":
        above = higher_partitions(facts, name)
        mode, grace = row.get("PreemptMode", "OFF"), int(row.get("GraceTime", "0"))
        evidence += f", partition {name}: PriorityTier = {row.get('PriorityTier')}, PreemptMode = {mode}"
        evidence += f", GraceTime = {grace} s; above it: {', '.join(above) or 'none'}"
        return preempted(facts, site, mode if above else "OFF", grace, evidence, f"PartitionName={name}")
    if kind == "qos":
        if facts.qos is None:
            says = "cannot be told: preemption goes by QOS and sacctmgr does not answer"
            return Finding("preemption", "partly", says, evidence)
        qos = facts.qos_of(site)
        own = facts.qos.get(qos, {})
        above = [other for other, q in facts.qos.items() if qos in q["preempt"].split(",")]
        mode = own.get("preemptmode", "").upper()
        mode = facts.config.get("PreemptMode", "OFF") if mode in ("", "CLUSTER") else mode
        grace = int(60 * minutes(own.get("gracetime") or "0:0:0"))
        evidence += f", QOS {qos}: PreemptMode = {mode}, GraceTime = {grace} s; above it: {', '.join(above) or 'none'}"
        where = f"sacctmgr modify qos {qos} set"
        return preempted(facts, site, mode if above else "OFF", grace, evidence, where)
    return preempted(facts, site, "OFF", 0, evidence, "")


def preempted(facts: Facts, site: Site, mode: str, grace: int, evidence: str, where: str) -> Finding:
    """The same for a known mode. where: the beginning of the line that an administrator would change."""
    window = grace or facts.seconds("KillWait", 30)
    need = -(-site.signal_delay_s // 3)
    evidence += f", KillWait = {facts.config.get('KillWait')}"
    modes = set(mode.upper().split(","))
    signal = ("USR2" if grace else "USR2 and SIGTERM") if sends_user_signal(facts) else "SIGTERM"
    if modes <= {"OFF", "GANG"}:
        return Finding("preemption", "yes", "nothing preempts these jobs", evidence)
    if "SUSPEND" in modes:
        says = "nothing is written and nothing lost: ranks are stopped in memory and go on later on the same nodes"
        return Finding("preemption", "partly", says, evidence)
    again = "Slurm requeues the job" if "REQUEUE" in modes else "the job requeues itself before it is cancelled"
    says = f"every rank gets {signal} at once and has {window} s to leave at a step boundary; {again}"
    if window >= need:
        return Finding("preemption", "yes", f"will checkpoint: {says}", evidence)
    says = (
        f"will checkpoint only if that takes less than {window} s (signal_delay_s = {site.signal_delay_s} says up to "
        f"{need} s): {says}; otherwise the steps since the last periodic checkpoint are done again"
    )
    if "REQUEUE" in modes:
        return Finding("preemption", "partly", says, evidence, f"{where} GraceTime={need}")
    says += " and the job is over: `bingo repair` sends it again"
    return Finding("preemption", "no", says, evidence, f"{where} PreemptMode=REQUEUE GraceTime={need}")


def higher_partitions(facts: Facts, name: str) -> list[str]:
    """Partitions on (some of) the same nodes whose jobs push this one's aside."""
    tiers = {other: int(row.get("PriorityTier", "0")) for other, row in facts.partitions.items()}
    nodes = facts.names(name)
    return [other for other, tier in tiers.items() if tier > tiers.get(name, 0) and nodes & facts.names(other)]


def sends_user_signal(facts: Facts) -> bool:
    """Does preemption send a job's own signal (after a grace time in place of SIGTERM)? Named by version."""
    old, new = facts.options("SlurmctldParameters"), facts.options("PreemptParameters")
    return "preempt_send_user_signal" in old or "send_user_signal" in new


def node_loss(facts: Facts) -> Finding:
    noticed = facts.seconds("SlurmdTimeout")
    back = facts.config.get("ReturnToService", "0")
    evidence = f"SlurmdTimeout = {noticed} s, JobRequeue = {facts.config.get('JobRequeue')}, ReturnToService = {back}"
    if not noticed:
        says = (
            "a lost node is never noticed by Slurm; the other ranks give up after collective_timeout_s and the job "
            "requeues itself, unless the lost node was its first one: then it hangs until its time limit"
        )
        return Finding("node loss", "partly", says, evidence, "SlurmdTimeout=300")
    says = (
        f"survived: noticed some time after {noticed} s (26 to 40 s were seen at 10 s), the job is requeued (scripts "
        "ask --requeue themselves) and goes on from its newest periodic checkpoint"
    )
    if back == "0":
        says += "; the lost node stays down until an administrator resumes it"
    return Finding("node loss", "yes", says, evidence)


def requeue_delay(facts: Facts) -> Finding:
    delay = int(facts.options("AuthInfo").get("cred_expire", DEFAULT_CRED_EXPIRE_S))
    evidence = f"AuthInfo = {facts.config.get('AuthInfo', '(null)')}"
    says = f"a requeued job waits {delay} s (cred_expire) before it may start again"
    ask = "cred_expire=30 among the options of AuthInfo (every requeued job waits that long)" if delay > 60 else None
    return Finding("requeue delay", "note", says, evidence, ask)


def accounting(facts: Facts) -> Finding:
    kind = facts.config.get("AccountingStorageType", "")
    evidence = f"AccountingStorageType = {kind}, MinJobAge = {facts.config.get('MinJobAge')}"
    if kind.endswith("slurmdbd") and facts.qos is not None:
        return Finding("accounting", "yes", "ended jobs and each of their attempts stay known", evidence)
    away = kind.endswith("slurmdbd")
    why = "the database does not answer now" if away else "there is none"
    says = (
        f"{why}: Slurm forgets a job {facts.seconds('MinJobAge', 300)} s after its end, so `bingo status` and "
        "`bingo history` then know only what the ranks and the batch script wrote: no queue times of lost attempts, "
        "and a job that was cancelled while it waited looks like one that never ran"
    )
    ask = (
        "slurmdbd, which is configured, to be started again"
        if away
        else "AccountingStorageType=accounting_storage/slurmdbd"
    )
    return Finding("accounting", "partly", says, evidence, ask)


def dependencies(facts: Facts) -> Finding:
    options = {**facts.options("DependencyParameters"), **facts.options("SchedulerParameters")}
    general = "also" if "kill_invalid_depend" in options else "not"
    says = "a job whose predecessor failed is cancelled: every job asks --kill-on-invalid-dep"
    says += f" ({general} set for the whole cluster)"
    return Finding("broken chains", "yes", says, f"DependencyParameters = {facts.config.get('DependencyParameters')}")


def memory(facts: Facts) -> Finding:
    """Who ends a process that takes more memory than its job has?"""
    plugin, constrain = facts.config.get("TaskPlugin", ""), facts.config.get("ConstrainRAMSpace", "no")
    gather = facts.config.get("JobAcctGatherParams", "")
    evidence = f"TaskPlugin = {plugin}, ConstrainRAMSpace = {constrain}, JobAcctGatherParams = {gather}"
    evidence += f", SelectTypeParameters = {facts.config.get('SelectTypeParameters')}"
    if "cgroup" in plugin and constrain.lower() == "yes":
        says = "enforced by cgroups: the rank that takes too much is killed, its job ends and is retried"
        return Finding("memory limits", "yes", says, evidence)
    if "OverMemoryKill" in gather:
        seconds = facts.config.get("JobAcctGatherFrequency")
        says = f"enforced by samples (every {seconds} s): a job above its limit is killed, but a jump may hit the node"
        return Finding("memory limits", "partly", says, evidence)
    says = "not enforced: a rank that takes too much memory takes it from everything else on its node"
    ask = "TaskPlugin=task/cgroup,task/affinity with ConstrainRAMSpace=yes in cgroup.conf"
    return Finding("memory limits", "partly", says, evidence, ask)


def arrays(facts: Facts) -> Finding:
    most = facts.seconds("MaxArraySize")
    says = f"one array may have {most} tasks" if most else "job arrays are switched off: sweeps cannot be sent"
    return Finding("sweeps", "note" if most else "no", says, f"MaxArraySize = {most}")


def shared_folder(folder: Path, mounts: str) -> Finding:
    """Is this folder on a file system that other machines can see? Only how to find out: that takes a job."""
    rows = [line.split() for line in mounts.splitlines()]
    holding = [row for row in rows if len(row) > 2 and folder.is_relative_to(row[1])]
    kind = max(holding, key=lambda row: len(row[1]))[2] if holding else "unknown"
    local = kind in ("ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs")
    says = "nodes must see the run's folder under the same path" + ("; this one looks local" if local else "")
    says += f"; try: srun -N1 test -w {quoted(folder)} && echo visible"
    return Finding("shared folder", "note", says, f"{folder} is on {kind}")
