"""What a repair sends again, and what it leaves alone."""

from pathlib import Path

import pytest

from bingo.launch.cluster.slurm import Row
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit import repair
from bingo.launch.submit.submission import Sent
from tests.support.submissions import staged

pytestmark = pytest.mark.quick


def row(state: str) -> Row:
    return Row("1", state)


def test_repair_leaves_what_runs_and_sends_what_hangs_on_it_again(tmp_path: Path) -> None:
    """a failed; b waits for it in vain; c runs; d waits for c; of the array e one task failed and one was cancelled."""
    names = {"a": (), "b": ("a",), "c": (), "d": ("c",)}
    specs = [JobSpec(name, ((),), needs=needs) for name, needs in names.items()]
    submission = staged(tmp_path, *specs, JobSpec("e", ((), (), ()), array=True))
    states = {("b", 0): "PENDING", ("c", 0): "RUNNING", ("d", 0): "PENDING", ("e", 2): "RUNNING"}
    living = {key: (Sent(key[0], "7", (key[1],), 0.0), row(state)) for key, state in states.items()}
    unfinished = {"a": [0], "b": [0], "c": [0], "d": [0], "e": [0, 2]}
    assert repair._to_send(submission, unfinished, living) == {"a": [0], "b": [0], "e": [0]}
    repair.mark_cancelled(submission, "c", "bingo cancel")  # on its way out: not waited for in vain
    assert repair._to_send(submission, unfinished, living) == {"a": [0], "b": [0], "c": [0], "d": [0], "e": [0]}
    assert repair._with_dependents(submission, ["a"]) == {"a", "b"}


def test_a_thousand_living_tasks_are_one_short_line() -> None:
    assert repair._brief(["7", "8_1"]) == "7, 8_1"
    assert repair._brief([f"77_{task}" for task in range(1_000)]) == "77_0 to 77_999: 1000 tasks"
