"""Every kind of stage: two commands in one folder give one result and one refusal, and a kill changes no bit.

Longer: `python -m tests.support.stage_examples pairs|kills 20`.
"""

import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bingo import identity, stages
from bingo.errors import TransientError, UserError
from bingo.files import LOCK, folder_lock
from bingo.identity import read_record
from bingo.stages import Stage, run_stage
from bingo.watch import Leaving, Watch
from tests.support.ranks import ROOT
from tests.support.stage_examples import EXAMPLES, Inputs, killed, leftovers, outputs, pair


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("inputs")).make()


@pytest.fixture(scope="module", params=EXAMPLES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def whole(inputs: Inputs, kind: str, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What each variant writes undisturbed."""
    found = []
    for variant in (0, 1):
        out = tmp_path_factory.mktemp("whole") / "out"
        run_stage(inputs.stage(kind, out, variant))
        found.append(outputs(out))
    assert found[0] != found[1]
    return found


@pytest.mark.slow
@pytest.mark.sampled(5, by="kind")
def test_two_commands_in_one_folder(inputs: Inputs, kind: str, whole: list[dict[str, str]], tmp_path: Path) -> None:
    """Whoever is first has the folder; the other is told, and the record speaks of the content."""
    (first, second), variant = pair(inputs, kind, tmp_path / "out", random.Random(0))
    assert first == "done"
    assert "another process is writing" in second or " made with " in second
    assert outputs(tmp_path / "out") == whole[variant]


@pytest.mark.slow
@pytest.mark.sampled(5, by="kind")
def test_killed_and_run_again(inputs: Inputs, kind: str, whole: list[dict[str, str]], tmp_path: Path) -> None:
    for after_s in (0.3, 0.6):
        assert killed(inputs, kind, tmp_path / "out", after_s) == "done"
        assert outputs(tmp_path / "out") == whole[0]
        assert leftovers(tmp_path / "out") == []
        shutil.rmtree(tmp_path / "out")


class LeavesAt(Watch):
    """Hears a wish to leave after so many steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def beat(self, step: int) -> None:
        if step >= self.step:
            self.asked = "SIGTERM"


@pytest.mark.slow
def test_a_training_goes_on_with_new_code_and_stops_at_a_new_input(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun by another version: refused as it is, gone on with from its checkpoint where that is asked for, same bits.
    Begun with other images: refused, and the checkpoints stay."""
    run_stage(inputs.stage("pretrain", tmp_path / "whole"))
    stage = inputs.stage("pretrain", tmp_path / "out")
    monkeypatch.setattr(identity, "__version__", "0.0.9")
    with pytest.raises(Leaving):
        run_stage(stage, watch=LeavesAt(7))
    monkeypatch.undo()
    saved = sorted(path.name for path in (stage.out / "checkpoints").iterdir())
    with pytest.raises(UserError, match=r"out holds a model made with version 0.0.9 of bingo, not"):
        run_stage(stage)
    other = replace(stage, config=replace(stage.config, data=inputs.root / "val"))
    with pytest.raises(
        UserError, match=r"data \S+train, not \S+val; choose another --out, restore that input, or have"
    ):
        run_stage(other, sent={"any_version": True, "inputs": {}})
    assert sorted(path.name for path in (stage.out / "checkpoints").iterdir()) == saved
    run_stage(stage, sent={"any_version": True, "inputs": {}})
    assert outputs(stage.out) == outputs(tmp_path / "whole")
    record = read_record(stage.out)
    assert (record["version"], record["continued_by"]) == ("0.0.9", identity.__version__)
    assert record["figures"]["resumed_from"] == 7


@pytest.mark.slow
@pytest.mark.parametrize("names", [["stage.json"], ["stage.json", "config.json"]])
def test_a_training_whose_records_a_power_cut_has_emptied_goes_on(
    inputs: Inputs, tmp_path: Path, names: list[str]
) -> None:
    """Its checkpoints say themselves what they are of; to delete the folder would be to lose them."""
    stage = inputs.stage("pretrain", tmp_path / "out")
    with pytest.raises(Leaving):
        run_stage(stage, watch=LeavesAt(7))
    for name in names:
        (stage.out / name).write_bytes(bytes((stage.out / name).stat().st_size))
    with pytest.raises(UserError, match=r"was written by a run with other settings|holds a model made with seed=0"):
        run_stage(inputs.stage("pretrain", stage.out, 1))
    for name in names:
        (stage.out / name).write_bytes(b"")
    assert run_stage(stage)["figures"]["resumed_from"] == 7


def test_a_folder_that_goes_away_hides_no_error(
    inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmounts(stage: Stage, *_: object) -> None:
        shutil.rmtree(stage.out)
        raise UserError("cannot write metrics.jsonl: No such file or directory")

    monkeypatch.setattr(stages, "_run", unmounts)
    with pytest.raises(UserError, match=r"cannot write metrics.jsonl"):
        run_stage(inputs.stage("bags", tmp_path / "out"))


def test_what_killed_writers_left_is_swept(inputs: Inputs, tmp_path: Path) -> None:
    """A pretrain that was killed while it saved leaves a file as large as a checkpoint."""
    stage = inputs.stage("bags", tmp_path / "out")
    (stage.out / "checkpoints").mkdir(parents=True)
    for name in (".bags.npz.node7-123-0a1b2c3d.tmp", ".stage.json.4711.tmp", "checkpoints/.step-1.pt.n-1-aa.tmp"):
        (stage.out / name).write_bytes(b"half")
    run_stage(stage)
    assert leftovers(stage.out) == []


def test_a_folder_that_is_held(inputs: Inputs, tmp_path: Path) -> None:
    stage = inputs.stage("export", tmp_path / "out")
    stage.out.mkdir()
    with folder_lock(stage.out), pytest.raises(TransientError, match=r"another process is writing .*out now"):
        run_stage(stage)
    assert os.listdir(stage.out) == [LOCK]


def test_a_folder_with_other_things_is_refused_and_kept(inputs: Inputs, tmp_path: Path) -> None:
    stage = inputs.stage("bags", tmp_path / "out")
    stage.out.mkdir()
    (stage.out / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match=r"out holds 'thesis.tex' and no stage of bingo; choose a new or empty folder"):
        run_stage(stage)
    assert (stage.out / "thesis.tex").read_text() == "years"
    assert os.listdir(stage.out) == ["thesis.tex"], "no lock is left there"


def test_a_stage_that_was_begun_and_wrote_nothing_gives_way(inputs: Inputs, tmp_path: Path) -> None:
    """A killed `bags` holds no work; a killed training does, and so does a finished stage."""
    begun = inputs.stage("bags", tmp_path / "out")
    run_stage(begun)
    (tmp_path / "out" / "bags.npz").unlink()
    (tmp_path / "out" / "diagnostics.json").unlink()
    other = inputs.stage("bags", tmp_path / "out", 1)
    with pytest.raises(UserError, match="holds bags made with k=3, not 4"):
        run_stage(other)
    program = (
        "import os, sys; from pathlib import Path; from bingo import stages\n"
        "from tests.support.stage_examples import *\n"
        "stages.output_hashes = lambda out: os._exit(9) if not (out / 'bags.npz').unlink() else {}\n"
        "stage = Inputs(Path(sys.argv[1])).stage('bags', Path(sys.argv[2]))\n"
        "run_stage(stage)"
    )
    words = [sys.executable, "-c", program, str(inputs.root), str(tmp_path / "new")]
    assert subprocess.run(words, cwd=ROOT, check=False).returncode == 9
    (tmp_path / "new" / "diagnostics.json").unlink()
    assert run_stage(inputs.stage("bags", tmp_path / "new", 1))["skipped"] is False


def test_a_lock_whose_folder_is_deleted_meanwhile(tmp_path: Path) -> None:
    """A refused run deletes the folder that it made; who waits for it must not hold a lock that nobody sees."""
    out = tmp_path / "out"
    out.mkdir()
    program = (
        "import sys, time; from pathlib import Path; from bingo import files\n"
        "out, try_lock = Path(sys.argv[1]), files.try_lock\n"
        "files.try_lock = lambda descriptor: try_lock(descriptor) or print('waits', flush=True)\n"
        "with files.folder_lock(out, 600):\n    print('held', flush=True); time.sleep(60)"
    )
    with folder_lock(out):
        waiter = subprocess.Popen(
            [sys.executable, "-c", program, str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert waiter.stdout is not None
        assert waiter.stdout.readline() == "waits\n"
        shutil.rmtree(out)
    assert next(line for line in waiter.stdout if line != "waits\n") == "held\n"
    with pytest.raises(TransientError), folder_lock(out):
        pass
    waiter.kill()
    waiter.communicate()
