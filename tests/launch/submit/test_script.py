"""The batch script: its parameters, and what it does with the decision, run by bash with an srun and a scontrol that
only write down what they are told."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bingo.errors import UserError
from bingo.launch.cluster.site import Container, Site
from bingo.launch.job.causes import SETUP_FAILED, find_cause
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.script import check_folder, render
from tests.support.ranks import ROOT

pytestmark = pytest.mark.quick

SITE = Site(partition="gpu", nodes=4, gpus_per_node=8, mem_gb=1.5, env={"NCCL_SOCKET_IFNAME": "eth0"}, exclude="bad1")
SPEC = JobSpec(name="distill knn", tasks=((),), nodes=4, min_nodes=4, ranks_per_node=8)


def parameters(text: str) -> dict[str, str]:
    words = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def test_parameters(tmp_path: Path) -> None:
    text = render(SITE, SPEC, tmp_path, code=tmp_path / "code", python="python3")
    assert parameters(text) == {
        "cpus-per-task": "1",
        "exclude": "bad1",
        "gpus-per-node": "8",
        "job-name": "distill-knn",
        "kill-on-invalid-dep": "yes",
        "mem": "1536M",
        "nodes": "4",
        "ntasks-per-node": "8",
        "open-mode": "append",
        "output": f"{tmp_path}/%j_batch.log",
        "partition": "gpu",
        "requeue": "",
        "signal": "USR2@180",
        "time": "1440",
    }
    assert "export NCCL_SOCKET_IFNAME=eth0\n" in text
    assert f"export PYTHONPATH={tmp_path}/code" in text


def test_arrays_elastic_jobs_and_containers(tmp_path: Path) -> None:
    box = Container("/images/x.sqsh", ("/data:/data", "/runs:/runs"), "/work dir")
    site = dataclasses.replace(SITE, container=box, sbatch={"comment": "two words", "nice": 10}, gres="gpu:h100:8")
    spec = dataclasses.replace(SPEC, tasks=((), (), ()), array=True, limit=2, min_nodes=2, preflight=True)
    text = render(site, spec, tmp_path, code=tmp_path, python="python3")
    found = parameters(text)
    assert (found["array"], found["nodes"], found["output"]) == ("0-2%2", "2-4", f"{tmp_path}/%A_%a_batch.log")
    assert (found["comment"], found["nice"], found["gres"]) == ("'two words'", "10", "gpu:h100:8")
    inside = (
        "--container-image=/images/x.sqsh --container-mounts=/data:/data,/runs:/runs '--container-workdir=/work dir'"
    )
    # the helper, the check before the start and the ranks; scontrol stays outside
    assert text.count(inside) == 3
    assert all("srun" not in line for line in text.splitlines() if "scontrol" in line)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.fixture
def shellcheck() -> list[str]:
    """The linter's command; skipped where it is missing, but not where CI wants it."""
    if shutil.which("shellcheck") is None:
        reason = "needs shellcheck: apt-get install shellcheck"
        if os.environ.get("BINGO_REQUIRE_SLURM") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return ["shellcheck", "--norc"]


