"""`bingo status`: true at every moment, on what a real Slurm 22.05 said (slurm_recorded.json) and what jobs wrote.

The recorded cluster had two nodes and these jobs: `big` on both; `fails`; `tail` and `never`, which need it (with and
without kill-on-invalid-dep); `arr`, whose task 2 was cancelled while it waited; `self`, which requeues itself once;
`hold`, requeued and held by hand; `nf`, which wants the node c2; `victim`, of a low priority.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bingo.launch.cluster.slurm import Row, Snapshot
from bingo.launch.status.states import State, states
from bingo.launch.status.summary import summary_of, table
from bingo.launch.submit.submission import Submission
from tests.support.submissions import attempt, job, submission
from tests.support.two_chains import SENT, recorded

pytestmark = pytest.mark.quick


def one(tmp_path: Path, moment: str, slurm_id: str) -> State:
    """The state of a chain of one job at a recorded moment."""
    snapshot = recorded(moment)
    return states(submission(tmp_path, [job(tmp_path, "one")], {"one": slurm_id}, SENT - 600), snapshot, snapshot.time)[
        0
    ]


def at(chain: Submission, moment: str) -> dict[str, State]:
    snapshot = recorded(moment)
    found = states(chain, snapshot, snapshot.time)
    return {state.job if state.task is None else f"{state.job}{state.task}": state for state in found}


def short(found: dict[str, State]) -> dict[str, str]:
    return {name: state.state for name, state in found.items()}


def test_all_wait(chain: Submission) -> None:
    found = at(chain, "sent")
    assert found["big"].state == "starting"  # Slurm runs it, and no rank has said anything
    assert (found["tail"].state, found["tail"].text) == ("waiting", "it waits for fails")
    assert found["fails"].text.startswith("it is the next in line and waits until nodes are free")
    assert found["arr3"].state == "waiting"
    assert found["arr3"].slurm_id == "39_3"
    assert found["nf"].text == "it was handed to Slurm just now"


def test_a_failure_breaks_the_tail(chain: Submission) -> None:
    found = at(chain, "failed")
    assert (found["fails"].state, found["fails"].text) == ("failed", "its script ended with status 3")
    assert (found["tail"].state, found["tail"].text) == ("cancelled", "cancelled because it needs fails, which failed")
    assert found["never"].state == "stuck"
    assert found["never"].text == "it will never start: it needs fails, which failed"
    told = summary_of(list(found.values()), Path("runs/x"))
    assert told.state == "failed"
    assert told.line.startswith("failed: fails: its script ended with status 3; ")
    assert told.next == ("bingo logs runs/x fails", "bingo repair runs/x")


def test_a_cancelled_pending_task_has_no_row_anywhere(chain: Submission) -> None:
    found = at(chain, "array")
    assert "39_2" not in (recorded("array").queue or {})
    assert (found["arr2"].state, found["arr2"].text) == ("cancelled", "it was cancelled while it waited")
    assert found["arr1"].text == "as many tasks of this array run as its limit allows"
    assert found["arr0"].state == "starting"
    rows = [row.job for row in table(list(found.values()), SENT)]
    assert [row for row in rows if row.startswith("arr")] == ["arr [0]", "arr [1]", "arr [2]", "arr [3]"]


def test_a_job_that_was_sent_just_now_is_not_cancelled(chain: Submission) -> None:
    snapshot = replace(recorded("array"), time=SENT + 3)
    assert {state.state for state in states(chain, snapshot, SENT + 3) if state.job == "nf"} == {"waiting"}


def test_the_delay_after_a_requeue(chain: Submission) -> None:
    """Before the job has written anything, accounting alone knows of its first start; its own record says more."""
    found = at(chain, "delay")["self"]
    assert found.state == "requeued"
    assert found.text.startswith("start 1 ended: it was requeued; it waits for the delay after its requeue until ")
    cause = {"kind": "killed", "sentence": "rank 1 on c2 was killed (SIGKILL) at step 7", "rank": 1}
    attempt(chain, "self", "40-0", begin={"time": SENT + 12}, end={"time": SENT + 14, "decision": 75, "cause": cause})
    found = at(chain, "delay")["self"]
    assert found.text.startswith("start 1 ended: rank 1 on c2 was killed (SIGKILL) at step 7; it waits for the delay")
    assert found.cause == cause
    assert at(chain, "held")["self"].text.startswith(
        "start 1 ended: rank 1 on c2 was killed (SIGKILL) at step 7; it is"
    )


def test_held_unavailable_and_taken_nodes(chain: Submission) -> None:
    held = at(chain, "held")
    assert (held["hold"].state, held["hold"].text) == (
        "stuck",
        "start 1 ended: it was requeued; it is held; `scontrol release 41` lets it go",
    )
    assert held["victim"].text.startswith("nodes that it needs are down, drained or kept for jobs of higher priority")
    assert "nodes that it needs are down, drained or reserved (c2)" in at(chain, "unavailable")["nf"].text
    assert at(chain, "completing")["arr3"].state == "ending"


def test_the_end(chain: Submission) -> None:
    assert short(at(chain, "end")) == {
        "big": "done", "fails": "failed", "tail": "cancelled", "never": "stuck", "arr0": "done", "arr1": "done",
        "arr2": "cancelled", "arr3": "done", "self": "done", "hold": "cancelled", "nf": "starting", "victim": "done",
    }  # fmt: skip


def test_preemption_and_a_lost_node_end_nothing(tmp_path: Path) -> None:
    preempted = one(tmp_path, "preempted", "20")
    assert preempted.state == "requeued"
    assert preempted.text.startswith("start 1 ended: a job of higher priority took its nodes; it waits for the delay")
    lost = one(tmp_path, "node_down", "19")
    assert (lost.state, lost.text.split(";")[0]) == ("requeued", "start 1 ended: a node went down (c2)")
    back = one(tmp_path, "node_back", "19")
    assert (back.state, back.nodes, back.attempts) == ("starting", "c2", 2)


def test_a_lost_node_that_accounting_has_not_heard_of(tmp_path: Path) -> None:
    """sacct still says RUNNING: squeue wins, and nothing is made up."""
    queue = {"7": Row("7", "PENDING", "BeginTime", SENT + 60, SENT + 180, SENT + 180, restarts=1)}
    past = {"7": (Row("7", "RUNNING", "", SENT, SENT, SENT + 1, nodes="c[1-2]"),)}
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, SENT)
    state = states(made, Snapshot(SENT + 61, SENT, queue, past), SENT + 61)[0]
    assert state.state == "requeued"
    assert state.text.startswith(
        "start 1 ended: it ended without a record: its node went down or it was killed; it waits"
    )
    gone = states(made, Snapshot(SENT + 61, SENT, {}, past), SENT + 3_600)[0]
    assert gone.state == "failed", "accounting that says RUNNING for ever is not believed"


@pytest.mark.parametrize("end", ["NODE_FAIL", "PREEMPTED"])
def test_final_only_once_out_of_the_queue(tmp_path: Path, end: str) -> None:
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, SENT)
    past = {"7": (Row("7", end, "", SENT, SENT, SENT + 1, SENT + 9, nodes="c2"),)}
    known = states(made, Snapshot(SENT + 60, SENT, {}, past), SENT + 60)[0]
    assert known.state == "failed"
    assert known.text.endswith("; Slurm did not start it again")
    assert states(made, Snapshot(SENT + 60, SENT, None, past), SENT + 60)[0].state == "unknown"


def test_out_of_memory(tmp_path: Path) -> None:
    """The recorded cluster has no memory limits: this row is made by hand."""
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, SENT)
    queue = {"7": Row("7", "OUT_OF_MEMORY", "OutOfMemory", SENT, SENT, SENT + 1, SENT + 9, nodes="c2", signal=9)}
    state = states(made, Snapshot(SENT + 60, SENT, queue, {}), SENT + 60)[0]
    assert (state.state, state.text) == ("failed", "it used more memory than it had asked for")


def test_no_accounting(tmp_path: Path) -> None:
    """squeue's memory and the files answer; what is missing in both was cancelled."""
    found = one(tmp_path, "no_accounting", "1")
    assert (found.state, found.text) == ("failed", "its script ended with status 137")
    assert recorded("no_accounting").problems[0].startswith("this cluster keeps no accounting")
    made = submission(tmp_path / "later", [job(tmp_path, "one")], {"one": "9"}, SENT)
    attempt(
        made, "one", "9-0", end={"time": SENT + 90, "decision": 0, "cause": {"kind": "done", "sentence": "finished"}}
    )
    assert states(made, recorded("no_accounting"), SENT + 9_999)[0].state == "done"


