"""Sending chains without a Slurm: what a refusal takes back, and one writer of a root at a time."""

import json
import os
import re
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.launch.cluster import slurm
from bingo.launch.cluster.site import Cluster
from bingo.launch.cluster.slurm import Row, Snapshot
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit import send as sending
from bingo.launch.submit.send import send
from tests.support.ranks import ROOT
from tests.support.submissions import job, staged, submission


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a pretended sbatch, a scancel that writes down its words, and a Slurm without jobs on PATH."""

    def make(sbatch: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        bodies = {"sbatch": sbatch, "scancel": f"echo $* >> {tmp_path}/cancelled"}
        bodies |= {"sinfo": "echo 'debug*|infinite|1-infinite|2'", "squeue": ":", "sacct": ":"}
        for name, body in bodies.items():
            (folder / name).write_text(f"#!/bin/sh\n{body}\n")
            (folder / name).chmod(stat.S_IRWXU)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_MEM_PER_CPU", "1")
        monkeypatch.setattr(slurm, "INTERVAL_S", 1.0)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
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


TAKES_ALL = """n=$(cat {0}/n 2>/dev/null || echo 40); echo $((n + 1)) > {0}/n; cat {0}/n; env > {0}/env"""


def write_site(path: Path, more: str, mode: int) -> Path:
    path.write_text(
        (ROOT / "tests" / "cluster" / "site.toml").read_text().replace("[env]", f"{more}\n[env]\nTOKEN='t0k'")
    )
    path.chmod(mode)
    return path


def words(site: Path, tmp_path: Path) -> list[str]:
    return ["submit", "digits", "--cluster", str(site), "--out", str(tmp_path / "50% j's"), "--seeds", "1"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400, 0o644])
def test_files_with_values_of_the_site_file_are_as_private(
    tmp_path: Path, fake: Callable[[str], Path], mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(TAKES_ALL.format(tmp_path))
    site = write_site(tmp_path / "site.toml", "", mode)
    before = os.umask(0o022)
    try:
        assert main(words(site, tmp_path)) == 0
        assert "env (TOKEN) are written into every script" in capsys.readouterr().err
        (folder,) = (tmp_path / "50% j's" / "submissions").glob("2*")
        (folder / "jobs" / "prepare" / "script.sh").chmod(0o644)
        assert main(["repair", str(tmp_path / "50% j's"), "--new-code"]) == 0
    finally:
        os.umask(before)
    holding = [path for path in folder.rglob("*") if path.is_file() and b"t0k" in path.read_bytes()]
    assert {path.name for path in holding} == {"script.sh", "site.toml"}
    assert {path.stat().st_mode & 0o077 for path in holding} == {mode & 0o044}


def test_a_variable_of_pass_env_is_in_no_file(
    tmp_path: Path, fake: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(TAKES_ALL.format(tmp_path))
    site = write_site(tmp_path / "site.toml", "pass_env = ['A_KEY']", 0o644)
    root = tmp_path / "50% j's"
    assert main([*words(site, tmp_path), "--dry-run"]) == 0
    assert "# $A_KEY comes from the shell" in capsys.readouterr().out
    assert main(words(site, tmp_path)) == 2
    assert "pass_env names A_KEY, which is not set in this shell; type `export A_KEY=...`" in capsys.readouterr().err
    assert not root.exists()
    monkeypatch.setenv("A_KEY", "s3cr3t")
    assert main(words(site, tmp_path)) == 0
    assert f"see `bingo status {shlex.quote(str(root))}`" in capsys.readouterr().out
    assert "A_KEY=s3cr3t" in (tmp_path / "env").read_text().splitlines()
    assert not [path for path in root.rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    monkeypatch.delenv("A_KEY")
    (tmp_path / "env").unlink()
    assert main(["repair", str(root)]) == 2
    assert "which is not set in this shell" in capsys.readouterr().err
    assert not (tmp_path / "env").exists(), "nothing is sent"


def test_what_the_shell_has_exported_for_other_jobs(
    tmp_path: Path, fake: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(TAKES_ALL.format(tmp_path))
    for name in ("SBATCH_PARTITION", "SLURM_CLUSTERS", "SRUN_EXPORT_ENV", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("RANK", "1")
    site = write_site(tmp_path / "site.toml", "", 0o644)
    assert main([*words(site, tmp_path), "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert main(words(site, tmp_path)) == 0
    for said in (shown.err, capsys.readouterr().err):
        assert "not passed to the jobs: SBATCH_PARTITION, SLURM_CLUSTERS, SLURM_MEM_PER_CPU, SRUN_EXPORT_ENV of" in said
    left = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert not {name for name in left if name.startswith(("SBATCH_", "SLURM_", "SRUN_", "TORCHELASTIC_", "RANK"))}
    for script in (tmp_path / "50% j's" / "submissions").glob("*/jobs/*/script.sh"):
        id_ = script.parents[2].name
        assert script.read_text() in re.sub(r"submissions/[0-9-]+", f"submissions/{id_}", shown.out)


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a:b", "a\udcff"])
def test_a_folder_that_no_job_can_have_is_refused_before_anything_is_written(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    command = ["submit", "digits", "--cluster", str(cluster.path), "--out", str(tmp_path / name / "r")]
    for more in ([], ["--dry-run"]):
        assert main([*command, *more]) == 2
        said = capsys.readouterr()
        assert "choose another --out" in said.err
        assert len(said.err.splitlines()) == 1
        assert not said.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", ["r", ".", "r/submissions", "r/submissions/x", "link"])
def test_a_stage_whose_folder_would_hold_the_jobs_files(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "r")
    before = sorted(tmp_path.rglob("*"))
    command = ["submit", "demo-data", "--cluster", str(cluster.path), "--out", str(tmp_path / "r")]
    for more in ([], ["--dry-run"]):
        assert main([*command, *more, "--", "--out", str(tmp_path / out)]) == 2
        said = capsys.readouterr().err
        assert "no stage can have a folder that holds" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between tries."""
    from bingo.launch.cluster import slurm
    from bingo.launch.submit import sbatch
    from bingo.launch.submit import send as sending

    for module in (slurm, sbatch, sending):
        monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr(slurm, "INTERVAL_S", 0.5)


TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
NOBODY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"


def put(fake: Callable[[str], Path], tmp_path: Path, sbatch: str, **others: str) -> None:
    """Pretended commands; each sbatch leaves a line in `tries`."""
    fake(f"echo x >> {tmp_path}/tries\n{sbatch}")
    for name, body in others.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(stat.S_IRWXU)


def tries(tmp_path: Path) -> int:
    return len((tmp_path / "tries").read_text().splitlines())


@pytest.mark.parametrize(
    "answer",
    [
        TIMED_OUT,
        "slurm_receive_msg: Zero Bytes were transmitted or received",
        "sbatch: error: Batch job submission failed: Message receive failure",
        f"{NOBODY}\n{TIMED_OUT}",
        "",
    ],
)
def test_a_lost_answer_is_looked_for_in_the_queue(
    tmp_path: Path, fake: Callable[[str], Path], hurried: None, answer: str
) -> None:
    """Slurm took the job and its answer was lost: the job is found, and never sent twice."""
    submission = staged(tmp_path / "r", JobSpec("a", ((),)), JobSpec("b", ((),), needs=("a",)))
    script = submission.job_folder("a") / "script.sh"
    lost = f"case $* in *jobs/a/*) echo '{answer}' >&2; exit {1 if answer else 0};; esac; echo 42"
    late = f"n=$(cat {tmp_path}/n || echo 0); echo $((n+1)) > {tmp_path}/n; [ $n = 0 ] || echo '41|N/A|{script}'"
    put(fake, tmp_path, lost, squeue=late)
    send(submission, {"a": [0], "b": [0]})
    assert [line.slurm_id for line in submission.sent()] == ["41", "42"]
    assert tries(tmp_path) == 2


@pytest.mark.parametrize(("squeue", "why"), [("exit 0", "squeue shows no such job"),
                                             ("echo slurm_load_jobs error: Zero Bytes were transmitted >&2; exit 1",
                                              "squeue does not answer either")])  # fmt: skip
