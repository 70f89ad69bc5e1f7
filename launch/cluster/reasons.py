"""Slurm's words for why a job waits or how it ended, as sentences; times for people."""

import re
import time

from bingo.launch.cluster.slurm import Row

WAITS = {
    "": "Slurm has not looked at it yet",
    "Resources": "it is the next in line and waits until nodes are free",
    "Priority": "jobs of higher priority are before it",
    "Dependency": "it waits for jobs that it needs",
    "BeginTime": "it may not start before its begin time",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "Nodes required for job are DOWN": "nodes that it needs are down, drained or kept for jobs of higher priority",
    "NodeDown": "a node that it needs is down",
    "PartitionDown": "its partition is down; the administrators know when it returns",
    "PartitionInactive": "its partition starts no jobs now; the administrators know when it does again",
    "Reservation": "its reservation has not begun",
    "Licenses": "it waits for a licence",
    "JobArrayTaskLimit": "as many tasks of this array run as its limit allows",
    "Prolog": "its nodes are being prepared",
    "Cleaning": "what is left of its last start is being cleaned up",
}
STUCK = {
    "DependencyNeverSatisfied": "it will never start: a job that it needs did not end well",
    "JobHeldUser": "it is held; `scontrol release {id}` lets it go",
    "JobHeldAdmin": "it is held by an administrator; ask why",
    "JobHoldMaxRequeue": "it was requeued too often and is held; `scontrol release {id}` lets it go",
    "PartitionTimeLimit": "it will never start: it asks for more time than its partition allows; lower time_min",
    "PartitionNodeLimit": "it will never start: it asks for a number of nodes that its partition does not allow",
    "BadConstraints": "it will never start: no node satisfies its constraints",
    "InvalidAccount": "it will never start: its account is not valid",
    "InvalidQOS": "it will never start: its QOS is not valid",
    "MaxMemPerLimit": "it will never start: it asks for more memory than is allowed",
    "AccountNotAllowed": "it will never start: its account may not use this partition",
    "QOSNotAllowed": "it will never start: its QOS may not use this partition",
    "DeadLine": "it will never start: its deadline is over",
}
HELD = re.compile(r"(?i)\bheld\b")
LIMIT = re.compile(r"(QOS|Assoc)(Grp|Max|Min)?(\w*?)(PerUser|PerAccount|PerJob|PerNode)?(Limit)?$")
ENDS = {
    "NODE_FAIL": "a node went down",
    "PREEMPTED": "a job of higher priority took its nodes",
    "REQUEUED": "it was requeued",
    "TIMEOUT": "it ran into its time limit",
    "OUT_OF_MEMORY": "it used more memory than it had asked for",
    "DEADLINE": "its deadline was over",
    "BOOT_FAIL": "its nodes did not boot",
}


def waits(row: Row, now: float) -> tuple[str, bool]:
    """Why a pending job waits, and whether somebody must act before it can start."""
    word, _, detail = row.reason.partition(",")
    word = word.strip()
    if word in STUCK:
        return STUCK[word].format(id=row.id), True
    if HELD.search(row.reason):
        return STUCK["JobHeldUser"].format(id=row.id), True
    if word == "BeginTime" and row.eligible:
        return _delay(row, now), False
    if word in WAITS:
        nodes = detail.partition("UnavailableNodes:")[2].strip()
        return WAITS[word] + (f" ({nodes})" if nodes else "") + _expected(row, now), False
    if match := LIMIT.match(word):
        return _limit(word, match), match[4] == "PerJob" or "WallDuration" in word
    return f"Slurm's reason is: {row.reason}", False


def _delay(row: Row, now: float) -> str:
    assert row.eligible is not None
    what = "the delay after its requeue" if row.restarts else "its begin time"
    if row.eligible <= now:
        return f"{what} is over, Slurm looks at it in its next round"
    return f"it waits for {what} until {clock(row.eligible, now)}"


def _expected(row: Row, now: float) -> str:
    # Jobs without a time limit count as a year: an estimate that rests on one says nothing.
    if row.start is None or not now < row.start < now + 300 * 86_400:
        return ""
    return f"; Slurm expects it to start about {clock(row.start, now)}"


def _limit(word: str, match: re.Match[str]) -> str:
    whose = "its QOS" if match[1] == "QOS" else "its account"
    if match[4] == "PerJob" or "WallDuration" in word:
        return f"it will never start: it asks for more than {whose} allows one job ({word})"
    if match[2] == "Grp":
        return f"all that {whose} may use is in use ({word})"
    return f"a limit of {whose} is reached; it waits until your other jobs end ({word})"


def ended(row: Row) -> str:
    """How an attempt ended, from Slurm's row alone."""
    if row.state == "CANCELLED":
        return "it was cancelled"
    if row.state in ENDS:
        return ENDS[row.state] + (f" ({row.nodes})" if row.state == "NODE_FAIL" and row.nodes else "")
    if row.signal:
        return f"it was killed by signal {row.signal}"
    if row.state == "FAILED":
        return f"its script ended with status {row.exit_code}"
    return f"Slurm calls its end {row.state}"


def clock(moment: float, now: float) -> str:
    """Local time of day; with the date when it is not near."""
    near = abs(moment - now) < 43_200
    return time.strftime("%H:%M:%S" if near else "%Y-%m-%d %H:%M", time.localtime(moment))
