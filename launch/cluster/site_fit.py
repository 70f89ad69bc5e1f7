"""Do the keys of a site file fit the cluster: partition, time, nodes, GPUs, QOS, account?"""

import re
from collections.abc import Iterator

from bingo.errors import did_you_mean
from bingo.launch.cluster.environment import in_scripts, secrets
from bingo.launch.cluster.facts import Facts, Finding, minutes
from bingo.launch.cluster.site import Site

TOPIC = "site keys"


def site_findings(facts: Facts, site: Site) -> list[Finding]:
    """What does not fit, one finding each; a single yes when all of it does."""
    name = site.partition or facts.default_partition()
    row = facts.partitions.get(name or "")
    if name is None or row is None:
        hint = (
            did_you_mean(site.partition, facts.partitions) if site.partition else "the cluster has no default: name one"
        )
        return [Finding(TOPIC, "no", f"partition {site.partition!r} does not exist; {hint}", "scontrol show partition")]
    wrong = [*_limits(facts, site, name, row), *_nodes(facts, site, name), *_names(facts, site, name, row)]
    if wrong:
        return wrong
    evidence = f"State = {row.get('State')}, MaxTime = {row.get('MaxTime')}, {len(facts.usable(name))} usable nodes"
    return [Finding(TOPIC, "yes", f"the site's jobs fit into partition {name}", evidence)]


def secret_findings(site: Site) -> list[Finding]:
    """A note if a name in `env` sounds like a password's."""
    found = secrets(site.env)
    return [Finding("secrets", "note", in_scripts(found), f"env: {', '.join(found)}")] if found else []


def _limits(facts: Facts, site: Site, name: str, row: dict[str, str]) -> Iterator[Finding]:
    if row.get("State") != "UP":
        yield Finding(TOPIC, "no", f"partition {name} takes no jobs now", f"State = {row.get('State')}")
    enforced = facts.config.get("EnforcePartLimits", "NO")
    fate = "wait for ever" if enforced == "NO" else "be refused"
    limit = minutes(row.get("MaxTime", ""))
    if site.time_min > limit:
        says = f"a job of time_min = {site.time_min} would {fate}: partition {name} allows {limit:g}; lower time_min"
        yield Finding(TOPIC, "no", says, f"MaxTime = {row.get('MaxTime')}, EnforcePartLimits = {enforced}")
    most = row.get("MaxNodes", "UNLIMITED")
    if most.isdigit() and site.nodes > int(most):
        says = f"a job of nodes = {site.nodes} would {fate}: partition {name} allows {most} per job"
        yield Finding(TOPIC, "no", says, f"MaxNodes = {most}, EnforcePartLimits = {enforced}")
    wall = (facts.qos or {}).get(facts.qos_of(site), {}).get("maxwall", "")
    if site.time_min > minutes(wall):
        says = f"QOS {facts.qos_of(site)} does not allow time_min = {site.time_min}; lower it, or name another qos"
        yield Finding(TOPIC, "no", says, f"MaxWall = {wall}")


def _nodes(facts: Facts, site: Site, name: str) -> Iterator[Finding]:
    usable = facts.usable(name)
    fit = [row for row in usable if node_fits(row, site)]
    if len(fit) >= site.nodes:
        return
    cpus = site.ranks_per_node * site.cpus_per_rank
    wish = f"{cpus} CPUs" + (f", {site.mem_gb:g} GB" if site.mem_gb else "")
    wish += f", {site.gres or f'{site.gpus_per_node} GPUs'}" if site.gres or site.gpus_per_node else ""
    wish += f", constraint {site.constraint}" if site.constraint else ""
    says = (
        f"a job asks for {site.nodes} nodes with {wish}; {len(fit)} of the {len(usable)} usable nodes of partition "
        f"{name} are such: it would wait until more are up, or for ever"
    )
    kinds = {f"{row['cpus']} CPUs, {row['memory_mb']} MB, {row['gres']}" for row in usable}
    yield Finding(TOPIC, "no", says, "nodes: " + ("; ".join(sorted(kinds)) or "none is up"))


def node_fits(row: dict[str, str], site: Site) -> bool:
    """Can this node (a row of sinfo) hold its share of the job?"""
    kind, count = wanted_gres(site)
    held = re.findall(r"(\w+)(?::([A-Za-z][\w.-]*))?:(\d+)", row["gres"])
    enough = sum(int(n) for name, model, n in held if kind in (name, f"{name}:{model}")) >= count
    features = set(row["features"].split(","))
    simple = site.constraint is None or not re.fullmatch(r"[\w.&-]+", site.constraint)
    known = simple or set((site.constraint or "").split("&")) <= features
    cpus, memory = int(row["cpus"].rstrip("+")), int(row["memory_mb"].rstrip("+"))
    return enough and known and cpus >= site.ranks_per_node * site.cpus_per_rank and memory >= 1024 * site.mem_gb


def wanted_gres(site: Site) -> tuple[str, int]:
    """`gpu:h100:8` as (gpu:h100, 8)."""
    if site.gres is None:
        return "gpu", site.gpus_per_node
    kind, _, count = site.gres.rpartition(":")
    return (kind, int(count)) if count.isdigit() else (site.gres, 1)


def _names(facts: Facts, site: Site, name: str, row: dict[str, str]) -> Iterator[Finding]:
    """QOS and account: known, and let into the partition?"""
    enforced = facts.config.get("AccountingStorageEnforce", "none")
    qos_enforced = "qos" in enforced or "all" in enforced
    if site.qos and facts.qos is not None and site.qos not in facts.qos:
        yield Finding(
            TOPIC, "no", f"QOS {site.qos!r} does not exist; {did_you_mean(site.qos, facts.qos)}", "sacctmgr show qos"
        )
    elif site.qos and facts.associations and qos_enforced:
        allowed = {word for a in facts.associations for word in a["qos"].split(",")}
        if site.qos not in allowed:
            says = f"you may not use QOS {site.qos!r}; {did_you_mean(site.qos, allowed)}"
            yield Finding(TOPIC, "no", says, "sacctmgr show associations")
    accounts = {a["account"] for a in facts.associations or []}
    if site.account and accounts and site.account not in accounts and "none" not in enforced:
        says = f"account {site.account!r} is not one of yours; {did_you_mean(site.account, accounts)}"
        yield Finding(TOPIC, "no", says, "sacctmgr show associations")
    for key, value in (("AllowQos", site.qos), ("AllowAccounts", site.account)):
        allow = row.get(key, "ALL")
        if value and allow != "ALL" and value not in allow.split(","):
            yield Finding(TOPIC, "no", f"partition {name} does not let {value!r} in", f"{key} = {allow}")
