"""`bingo doctor --cluster`: what it says for settings of real clusters (Slurm 22.05's own words), and without Slurm."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.cluster import doctor
from bingo.launch.cluster.site import Site
from tests.support.cluster_facts import facts
from tests.support.ranks import bingo

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("partition", "config", "answer", "says", "ask"),
    [
        ({}, {"KillWait": "30 sec"}, "partly", "gets SIGTERM at once and has 30 s", "PartitionName=low GraceTime=60"),
        ({}, {"KillWait": "60 sec"}, "yes", "has 60 s to leave at a step boundary; Slurm requeues", None),
        ({"GraceTime": "120"}, {}, "yes", "SIGTERM at once and has 120 s", None),
        (
            {"GraceTime": "120"},
            {"SlurmctldParameters": "preempt_send_user_signal"},
            "yes",
            "gets USR2 at once and has 120 s",
            None,
        ),
        ({"GraceTime": "120"}, {"PreemptParameters": "send_user_signal"}, "yes", "gets USR2 at once", None),
        (
            {"PreemptMode": "CANCEL"},
            {},
            "no",
            "less than 10 s",
            "PartitionName=low PreemptMode=REQUEUE GraceTime=60",
        ),
        ({"PreemptMode": "CANCEL"}, {"KillWait": "60 sec"}, "yes", "the job requeues itself before", None),
        ({"PreemptMode": "CANCEL", "GraceTime": "90"}, {}, "yes", "the job requeues itself before", None),
        ({"PreemptMode": "SUSPEND"}, {}, "partly", "stopped in memory", None),
        ({"PreemptMode": "OFF"}, {}, "yes", "nothing preempts", None),
        ({"PriorityTier": "20"}, {}, "yes", "nothing preempts", None),
        ({}, {"PreemptType": "preempt/none"}, "yes", "nothing preempts", None),
        ({}, {"PreemptType": "preempt/qos", "KillWait": "60 sec"}, "yes", "has 60 s to leave", None),
    ],
)
def test_preemption(partition: dict[str, str], config: dict[str, str], answer: str, says: str, ask: str | None) -> None:
    found = doctor.preemption(facts(partition, **config), Site(partition="low"))
    assert (found.answer, found.ask) == (answer, ask)
    assert says in found.says
    assert found.evidence


def test_preemption_goes_by_the_jobs_qos() -> None:
    by_qos = facts(PreemptType="preempt/qos")
    scavenge = doctor.preemption(by_qos, Site(qos="scavenge"))
    assert scavenge.answer == "yes"
    assert "has 120 s to leave at a step boundary; the job requeues itself" in scavenge.says
    assert doctor.preemption(by_qos, Site(qos="urgent")).says == "nothing preempts these jobs"
    assert doctor.preemption(replace(by_qos, qos=None), Site()).answer == "partly"


def test_time_limit() -> None:
    assert doctor.time_limit(facts(), Site(time_min=60)).answer == "yes"
    assert doctor.time_limit(facts(), Site(time_min=4)).answer == "no"


def test_whole_cluster() -> None:
    assert "some time after 30 s" in doctor.node_loss(facts()).says
    assert doctor.node_loss(facts(SlurmdTimeout="0 sec")).ask == "SlurmdTimeout=300"
    assert "waits 5 s" in doctor.requeue_delay(facts()).says
    default = doctor.requeue_delay(facts(AuthInfo="(null)"))
    assert "waits 120 s" in default.says
    assert default.ask
    assert doctor.accounting(facts()).answer == "yes"
    none = doctor.accounting(facts(AccountingStorageType="accounting_storage/none"))
    assert "300 s after its end" in none.says
    away = doctor.accounting(replace(facts(), qos=None))
    assert "does not answer" in away.says
    assert away.ask == "slurmdbd, which is configured, to be started again"
    assert doctor.memory(facts()).answer == "partly"
    assert doctor.memory(facts(TaskPlugin="task/cgroup", ConstrainRAMSpace="yes")).answer == "yes"
    assert "samples" in doctor.memory(facts(JobAcctGatherParams="OverMemoryKill")).says
    assert "1001 tasks" in doctor.arrays(facts()).says


def test_shared_folder_names_the_file_system() -> None:
    mounts = "/dev/a / ext4 rw 0 0\nnas:/x /data nfs4 rw 0 0\n"
    assert "local" in doctor.shared_folder(Path("/root/run"), mounts).says
    shared = doctor.shared_folder(Path("/data/run"), mounts)
    assert "local" not in shared.says
    assert shared.evidence.endswith("nfs4")


def test_summary_asks_for_everything_once() -> None:
    found = doctor.summary(facts({"PreemptMode": "CANCEL"}), {"jobs": Site(), "cpu jobs": Site()})
    assert not found["works"]
    assert len([ask for ask in found["ask"] if "PreemptMode=REQUEUE" in ask]) == 1
    assert "ask your administrators for:\n- " in doctor.show_cluster(found)
    assert doctor.summary(facts(), doctor.every_partition(facts()))["works"]


def test_without_slurm_one_sentence(tmp_path: Path) -> None:
    done = bingo("doctor", "--cluster", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no Slurm here" in done.stderr


def test_a_controller_that_is_down_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "scontrol"
    script.write_text("#!/bin/sh\necho 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UserError, match="the controller of this cluster does not answer now"):
        doctor.examine_cluster(None)


def test_a_name_in_env_that_sounds_like_a_password() -> None:
    found = doctor.summary(
        facts(), {"jobs": Site(partition="low", env={"WANDB_API_KEY": "s3cr3t", "OMP_NUM_THREADS": "1"})}
    )
    (note,) = [row for row in found["jobs"]["jobs"] if row["topic"] == "secrets"]
    assert (note["answer"], note["evidence"]) == ("note", "env: WANDB_API_KEY")
    assert "name them in pass_env" in note["says"]
    assert "s3cr3t" not in doctor.show_cluster(found)
