"""The jobs of a scaling measurement: sent as one submission, waited for while others queue, ended on Ctrl-C."""

import contextlib
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bingo.bench.scaling.plan import Plan
from bingo.errors import UserError
from bingo.launch.cluster.site import Cluster, with_flags
from bingo.launch.job.spec import JobSpec
from bingo.launch.status.states import State, look, states
from bingo.launch.status.watch import ENDED, PERIOD_S
from bingo.launch.submit.graph import jobs_of
from bingo.launch.submit.repair import cancel
from bingo.launch.submit.sbatch import check_partitions
from bingo.launch.submit.send import alive, submit
from bingo.launch.submit.submission import Submission, newest
from bingo.paths import quoted
from bingo.recipes import Group
from bingo.stages import Stage, finished, stage_key

log = logging.getLogger(__name__)
LOOK_S = 1.0
"""Between two looks at the folders of the stages; Slurm is asked once per `PERIOD_S`."""


def check_cluster(plan: Plan) -> None:
    """`UserError` before anything is written: no Slurm, a partition or a number of nodes that is not there."""
    check_partitions(_cluster(plan), parallel=True)


def _cluster(plan: Plan) -> Cluster:
    assert plan.cluster is not None
    return plan.cluster


def jobs_for(plan: Plan) -> list[JobSpec]:
    """One job for each stage, in order: each begins when the one before has ended, well or not."""
    nodes = {stage.name: point.nodes for point in plan.points for stage in point.stages}
    jobs = []
    for stage in plan.stages:
        cluster = with_flags(_cluster(plan), {**plan.overrides, "nodes": nodes[stage.name]})
        (job,) = jobs_of([Group(stage.name, (stage,), parallel=True)], cluster, min_nodes=None, preflight=False)
        jobs.append(replace(job, run=stage.name, lane=1))
    return jobs


def measure_there(plan: Plan) -> Iterator[tuple[Stage, str]]:
    """Send what is not done, unless it waits or runs already, and wait; each stage as it is done or has failed.

    On Ctrl-C everything that waits or runs is cancelled. A kill leaves the jobs alone: the same command finds them.
    """
    try:
        yield from _measure(plan)
    except KeyboardInterrupt:
        end_jobs(plan.out, log.info)
        raise


def end_jobs(root: Path, say: Callable[[str], None]) -> None:
    """Cancel what was sent; where that is not possible, say how to."""
    if newest(root) is None:
        return
    try:
        for line in cancel(root):
            say(line)
    except UserError as error:
        say(f"the jobs could not be cancelled ({error}); end them with `bingo cancel {quoted(root)}`")


def _measure(plan: Plan) -> Iterator[tuple[Stage, str]]:
    waiting = {stage.name: (stage, stage_key(stage)) for stage in plan.stages}
    yield from _done(waiting)
    while waiting:
        submission = newest(plan.out)
        living = bool(submission and alive(submission))
        if not living:
            submission = submit(plan.out, jobs_for(plan), _cluster(plan), _facts(plan), say=log.info)
        if submission is None:  # all of it has been done meanwhile
            yield from _done(waiting)
            return
        log.info("%s %s; see `bingo status %s`", "waiting for" if living else "sent as", submission.id, plan.out)
        yield from _wait(submission, waiting)
        if not living:
            return


def _facts(plan: Plan) -> dict[str, Any]:
    return {
        "recipe": "bench scaling",
        "command": shlex.join(["bingo", *sys.argv[1:]]),
        "cluster": str(_cluster(plan).path.absolute()),
        "overrides": plan.overrides,
    }


def _wait(submission: Submission, waiting: dict[str, tuple[Stage, str]]) -> Iterator[tuple[Stage, str]]:
    """Until every job of the submission has ended: what is done is taken out of `waiting`, and what has failed too."""
    told: dict[str, str] = {}
    asked = 0.0
    while waiting:
        yield from _done(waiting)
        ended: Sequence[State] = ()
        if waiting and time.monotonic() - asked >= PERIOD_S:
            asked, found = time.monotonic(), _look(submission)
            _tell(found, told)
            if found and all(state.state in ENDED for state in found):
                ended = found
        if ended:
            yield from _done(waiting)  # a stage may have ended while Slurm was asked
            for state in ended:
                if state.job in waiting:
                    yield waiting.pop(state.job)[0], f"{state.state}: {state.text}"
            return
        time.sleep(LOOK_S if waiting else 0)


def _done(waiting: dict[str, tuple[Stage, str]]) -> Iterator[tuple[Stage, str]]:
    """Take out the stages that are done."""
    for name, (stage, key) in list(waiting.items()):
        with contextlib.suppress(UserError):  # its record is being written
            if finished(stage, key):
                del waiting[name]
                log.info("%s is done", name)
                yield stage, ""


def _look(submission: Submission) -> Sequence[State]:
    """Every job's state; none where neither Slurm nor the folder answers, which both come back."""
    try:
        return states(submission, look(submission), time.time())
    except (UserError, OSError) as error:
        log.warning("%s", error)
        return ()


def _tell(found: Sequence[State], told: dict[str, str]) -> None:
    """One line for every job whose state is another than before."""
    for state in found:
        if told.get(state.job) != state.state:
            told[state.job] = state.state
            log.info("%s  %s: %s", state.job, state.state, state.text)
