"""`bingo bench profile` on a short distillation: trace, table, record, wrong flags."""

import gzip
import json
from pathlib import Path

import pytest

from bingo.bench.command import main
from bingo.bench.profile.main import Until
from bingo.bench.record import read_result
from bingo.errors import UserError
from bingo.train.spans import PARTS
from bingo.watch import Watch
from tests.support.short_run import command

TRAINING = ["distill", "--data", "d", "--teacher", "t", "--bags", "b"]


def short(digits: Path, teacher: Path, bags: Path) -> list[str]:
    """The short run's words, without its --out."""
    words = [str(word) for word in command(digits, teacher, bags, Path("unused"))]
    at = words.index("--out")
    return [*words[:at], *words[at + 2 :], "--runtime.precision", "fp32", "--contrast.queue-dtype", "fp32"]


def test_a_real_training(
    digits: Path, teacher: Path, bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Watch, "listen", lambda _: None)  # of this process
    out, file = tmp_path / "out", tmp_path / "profile.json"
    words = ["--steps", "2:5", "--out", str(out), "--top", "3", "--json", str(file)]
    assert main(["profile", *words, "--", *short(digits, teacher, bags)]) == 0
    assert [path.name for path in out.iterdir()] == ["trace-rank0.json.gz"], "the run itself is not kept"
    events = json.loads(gzip.decompress((out / "trace-rank0.json.gz").read_bytes()))["traceEvents"]
    names = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    assert [name for name in names if name.startswith("bingo: step")] == [f"bingo: step {n}" for n in (2, 3, 4)]
    assert {name.removeprefix("bingo: ") for name in names} >= set(PARTS)
    assert any(event["name"] == "aten::convolution" for event in events)
    told = capsys.readouterr().out
    assert "host, median of 3 steps" in told
    rows = {row["metric"]: row["processes"][0] for row in read_result(file, "profile")["rows"]}
    whole = rows["host seconds per step: whole step"]
    parts = [rows[f"host seconds per step: {part}"] for part in (*PARTS, "other")]
    assert [sum(each) for each in zip(*parts, strict=True)] == pytest.approx(whole)
    assert all(min(rows[f"host seconds per step: {part}"]) > 0 for part in PARTS)

    with pytest.raises(UserError, match="holds files; name a new folder"):
        main(["profile", *words, "--", *TRAINING])
    (tmp_path / "run").mkdir()
    out.rename(tmp_path / "run" / "profile")
    assert main(["profile", "--of", str(tmp_path / "run")]) == 0
    assert told.splitlines()[1:5] == capsys.readouterr().out.splitlines()[1:5]
    with pytest.raises(UserError, match="holds no trace of rank 3; set --ranks to some of 0"):
        main(["profile", "--of", str(tmp_path / "run"), "--ranks", "0,3"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "70:90"], r"this run has 64 steps, 0 to 63; .*--steps of bingo bench profile\) to end at 64"),
        (["--ranks", "0,2"], "there is no rank 2 here, this run has rank 0 alone; name others"),
    ],
)
def test_steps_and_ranks_that_do_not_exist(
    digits: Path, teacher: Path, bags: Path, tmp_path: Path, words: list[str], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Watch, "listen", lambda _: None)
    with pytest.raises(UserError, match=said):
        main(["profile", *words, "--out", str(tmp_path / "out"), "--", *short(digits, teacher, bags)])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "5:5"], "'5:5' is no range A:B with A below B by at most 100, such as 10:15"),
        (["--steps", "1:2@0"], "'1:2@0' is no range A:B"),
        (["--out", "x"], r"the training is missing; name distill or pretrain and its flags behind --"),
        (["--out", "x", "--", "bags"], "'bags' is no training; name distill or pretrain"),
        (["--out", "x", "--", *TRAINING, "--out", "y"], "--out behind -- is of no use"),
        (["--", *TRAINING], "--out is missing; add --out DIR before --"),
        (["--of", "x", "--steps", "1:2"], "--steps says nothing beside --of"),
        (["--of", "x", "--", *TRAINING], "a training after -- says nothing beside --of"),
        (["--of", "nowhere"], "nowhere/profile holds no trace; add --runtime.profile 10:15 to the run's flags"),
    ],
)
def test_wrong_words(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        main(["profile", *words])


def test_the_run_is_asked_to_leave_behind_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "listen", lambda _: None)
    watch = Until(5)
    watch.beat(5)
    assert watch.asked is None, "the trace is written before the next step"
    watch.beat(6)
    assert watch.asked == "SIGTERM"