EVENTS = [
    {"time": SENT + 20, "event": "start", "host": "c1", "pid": 5},
    {"time": SENT + 25, "event": "stage", "name": "stage of one"},
    {"time": SENT + 26, "event": "resumed", "step": 40},
]
RUNS = {"7": Row("7", "RUNNING", "", SENT, SENT, SENT + 19, nodes="c[1-2]")}


def test_running(tmp_path: Path) -> None:
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, SENT)
    snapshot = Snapshot(SENT + 60, SENT, RUNS, {})
    assert states(made, snapshot, SENT + 60)[0].text == "its script runs; no rank has begun"
    attempt(made, "one", "7-0", begin={"time": SENT + 19, "nodes": "c[1-2]"}, events={0: EVENTS[:1]})
    assert states(made, snapshot, SENT + 60)[0].state == "starting"
    attempt(made, "one", "7-0", events={0: EVENTS})
    assert states(made, snapshot, SENT + 60)[0].step == 40
    attempt(made, "one", "7-0", beat=f"52 {SENT + 59:.3f} stage of one")
    running = states(made, snapshot, SENT + 60)[0]
    assert (running.state, running.stage, running.step) == ("running", "stage of one", 52)
    assert (running.text, running.nodes) == ("stage of one, step 52", "c[1-2]")
    assert states(made, snapshot, SENT + 659)[0].text == "stage of one, step 52; no sign of life for 10 min"
    failed = {"time": SENT + 61, "event": "failed", "kind": "exception", "error": "KeyError: 'x'", "step": 53}
    attempt(made, "one", "7-0", events={1: [{**EVENTS[0], "host": "c2"}, failed]})
    ending = states(made, snapshot, SENT + 62)[0]
    assert ending.state == "ending"
    assert ending.text.startswith("rank 1 on c2 failed")
    assert "KeyError: 'x'" in ending.text