@pytest.mark.parametrize("name", ["wait.sh", "teardown.sh"])
def test_shellcheck_accepts_the_shell_files(shellcheck: list[str], name: str) -> None:
    done = subprocess.run([*shellcheck, ROOT / "launch" / "submit" / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("more", [{}, {"preflight": True, "min_nodes": 2}, {"array": True}], ids=str)
def test_shellcheck_accepts_the_whole_script(shellcheck: list[str], tmp_path: Path, more: dict[str, Any]) -> None:
    """The files' variables are set by the lines around them, and no placeholder is left."""
    site, spec = dataclasses.replace(SITE, setup=("true",)), dataclasses.replace(SPEC, **more)
    text = render(site, spec, tmp_path, code=tmp_path, python="python3")
    # SC2140 takes the end of one quoted word and the start of the next for a mistake.
    command = [*shellcheck, "--severity=warning", "--exclude=SC2140", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"EXCLUDE|ATTEMPTS|\bLOG\b", text)


def play(
    tmp_path: Path, spec: JobSpec, *, status: int, python: str = sys.executable, ends: str = "",
    lives: str = "", scontrol: str = "exit 0", squeue: str = "COMPLETING", setup: tuple[str, ...] = (),
    **environ: str,
) -> list[str]:  # fmt: skip
    """Run the script; returns what srun and Slurm's commands were told. The ranks' srun exits with `status`; ends:
    first Slurm ends the attempt with SIGTERM to the script, and writes this line into its log; lives: then ranks go on
    until this command has been given; scontrol: what that does, in shell, where `n` counts its calls, `log` is the
    batch log and `script` the process to signal; squeue: the job's state. Nobody really sleeps."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    log = f"{tmp_path}/{environ.get('SLURM_ARRAY_JOB_ID', '')}{'_' * ('SLURM_ARRAY_JOB_ID' in environ)}"
    log += environ.get("SLURM_ARRAY_TASK_ID", "12") + "_batch.log"
    term = f'echo "{ends}" >> "{log}"; kill -TERM $PPID; /bin/sleep 0.2\n' if ends else ""
    term += f'until grep -q "^{lives}" "{tmp_path}/said"; do /bin/sleep 0.05; done; /bin/sleep 0.2\n' if lives else ""
    said = shlex.quote(f"{tmp_path}/said")
    counts = f'n=$(grep -c ^scontrol {said}); log="{log}"; script=$(cat "{tmp_path}/script"); {scontrol}'
    nap = f'echo "$1" >> "{tmp_path}/naps"; exec /bin/sleep 0.01'
    for name, does in (
        ("srun", f'echo $PPID > "{tmp_path}/script"\n{term}exit {status}'),
        ("scontrol", counts),
        ("squeue", squeue and f"echo {squeue}"),
        ("scancel", ""),
        ("sleep", nap),
    ):
        tool = tmp_path / "bin" / name
        tell = f'echo "{name} $@" >> {said}' if name != "sleep" else ""
        tool.write_text(f"#!/bin/bash\n{tell}\n{does}\n")
        tool.chmod(0o755)
    for name in ("said", "naps"):
        (tmp_path / name).unlink(missing_ok=True)
    text = render(Site(exclude="bad1", setup=setup), spec, tmp_path, code=ROOT, python=python)
    slurm = {"SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "3", "SLURM_JOB_NODELIST": "c[1-3]"}
    with open(log, "a") as out:
        environ = {**os.environ, **slurm, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", **environ}
        subprocess.run(["bash"], input=text, text=True, check=False, env=environ, timeout=120, stdout=out, stderr=out)
    return (tmp_path / "said").read_text().splitlines()


ONE = JobSpec(name="x", tasks=((),))


@pytest.mark.parametrize("name", ["50%j", "it's $HOME `id`", 'a "b" %%', "-x;y"])
def test_folders_of_any_name(tmp_path: Path, name: str) -> None:
    """Slurm replaces %j in the names of logs and takes %% for a percent sign."""
    folder = tmp_path / name
    folder.mkdir()
    (said,) = [line for line in play(folder, ONE, status=0) if line.startswith("srun")]
    assert f"--output={folder}/".replace("%", "%%") + "%j_%t_log.out " in said
    assert said.endswith(f"-m bingo.launch.job.worker {folder}")
    output = parameters(render(SITE, ONE, folder, code=ROOT, python="python3"))["output"]
    assert shlex.split(output) == [f"{folder}/".replace("%", "%%") + "%j_batch.log"]


@pytest.mark.parametrize("folder", ["/a\\b", "/a\nb", "/a:b", "/a\tb", "/a\udcff", "/a\x1b[2J"])
def test_folders_that_no_job_can_have(folder: str) -> None:
    with pytest.raises(UserError, match=r"^no job can have the folder /a.*; choose another --out$") as raised:
        check_folder(Path(folder))
    assert str(raised.value).isprintable()
    with pytest.raises(UserError, match="choose a shorter --out"):
        check_folder(Path("/a" * 2000))


def test_options_of_sbatch(tmp_path: Path) -> None:
    options = {"comment": "a\\b", "hold": True, "contiguous": False, "nice": 10}
    found = parameters(render(dataclasses.replace(SITE, sbatch=options), ONE, tmp_path, code=tmp_path, python="p"))
    assert (found["comment"], found["hold"], found["nice"]) == (r"'a\\b'", "", "10")
    assert "contiguous" not in found


def test_what_the_shell_passes_on_by_name(tmp_path: Path) -> None:
    text = render(dataclasses.replace(SITE, pass_env=("A_KEY",)), ONE, tmp_path, code=tmp_path, python="python3")
    assert "\n# $A_KEY comes from the shell that sends this (pass_env)\n" in text


@pytest.mark.parametrize(("status", "again"), [(0, False), (65, False), (70, True), (75, True), (137, True)])
def test_it_is_requeued_as_decided(tmp_path: Path, status: int, again: bool) -> None:
    said = play(tmp_path, ONE, status=status)
    assert len([line for line in said if line.startswith("srun")]) == 1
    assert ("scontrol requeue 12" in said) == again


@pytest.mark.parametrize(("status", "start", "again"), [(70, 2, True), (70, 3, False), (0, 0, False), (65, 0, False)])
def test_a_broken_helper(tmp_path: Path, status: int, start: int, again: bool) -> None:
    said = play(tmp_path, ONE, status=status, python="/bin/false", SLURM_RESTART_COUNT=str(start))
    assert ("scontrol requeue 12" in said) == again
    assert (tmp_path / "attempts" / f"12-{start}").is_dir(), "its start is seen"


@pytest.mark.parametrize(("away", "naps"), [(2, ["1", "2"]), (9, ["1", "2", "4", "8", "16"])])
def test_an_interpreter_that_is_away(tmp_path: Path, away: int, naps: list[str]) -> None:
    there = f'[ "$(cat {tmp_path}/naps | wc -l)" -ge {away} ] || exit 127'
    (tmp_path / "python").write_text(f'#!/bin/sh\n{there}\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    assert "scontrol requeue 12" in play(tmp_path, ONE, status=70, python=f"{tmp_path}/python")
    assert (tmp_path / "naps").read_text().split() == naps


ARRAY = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.mark.parametrize("task", [{}, ARRAY], ids=["job", "array"])
@pytest.mark.parametrize(("why", "again"), [("DUE TO TIME LIMIT", True), ("CANCELLED AT 12:00", False)])
def test_a_broken_helper_and_a_job_that_slurm_ends(tmp_path: Path, task: dict[str, str], why: str, again: bool) -> None:
    """At the time limit nobody else requeues; a cancelled job must not come back."""
    spec = dataclasses.replace(ONE, tasks=((),) * 4, array=True) if task else ONE
    said = play(tmp_path, spec, status=143, python="/bin/false", ends=f"error: *** JOB 12 {why} ***", **task)
    assert (f"scontrol requeue {'12_3' if task else 12}" in said) == again


def test_fewer_nodes_than_wished(tmp_path: Path) -> None:
    spec = JobSpec(name="x", tasks=((),), nodes=4, min_nodes=1, ranks_per_node=2)
    (said,) = [line for line in play(tmp_path, spec, status=0) if line.startswith("srun")]
    assert "--nodes=2 --ntasks=4 " in said, "of three nodes: four nodes' worth of ranks divides among two"


def test_a_slow_node_is_left_out(tmp_path: Path) -> None:
    spec = dataclasses.replace(ONE, preflight=True)
    for restart, node in enumerate(["c2", "c1"]):
        attempt = tmp_path / "attempts" / f"12-{restart}"
        attempt.mkdir(parents=True)
        (attempt / "exclude").write_text(f"{node}\n")
    for restart, damage in {"2": bytes(512), "3": b"\xff;\n"}.items():  # after a power cut
        (tmp_path / "attempts" / f"12-{restart}").mkdir()
        (tmp_path / "attempts" / f"12-{restart}" / "exclude").write_bytes(damage)
    (tmp_path / "attempts" / "12-4" / "exclude").mkdir(parents=True)
    said = play(tmp_path, spec, status=76, SLURM_RESTART_COUNT="1")
    assert [line.split()[0] for line in said] == ["srun", "scontrol", "scontrol"]
    assert "bingo.launch.job.preflight" in said[0], "the ranks do not start"
    assert said[2] == "scontrol update JobId=12 ExcNodeList=bad1,c1,c2"


AWAY = "Unexpected message received for job 12"  # of scontrol 22.05, where no controller answers
LOST = "slurm_requeue error: Socket timed out on send/recv operation"
JOB_REQUEUE = "slurmstepd-c1: error: *** JOB 12 ON c1 CANCELLED AT 2026-11-29T13:27:43 DUE TO JOB REQUEUE ***"
CANCELLED = JOB_REQUEUE.replace(" DUE TO JOB REQUEUE", "")


def requeues(said: list[str]) -> int:
    return said.count("scontrol requeue 12")


def tries(tmp_path: Path, attempt: str = "12-0") -> list[str]:
    """What the attempt's own record says about its requeue, without the times."""
    return [line.split(" ", 1)[1] for line in (tmp_path / "attempts" / attempt / "requeue").read_text().splitlines()]


@pytest.mark.parametrize("words", [AWAY, LOST, "Unable to contact slurm controller (connect failure)", ""])
def test_a_controller_that_is_away_is_asked_again(tmp_path: Path, words: str) -> None:
    said = play(tmp_path, ONE, status=70, scontrol=f'[ $n -gt 3 ] || {{ echo "{words}" >&2; exit 1; }}')
    assert requeues(said) == 4
    assert tries(tmp_path) == [words or "no answer"] * 3 + ["accepted"]
    assert (tmp_path / "naps").read_text().split() == ["1", "2", "4"], "longer and longer"


def test_an_array_task_records_its_tries(tmp_path: Path) -> None:
    spec = dataclasses.replace(ONE, tasks=((),) * 4, array=True)
    fails = f'[ $n -gt 1 ] || {{ echo "{AWAY}"; exit 1; }}'
    said = play(tmp_path, spec, status=70, scontrol=fails, SLURM_RESTART_COUNT="2", **ARRAY)
    assert (said.count("scontrol requeue 12_3"), tries(tmp_path, "12_3-2")) == (2, [AWAY, "accepted"])
    assert requeues(said) == 0, "one task has the array's own number: that would be a requeue of all"


@pytest.mark.parametrize(("task", "me"), [({}, "12"), (ARRAY, "12_3")], ids=["job", "array"])
def test_a_script_that_is_told_alone_asks_the_ranks_to_leave(tmp_path: Path, task: dict[str, str], me: str) -> None:
    """After `scancel --batch --signal=TERM` Slurm's line in the log is that of a cancelled job, and the job runs."""
    spec = dataclasses.replace(ONE, tasks=((),) * 4, array=True) if task else ONE
    told = f"scancel --signal=USR2 {me}"
    said = play(tmp_path, spec, status=75, ends=CANCELLED, lives=told, squeue="RUNNING", **task)
    assert said[1:] == [f"squeue -h -j {me} -o %T", told, f"scontrol requeue {me}"]
    end = json.loads((tmp_path / "attempts" / f"{me}-0" / "end.json").read_text())
    assert (end["cause"]["kind"], end["decision"]) == ("left", 75)


def test_a_script_that_is_told_alone_at_its_beginning(tmp_path: Path) -> None:
    """While it writes down that it begins, so that no wait for the ranks is interrupted."""
    python = tmp_path / "python"
    tells = f'echo "{CANCELLED}" >> "{tmp_path}/12_batch.log"; kill -TERM $PPID'
    python.write_text(f'#!/bin/sh\ncase "$*" in *"attempt begin"*) {tells};; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    said = play(tmp_path, ONE, status=75, python=str(python), lives="scancel", squeue="RUNNING")
    others = [line.split()[0] for line in said if not line.startswith("srun")]  # which is started meanwhile
    assert (others, len(said)) == (["squeue", "scancel", "scontrol"], 4)


def test_a_script_that_is_told_alone_at_its_end(tmp_path: Path) -> None:
    """`scancel` sends its signal again where it got no answer, and Slurm writes its line but once."""
    again = "[ $n -gt 1 ] || { kill -TERM $script; exit 1; }"
    said = play(tmp_path, ONE, status=75, ends=CANCELLED, lives="scancel", squeue="RUNNING", scontrol=again)
    assert [line.split()[0] for line in said[1:]] == ["squeue", "scancel", "scontrol", "squeue", "scontrol"]
    assert tries(tmp_path)[-1] == "accepted"


@pytest.mark.parametrize("state", ["COMPLETING", "", "PENDING"])
def test_a_cancelled_job_whose_ranks_are_slow(tmp_path: Path, state: str) -> None:
    """`scancel`, also where no controller answers: its ranks are told already."""
    said = play(tmp_path, ONE, status=143, ends=CANCELLED, lives="squeue", squeue=state)
    assert said[1:] == ["squeue -h -j 12 -o %T"]
    assert json.loads((tmp_path / "attempts" / "12-0" / "end.json").read_text())["cause"]["kind"] == "cancelled"


def test_a_requeue_that_was_accepted_is_not_asked_for_twice(tmp_path: Path) -> None:
    """The answer is lost, but Slurm acts: its line in the log, and SIGTERM."""
    acts = f'echo "{JOB_REQUEUE}" >> "$log"; kill -TERM $script; echo "{LOST}" >&2; exit 1'
    assert requeues(play(tmp_path, ONE, status=70, scontrol=acts)) == 1
    assert tries(tmp_path) == [LOST, "accepted before"]


@pytest.mark.parametrize("answer", ["Job is pending execution for job 12", "Job is pending execution"])
def test_a_job_that_waits_already_is_taken_back(tmp_path: Path, answer: str) -> None:
    assert requeues(play(tmp_path, ONE, status=75, scontrol=f'echo "{answer}" >&2; exit 1')) == 1
    assert tries(tmp_path) == ["accepted before"]


@pytest.mark.parametrize("by", ["scancel", "bingo cancel"])
def test_a_job_that_is_cancelled_meanwhile_stays_cancelled(tmp_path: Path, by: str) -> None:
    mark = f'touch "{tmp_path}/cancelled"' if by == "bingo cancel" else f'echo "{CANCELLED}" >> "$log"'
    fails = f'{mark}; [ $n = 1 ] && kill -TERM $script; echo "{AWAY}"; exit 1'
    assert requeues(play(tmp_path, ONE, status=70, scontrol=fails)) == 1


def test_a_cancelled_job_that_fell_by_itself_is_not_brought_back(tmp_path: Path) -> None:
    """Its cause is the exception; yet `scontrol requeue` would undo the scancel."""
    assert requeues(play(tmp_path, ONE, status=70, ends=CANCELLED)) == 0


def test_a_job_that_was_requeued_by_hand_is_not_asked_for(tmp_path: Path) -> None:
    """It waits already, and may have been cancelled since: to ask once more would bring it back."""
    assert requeues(play(tmp_path, ONE, status=75, ends=JOB_REQUEUE)) == 0
    assert tries(tmp_path) == ["accepted before"]


def test_a_script_that_is_killed_soon_asks_every_second(tmp_path: Path) -> None:
    why = CANCELLED.replace(" ***", " DUE TO TIME LIMIT ***")
    said = play(tmp_path, ONE, status=75, ends=why, scontrol=f'[ $n -gt 4 ] || {{ echo "{AWAY}"; exit 1; }}')
    assert requeues(said) == 5
    assert set((tmp_path / "naps").read_text().split()) == {"1"}


@pytest.mark.parametrize("answer", ["Invalid job id specified", "Access/permission denied", "presently disabled"])
def test_a_refused_requeue_frees_the_nodes_at_once(tmp_path: Path, answer: str) -> None:
    assert requeues(play(tmp_path, ONE, status=70, scontrol=f'echo "{answer}" >&2; exit 1')) == 1


def test_a_job_that_was_cancelled_starts_no_ranks(tmp_path: Path) -> None:
    """`bingo cancel` could reach no controller; the job's next start knows."""
    (tmp_path / "cancelled").write_text("{}")
    with pytest.raises(FileNotFoundError):  # nobody was told anything
        play(tmp_path, ONE, status=0)


@pytest.mark.parametrize(("line", "status"), [("false", 1), ("[ -f /nowhere ] && echo x", None), ("module load x", 127),
                                              ("if true\nthen ls /nowhere\nfi", 2)])  # fmt: skip
def test_a_line_of_setup_that_fails_is_named(tmp_path: Path, line: str, status: int | None) -> None:
    """It stops nothing; a test that is not true is no failure."""
    site = Site(setup=(line, "x=1", "false"))
    text = render(site, ONE, tmp_path, code=tmp_path, python="true")
    text = text.partition("\nnodes=1\n")[0]
    environ = {**os.environ, "SLURM_JOB_NODELIST": "c1", "SLURM_JOB_ID": "12"}
    said = subprocess.run(["bash"], input=text, text=True, capture_output=True, check=False, env=environ).stdout
    found = [told.removeprefix(SETUP_FAILED) for told in said.splitlines() if told.startswith(SETUP_FAILED)]
    named = line.split("then ")[-1].split("\n")[0]
    assert found == [f"{named} (status {status})" if status else "false (status 1)"]


@pytest.mark.parametrize("line", ["set -e", "set -euo pipefail", "set -f", "job=/nowhere rc=0"])
def test_what_setup_sets_is_for_setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """With `set -e` a killed rank would end the script before anybody decides and requeues."""
    attempt = tmp_path / "attempts" / "12-0"
    attempt.mkdir(parents=True)
    (attempt / "exclude").write_text("c2\n")
    said = play(tmp_path, dataclasses.replace(ONE, preflight=True), status=76, setup=(line,))
    assert said[1:] == ["scontrol requeue 12", "scontrol update JobId=12 ExcNodeList=bad1,c2"]


@pytest.mark.parametrize(
    ("lines", "status", "named"),
    [
        (("set -e", "false"), 1, "false (status 1)"),
        (("exit 0",), 1, "exit 0"),
        (("false", "exit 3"), 3, "false (status 1)"),
        (("if true; then",), 2, "exit 2"),
        (("cat <<EOF",), 1, "exit 0"),
        (("kill $$",), 143, None),
    ],
)
def test_setup_that_ends_the_script(tmp_path: Path, lines: tuple[str, ...], status: int, named: str | None) -> None:
    """It is never taken for a job that is done, and says why."""
    spec = dataclasses.replace(ONE, tasks=((),) * 4, array=True)
    text = render(Site(setup=lines), spec, tmp_path / "it's", code=tmp_path, python="true")
    environ = {**os.environ, **ARRAY, "SLURM_JOB_NODELIST": "c1", "SLURM_JOB_ID": "13", "SLURM_RESTART_COUNT": "1"}
    (tmp_path / "script.sh").write_text(text)
    done = subprocess.run(["bash", tmp_path / "script.sh"], text=True, capture_output=True, check=False, env=environ)
    assert done.returncode == status
    cause = find_cause({}, lines=done.stdout.splitlines())
    assert (cause.kind, cause.sentence) == (
        ("machine", f"setup ended the script: {named}") if named else ("unknown", "nothing is recorded")
    )
    assert (tmp_path / "it's" / "attempts" / "12_3-1").is_dir() == (named is not None)
