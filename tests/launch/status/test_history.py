"""The ledger of attempts: where time went, which steps were lost, why each start ended."""

import json

import pytest

from bingo.launch.status.history import ledger, lines, totals
from bingo.launch.submit.submission import Submission
from tests.support.submissions import attempt
from tests.support.two_chains import PAST, T, event

pytestmark = pytest.mark.quick


def test_lost_steps_and_time(made: Submission) -> None:
    first, second = ledger(made, PAST, T + 200)
    assert (first.attempt, first.queued_s, first.startup_s, first.ended) == (1, 10, 10, T + 60)
    assert (first.steps, first.steps_lost, first.checkpoint_s) == (13, 3, 5.0)
    assert first.training_s == 60 - 20 - 5
    assert first.lost_s == pytest.approx(35 * 3 / 13)
    assert first.cause is not None
    assert (first.cause["kind"], first.cause["node"]) == ("node lost", "c1"), "the batch script's, which left no end"
    assert (second.queued_s, second.startup_s, second.training_s) == (15, 10, 110 - 85 - 4)
    assert (second.steps, second.steps_lost) == (10, 0)
    assert second.cause == {"kind": "left", "sentence": "asked to leave"}
    total = totals([first, second])[0]
    assert (total.attempts, total.queued_s, total.steps - total.steps_lost) == (2, 25, 20)
    assert total.useful_s == pytest.approx(35 * 10 / 13 + 21)


def test_without_accounting(made: Submission) -> None:
    """The end of a start that left no record is its last sign of life; the queue is timed from what jobs wrote."""
    first, second = ledger(made, None, T + 200)
    assert (first.ended, first.queued_s, first.steps_lost) == (T + 50, 11, 3)
    assert second.queued_s == 76 - 50
    text = list(lines([first, second], T + 200))
    assert text[0] == "one"
    assert "13 steps, 3 of them lost" in text[1]
    assert text[-1].startswith("  in all 2 starts: queued 37 s, ")
    assert "lost 6 s (3 of 23 steps); 0.041 node hours" in text[-1]


def test_a_start_that_never_resumed_loses_nothing_more(made: Submission) -> None:
    """The second start ended while it read the checkpoint: the third one tells where the first one's work went on."""
    folder = made.job_folder("one") / "attempts"
    (folder / "7-1").rename(folder / "7-2")
    attempt(made, "one", "7-1", begin={"time": T + 70}, events={0: [event(71, "stage", name="stage of one")]})
    assert [(entry.steps, entry.steps_lost) for entry in ledger(made, None, T + 200)] == [(13, 3), (0, 0), (10, 0)]


def test_each_start_says_how_fast_it_trained(made: Submission) -> None:
    """What it told last, which a start without a checkpoint does not."""
    file = made.job_folder("one") / "attempts" / "7-1" / "rank-0.jsonl"
    told = [
        event(100 + at, "speed", step=9, images_per_second=rate, loader_wait=0.25) for at, rate in ((0, 5), (1, 37.5))
    ]
    file.write_text(file.read_text() + "".join(json.dumps(each) + "\n" for each in told))
    first, second = ledger(made, PAST, T + 200)
    assert (first.images_per_second, first.loader_wait) == (None, None)
    assert (second.images_per_second, second.loader_wait) == (37.5, 0.25)
    text = list(lines([first, second], T + 200))
    assert "images/s" not in text[1]
    assert "steps, 38 images/s, 25 % waiting for images, " in text[3]