def test_a_start_that_squeue_has_not_told_of_yet(tmp_path: Path) -> None:
    """An answer of the scheduler is up to 10 s old; the files are not."""
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, SENT)
    waits = {"7": Row("7", "PENDING", "BeginTime", SENT + 60, SENT + 70, SENT + 70, restarts=1)}
    attempt(made, "one", "7-0", begin={"time": SENT}, end={"time": SENT + 60, "decision": 75, "cause": None})
    assert states(made, Snapshot(SENT + 61, SENT, waits, {}), SENT + 71)[0].state == "requeued"
    attempt(made, "one", "7-1", begin={"time": SENT + 70, "nodes": "c2"})
    for queue in (waits, RUNS):
        found = states(made, Snapshot(SENT + 61, SENT, queue, {}), SENT + 71)[0]
        assert (found.state, found.nodes, found.since) == ("starting", "c2", SENT + 70)


def test_without_an_answer_the_files_speak(tmp_path: Path) -> None:
    made = submission(tmp_path, [job(tmp_path, "one"), job(tmp_path, "two", "one")], {"one": "7", "two": "8"}, SENT)
    attempt(made, "one", "7-0", begin={"time": SENT}, events={0: EVENTS}, beat=f"52 {SENT + 59:.3f} stage of one")
    snapshot = recorded("controller_down")
    fresh, tail = states(made, snapshot, SENT + 70)
    assert (fresh.state, fresh.step) == ("running", 52)
    assert (tail.state, tail.text) == ("unknown", "it may wait or run; squeue gives no answer")
    old = states(made, snapshot, SENT + 3_600)
    assert old[0].text == "last heard of 59 min ago: stage of one, step 52; squeue gives no answer"
    assert summary_of(old, tmp_path).state == "unknown"
    user = {"kind": "user", "sentence": "the global batch is larger than the images"}
    attempt(made, "one", "7-0", end={"time": SENT + 99, "decision": 65, "cause": user})
    assert states(made, snapshot, SENT + 100)[0].text == user["sentence"]


def test_cancelled_while_requeued(tmp_path: Path) -> None:
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, SENT)
    cause = {"kind": "left", "sentence": "asked to leave by SIGUSR2; ranks left at step 9"}
    attempt(made, "one", "7-0", begin={"time": SENT}, end={"time": SENT + 9, "decision": 75, "cause": cause})
    state = states(made, Snapshot(SENT + 60, SENT, {}, {}), SENT + 60)[0]
    assert (state.state, state.text) == ("cancelled", f"{cause['sentence']}; it was cancelled before it started again")


