"""What a test does to a job from outside, one generator per `Kind.outside`: it yields what it waits for, then acts."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from bingo.launch.job.records import read_events
from bingo.launch.submit.snapshot import FOLDERS
from tests.cluster.faults import STARTS
from tests.support.ranks import ROOT

if TYPE_CHECKING:
    from tests.cluster.trial import Trial

Script = Iterator[Callable[[], bool]]
EXPORTED = {
    "ranks": {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "nowhere",
              "MASTER_PORT": "1"},
    "Slurm": {"SBATCH_PARTITION": "low", "SBATCH_TIMELIMIT": "1", "SBATCH_NO_REQUEUE": "1",
              "SBATCH_OPEN_MODE": "truncate", "SBATCH_ARRAY_INX": "0-1", "SBATCH_SIGNAL": "USR1@30",
              "SBATCH_EXPORT": "NONE", "SLURM_NTASKS": "7",
              "SLURM_KILL_BAD_EXIT": "0", "SRUN_EXPORT_ENV": "NONE", "SQUEUE_FORMAT": "%i", "SCANCEL_STATE": "PENDING",
              "SINFO_FORMAT": "%P"},
}  # fmt: skip
"""What the submitting shell has exported, by variant."""


def after(seconds: float) -> Callable[[], bool]:
    due = time.monotonic() + seconds
    return lambda: time.monotonic() >= due


def usr2(trial: Trial) -> Script:
    yield trial.marked
    yield from usr2_now(trial)


def usr2_early(trial: Trial) -> Script:
    yield lambda: trial.state() == "RUNNING"
    yield from usr2_now(trial)


def usr2_now(trial: Trial) -> Script:
    yield after(trial.fault.delay_s)
    trial.acted = time.time()
    trial.cluster.run("scancel", "--signal=USR2", trial.job)


def requeue(trial: Trial) -> Script:
    yield trial.marked
    trial.cluster.run("scontrol", "requeue", trial.job)


def preempt(trial: Trial) -> Script:
    yield trial.marked
    trial.cluster.preempt(trial.nodes, seconds=3)


def free_disk(trial: Trial) -> Script:
    yield trial.marked
    yield lambda: trial.state() != "RUNNING"
    yield after(1)
    trial.cluster.run("rm", "-f", trial.out / ".filler")


def slurmd(trial: Trial) -> Script:
    yield trial.marked
    trial.cluster.kill_slurmd(trial.victim())
    yield after(trial.fault.down_s)
    trial.cluster.start_node(trial.victim())


def node(trial: Trial) -> Script:
    yield trial.marked
    trial.cluster.kill_node(trial.victim())
    yield lambda: trial.cluster.node_states()[trial.victim()].startswith("down")
    trial.cluster.start_node(trial.victim())


def controller(trial: Trial) -> Script:
    """slurmctld is gone before the rank crashes, or before ranks are asked to leave."""
    yield trial.marked
    how, _, number = trial.fault.variant.partition(" ")
    trial.away = True
    trial.cluster.stop_controller(signal.SIGKILL if how == "kill" else signal.SIGTERM)
    if number:
        signal_ranks(trial, signal.SIGUSR2)
    trial.go()
    yield after(trial.fault.down_s)
    trial.cluster.start_controller()
    trial.away = False


def signal_ranks(trial: Trial, number: signal.Signals) -> None:
    """A signal to the ranks alone, as slurmd sends it."""
    for pid in [pid for node in trial.nodes for pid in trial.cluster.processes(node)]:
        words = _command_line(pid)
        if b"bingo.launch.job.worker" in words and not words[0].endswith(b"srun"):
            os.kill(pid, number)


def _command_line(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def erofs(trial: Trial) -> Script:
    """The run's folder, or that of the submissions with all logs and records, is read-only for a while."""
    yield trial.marked
    yield from passing(trial, trial.cluster.read_only(trial.root / trial.fault.variant))


def passing(trial: Trial, trouble: AbstractContextManager[None]) -> Script:
    """It begins while the rank waits, and is over after the fault's time."""
    with trouble:
        trial.go()
        yield after(trial.fault.down_s)


def interpreter(trial: Trial) -> Script:
    """The site's Python is gone before the rank crashes; for a while, or for good."""
    yield trial.marked
    gone = trial.python.rename(trial.python.with_suffix(".gone"))
    trial.go()
    if trial.fault.variant == "back":
        yield after(trial.fault.down_s)
        gone.rename(trial.python)


def between(trial: Trial) -> Script:
    """Until the first start has ended; the next one begins a few seconds later (`cred_expire`)."""
    yield trial.marked
    yield lambda: trial.state() == "PENDING"


def in_time(trial: Trial) -> None:
    if trial.attempt(1).exists():
        trial.problems.append("the test itself was too late: the second start had begun")


def met(trial: Trial) -> Script:
    """Until a later start has had to do with the checkpoints, however slow this machine is now."""

    def told() -> bool:
        starts = [read_events(trial.attempt(number)) for number in range(1, STARTS)]
        events = [event for start in starts for rank in start.values() for event in rank]
        return any(event["event"] == "training" or "checkpoint" in event.get("error", "") for event in events)

    yield told
    yield after(1)


def checkpoint_differs(trial: Trial) -> Script:
    """The node of one rank sees no checkpoints, older ones, an older one under the newest name, or cannot read any."""
    yield from between(trial)
    here, other = trial.out / "checkpoints", trial.folder / "other"
    *_, before, newest = sorted(here.glob("step-*.pt"))
    other.mkdir()
    if trial.fault.variant == "EIO":
        (trial.folder / "marks" / "EIO").touch()
        in_time(trial)
        yield from met(trial)
        (trial.folder / "marks" / "EIO").unlink()
        return
    if trial.fault.variant != "empty":
        shutil.copy2(before, other)
    if trial.fault.variant == "other":
        shutil.copy2(before, other / newest.name)
    with trial.cluster.covered(here, other, node=trial.victim()):
        in_time(trial)
        yield from met(trial)


