"""Names why an attempt ended: rank or lost node, one sentence, from what ranks wrote and what Slurm said.

The earliest failure of a rank's own wins. Not a rank's own are: an error that another rank's end causes (kind `peer`),
and the end of a rank that srun terminated because another one had failed. Nothing is read from disk here.
"""

import re
import signal
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from bingo.errors import NO_MEMORY

Events = Sequence[Mapping[str, Any]]


class Beat(NamedTuple):
    """A rank's last sign of life: steps done, unix time, stage."""

    step: int
    time: float
    stage: str


@dataclass(frozen=True)
class Cause:
    """kind: done, user, exception, killed, out-of-memory, disk full, storage, hang, node lost, left, time limit,
    preempted, requeued, cancelled, slow node, network (ranks lost each other), machine (what no rank can help: an
    address in use, an interpreter that is not there), controller (Slurm's, which starts no step), limit (no more starts
    are allowed), peer only or unknown.
    rank, node, step: None where there is not one."""

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
    lost nodes; whether memory ran out; ranks of which srun never heard again; what kept a rank from beginning, as a
    kind and a sentence; the first line of the site's `setup` that failed."""

    exits: tuple[Exit, ...] = ()
    ended: str | None = None
    lost: tuple[str, ...] = ()
    memory: bool = False
    mute: tuple[int, ...] = ()
    unbegun: tuple[str, str] | None = None
    setup: str | None = None


TASK = re.compile(r"srun: error: (\S+): tasks? ([\d,\-]+): (.+)")
TERMINATING = re.compile(r"srun: .*Terminating (?:StepId|job step)")
RUNNING = re.compile(r"srun: StepId=\S+ tasks? ([\d,\-]+): running")
GIVEN_UP = "srun: error: Timed out waiting for job step to complete"
ENDED = re.compile(r"error: \*\*\* JOB \d+ ON \S+ CANCELLED AT \S+?(?: DUE TO (.+?))?(?: \*\*\*|$)")
LOST = re.compile(r"srun: error: Node failure on (\S+)|srun: error: (?:Task launch|Timed out waiting).* node (\S+)")
MEMORY = re.compile(
    r"(?i)^(?:srun|slurm\S*|error): .*(?:oom[-_]kill event|exceeded (?:job |step )?memory limit|out of memory)"
)
FULL = re.compile(r"No space left on device|Disk quota exceeded")
# slurmstepd and bash about an interpreter; on a node alone where it is not there.
NO_PROGRAM = re.compile(
    r"(?:slurmstepd(?:-(\S+))?: error: |error: task \d+ launch failed: .*|: )(?:execve\(\): |line \d+: )(/\S+): "
    r"(No such file or directory|Permission denied|Exec format error|cannot execute.*|Input/output error|Stale .*)"
)
# srun, where the controller does not give it a step.
NO_STEP = re.compile(
    r"srun: error: (?:.*[Uu]nable to (?:create step|confirm allocation)[^:]*(?: for job \d+)?: (.+)|"
    r"(.*Unable to contact slurm controller.*|.*Socket timed out on send/recv.*|.*Zero Bytes were transmitted.*))"
)
NO_OUTPUT = re.compile(
    r"(?i)(?:could not|cannot|unable to) (?:open|create) \S*(?:std\w+|output|error|file|log)\S*.*|IO setup failed.*"
)
BUSY = "Requested nodes are busy"
SETUP_FAILED = "bingo: a line of setup failed: "
SETUP_ENDED = "bingo: setup ended the script: "
"""What the batch script says of the first one, and then the line and its status; the second where nothing began."""
SCRIPT_ALONE = "bingo: this script alone was told to end; its ranks are asked to leave"
"""What the batch script says when Slurm's line about the end of its job was not true."""
ADDRESS = re.compile(r"(?i)address already in use|cannot listen on")
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
NOTHING, DAMAGED = "nothing is recorded (is the disk full?)", "what its ranks recorded is damaged"
"""Why an attempt's end is not explained."""
STARTS_AGAIN = "it starts again"
"""The end of what the batch script says before it requeues its job itself."""
SIGNALS = {signal.strsignal(number): number.name for number in signal.Signals}


