"""`bingo bench scaling`: its folder, ranks here from end to end, and jobs that fail."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from bingo.bench.record import read_result, samples_of
from bingo.bench.scaling import cluster, main
from bingo.bench.scaling.rows import CPU
from bingo.cli import main as command
from bingo.errors import TransientError
from bingo.launch.status.states import State
from bingo.stages import Stage
from tests.support.scaling import FEW, TINY, plan


def told(words: Sequence[object], capsys: pytest.CaptureFixture[str], status: int) -> str:
    assert command(["bench", "scaling", *map(str, words)]) == status
    said = capsys.readouterr()
    return said.err if status == 2 else said.out


@pytest.mark.quick
def test_folders_of_others_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["--out", out, "--local", 1, *TINY, *FEW]
    out.mkdir()
    (out / "notes.txt").touch()
    assert "holds 'notes.txt' and no measurement of scaling; choose a new or empty" in told(words, capsys, 2)
    (out / "settings.json").write_text('{"measurement": "tea"}')
    assert "settings.json is not what bingo writes under that name" in told(words, capsys, 2)
    (out / "settings.json").write_text(json.dumps({**plan(out, *words[2:]).settings, "batch": 4}))
    (out / "points" / "one").mkdir(parents=True)
    (out / "points" / "one" / "stage.json").touch()
    assert "holds a measurement with batch=4, not 8; give the same flags, or choose another" in told(words, capsys, 2)
    (out / "settings.json").write_text(json.dumps({**plan(out, *words[2:]).settings, "partition": "gpu"}))
    assert "holds a measurement with partition=gpu, not None" in told(words, capsys, 2)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "notes.txt", "points", "settings.json"]
    assert "cannot create the folder" in told(["--out", out / "notes.txt" / "x", *words[2:]], capsys, 2)


@pytest.mark.slow
def test_ranks_here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One and two, by gloo; what is done is not run again, and a copy of the result lies where it is wanted."""
    where = ["--out", tmp_path / "out", "--json", tmp_path / "copy.json"]
    words = [*where, "--local", "1,2", "--mode", "weak", *TINY, *FEW]
    out = told(words, capsys, 0)
    result = read_result(tmp_path / "copy.json", "scaling")
    assert not result["partial"]
    rows = [row for row in result["rows"] if row["metric"] == CPU]
    assert [len(row["processes"]) for row in rows] == [1, 2], "a list for each rank"
    assert all(sample > 0 for row in result["rows"] if row["clock"] == "cpu" for sample in samples_of(row))
    assert {point["gradient_bytes"] for point in result["detail"]["points"]} == {gradient_bytes()}
    assert "weak scaling: tiny-2 from tiny-2, 16 px, fp32, random crops" in out
    monkeypatch.setattr("bingo.launch.local._run_job", lambda *_: pytest.fail("ran again"))
    assert told(words, capsys, 0) == out


def gradient_bytes() -> int:
    """Four bytes for each weight of the student."""
    from bingo.models import seeded_encoder

    return 4 * sum(p.numel() for p in seeded_encoder("tiny-2", dim=16, hidden=32, seed=0).parameters())


class Queue:
    """A Slurm of which every question is answered by the next state of a list."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answers: list[Sequence[State] | Exception]) -> None:
        self.answers, self.sent = answers, 0
        for name, stand_in in {
            "newest": lambda root: None, "alive": lambda submission: {}, "submit": self.submit, "look": lambda _: None,
            "states": self.states, "PERIOD_S": 0, "LOOK_S": 0,
        }.items():  # fmt: skip
            monkeypatch.setattr(cluster, name, stand_in)

    def submit(self, *_: object, **__: object) -> SimpleNamespace:
        self.sent += 1
        return SimpleNamespace(id="20260101")

    def states(self, *_: object) -> Sequence[State]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site.toml").write_text("nodes = 2\n")
    return tmp_path / "site.toml"


@pytest.mark.quick
def test_a_job_that_fails_is_told_of(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm is away for a while; one job fails, the other is cancelled; both are named once, nothing is sent again."""
    found = plan(tmp_path / "out", "--cluster", site, "--nodes", "1,2", "--mode", "weak", *TINY)
    one, two = (stage.name for stage in found.stages)
    waiting = [State(name, None, "waiting", "in the queue") for name in (one, two)]
    ends = [State(one, None, "failed", "rank 0 ran out of memory"), State(two, None, "cancelled", "it was cancelled")]
    queue = Queue(monkeypatch, [waiting, TransientError("no answer"), [waiting[0], ends[1]], ends])
    assert [(stage.name, problem) for stage, problem in cluster.measure_there(found)] == [
        (one, "failed: rank 0 ran out of memory"), (two, "cancelled: it was cancelled"),
    ]  # fmt: skip
    assert (queue.sent, queue.answers) == (1, [])
    measured = main.collect(found.points[0], {one: "failed: rank 0 ran out of memory"})
    assert measured.problems == (f"{one}: failed: rank 0 ran out of memory",)


@pytest.mark.quick
def test_a_failed_job_makes_the_result_partial(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(found: object) -> Iterator[tuple[Stage, str]]:
        yield plan(tmp_path / "out", *words[2:]).stages[0], "failed: a node was lost"

    words = ["--out", tmp_path / "out", "--cluster", site, "--nodes", "1", *TINY]
    monkeypatch.setattr(main, "check_cluster", lambda plan: None)
    monkeypatch.setattr(main, "measure_there", fails)
    out = told(words, capsys, 1)
    assert "failed: a node was lost" in out
    assert "the same command sends again what failed" in out
    result = read_result(tmp_path / "out" / "scaling.json")
    assert (result["partial"], len(result["rows"])) == (True, 2), "weak and strong"
    assert all("failed: a node was lost" in row["error"] for row in result["rows"])
