"""Sending chains without a Slurm: what a refusal takes back, and one writer of a root at a time."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.launch.cluster.site import Cluster
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.send import send
from tests.support.submissions import staged


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a pretended sbatch, and a scancel that writes down its words, on PATH."""

    def make(sbatch: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, body in (("sbatch", sbatch), ("scancel", f"echo $* >> {tmp_path}/cancelled")):
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_MEM_PER_CPU", "1")
        return tmp_path / "cancelled"

    return make


def test_a_refusal_takes_back_what_was_sent(tmp_path: Path, fake: Callable[[str], Path]) -> None:
    cancelled = fake(f"""
        [ -z "$SLURM_MEM_PER_CPU" ] || exit 9
        case "$*" in *jobs/c/*) echo 'sbatch: error: Batch job submission failed: Invalid account or account/partition \
combination specified' >&2; exit 1;; esac
        n=$(cat {tmp_path}/n 2>/dev/null || echo 40); n=$((n + 1)); echo $n > {tmp_path}/n; echo "$n;cluster"
        echo "$*" >> {tmp_path}/words""")
    submission = staged(tmp_path / "r", JobSpec("a", ((),)), JobSpec("b", ((),), needs=("a",)), JobSpec("c", ((),)))
    with pytest.raises(UserError) as raised:
        send(submission, {"a": [0], "b": [0], "c": [0]})
    assert "site.toml: sbatch refuses the job (Invalid account" in str(raised.value)
    assert "change the key account; " in str(raised.value)
    assert str(raised.value).endswith("; the jobs sent before it (41, 42) are cancelled")
    assert cancelled.read_text().split()[-2:] == ["41", "42"]
    assert "--dependency=afterok:41 " in (tmp_path / "words").read_text().splitlines()[1]
    assert json.loads((submission.folder / "refused").read_text())["job"] == "c"
    assert {job for job in "abc" if (submission.job_folder(job) / "cancelled").exists()} == {"a", "b"}
    assert [line.slurm_id for line in submission.sent()] == ["41", "42"], "the record stays true"


def test_no_slurm(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["submit", "digits", "--cluster", str(cluster.path), "--out", str(tmp_path / "r")]) == 2
    text = capsys.readouterr().err
    assert "no Slurm here (sinfo is not on PATH)" in text
    assert len(text.splitlines()) == 1
    assert not (tmp_path / "r").exists(), "a refused submission leaves nothing behind"
    (tmp_path / "file").write_text("")
    assert main(["submit", "digits", "--cluster", str(cluster.path), "--out", str(tmp_path / "file" / "r")]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_only_one_writer_of_a_root_at_a_time(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from bingo.launch.submit.send import writing

    with writing(tmp_path):
        assert main(["submit", "digits", "--cluster", str(cluster.path), "--out", str(tmp_path)]) == 2
    assert "another process is writing" in capsys.readouterr().err
