"""What a cluster says about itself: the answers of scontrol, sinfo and sacctmgr as dictionaries. Starts no job."""

import re
from dataclasses import dataclass, field

from bingo.errors import UserError
from bingo.launch.cluster.site import Site
from bingo.launch.cluster.slurm import run
from bingo.variables import user

NODE_KEYS = ("node", "partition", "state", "cpus", "memory_mb", "gres", "features")
QOS_KEYS = ("name", "preempt", "preemptmode", "gracetime", "maxwall")
ASSOCIATION_KEYS = ("account", "partition", "qos", "defaultqos")
UNUSABLE = ("down", "drain", "drng", "fail", "maint", "boot", "unk", "inval", "power")


@dataclass(frozen=True)
class Finding:
    """One statement: `answer` yes (works), partly (works with a loss), no (will not work), or note."""

    topic: str
    answer: str
    says: str
    evidence: str
    ask: str | None = None
    """The line of slurm.conf (or the sacctmgr command) that would change it."""


@dataclass(frozen=True)
class Facts:
    """Rows as Slurm prints them; qos and associations are None where `sacctmgr` gives no answer."""

    config: dict[str, str]
    partitions: dict[str, dict[str, str]]
    nodes: list[dict[str, str]] = field(default_factory=list)
    qos: dict[str, dict[str, str]] | None = None
    associations: list[dict[str, str]] | None = None

    def options(self, key: str) -> dict[str, str]:
        """A comma-separated value of slurm.conf: `{"socket": "...", "cred_expire": "5"}`; bare words map to ""."""
        words = [word.partition("=") for word in self.config.get(key, "").split(",") if word not in ("", "(null)")]
        return {name: value for name, _, value in words}

    def seconds(self, key: str, default: int = 0) -> int:
        """A value such as `30 sec`."""
        number = re.match(r"\d+", self.config.get(key, ""))
        return int(number[0]) if number else default

    def default_partition(self) -> str | None:
        return next((name for name, row in self.partitions.items() if row.get("Default") == "YES"), None)

    def usable(self, partition: str) -> list[dict[str, str]]:
        """Its nodes that take jobs now or once they are free."""
        rows = [row for row in self.nodes if row["partition"] == partition]
        return [row for row in rows if not row["state"].startswith(UNUSABLE) and not row["state"].endswith("*")]

    def names(self, partition: str) -> set[str]:
        """The names of all its nodes."""
        return {row["node"] for row in self.nodes if row["partition"] == partition}

    def qos_of(self, site: Site) -> str:
        """The QOS that a job of this site will have."""
        default = next((row["defaultqos"] for row in self.associations or [] if row.get("defaultqos")), "")
        return site.qos or default or "normal"


def read_facts() -> Facts:
    """Ask the scheduler; `UserError` without Slurm or while its controller does not answer."""
    config = parse_config(run(["scontrol", "show", "config"]))
    partitions = {row["PartitionName"]: row for row in parse_rows(run(["scontrol", "show", "partition", "-o"]))}
    nodes = parse_table(run(["sinfo", "-h", "-N", "-o", "%N|%R|%t|%c|%m|%G|%f"]), NODE_KEYS)
    qos = _accounting(["show", "qos"], QOS_KEYS)
    associations = _accounting(["show", "associations", f"user={user()}"], ASSOCIATION_KEYS)
    return Facts(config, partitions, nodes, None if qos is None else {row["name"]: row for row in qos}, associations)


def parse_config(text: str) -> dict[str, str]:
    """`Key = value` lines, those of cgroup.conf at the end included."""
    pairs = [line.partition("=") for line in text.splitlines() if "=" in line]
    return {key.strip(): value.strip() for key, _, value in pairs}


def parse_rows(text: str) -> list[dict[str, str]]:
    """One row of `Key=value` words per line (`scontrol show ... -o`)."""
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines() if "=" in line]


def parse_table(text: str, keys: tuple[str, ...]) -> list[dict[str, str]]:
    """Lines of values between bars."""
    return [dict(zip(keys, line.split("|"), strict=False)) for line in text.splitlines() if "|" in line]


def minutes(text: str) -> float:
    """Slurm's `[days-]hours:minutes:seconds` in minutes; infinite for UNLIMITED, none and nothing."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if not found:
        return float("inf")
    days, hours, mins, seconds = (int(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + mins + seconds / 60


def _accounting(words: list[str], keys: tuple[str, ...]) -> list[dict[str, str]] | None:
    try:
        return parse_table(run(["sacctmgr", "-nP", *words, f"format={','.join(keys)}"]), keys)
    except UserError:  # no database, or it is down: the finding about accounting says so
        return None
