"""`bingo bench history`: committed results by measurement and hardware, each against the one before."""

import subprocess
from pathlib import Path

import pytest

from bingo.bench.record import Row, read_result, write_result
from bingo.cli import main
from tests.support.ranks import ROOT


def result(path: Path, git: str, seconds: float, cpu: str = "x") -> None:
    row: Row = {
        "case": "batch 8", "variant": "ours", "metric": "seconds", "better": "lower", "clock": "cpu",
        "processes": [[seconds * x] for x in (0.99, 1.0, 1.0, 1.01, 1.02)],
    }  # fmt: skip
    write_result(path, "step", [row], environment={"git": git, "cpu": cpu, "cores": 2, "gpu": []})


def test_the_committed_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "history"]) == 0
    said = capsys.readouterr().out
    for name in ("kernels, AMD EPYC, 2 cores", "loader, AMD EPYC", "bags, AMD EPYC", "fidelity, Intel", "faults, AMD"):
        assert f"\n{name}" in f"\n{said}"
    for path in (ROOT / "bench" / "results").glob("*-cpu-*.json"):
        assert read_result(path)["environment"]["git"][:12] in said, path
    assert main(["bench", "history", "--only", "bags"]) == 0
    assert "kernels" not in capsys.readouterr().out


def test_versions_in_git_are_compared_within_one_hardware(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def git(*words: str) -> None:
        name = ["-c", "user.name=x", "-c", "user.email=x@x"]
        subprocess.run(["git", "-C", tmp_path, *name, *words], check=True, capture_output=True)

    git("init")
    path = tmp_path / "step.json"
    for commit, seconds in (("1111111", 1.0), ("2222222", 1.5)):
        result(path, commit, seconds)
        git("add", ".")
        git("commit", "-m", commit)
    path.write_text("{}")
    git("commit", "-am", "of another form")
    result(path, "3333333", 1.2)
    result(tmp_path / "elsewhere.json", "3333333", 9.0, cpu="y")
    assert main(["bench", "history", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("step")] == ["step", "step"]
    figures = {line.split()[1]: line.split()[-2:] for line in lines if "[" in line and "9 [" not in line}
    assert figures["2222222"] == ["1.500", "slower"]
    assert figures["3333333"] == ["0.800", "faster"]
    assert sum("slower" in line or "faster" in line for line in lines) == 2, "another machine is another story"
    assert lines[-1].startswith("1 earlier version(s)")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["no/such"], "no/such does not exist"),
        (["--only", "sleep"], "there is no result of 'sleep'"),
        (["{}"], "there is no result in"),
        (["{}/x.json"], "x.json names no schema"),
    ],
)
def test_bad_input(words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if "x.json" in words[-1]:
        (tmp_path / "x.json").write_text("{}")
    assert main(["bench", "history", *(word.format(tmp_path) for word in words)]) == 2
    assert sentence in capsys.readouterr().err
