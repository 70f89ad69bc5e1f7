"""Names why an attempt ended: rank or lost node, one sentence, from what ranks wrote and what Slurm said.

The earliest failure of a rank's own wins. Not a rank's own are: an error that another rank's end causes (kind `peer`),
and the end of a rank that srun terminated because another one had failed. Nothing is read from disk here.
"""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

Events = Sequence[Mapping[str, Any]]


class Beat(NamedTuple):
    """A rank's last sign of life: steps done, unix time, stage."""

    step: int
    time: float
    stage: str


@dataclass(frozen=True)
class Cause:
    """kind: done, user, exception, killed, out-of-memory, disk full, storage, hang, node lost, left, time limit,
    preempted, requeued, cancelled, slow node, peer only or unknown. rank, node, step: None where there is not one."""

    kind: str
    sentence: str
    rank: int | None = None
    node: str | None = None
    step: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Exit(NamedTuple):
    """How a rank ended as srun saw it: an exit status, or a signal's name, or `Out Of Memory`."""

    rank: int
    node: str
    how: str


@dataclass(frozen=True)
class Told:
    """What the lines of one attempt in the batch log say: exits before srun ended the others; why Slurm ended the job;
    lost nodes; whether memory ran out; ranks of which srun never heard again."""

    exits: tuple[Exit, ...] = ()
    ended: str | None = None
    lost: tuple[str, ...] = ()
    memory: bool = False
    mute: tuple[int, ...] = ()


TASK = re.compile(r"srun: error: (\S+): tasks? ([\d,\-]+): (.+)")
TERMINATING = re.compile(r"srun: .*Terminating (?:StepId|job step)")
RUNNING = re.compile(r"srun: StepId=\S+ tasks? ([\d,\-]+): running")
GIVEN_UP = "srun: error: Timed out waiting for job step to complete"
ENDED = re.compile(r"error: \*\*\* JOB \d+ ON \S+ CANCELLED AT \S+?(?: DUE TO (.+?))?(?: \*\*\*|$)")
LOST = re.compile(r"srun: error: Node failure on (\S+)|srun: error: (?:Task launch|Timed out waiting).* node (\S+)")
MEMORY = re.compile(r"(?i)oom[-_]kill event|exceeded (?:job |step )?memory limit|out of memory")
FULL = re.compile(r"No space left on device|Disk quota exceeded")
ENDS = {
    "TIME LIMIT": ("time limit", "the time limit was reached"),
    "PREEMPTION": ("preempted", "Slurm preempted the job"),
    "JOB REQUEUE": ("requeued", "the job was requeued by hand"),
    "NODE FAILURE": ("node lost", "a node was lost"),
    None: ("cancelled", "the job was cancelled"),
}
STATUS = {
    76: ("slow node", "the check before the start found a node too slow"),
    65: ("user", "a setting is wrong, as the log says"),
    74: ("disk full", "it could not write, not even a record of that: the disk is full, or its storage away"),
    75: ("left", "it left when asked to"),
}
STARTS_AGAIN = "it starts again"
"""The end of what the batch script says before it requeues its job itself."""
SIGNALS = {signal.strsignal(number): number.name for number in signal.Signals}


def read_lines(lines: Sequence[str]) -> Told:
    """Gather what srun and slurmstepd said."""
    exits: list[Exit] = []
    ended: str | None = None
    lost: list[str] = []
    first, again = True, False
    for line in lines:
        if match := TASK.search(line):
            if first:
                exits += [Exit(rank, match[1], match[3].strip()) for rank in _numbers(match[2])]
        elif TERMINATING.search(line):
            first = False
        elif line.endswith(STARTS_AGAIN):
            again = True
        elif (match := ENDED.search(line)) and not (again and match[1] == "JOB REQUEUE"):
            ended, first = ended or match[1] or "CANCELLED", False
        elif match := LOST.search(line):
            lost.append((match[1] or match[2]).strip(".,:"))
    waits = next((match[1] for line in reversed(lines) if (match := RUNNING.search(line))), "")
    mute = tuple(_numbers(waits)) if waits and GIVEN_UP in lines else ()
    return Told(tuple(exits), ended, tuple(lost), any(MEMORY.search(line) for line in lines), mute)


def _numbers(text: str) -> list[int]:
    """`0,2-4` -> [0, 2, 3, 4]."""
    spans = [part.split("-") for part in text.split(",")]
    return [number for span in spans for number in range(int(span[0]), int(span[-1]) + 1)]


