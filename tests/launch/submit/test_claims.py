"""Two roots, one folder: the second submission is refused while a job of the first may write there."""

import json
from pathlib import Path

import pytest

from bingo.config import DemoDataConfig
from bingo.errors import UserError
from bingo.files import folder_lock
from bingo.launch.job.spec import JobSpec
from bingo.launch.layout import SUBMISSIONS
from bingo.launch.submit.claims import CLAIM, Alive, claimed
from bingo.launch.submit.submission import Sent
from bingo.stages import Stage
from tests.support.submissions import staged

pytestmark = pytest.mark.quick


def living(*names: str) -> Alive:
    return lambda submission: {(name, 0): Sent(name, "17", (0,), 0.0) for name in names}


def stage(out: Path) -> Stage:
    return Stage("a", "demo-data", DemoDataConfig(out=out))


def first(root: Path, out: Path) -> None:
    """A submission of a root that has claimed a folder."""
    staged(root, JobSpec("a", ((stage(out),),)), JobSpec("b", ((),)))
    with claimed(root, [stage(out)], living()):
        pass


def test_refused_while_its_job_may_write(tmp_path: Path) -> None:
    root, out = tmp_path / "r1", tmp_path / "deep" / "out"
    first(root, out)
    words = rf" belongs to the job a \(17\) of {root}/submissions/\S+, which may still run: see `bingo status {root}`"
    with pytest.raises(UserError, match=words), claimed(tmp_path / "r2", [stage(out)], living("a")):
        pass
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(UserError, match=words), claimed(tmp_path / "r2", [stage(tmp_path / "link")], living("a", "b")):
        pass
    (tmp_path / "another-name").symlink_to(root)
    for own in (tmp_path / "another-name", root):  # who sends there has looked already
        with claimed(own, [stage(out)], living("a")):
            pass
    assert json.loads((out / CLAIM).read_text()) == {"root": str(root)}
    with claimed(tmp_path / "r2", [stage(out)], living("b")):  # another job, which writes elsewhere
        pass
    assert json.loads((out / CLAIM).read_text()) == {"root": str(tmp_path / "r2")}


def test_refused_while_it_is_being_sent(tmp_path: Path) -> None:
    root, out = tmp_path / "r1", tmp_path / "out"
    first(root, out)
    with (
        folder_lock(root / SUBMISSIONS),
        pytest.raises(UserError, match=r"r1, whose jobs are being sent or ended now: try again later, or choose anoth"),
        claimed(tmp_path / "r2", [stage(out)], living()),
    ):
        pass


def test_a_silent_slurm_is_no_leave(tmp_path: Path) -> None:
    def silent(submission: object) -> dict[tuple[str, int], Sent]:
        raise UserError("squeue gives no answer")

    first(tmp_path / "r1", tmp_path / "out")
    with pytest.raises(UserError, match="no answer"), claimed(tmp_path / "r2", [stage(tmp_path / "out")], silent):
        pass


@pytest.mark.parametrize("text", ["", "\0" * 50, "{}", "[1]", '{"root": 3}', '{"root": "/nowhere"}'])
def test_a_stale_or_damaged_claim_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / CLAIM).write_text(text)
    with claimed(tmp_path / "r2", [stage(tmp_path / "out")], living("a")):
        pass
    assert json.loads((tmp_path / "out" / CLAIM).read_text()) == {"root": str(tmp_path / "r2")}


def test_a_refused_submission_gives_back_and_leaves_nothing(tmp_path: Path) -> None:
    first(tmp_path / "r1", tmp_path / "taken")
    (tmp_path / "mine").mkdir()
    stages = [stage(tmp_path / name) for name in ("new/deep", "mine", "taken")]
    with pytest.raises(UserError), claimed(tmp_path / "r2", stages, living("a")):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"r1", "taken", "mine"}
    assert list((tmp_path / "mine").iterdir()) == []
    assert json.loads((tmp_path / "taken" / CLAIM).read_text()) == {"root": str(tmp_path / "r1")}


def test_an_interrupted_submission_keeps_its_claims(tmp_path: Path) -> None:
    """Jobs that were sent before Ctrl-C run."""
    root, out = tmp_path / "r1", tmp_path / "out"
    staged(root, JobSpec("a", ((stage(out),),)))
    with pytest.raises(KeyboardInterrupt), claimed(root, [stage(out)], living()):
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="belongs to the job a"), claimed(tmp_path / "r2", [stage(out)], living("a")):
        pass
