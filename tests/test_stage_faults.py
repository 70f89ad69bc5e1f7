"""Every kind of stage: two commands in one folder give one result and one refusal, and a kill changes no bit.

Longer: `python -m tests.support.stage_examples pairs|kills 20`.
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bingo.errors import TransientError, UserError
from bingo.files import LOCK, folder_lock
from bingo.stages import run_stage
from tests.support.ranks import ROOT, wait_for
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
def test_two_commands_in_one_folder(inputs: Inputs, kind: str, whole: list[dict[str, str]], tmp_path: Path) -> None:
    """Whoever is first has the folder; the other is told, and the record speaks of the content."""
    (first, second), variant = pair(inputs, kind, tmp_path / "out", random.Random(0))
    assert first == "done"
    assert "another process is writing" in second or " made with " in second
    assert outputs(tmp_path / "out") == whole[variant]


@pytest.mark.slow
def test_killed_and_run_again(inputs: Inputs, kind: str, whole: list[dict[str, str]], tmp_path: Path) -> None:
    for after_s in (0.3, 0.6):
        assert killed(inputs, kind, tmp_path / "out", after_s) == "done"
        assert outputs(tmp_path / "out") == whole[0]
        assert leftovers(tmp_path / "out") == []
        shutil.rmtree(tmp_path / "out")


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
        "import sys, time; from pathlib import Path; from bingo.files import folder_lock\n"
        "out = Path(sys.argv[1])\n"
        "with folder_lock(out, 60):\n    print('held', flush=True); time.sleep(60)"
    )
    with folder_lock(out):
        waiter = subprocess.Popen(
            [sys.executable, "-c", program, str(out)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        wait_for(lambda: str(out / LOCK) in open_files(waiter.pid), waiter)
        shutil.rmtree(out)
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == "held\n"
    with pytest.raises(TransientError), folder_lock(out):
        pass
    waiter.kill()
    waiter.communicate()


def open_files(pid: int) -> list[str]:
    found = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # closed since
            found.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found