def find_cause(
    events: Mapping[int, Events],
    beats: Mapping[int, Beat] | None = None,
    lines: Sequence[str] = (),
    *,
    nodes: Mapping[int, str] | None = None,
    rc: int | None = None,
    state: str | None = None,
    logs: Mapping[int, Sequence[str]] | None = None,
) -> Cause:
    """The cause of an attempt's end.

    events, beats, nodes: by rank. lines: of this attempt in the batch log. rc: srun's exit status; None when nobody
    lived to see it. state: sacct's, where known (`NODE_FAIL`, `OUT_OF_MEMORY`, `TIMEOUT`, ...). logs: what slurmstepd
    said in the log of a rank.
    """
    told = read_lines(lines)
    memory = {rank for rank, said in (logs or {}).items() if any(MEMORY.search(line) for line in said)}
    scene = _Scene(events, beats or {}, told, nodes or {}, memory)
    if rc == 0:
        return Cause("done", "finished")
    for look in (_node_lost, _slurm_ended, _slow_node, _own_failure, _memory, _exit, _left, _hang, _peer):
        if cause := look(scene, state):
            return cause
    return _status(rc)


@dataclass(frozen=True)
class _Scene:
    events: Mapping[int, Events]
    beats: Mapping[int, Beat]
    told: Told
    nodes: Mapping[int, str]
    memory: set[int]
    """Ranks in whose logs slurmstepd said that memory ran out: a node's first rank gets these lines."""

    def failures(self) -> list[tuple[int, Mapping[str, Any]]]:
        found = [(rank, e) for rank, events in self.events.items() for e in events if e["event"] == "failed"]
        return sorted(found, key=lambda pair: pair[1]["time"])

    def last(self, rank: int, name: str) -> Mapping[str, Any] | None:
        return next((e for e in reversed(self.events.get(rank, ())) if e["event"] == name), None)

    def node(self, rank: int) -> str | None:
        start = self.last(rank, "start")
        seen = (end.node for end in self.told.exits if end.rank == rank)
        return self.nodes.get(rank) or (start["host"] if start else next(seen, None))

    def mute(self, rank: int) -> bool:
        """Whether a rank ended without a word."""
        return not any(self.last(rank, name) for name in ("failed", "left", "done"))

    def step(self, rank: int) -> int | None:
        failed = self.last(rank, "failed")
        if rank in self.beats:
            return max(self.beats[rank].step, (failed or {}).get("step") or 0)
        return failed.get("step") if failed else None

    def blame(self, kind: str, rank: int, what: str, step: int | None = None, why: str = "") -> Cause:
        step, node = self.step(rank) if step is None else step, self.node(rank)
        place = f"rank {rank}" + (f" on {node}" if node else "")
        when = f" after step {step}" if step else ""
        return Cause(kind, f"{place} {what}{when}" + (f": {why}" if why else ""), rank, node, step)


def _node_lost(scene: _Scene, state: str | None) -> Cause | None:
    if scene.told.lost or state == "NODE_FAIL" or scene.told.ended == "NODE FAILURE":
        node = scene.told.lost[0] if scene.told.lost else None
        return Cause("node lost", f"node {node} was lost" if node else "a node was lost", None, node)
    for rank in scene.told.mute:
        if scene.mute(rank):
            return scene.blame("node lost", rank, "was lost with its node")
    return None


def _slurm_ended(scene: _Scene, state: str | None) -> Cause | None:
    """Slurm ended the attempt before any rank failed; ranks that left in time lose nothing."""
    ended = scene.told.ended
    if ended is None or any(e["kind"] != "peer" for _, e in scene.failures()):
        return None
    kind, sentence = ENDS.get(None if ended == "CANCELLED" else ended, ("unknown", f"Slurm ended it: {ended}"))
    left = [e for rank in scene.events if (e := scene.last(rank, "left"))]
    step = max((e["step"] or 0 for e in left), default=None)
    how = _at(step) if left else "; ranks had not left yet"
    return Cause(kind, sentence + how, step=step)


def _at(step: int | None) -> str:
    return f"; ranks left after step {step}" if step else "; ranks left before any step"


def _slow_node(scene: _Scene, state: str | None) -> Cause | None:
    """The pre-flight found nodes too slow, and the job starts again without them."""
    told = scene.last(0, "preflight")
    if not told or not told["excluded"]:
        return None
    why = "; ".join(f"{node}: {', '.join(told['slow'][node])}" for node in told["excluded"])
    return Cause("slow node", f"the pre-flight found a slow node ({why})", None, told["excluded"][0])


