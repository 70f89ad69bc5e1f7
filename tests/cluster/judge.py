"""Whether a trial came to the right end, as facts for its line of JSON: weights, steps, causes, what was said."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bingo.files import hash_file
from bingo.launch.job.records import read_events
from tests.cluster.faults import STEPS
from tests.cluster.outside import Script
from tests.cluster.runs import same_weights, steps_of
from tests.cluster.trial import Trial
from tests.cluster.truth import Seen, lies

WISHES = {"left", "preempted", "requeued", "cancelled"}
"""Causes that are somebody's wish."""
HOLDS = ("RUNNING", "COMPLETING")


def judge(trial: Trial, watch: Callable[[Script], list[Seen]]) -> dict[str, Any]:
    """Everything a trial must show, and `ok`. watch: carries out a script until the job has ended."""
    kind, seen = trial.kind, watch(trial.script())
    state, restarts = seen[-1].state, max(look.restarts for look in seen)
    end = "done" if state == "COMPLETED" else "stopped"
    starts = starts_of(trial)
    causes = [start.get("cause") or {} for start in starts]
    unasked = WISHES - set(kind.causes)
    problems = [
        *([] if end in kind.ends else [f"the job ended as {state}"]),
        *([] if kind.starts is None or restarts < kind.starts else [f"{restarts + 1} starts, {kind.starts} allowed"]),
        *blame(trial, causes[0] if causes else {}, restarts),
        *(f"nobody asked for that: {cause['sentence']}" for cause in causes if cause.get("kind") in unasked),
        *(stopped(trial, causes[-1] if causes else {}) if end == "stopped" else []),
        *kept(trial),
        *trial.problems,
        *(told := lies(seen, "done" if end == "done" else "failed")),
    ]
    mended = kind.mended and end == "stopped"
    if mended:
        said = trial.mend()
        if said.returncode:
            problems.append(f"repair: exit {said.returncode}, {said.stdout}{said.stderr}")
        else:
            again = watch(iter(()))
            state = again[-1].state
            problems += [] if state == "COMPLETED" else [f"after the repair the job ended as {state}"]
            problems += (told := lies(again, before=restarts + 1))
    identical, steps_ok = None, None
    if end == "done" or mended:
        identical, steps_ok = right_weights(trial), right_steps(trial)
        problems += [*([] if identical else ["weights differ"]), *([] if steps_ok else ["steps are missing or twice"])]
        problems += [] if logs_say(trial, kind.told) else [f"no log says {kind.told}"]
    if (mended or trial.fault.again is not None) and not (resumed(trial) or [0])[-1]:
        problems.append("the last start began from step 0, although there was a checkpoint")
    moment = trial.moment()
    # A look may miss the moment between two starts: the second one is proof of it too.
    later = [look for look in seen if moment and look.time > moment and look.state]
    freed = next((look.time for look in later if look.state not in HOLDS or look.restarts), None)
    return {
        "job": trial.job, "end": end, "state": state, "attempts": restarts + 1, "manual": int(mended),
        "identical": identical, "steps_ok": steps_ok,
        "freed_after": round(freed - moment, 2) if freed and moment and restarts else None, "bound_s": kind.within_s,
        "cause": causes[0] if causes else {}, "causes": [cause.get("sentence") for cause in causes],
        "resumed": resumed(trial), "status_lies": told, "problems": problems, "ok": not problems,
    }  # fmt: skip


def judge_refusal(trial: Trial, said: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """A submission that was refused: one sentence, exit status 2, and nothing is there."""
    sentence = said.stderr.strip()
    problems = [
        *([] if "refused" in trial.kind.ends else ["it was refused"]),
        *([] if said.returncode == 2 and len(sentence.splitlines()) == 1 else [f"exit {said.returncode}"]),
        *([] if not trial.root.exists() else [f"{trial.root} was made"]),
    ]
    return {"end": "refused", "sentence": sentence, "problems": problems, "ok": not problems}


def starts_of(trial: Trial) -> list[dict[str, Any]]:
    """Every start of the job as `bingo history` has it."""
    said = trial.bingo("history", fresh=True)
    try:
        found: list[dict[str, Any]] = json.loads(said.stdout)["attempts"]
    except (json.JSONDecodeError, KeyError):
        trial.problems.append(f"history broke: {said.stdout[-300:]}{said.stderr[-1000:]}")
        return []
    return found


def blame(trial: Trial, cause: dict[str, Any], restarts: int) -> list[str]:
    """What is wrong with the cause that the end of the first attempt was given."""
    kind, fault = trial.kind, trial.fault
    if not kind.causes or fault.variant == "back in time":  # a daemon that comes back in time harms nobody
        return [f"it started again: {cause}"] if restarts else []
    if not restarts and "done" in kind.ends:
        return ["the job never started again"]
    wrong = [] if cause.get("kind") in kind.causes else [f"cause {cause.get('kind')} in place of {kind.causes}"]
    if kind.blames and cause.get("node") != trial.victim():
        wrong.append(f"node {cause.get('node')} in place of {trial.victim()}")
    if kind.blames == "rank" and cause.get("rank") != fault.rank:
        wrong.append(f"rank {cause.get('rank')} in place of {fault.rank}")
    return wrong


def stopped(trial: Trial, cause: dict[str, Any]) -> list[str]:
    """What is wrong with how a job stopped that shall not go on by itself."""
    sentence = cause.get("sentence") or ""
    return [] if re.search(trial.kind.stop, sentence) else [f"it stopped because of {sentence!r}"]


def kept(trial: Trial) -> list[str]:
    """Which files are gone, or other ones."""
    there = {path: hash_file(path) for folder in {p.parent for p in trial.kept} for path in files(trial.seen(folder))}
    return [f"{path} is gone" for path, wanted in trial.kept.items() if wanted not in there.values()]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def right_weights(trial: Trial) -> bool:
    model = trial.seen(trial.out / "model.pt")
    return model.exists() and same_weights(model, trial.runs.reference(len(trial.nodes)) / "model.pt")


def right_steps(trial: Trial) -> bool:
    """Each step once; where lines were lost, none twice, and all from the checkpoint on."""
    try:
        steps = steps_of(trial.seen(trial.out / "metrics.jsonl"))
    except (OSError, ValueError, KeyError):
        return False
    first = 0 if trial.kind.all_steps else (resumed(trial) or [0])[-1]
    return [step for step in steps if step >= first] == list(range(first, STEPS)) and len(set(steps)) == len(steps)


def resumed(trial: Trial) -> list[int]:
    """The step at which each start began that got so far, oldest first."""
    folders = sorted(trial.attempt(0).parent.glob("*-*"), key=lambda path: [int(part) for part in path.name.split("-")])
    events = [event for folder in folders for event in read_events(folder).get(0, ())]
    return [event["step"] for event in events if event["event"] == "training"]


def logs_say(trial: Trial, pattern: str) -> bool:
    logs = trial.attempt(0).parent.parent.glob("*_log.out")
    return any(re.search(pattern, path.read_text(errors="replace")) for path in logs) or not pattern