def read_lines(lines: Sequence[str]) -> Told:
    """Gather what srun and slurmstepd said."""
    exits: list[Exit] = []
    ended: str | None = None
    lost: list[str] = []
    first, again = True, False
    unbegun: tuple[str, str] | None = None
    setup: str | None = None
    for line in lines:
        unbegun = unbegun or _unbegun(line)
        if line.startswith(SETUP_ENDED):
            unbegun = unbegun or ("machine", line.removeprefix("bingo: "))
        elif line.startswith(SETUP_FAILED):
            setup = setup or line.removeprefix(SETUP_FAILED)
        elif match := TASK.search(line):
            if first:
                exits += [Exit(rank, match[1], match[3].strip()) for rank in _numbers(match[2])]
        elif TERMINATING.search(line):
            first = False
        elif line.endswith(STARTS_AGAIN):
            again = True
        elif line == SCRIPT_ALONE:
            ended, first = None, True
        elif (match := ENDED.search(line)) and not (again and match[1] == "JOB REQUEUE"):
            ended, first = ended or match[1] or "CANCELLED", False
        elif match := LOST.search(line):
            lost.append((match[1] or match[2]).strip(".,:"))
    waits = next((match[1] for line in reversed(lines) if (match := RUNNING.search(line))), "")
    mute = tuple(_numbers(waits)) if waits and GIVEN_UP in lines else ()
    memory = any(MEMORY.search(line) for line in lines)
    return Told(tuple(exits), ended, tuple(lost), memory, mute, unbegun, setup)


def _unbegun(line: str) -> tuple[str, str] | None:
    """Kind and sentence of what Slurm says when a program or a step cannot begin."""
    if match := NO_PROGRAM.search(line):
        where = f" on {match[1]}" if match[1] else ""
        kind = "script" if "line " in match[0] else "machine"
        return kind, f"the interpreter {match[2]} cannot be started{where}: {match[3]}"
    if line.startswith(("srun: error", "slurmstepd", "error:")) and (match := NO_OUTPUT.search(line)):
        return "disk full" if FULL.search(line) else "storage", f"Slurm cannot write a log: {match[0].strip()}"
    if (match := NO_STEP.search(line)) and BUSY not in line:
        return "controller", f"Slurm's controller started no ranks: {match[1] or match[2]}"
    return None


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
    unread: Collection[int] = (),
    said: Mapping[int, str] | None = None,
) -> Cause:
    """The cause of an attempt's end.

    events, beats, nodes: by rank. lines: of this attempt in the batch log. rc: srun's exit status; None when nobody
    lived to see it. state: sacct's, where known (`NODE_FAIL`, `OUT_OF_MEMORY`, `TIMEOUT`, ...). logs: what slurmstepd
    said in the log of a rank. unread: ranks whose files are damaged: what is not in them blames nobody. said: the last
    line of a rank that recorded nothing.
    """
    told = read_lines(lines)
    memory = {rank for rank, said in (logs or {}).items() if any(MEMORY.search(line) for line in said)}
    scene = _Scene(events, beats or {}, told, nodes or {}, memory, unread, said or {})
    if rc == 0:
        return Cause("done", "finished")
    looks = (_node_lost, _slurm_ended, _slow_node, _own_failure, _memory, _unstarted, _exit, _left, _hang, _peer)
    cause = next((cause for look in looks if (cause := look(scene, state))), None)
    cause = cause or _status(rc, DAMAGED if unread else NOTHING)
    if told.setup and cause.kind in ("exception", "machine", "unknown", "user", "killed") and not cause.step:
        cause = replace(cause, sentence=f"{cause.sentence}; before it a line of setup had failed: {told.setup}")
    return cause


@dataclass(frozen=True)
class _Scene:
    events: Mapping[int, Events]
    beats: Mapping[int, Beat]
    told: Told
    nodes: Mapping[int, str]
    memory: set[int]
    """Ranks in whose logs slurmstepd said that memory ran out: a node's first rank gets these lines."""
    unread: Collection[int] = ()
    said: Mapping[int, str] = field(default_factory=dict)

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
        return rank not in self.unread and not any(self.last(rank, name) for name in ("failed", "left", "done"))

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
            kind = "out-of-memory" if NO_MEMORY.search(failed["error"]) else kind
            kind = "machine" if ADDRESS.search(failed["error"]) else kind
            return scene.blame(kind, rank, "stopped", failed["step"], failed["error"].split(": ", 1)[-1])
        kind = "out-of-memory" if NO_MEMORY.search(failed["error"]) else "exception"
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