def test_done_before_and_never_sent(tmp_path: Path) -> None:
    """An array's tasks that were not sent with the others were done; a refusal is told with its reason."""
    jobs = [job(tmp_path, "one"), job(tmp_path, "many", "one", tasks=2), job(tmp_path, "bad"), job(tmp_path, "last")]
    made = submission(tmp_path, jobs, {"many": "7"}, SENT, done=["one"])
    line = {"job": "many", "slurm_id": "7", "time": SENT, "repair": 0, "tasks": [1]}
    (made.folder / "jobs.jsonl").write_text(json.dumps(line) + "\n")
    empty = Snapshot(SENT + 60, SENT, {}, {})
    assert [s.state for s in states(made, empty, SENT + 60)] == [
        "done before", "done before", "cancelled", "never sent", "never sent",
    ]  # fmt: skip
    (made.folder / "refused").write_text('{"job": "bad", "reason": "no such partition"}')
    (made.job_folder("many") / "cancelled").write_text('{"time": 1, "reason": "bad was refused"}')
    assert [s.text for s in states(made, empty, SENT + 60)][2:] == [
        "cancelled: bad was refused", "Slurm refused it: no such partition", "not sent because bad was refused",
    ]  # fmt: skip


def test_a_requeue_that_waits_for_the_controller(tmp_path: Path) -> None:
    """The script asks on while the controller is away; what it is told, `status` says, and how it ended."""
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, SENT)
    cause = {"kind": "killed", "sentence": "rank 1 on c2 was killed (SIGKILL) after step 7"}
    end = {"time": SENT + 60, "decision": 75, "cause": cause, "then": "it starts again"}
    place = attempt(made, "one", "7-0", begin={"time": SENT}, end=end, events={0: EVENTS})
    away, back = recorded("controller_down"), Snapshot(SENT + 81, SENT, RUNS, {})
    assert states(made, away, SENT + 65)[0].state == "ending", "it has not asked once yet"
    tries = f"{SENT + 69:.0f} Unexpected message received\n{SENT + 80:.0f} Unexpected message received\n\0\0\n\n9"
    (place / "requeue").write_text(tries)
    for snapshot in (away, back):
        found = states(made, snapshot, SENT + 81)[0]
        assert found.state == "ending"
        assert found.text.startswith(f"{cause['sentence']}; its requeue waits for the controller: tried 2 times since ")
        assert found.text.endswith("(Unexpected message received)")
    assert states(made, away, SENT + 800)[0].state == "unknown", "its script is not there any more"
    ended = {"7": Row("7", "FAILED", "NonZeroExitCode", SENT, SENT, SENT, SENT + 700, exit_code=137)}
    for queue in (ended, {}):
        failed = states(made, Snapshot(SENT + 801, SENT, queue, {}), SENT + 801)[0]
        assert failed.state == "failed"
        assert "; Slurm never took it back: tried 2 times since " in failed.text
        assert failed.text.endswith("; `bingo repair` sends it again")
    (place / "requeue").write_text(f"{tries}\n{SENT + 90:.0f} accepted\n")
    assert states(made, away, SENT + 91)[0].state == "unknown"
    assert states(made, back, SENT + 91)[0].text == f"{cause['sentence']}; it starts again"


def test_what_a_damaged_record_may_have_lost_is_not_called_unsent(tmp_path: Path) -> None:
    jobs = [job(tmp_path, "one"), job(tmp_path, "many", "one", tasks=2), job(tmp_path, "last")]
    made = submission(tmp_path, jobs, {"many": "7"}, SENT, done=["one"])
    text = json.dumps({"job": "many", "slurm_id": "7", "time": SENT, "repair": 0, "tasks": [1]})
    (made.folder / "jobs.jsonl").write_bytes(text.encode() + b"\n" + b"\0" * 80)
    found = states(made, Snapshot(SENT + 60, SENT, {}, {}), SENT + 60)
    assert [s.state for s in found] == ["done before", "unknown", "cancelled", "unknown"]
    assert found[-1].text == "whether it was handed to Slurm is not known: that record is damaged"
