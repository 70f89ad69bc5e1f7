"""`bingo doctor --cluster`: what it says for settings of real clusters (Slurm 22.05's own words), and without Slurm."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.launch.cluster import doctor
from bingo.launch.cluster.facts import NODE_KEYS, QOS_KEYS, Facts, minutes, parse_config, parse_rows, parse_table
from bingo.launch.cluster.site import Site
from bingo.launch.cluster.site_fit import node_fits, site_findings
from tests.support.ranks import bingo

pytestmark = pytest.mark.quick

CONFIG = """\
Configuration data as of 2026-11-24T11:54:17
AccountingStorageEnforce = none
AccountingStorageType   = accounting_storage/slurmdbd
AuthInfo                = socket=/run/munge.sock,cred_expire=5
ClusterName             = test
DependencyParameters    = (null)
EnforcePartLimits       = NO
JobAcctGatherParams     = (null)
JobRequeue              = 1
KillWait                = 10 sec
MaxArraySize            = 1001
MinJobAge               = 300 sec
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
ReturnToService         = 2
SchedulerParameters     = bf_interval=2,sched_interval=5
SelectTypeParameters    = CR_CORE_MEMORY
SlurmctldParameters     = (null)
SlurmdTimeout           = 30 sec
SLURM_VERSION           = 22.05.8
TaskPlugin              = task/none

Slurmctld(primary) at vm is UP
"""
PARTITIONS = """\
PartitionName=low AllowQos=ALL Default=YES GraceTime=0 MaxNodes=UNLIMITED MaxTime=UNLIMITED Nodes=c[1-2] \
PriorityTier=1 PreemptMode=REQUEUE State=UP TotalNodes=2
PartitionName=high AllowQos=ALL Default=NO GraceTime=0 MaxNodes=1 MaxTime=1-00:30:00 Nodes=c[1-2] \
PriorityTier=20 PreemptMode=OFF State=UP TotalNodes=2
PartitionName=other AllowQos=gold Default=NO GraceTime=0 MaxNodes=UNLIMITED MaxTime=00:30:00 Nodes=d1 \
PriorityTier=90 PreemptMode=OFF State=DRAIN TotalNodes=1
"""
NODES = """\
c1|low|idle|2|8000|gpu:2|(null)
c2|low|down*|2|8000|gpu:2|(null)
c1|high|idle|2|8000|gpu:2|(null)
c2|high|down*|2|8000|gpu:2|(null)
d1|other|mix|64|500000|gpu:h100:8(S:0-1)|fast,ib
"""
QOS = "normal||cluster|00:00:00|\nscavenge||cancel|00:02:00|01:00:00\nurgent|normal,scavenge|cluster|00:00:00|\n"


def facts(partition: dict[str, str] | None = None, **config: str) -> Facts:
    """The cluster above with other settings in slurm.conf and on its partition `low`."""
    rows = {row["PartitionName"]: row for row in parse_rows(PARTITIONS)}
    rows["low"].update(partition or {})
    qos = {row["name"]: row for row in parse_table(QOS, QOS_KEYS)}
    mine = [{"account": "vision", "partition": "", "qos": "normal,scavenge", "defaultqos": ""}]
    return Facts({**parse_config(CONFIG), **config}, rows, parse_table(NODES, NODE_KEYS), qos, mine)


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


@pytest.mark.parametrize(
    ("site", "says"),
    [
        (Site(partition="hihg"), "does not exist; did you mean 'high'?"),
        (Site(partition="high", time_min=1500), "time_min = 1500 would wait for ever"),
        (Site(partition="high", nodes=2), "partition high allows 1 per job"),
        (Site(nodes=2), "1 of the 1 usable nodes of partition low"),
        (Site(gpus_per_node=4), "4 GPUs; 0 of the 1 usable nodes"),
        (Site(ranks_per_node=3), "3 CPUs; 0 of"),
        (Site(mem_gb=16), "16 GB; 0 of"),
        (Site(qos="scavange"), "did you mean 'scavenge'?"),
        (Site(qos="scavenge", time_min=90), "QOS scavenge does not allow time_min = 90"),
        (Site(qos="urgent"), "you may not use QOS 'urgent'"),
        (Site(account="visoin"), "account 'visoin' is not one of yours; did you mean 'vision'?"),
        (Site(partition="other", time_min=9, qos="normal"), "does not let 'normal' in"),
        (Site(partition="other", time_min=9), "takes no jobs now"),
    ],
)
def test_site_keys_that_do_not_fit(site: Site, says: str) -> None:
    found = site_findings(facts(AccountingStorageEnforce="associations,limits,qos"), site)
    assert {f.answer for f in found} == {"no"}
    assert any(says in f.says for f in found), [f.says for f in found]


def test_site_keys_that_fit() -> None:
    assert [f.answer for f in site_findings(facts(), Site(gpus_per_node=2, ranks_per_node=2, mem_gb=7))] == ["yes"]
    node = parse_table(NODES, NODE_KEYS)[-1]
    assert node_fits(node, Site(gres="gpu:h100:8", constraint="fast&ib"))
    assert not node_fits(node, Site(gres="gpu:a100:8"))
    assert not node_fits(node, Site(constraint="slow"))


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
    assert "does not answer" in doctor.accounting(replace(facts(), qos=None)).says
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


def test_minutes() -> None:
    assert minutes("1-00:30:00") == 1470
    assert minutes("00:30:00") == 30
    assert minutes("UNLIMITED") == float("inf")


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
