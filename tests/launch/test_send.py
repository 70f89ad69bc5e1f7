"""Sending chains without a Slurm: needs, what is done, folders that are never shared, refusals, grids of settings."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.launch.cluster.site import Cluster
from bingo.launch.cluster.slurm import Row
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit import repair
from bingo.launch.submit.sbatch import minutes, refusal, sbatch_words
from bingo.launch.submit.send import send
from bingo.launch.submit.submission import Sent, Submission, newest, stage
from tests.support.ranks import ROOT

STAGER = """
import sys, time, pathlib
from bingo.launch.submit import submission
from bingo.launch.job.spec import JobSpec
root, gate, who = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
fill = lambda staged, final: (staged / "who").write_text(f"{who} {final}")
pathlib.Path(f"{gate}-{who}").touch()
while not gate.exists(): time.sleep(0.0005)
for _ in range(15): print(submission.stage(root, {}, [JobSpec("a b", ())], fill).folder)
"""


def test_submissions_of_the_same_instant_never_share_a_folder(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    command = [sys.executable, "-c", STAGER, str(tmp_path / "root"), str(gate)]
    processes = [
        subprocess.Popen([*command, str(who)], stdout=subprocess.PIPE, text=True, cwd=ROOT) for who in range(6)
    ]
    while len(list(tmp_path.glob("gate-*"))) < 6:
        assert all(p.poll() is None for p in processes)
    gate.touch()
    folders = {}
    for who, process in enumerate(processes):
        lines = process.communicate(timeout=900)[0].splitlines()
        assert process.returncode == 0
        folders |= dict.fromkeys(lines, who)
    assert len(folders) == 90
    for folder, who in folders.items():
        assert (Path(folder) / "who").read_text() == f"{who} {folder}", "a folder holds what its owner wrote"
        assert json.loads((Path(folder) / "submission.json").read_text())["id"] == Path(folder).name
        assert (Path(folder) / "jobs" / "a-b" / "job.json").exists()
    left = [p for p in (tmp_path / "root" / "submissions").iterdir() if str(p) not in folders]
    assert left == [], "nothing half-made is left"


def test_a_submission_that_cannot_be_staged_leaves_nothing(tmp_path: Path) -> None:
    def fail(staged: Path, final: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"cannot write .*submissions: No space left on device; choose another --out"):
        stage(tmp_path, {}, [], fail)
    assert list((tmp_path / "submissions").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        stage(tmp_path / "file", {}, [], fail)


def staged(root: Path, *specs: JobSpec) -> Submission:
    """A submission of these jobs with scripts that are never run."""

    def fill(folder: Path, final: Path) -> None:
        for spec in specs:
            (folder / "jobs" / spec.name / "script.sh").write_text("#!/bin/sh\n")

    return stage(root, {"done": [], "overrides": {"nodes": None, "ranks_per_node": None}}, specs, fill)


def test_the_record_survives_a_torn_line(tmp_path: Path) -> None:
    submission = staged(tmp_path, JobSpec("a", ((),)), JobSpec("b", ((), (), ()), array=True))
    submission.record("a", "1", [0], 0)
    submission.record("b", "2", [0, 1, 2], 0)
    with open(submission.folder / "jobs.jsonl", "a") as file:
        file.write('{"job": "b", "slurm_i')
    submission.record("b", "3", [1], 1)
    again = newest(tmp_path)
    assert again is not None
    assert [line.slurm_id for line in again.sent()] == ["1", "2", "3"]
    assert {task: line.slurm_id for (job, task), line in again.newest().items() if job == "b"} == {
        0: "2",
        1: "3",
        2: "2",
    }


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


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("error: invalid partition specified: gpu\nsbatch: error: Batch job submission failed: Invalid partition name "
         "specified", "site: sbatch refuses the job (invalid partition specified: gpu; Invalid partition name "
         "specified): change the key partition; "),
        ("error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
         "change the key time_min; "),
        ("error: Batch job submission failed: Node count specification invalid", "change the key nodes; "),
        ("error: Batch job submission failed: Invalid qos specification", "change the key qos; "),
        ("error: Batch job submission failed: Invalid feature specification", "change the key constraint; "),
        ("error: Batch job submission failed: Requested reservation is invalid", "change the key reservation; "),
        ("error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: Requested node "
         "configuration is not available", "change the key mem_gb; "),
        ("error: Invalid generic resource (gres) specification", "change the key gpus_per_node (or gres); "),
        ("error: Batch job submission failed: Invalid job array specification", "--set fewer values"),
        ("error: Batch job submission failed: Requested node configuration is not available", "cpus_per_rank"),
        ("error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or "
         "time limits)", "change the key qos or account; "),
        ("unrecognized option '--frobnicate=3'\nTry \"sbatch --help\" for more information", "key sbatch.frob"),
        ("error: Batch job submission failed: Unable to contact slurm controller (connect failure)", "does not answer"),
        ("", "it printed no reason"),
    ],
)  # fmt: skip
def test_refusals_name_the_key_to_change(said: str, sentence: str) -> None:
    found = refusal(said and f"sbatch: {said}", Path("site"))
    assert sentence in found
    assert "\n" not in found


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


def row(state: str) -> Row:
    return Row("1", state)


def test_repair_leaves_what_runs_and_sends_what_hangs_on_it_again(tmp_path: Path) -> None:
    """a failed; b waits for it in vain; c runs; d waits for c; of the array e one task failed and one was cancelled."""
    names = {"a": (), "b": ("a",), "c": (), "d": ("c",)}
    specs = [JobSpec(name, ((),), needs=needs) for name, needs in names.items()]
    submission = staged(tmp_path, *specs, JobSpec("e", ((), (), ()), array=True))
    states = {("b", 0): "PENDING", ("c", 0): "RUNNING", ("d", 0): "PENDING", ("e", 2): "RUNNING"}
    living = {key: (Sent(key[0], "7", (key[1],), 0.0), row(state)) for key, state in states.items()}
    unfinished = {"a": [0], "b": [0], "c": [0], "d": [0], "e": [0, 2]}
    assert repair._to_send(submission, unfinished, living) == {"a": [0], "b": [0], "e": [0]}
    repair.mark_cancelled(submission, "c", "bingo cancel")  # on its way out: not waited for in vain
    assert repair._to_send(submission, unfinished, living) == {"a": [0], "b": [0], "c": [0], "d": [0], "e": [0]}
    assert repair._with_dependents(submission, ["a"]) == {"a", "b"}


def test_commands() -> None:
    words = sbatch_words(Path("/s.sh"), ["3", "4"], ["9_1"], "0,2%2")
    assert words == ["sbatch", "--parsable", "--dependency=afterok:3:4,afterany:9_1", "--array=0,2%2", "/s.sh"]
    assert [minutes(t) for t in ("infinite", "30:00", "1-02:00:00", "2:30:00", "45")] == [
        float("inf"),
        30,
        1560,
        150,
        0.75,
    ]


def test_a_single_stage(source: Path, tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--", "--data", str(source), "--kind", "random", "--k", "1", "--out", str(tmp_path / "bags")]
    assert main(["submit", "bags", "--cluster", str(cluster.path), "--dry-run", *flags]) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path}/bags.jobs/submissions/" in printed
    assert "#SBATCH --nodes=2\n" in printed, "a stage that uses all ranks gets them"
    assert main(["submit", "bags", "--cluster", "debug", *flags]) == 0
    assert (tmp_path / "bags" / "bags.npz").exists()
    for words, text in (
        (["submit", "bags", "--cluster", "debug"], "bags needs its flags after `--`"),
        (["submit", "digits", "--cluster", "debug", *flags], "digits takes no flags after `--`"),
        (["submit", "digit", "--cluster", "debug"], "RECIPE|VERB: 'digit' is not allowed; did you mean 'digits'?"),
        (["submit", "bags", "--cluster", "debug", "--seeds", "2", *flags], "--seeds is a setting of recipes"),
    ):
        capsys.readouterr()
        assert main(words) == 2
        assert text in capsys.readouterr().err
    for wrong in (["--frobnicate", "1"], ["--k", "0"]):
        capsys.readouterr()
        assert main(["submit", "bags", "--cluster", "nowhere.toml", *flags, *wrong]) == 2
        assert "nowhere.toml" not in capsys.readouterr().err, "flags come before the site file"


def test_repair_and_cancel_without_a_submission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("repair", "cancel"):
        assert main([verb, str(tmp_path)]) == 2
        assert "holds no submission" in capsys.readouterr().err
    staged(tmp_path, JobSpec("teacher", ((),)))
    assert main(["cancel", str(tmp_path), "teachr"]) == 2
    assert "no job 'teachr' in" in capsys.readouterr().err