def is_damaged(archive: bytes) -> bool:
    """Whether a record of a zip file (torch's are) differs from its checksum."""
    try:
        return zipfile.ZipFile(io.BytesIO(archive)).testzip() is not None
    except zipfile.BadZipFile:
        return True


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    while how == "flipped" and not is_damaged(data):  # of the padding between a checkpoint's records nothing depends
        data[middle] ^= 16
        middle += 1
    path.write_bytes({"flipped": bytes(data), "cut": bytes(data[:middle]), "zeros": bytes(len(data))}[how])


def damaged_twice(trial: Trial) -> Script:
    """All checkpoints that there are; the injector kills the next start too."""
    yield from between(trial)
    found = sorted((trial.out / "checkpoints").glob("step-*.pt"))
    for path in found:
        damage(path, trial.fault.variant)
    in_time(trial)
    trial.keep(*found)


def metrics_damaged(trial: Trial) -> Script:
    yield from between(trial)
    path = trial.out / "metrics.jsonl"
    if trial.fault.variant == "removed":
        path.unlink()
    else:
        damage(path, trial.fault.variant)
    in_time(trial)


def records_zeroed(trial: Trial) -> Script:
    """Signs of life or events of the first start, before or after its end was judged; later: that verdict too."""
    what, _, later = trial.fault.variant.partition(" ")
    yield trial.marked
    if later:
        trial.go()
        yield from between(trial)
    folder = trial.attempt(0)
    for path in folder.glob("rank-*.beat" if what == "beats" else "rank-*.jsonl"):
        damage(path, "zeros")
    if later:
        damage(folder / "end.json", "zeros")
    trial.go()


def input_changed(trial: Trial) -> Script:
    """An image gets another time, there is one more or less, or the teacher is another; `trial.undo` puts it back."""
    yield from between(trial)
    (trial.out / "notes.txt").write_text("mine\n")
    trial.keep(trial.out / "notes.txt", *(trial.out / "checkpoints").glob("step-*.pt"))
    image = next(path for path in sorted(trial.inputs.images.rglob("*")) if path.is_file())
    times = image.stat().st_atime_ns, image.stat().st_mtime_ns
    more, kept = image.with_name(f"more{image.suffix}"), trial.folder / "kept"
    if trial.fault.variant == "touched":
        os.utime(image)
        trial.undo = lambda: os.utime(image, ns=times)
    elif trial.fault.variant == "added":
        shutil.copy2(image, more)
        trial.undo = more.unlink
    elif trial.fault.variant == "removed":
        image.rename(kept)
        trial.undo = lambda: kept.rename(image)
    else:
        from bingo.models import save_encoder, seeded_encoder

        trial.inputs.teacher.rename(kept)
        save_encoder(trial.inputs.teacher, seeded_encoder("tiny-8", dim=16, hidden=32, seed=6))
        trial.undo = lambda: os.replace(kept, trial.inputs.teacher)
    in_time(trial)


def new_code(trial: Trial) -> Script:
    """What it is repaired with is another version."""
    yield trial.marked
    checkout = trial.folder / "checkout"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    from bingo import __version__

    about = checkout / "bingo" / "__init__.py"
    about.write_text(about.read_text().replace(f'"{__version__}"', f'"{__version__}.1"'))
    at = ["env", "-C", checkout, f"PYTHONPATH={checkout}"]
    trial.repair = [*at, sys.executable, "-m", "bingo", "repair", trial.root, "--new-code"]


def environment(trial: Trial) -> Script:
    yield lambda: trial.state() == "RUNNING"
    facts = trial.cluster.show(trial.job)
    wanted = {"Partition": "debug", "TimeLimit": "01:00:00", "Requeue": "1", "NumNodes": str(len(trial.nodes))}
    found = {name: facts.get(name) for name in wanted}
    if found != wanted or "ArrayJobId" in facts:
        trial.problems.append(f"the shell's variables changed the job: {found}")


def two_roots(trial: Trial) -> Script:
    """Another root's job would write the same folder, with the same settings or others, at three moments."""
    moment, _, other = trial.fault.variant.partition(" ")
    moments = {
        "alive": trial.marked,
        "waiting": lambda: trial.state() == "PENDING",
        "done": lambda: trial.state() == "COMPLETED",
    }
    yield moments[moment]
    root = trial.folder / "second root"
    said = trial.send(root, seed=1 if other else 0)
    at_once = moment == "done" and not other
    sentence = said.stdout if at_once else said.stderr
    right = said.returncode == (0 if at_once else 2) and len(sentence.splitlines()) == 1
    if not right or any(root.rglob("jobs.jsonl")):
        trial.problems.append(f"the second submission: exit {said.returncode}, {said.stdout}{said.stderr}")


SCRIPTS: dict[str, Callable[[Trial], Script]] = {
    "usr2-early": usr2_early, "usr2": usr2, "requeue": requeue, "preempt": preempt, "free-disk": free_disk,
    "slurmd": slurmd, "node": node, "controller": controller, "erofs": erofs, "interpreter": interpreter,
    "checkpoint-differs": checkpoint_differs, "damaged-twice": damaged_twice, "metrics-damaged": metrics_damaged,
    "records-zeroed": records_zeroed, "input-changed": input_changed, "new-code": new_code,
    "environment": environment, "two-roots": two_roots,
}  # fmt: skip
