"""Submissions as folders, as `bingo submit` and the ranks would have left them at some moment."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bingo.config import DemoDataConfig
from bingo.files import make_folder, write_json
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.submission import Submission, stage
from bingo.stages import Stage


def job(root: Path, name: str, *needs: str, tasks: int = 0) -> JobSpec:
    """A job of one stage; tasks: an array of as many."""
    outs = [root / f"{name}-{n}" for n in range(tasks)] or [root / name]
    stages = tuple((Stage(f"stage of {name}", "demo-data", DemoDataConfig(out=out)),) for out in outs)
    return JobSpec(name, stages, needs=needs, array=tasks > 0)


def submission(
    root: Path, jobs: list[JobSpec], sent: Mapping[str, str], time: float, done: Sequence[str] = ()
) -> Submission:
    """A submission whose jobs (name -> Slurm's id) were all sent at `time`; done: those that had nothing to do."""
    made = stage(root, {"recipe": "none", "done": list(done)}, jobs, lambda staged, final: None)
    with open(made.folder / "jobs.jsonl", "a") as file:
        for name, slurm_id in sent.items():
            line = {"job": name, "slurm_id": slurm_id, "time": time, "repair": 0}
            tasks = {"tasks": list(range(len(made.job(name).tasks)))} if made.job(name).array else {}
            file.write(json.dumps(line | tasks) + "\n")
    return made


def attempt(
    made: Submission,
    name: str,
    folder: str,
    *,
    begin: Mapping[str, Any] | None = None,
    end: Mapping[str, Any] | None = None,
    events: Mapping[int, list[dict[str, Any]]] | None = None,
    beat: str | None = None,
) -> Path:
    """The folder of one start of a job (`12-0`), with the files that are given; beat: rank 0's."""
    place = made.job_folder(name) / "attempts" / folder
    make_folder(place)
    for kind, value in (("begin", begin), ("end", end)):
        if value is not None:
            write_json(place / f"{kind}.json", value)
    for rank, lines in (events or {}).items():
        (place / f"rank-{rank}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if beat is not None:
        (place / "rank-0.beat").write_text(beat.ljust(159) + "\n")
    return place


def staged(root: Path, *specs: JobSpec) -> Submission:
    """A submission of these jobs with scripts that are never run."""

    def fill(folder: Path, final: Path) -> None:
        for spec in specs:
            (folder / "jobs" / spec.name / "script.sh").write_text("#!/bin/sh\n")

    return stage(root, {"done": [], "overrides": {"nodes": None, "ranks_per_node": None}}, specs, fill)