def _unstarted(scene: _Scene, state: str | None) -> Cause | None:
    """What Slurm says about a program or step that could not begin, unless ranks did and said more."""
    if scene.told.unbegun is None or (scene.failures() and not any(e["kind"] == "peer" for _, e in scene.failures())):
        return None
    if any(e["event"] == "stage" for events in scene.events.values() for e in events):
        return None  # all ranks had met: what Slurm complains of has kept nobody from beginning
    kind, sentence = scene.told.unbegun
    if kind in ("controller", "script") and scene.events:
        return None  # ranks began all the same: what the batch script alone could not do comes after their end
    return Cause("machine" if kind == "script" else kind, sentence)


def _exit(scene: _Scene, state: str | None) -> Cause | None:
    """A rank that ended without a word: by a signal, or with a status that it could not explain."""
    for end in scene.told.exits:
        if scene.last(end.rank, "failed") or scene.last(end.rank, "left"):
            continue
        how = end.how.removesuffix(" (core dumped)")
        name = SIGNALS.get(how)
        if name == "SIGTERM" and scene.failures():
            continue  # srun ends ranks so, once another has failed
        if name in ("SIGUSR2", "SIGTERM"):
            return Cause("left", f"rank {end.rank} on {end.node} left before it had started", end.rank, end.node)
        if name:
            return scene.blame("killed", end.rank, f"was killed ({name})")
        if match := re.match(r"Exited with exit code (\d+)", how):
            why = scene.said.get(end.rank, NOTHING)
            bare = _status(int(match[1]), DAMAGED if end.rank in scene.unread else why)
            kind = "exception" if bare.kind == "unknown" else bare.kind
            return replace(bare, kind=kind, sentence=f"rank {end.rank}: {bare.sentence}", rank=end.rank, node=end.node)
        return scene.blame("killed", end.rank, f"ended: {how}")
    return None


def _status(rc: int | None, why: str) -> Cause:
    """What a bare exit status tells (see `bingo.launch.job.worker`); why: nothing more is known."""
    if rc is None:
        return Cause("unknown", why.partition(" (")[0])
    kind, sentence = STATUS.get(rc, ("unknown", f"it ended with status {rc}"))
    return Cause(kind, sentence if rc in (74, 76) and why == NOTHING else f"{sentence}; {why}")


def _left(scene: _Scene, state: str | None) -> Cause | None:
    """Ranks left because they were asked to. SIGTERM after the failure of another rank is srun's, and nobody's wish."""
    before = min((e["time"] for _, e in scene.failures()), default=float("inf"))
    left = [e for rank in sorted(scene.events) if (e := scene.last(rank, "left"))]
    left = [e for e in left if e["signal"] != "SIGTERM" or e["time"] <= before]
    if not left:
        return None
    step = max(e["step"] or 0 for e in left)
    return Cause("left", f"asked to leave by {left[0]['signal']}{_at(step)}", step=step)


def _hang(scene: _Scene, state: str | None) -> Cause | None:
    """Ranks waited in vain for one that neither failed nor left: the one that is behind the others."""
    waited = [rank for rank, e in scene.failures() if re.search(r"(?i)timed? ?out", e["error"])]
    if not waited or len(waited) == len(scene.events) > 1:  # all waited, so that none hung
        return None
    silent = [rank for rank in scene.events if not scene.last(rank, "failed")]
    if any(rank in scene.unread for rank in silent):
        return None  # it may be the one that hung, or have failed: its record does not say
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
    first = (failed["error"].splitlines() or [""])[0][:200]
    nodes = sorted({node for rank, _ in failures if (node := scene.node(rank))})
    if len(failures) > 1 and not scene.unread:
        step = max((scene.step(rank) or 0 for rank, _ in failures), default=0) or None
        where = f" between {', '.join(nodes[:4])}{', ...' if len(nodes) > 4 else ''}" if len(nodes) > 1 else ""
        when = f" after step {step}" if step else ""
        return Cause("network", f"the ranks lost their connections{where}{when}, and none of them had failed ({first})",
                     step=step)  # fmt: skip
    cause = scene.blame("peer only", rank, f"lost its connection to the others ({first})", failed["step"])
    unread = ", ".join(map(str, sorted(scene.unread)))
    return replace(cause, sentence=f"{cause.sentence}; the record of rank {unread} is damaged") if unread else cause