def _own_failure(scene: _Scene, state: str | None) -> Cause | None:
    for rank, failed in scene.failures():
        if failed["kind"] == "peer":
            continue
        if failed["kind"] == "user":
            # the sentence names everything; the class of the exception says nothing to its reader
            return Cause("user", failed["error"].split(": ", 1)[-1], rank, scene.node(rank), failed["step"])
        if failed["kind"] == "transient":
            kind = "disk full" if FULL.search(failed["error"]) else "storage"
            return scene.blame(kind, rank, "stopped", failed["step"], failed["error"].split(": ", 1)[-1])
        kind = "exception"
        if "CUDA out of memory" in failed["error"]:
            kind = "out-of-memory"
        first = (failed["error"].splitlines() or ["an exception"])[0]
        return scene.blame(kind, rank, "failed", failed["step"], first)
    return None


def _memory(scene: _Scene, state: str | None) -> Cause | None:
    if not (scene.told.memory or scene.memory or state == "OUT_OF_MEMORY"):
        return None
    full = {scene.node(rank) for rank in scene.memory}
    gone = [e.rank for e in scene.told.exits if e.how.startswith(("Out Of Memory", "Killed"))]
    there = [rank for rank in gone if scene.node(rank) in full]
    for rank in (there or sorted(scene.memory) or gone)[:1]:
        return scene.blame("out-of-memory", rank, "ran out of memory and was killed")
    return Cause("out-of-memory", "a rank ran out of memory")


def _exit(scene: _Scene, state: str | None) -> Cause | None:
    """A rank that ended without a word: by a signal, or with a status that it could not explain."""
    for end in scene.told.exits:
        if scene.last(end.rank, "failed") or scene.last(end.rank, "left"):
            continue
        how = end.how.removesuffix(" (core dumped)")
        name = SIGNALS.get(how)
        if name in ("SIGUSR2", "SIGTERM"):
            return Cause("left", f"rank {end.rank} on {end.node} left before it had started", end.rank, end.node)
        if name:
            return scene.blame("killed", end.rank, f"was killed ({name})")
        if match := re.match(r"Exited with exit code (\d+)", how):
            bare = _status(int(match[1]))
            kind = "exception" if bare.kind == "unknown" else bare.kind
            return replace(bare, kind=kind, sentence=f"rank {end.rank}: {bare.sentence}", rank=end.rank, node=end.node)
        return scene.blame("killed", end.rank, f"ended: {how}")
    return None


def _status(rc: int | None) -> Cause:
    """What a bare exit status tells (see `bingo.launch.job.worker`)."""
    if rc is None:
        return Cause("unknown", "nothing is recorded")
    kind, sentence = STATUS.get(rc, ("unknown", f"it ended with status {rc}"))
    return Cause(kind, sentence if rc in (74, 76) else f"{sentence}; nothing is recorded (is the disk full?)")


def _left(scene: _Scene, state: str | None) -> Cause | None:
    left = [e for rank in sorted(scene.events) if (e := scene.last(rank, "left"))]
    if not left:
        return None
    step = max(e["step"] or 0 for e in left)
    return Cause("left", f"asked to leave by {left[0]['signal']}{_at(step)}", step=step)


def _hang(scene: _Scene, state: str | None) -> Cause | None:
    """Ranks waited in vain for one that neither failed nor left: the one that is behind the others."""
    waited = [rank for rank, e in scene.failures() if re.search(r"(?i)timed? ?out", e["error"])]
    if not waited:
        return None
    silent = [rank for rank in scene.events if not scene.last(rank, "failed")]
    # A hung rank that goes on once srun ends it finds its peers gone: its failure is the last one.
    suspects = silent or [rank for rank, _ in reversed(scene.failures()) if rank != waited[0]]
    if not suspects:
        return None
    rank = min(suspects, key=lambda r: scene.step(r) or 0)
    return scene.blame("hang", rank, "hung", why=f"rank {waited[0]} waited for it in vain")


def _peer(scene: _Scene, state: str | None) -> Cause | None:
    failures = scene.failures()
    if not failures:
        return None
    for rank in scene.events:
        if scene.mute(rank):
            return scene.blame("killed", rank, "ended without a word (killed?)")
    rank, failed = failures[0]
    first = (failed["error"].splitlines() or [""])[0]
    return scene.blame("peer only", rank, f"lost its connection to the others ({first[:200]})", failed["step"])
