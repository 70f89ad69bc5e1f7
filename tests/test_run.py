"""The chain through submitit: two ranks, resumed after a kill, recognised when done; the installed wheel."""

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.support.ranks import ROOT, bingo, wait_for


def chain(out: Path) -> list[object]:
    return ["run", "digits", "--out", out, "--seeds", 1, "--epochs", 1, "--device", "cpu"]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A chain that was killed, ranks and all, while the teacher was training, and then run again."""
    out = tmp_path_factory.mktemp("chain") / "digits"
    command = [sys.executable, "-m", "bingo", *map(str, chain(out))]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    metrics = out / "teacher" / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and metrics.stat().st_size > 5000, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = bingo(*chain(out))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return out, finished.stdout


@pytest.mark.slow
def test_one_line_per_stage_and_a_report(done: tuple[Path, str]) -> None:
    out, printed = done
    recipe = json.loads((out / "recipe.json").read_text())
    for stage in recipe["stages"]:
        rows = [line for line in printed.splitlines() if line.startswith(f"{stage['name']:28s}")]
        assert len(rows) == 1, f"{stage['name']} has {len(rows)} lines"
    assert "done before" in printed.splitlines()[0], "what was finished before the kill is not done again"
    assert (out / "report.html").stat().st_size < 5_000_000


@pytest.mark.slow
def test_every_training_step_once_after_the_kill(done: tuple[Path, str]) -> None:
    out, _ = done
    for run in [out / "teacher", *sorted((out / "students").iterdir())]:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps = [line["step"] for line in lines if line["kind"] == "train"]
        assert steps == list(range(json.loads((run / "stage.json").read_text())["figures"]["steps"]))
        assert json.loads((run / "stage.json").read_text())["ranks"] == 2


@pytest.mark.slow
def test_the_export_loads_strictly(done: tuple[Path, str]) -> None:
    from bingo.models import build_classifier

    out, _ = done
    described = json.loads((out / "export" / "weights.json").read_text())
    model = build_classifier(described["model"], described["classes"])
    model.load_state_dict(torch.load(out / "export" / "weights.pt", weights_only=True), strict=True)


@pytest.mark.slow
def test_a_second_run_does_nothing(done: tuple[Path, str]) -> None:
    out, _ = done
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = bingo(*chain(out))
    assert again.returncode == 0, again.stderr
    rows = again.stdout.splitlines()
    assert rows
    assert all("done before" in row for row in rows)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_unknown_recipe() -> None:
    finished = bingo("run", "digit")
    assert finished.returncode == 2
    assert "RECIPE: 'digit' is not allowed; did you mean 'digits'?" in finished.stderr


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """Built, installed beside this environment's packages, run from elsewhere: no checkout in sight."""
    source = tmp_path / "source"  # a copy: building leaves folders behind that would enter the next wheel
    for name in ("kernels", "bingo", "launch", "bench"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"bingo", next(top for top in tops if top.endswith(".dist-info"))}
    folders = [source / "bingo", *(source / name for name in ("kernels", "launch", "bench"))]
    sources = {str(path.relative_to(source)) for folder in folders for path in folder.rglob("*.py")}
    wanted = {name if name.startswith("bingo/") else f"bingo/{name}" for name in sources}
    assert {name for name in names if name.endswith(".py")} == wanted, "every module, in every folder"
    data = ("py.typed", "kernels/README.md", "bench/report/report.html.j2", "bench/report/recipe.html.j2")
    shells = ("launch/submit/wait.sh", "launch/submit/teardown.sh")
    assert {f"bingo/{name}" for name in (*data, *shells)} <= set(names)
    target = tmp_path / "env"
    venv.create(target, with_pip=False)
    (site,) = (target / "lib").glob("python3*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    import numpy

    (site / "others.pth").write_text(str(Path(numpy.__file__).resolve().parents[1]) + "\n")
    python = target / "bin" / "python"
    code = "import bingo.kernels as k, bingo.launch, bingo.bench.report.page as r; print(k.__file__, r.__file__)"
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = partial(subprocess.run, cwd=tmp_path, env=outside, capture_output=True, text=True)
    imported = run([python, "-c", code], check=True).stdout
    assert all(Path(word).is_relative_to(site) for word in imported.split())
    doctor = run([python, "-m", "bingo", "doctor"], check=True)
    assert str(site) in doctor.stdout
    for name in ("kernels", "launch", "bench"):
        missing = run([python, "-c", f"import {name}"], check=False)
        assert missing.returncode != 0 or not (site / name).exists()
