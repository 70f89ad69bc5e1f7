"""Node and GPU hours: what starts held, which part of it was lost, and to which cause."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bingo.launch.cluster.slurm import Row
from bingo.launch.status.history import Entry, account, as_object, ledger, totals
from bingo.launch.status.hours import by_cause, gpus_per_node, hours_of, node_count, number, sum_of, told
from bingo.launch.submit.submission import Submission
from tests.support.submissions import attempt
from tests.support.two_chains import PAST, T, event

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("nodes", "count"),
    [
        ("", 0), ("c1", 1), ("c[1-2]", 2), ("n[03-05,9],m1", 5), ("a,b,c", 3), ("r[0-1]n[0-3]", 8),
        ("n[1,3]-ib,gpu-02", 3), ("c[9-3]", 0), ("c[1-99999999999999999999]", 1),
    ],
)  # fmt: skip
def test_number_of_nodes(nodes: str, count: int) -> None:
    assert node_count(nodes) == count


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("--gpus-per-node=8", 8), ("--gpus-per-node=h100:4", 4), ("--gres=gpu:h100:8", 8), ("--gres=gpu:2", 2),
        ("--gres=gpu", 1), ("--gres=gpu:a100", 1), ("--gres=gres/gpu:3,nvme:1", 3), ("--gres=gpu:a:1,gpu:b:2", 3),
        ("--gres=nvme:4", 0), ("--nodes=2", 0), ("", 0),
    ],
)  # fmt: skip
def test_number_of_gpus(tmp_path: Path, line: str, count: int) -> None:
    assert gpus_per_node(tmp_path) == 0, "no script: nothing was sent"
    (tmp_path / "script.sh").write_text(f"#!/bin/bash\n#SBATCH {line}\necho --gres=gpu:7\n")
    assert gpus_per_node(tmp_path) == count


def consistent(found: list[Entry]) -> None:
    """Each sum is that of its parts, in every unit, and nothing is lost that was not used."""
    for entry in found:
        hours = entry.hours
        lost = sum(hours.lost_s.values())
        assert hours.node_hours == pytest.approx(hours.nodes * hours.wall_s / 3600)
        assert hours.gpu_hours == pytest.approx(hours.gpus * hours.wall_s / 3600)
        assert hours.node_hours_lost == pytest.approx(hours.nodes * lost / 3600)
        assert hours.gpu_hours_lost == pytest.approx(hours.gpus * lost / 3600)
        assert 0 <= lost <= hours.wall_s + 1e-6
    said = as_object(found)
    for name in ("node_hours", "gpu_hours", "node_hours_lost", "gpu_hours_lost"):
        parts = [sum(each["hours"][name] for each in said[key]) for key in ("attempts", "totals")]
        assert parts == pytest.approx([said["hours"][name]] * 2)
        if name.endswith("lost"):
            assert sum(each[name] for each in said["lost_to"]) == pytest.approx(said["hours"][name])


def test_a_lost_node_and_a_start_that_left(made: Submission) -> None:
    """Two nodes of four GPUs; the first start ran from 10 to 60, its ranks were last heard of at 50."""
    (made.job_folder("one") / "script.sh").write_text("#SBATCH --gpus-per-node=4\n")
    found = ledger(made, PAST, T + 200)
    consistent(found)
    first, second = (entry.hours for entry in found)
    assert (first.nodes, first.gpus, first.wall_s) == (2, 8, 50)
    assert first.lost_s == pytest.approx({"start-up": 10, "idle": 10, "steps": 25 * 3 / 13})
    assert (second.wall_s, second.nodes) == (110 - 75, 2)
    assert second.lost_s == pytest.approx({"start-up": 10, "idle": 5, "steps": 0})
    causes = by_cause([(entry.cause["kind"], entry.hours) for entry in found if entry.cause])
    assert [(each.kind, each.starts) for each in causes] == [("node lost", 1), ("left", 1)]
    lines = list(account(found))
    assert lines[0] == "used 0.047 node hours, 0.19 GPU hours; lost 0.023 node hours, 0.091 GPU hours"
    assert lines[1] == "  node lost: 1 start, 0.014 node hours, 0.057 GPU hours lost"


def test_starts_that_brought_nothing(made: Submission) -> None:
    """One crashed before it worked, one did steps of which none was kept."""
    end = {"rc": 70, "decision": 75, "then": "", "cause": {"kind": "killed", "sentence": "rank 1 was killed"}}
    attempt(made, "two", "8-0", begin={"time": T + 300, "nodes": "c1"}, end={"time": T + 340} | end)
    events = [event(410, "stage", name="s"), event(415, "step", step=1)]
    begin, beat = {"time": T + 400, "nodes": "c[1-2]"}, f"9 {T + 430:.3f} s"
    attempt(made, "two", "8-1", begin=begin, end={"time": T + 440} | end, events={0: events}, beat=beat)
    found = [entry for entry in ledger(made, None, T + 500) if entry.job == "two"]
    consistent(found)
    assert [entry.hours.lost_s for entry in found] == [{"fruitless": 40}, {"fruitless": 40}]
    assert "killed: 2 starts, 0.033 node hours lost" in "".join(account(found))


def test_what_goes_on_and_what_is_done_lost_nothing(made: Submission) -> None:
    finished = {"event": "finished", "time": T + 390, "name": "s", "skipped": False}
    end = {"time": T + 400, "rc": 0, "decision": 0, "then": "", "cause": {"kind": "done", "sentence": "finished"}}
    events = [event(310, "stage", name="s"), finished]
    attempt(made, "two", "8-0", begin={"time": T + 300, "nodes": "c1"}, end=end, events={0: events})
    running = {"8": (Row("8", "RUNNING", "", T, T, T + 500, None, 1, "c1"),)}
    attempt(made, "two", "8-1", begin={"time": T + 500, "nodes": "c1"}, events={0: [event(510, "stage", name="s")]},
            beat=f"4 {T + 510:.3f} s")  # fmt: skip
    for past in (None, {"8": tuple(replace(row, restarts=1) for row in running["8"])}):
        done, goes_on = (entry for entry in ledger(made, past, T + 600) if entry.job == "two")
        consistent([done, goes_on])
        assert (done.hours.wall_s, done.hours.lost_s) == (100, {})
        assert goes_on.hours.wall_s == (100 if past else 10), "without accounting: until its last sign of life"
        assert goes_on.hours.lost_s == {}
        assert (goes_on.steps, goes_on.steps_lost) == (4, 0), "a checkpoint may yet come"


def test_a_stage_that_finished_is_kept(made: Submission) -> None:
    """The job failed in its second stage, before any step of it: of the first one nothing is lost."""
    events = [
        event(310, "stage", name="s"), event(350, "finished", name="s", skipped=False), event(351, "stage", name="t"),
        {"time": T + 360, "event": "failed", "kind": "exception", "error": "KeyError: 1", "step": 0, "stage": "t"},
    ]  # fmt: skip
    end = {
        "time": T + 362,
        "rc": 70,
        "decision": 65,
        "then": "",
        "cause": {"kind": "exception", "sentence": "KeyError"},
    }
    attempt(made, "two", "8-0", begin={"time": T + 300, "nodes": "c1"}, end=end, events={0: events})
    (entry,) = (entry for entry in ledger(made, None, T + 500) if entry.job == "two")
    assert entry.hours.lost_s == {"start-up": 10, "idle": 2, "steps": 0}
    assert totals([entry])[0].hours == sum_of([entry.hours])


def test_words() -> None:
    assert [number(hours) for hours in (0, 0.0123, 1.26, 12.34, 1234.5)] == ["0", "0.012", "1.3", "12.3", "1234"]
    assert told(sum_of([hours_of(2, 0, 3600, {"steps": 900})])) == "2 node hours; lost 0.5 node hours"
    assert asdict(hours_of(0, 0, 0, {}))["node_hours"] == 0