def test_a_lost_answer_that_cannot_be_found(
    tmp_path: Path, fake: Callable[[str], Path], hurried: None, squeue: str, why: str
) -> None:
    submission = staged(tmp_path / "r", JobSpec("a", ((),)))
    put(fake, tmp_path, f"echo '{TIMED_OUT}' >&2; exit 1", squeue=squeue)
    with pytest.raises(UserError, match=f"Socket timed out.*{why}; once Slurm answers, `bingo repair .*r` goes on"):
        send(submission, {"a": [0]})
    assert tries(tmp_path) == 1
    assert (submission.job_folder("a") / "cancelled").exists(), "should it come up after all, it does not start"


@pytest.mark.parametrize(
    "words",
    [
        NOBODY,
        f"{TIMED_OUT.replace('failed', 'may have failed')}\n{NOBODY}",
        'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"\n'
        "sbatch: error: Batch job submission failed: Protocol authentication error",
        "sbatch: error: Batch job submission failed: Communication connection failure",
        "sbatch: error: Batch job submission failed: No route to host",
    ],
)
def test_what_nobody_heard_is_sent_again(
    tmp_path: Path, fake: Callable[[str], Path], hurried: None, words: str
) -> None:
    submission = staged(tmp_path / "r", JobSpec("a", ((),)))
    put(fake, tmp_path, f"[ $(wc -l < {tmp_path}/tries) -gt 2 ] || {{ echo '{words}' >&2; exit 1; }}; echo 41")
    send(submission, {"a": [0]})
    assert ([line.slurm_id for line in submission.sent()], tries(tmp_path)) == (["41"], 3)


@pytest.mark.parametrize("words", ["Slurm temporarily unable to accept job", "Slurm job queue full"])
def test_a_full_cluster_is_not_one_that_is_away(
    tmp_path: Path, fake: Callable[[str], Path], hurried: None, words: str
) -> None:
    """sbatch itself has tried for two minutes: one sentence, no second try, no search for a job that is not there."""
    submission = staged(tmp_path / "r", JobSpec("a", ((),)))
    said = (
        f"{words}, sleeping and retrying.\nsbatch: error: Batch job submission failed: Resource temporarily unavailable"
    )
    put(fake, tmp_path, f"echo 'sbatch: error: {said}' >&2; exit 1", squeue=f"echo x >> {tmp_path}/asked")
    with pytest.raises(UserError, match=r"the cluster holds as many jobs as it can \(MaxJobCount\)") as raised:
        send(submission, {"a": [0]})
    assert "does not answer" not in str(raised.value)
    assert (tries(tmp_path), (tmp_path / "asked").exists()) == (1, False)


def test_a_cancel_that_nobody_hears_is_said_and_stands(
    tmp_path: Path, fake: Callable[[str], Path], hurried: None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    submission = staged(tmp_path / "r", JobSpec("a", ((),)))
    away = f"echo x >> {tmp_path}/asked; echo 'error: Unable to contact slurm controller' >&2; exit 1"
    put(fake, tmp_path, "echo 41", squeue=away, sacct=away, scancel=away)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    send(submission, {"a": [0]})
    assert main(["cancel", str(tmp_path / "r")]) == 2
    assert f"they do not start again: repeat `bingo cancel {tmp_path}/r`" in capsys.readouterr().err
    assert (submission.job_folder("a") / "cancelled").exists()
    assert len((tmp_path / "asked").read_text().splitlines()) > 2, "asked more than once"


def test_a_job_whose_line_is_lost_is_found_in_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of the repair went down with the power; that of the first hand-over is whole."""
    made = submission(tmp_path, [job(tmp_path, "one")], {"one": "7"}, 1_795_522_000.0)
    with open(made.folder / "jobs.jsonl", "ab") as file:
        file.write(b"\0" * 90)
    script = made.job_folder("one") / "script.sh"
    rows = {"9": Row("9", "RUNNING", submit=1_795_522_100.0)}
    monkeypatch.setattr(sending, "run", lambda words, **k: f"CLUSTER: x\n9|N/A|{script}\n8|N/A|/another.sh\n")
    monkeypatch.setattr(sending, "ask", lambda *a, **k: Snapshot(1_795_522_200.0, queue=rows))
    assert [line.slurm_id for line in sending.alive(made).values()] == ["9"]
    assert [line.slurm_id for line in made.sent()] == ["7", "9"]
