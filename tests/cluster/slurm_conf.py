"""The configuration files of the test Slurm (`tests.cluster.slurm`)."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

MEMORY = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Settings:
    """What a test may want otherwise. Times in seconds, memory in MB per node."""

    nodes: int = 2
    cpus: int = 2
    memory_mb: int = 8000
    kill_wait_s: int = 10
    slurmd_timeout_s: int = 10
    grace_s: int = 30
    """Between the SIGTERM of a preemption and its SIGKILL, in the partition `low`."""
    user_signal: bool = False
    """Whether a preemption also sends the signal that a job asked for with --signal (`preempt_send_user_signal`)."""
    accounting: bool = True


def memory_limits() -> bool:
    """Whether the kernel's memory limits (cgroup v1) can be used; otherwise Slurm itself ends what exceeds them."""
    return (MEMORY / "memory.limit_in_bytes").exists() and os.access(MEMORY, os.W_OK)


def write_files(base: Path, settings: Settings, ports: list[int]) -> None:
    """All files below `base`; ports: of slurmctld, slurmdbd, the database, and every node."""
    hosts = Path("/etc/hosts").read_text() + "".join(f"127.0.0.1 c{i + 1}\n" for i in range(settings.nodes))
    # The plugin is named because its detection needs a mounted /sys/fs/cgroup.
    cgroup = "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n"
    files = {
        "hosts": hosts,
        "slurm.conf": slurm_conf(base, settings, ports),
        "slurmdbd.conf": slurmdbd_conf(base, ports),
        "cgroup.conf": cgroup,
        "gres.conf": "Name=gpu Type=fake File=/dev/tty[0-1]\n",
    }
    for name, text in files.items():
        (base / name).write_text(text)
    (base / "slurmdbd.conf").chmod(0o600)


def slurm_conf(base: Path, settings: Settings, ports: list[int]) -> str:
    host = socket.gethostname().split(".")[0]
    memory = "TaskPlugin=task/cgroup\nJobAcctGatherFrequency=5"
    if not memory_limits():
        memory = "TaskPlugin=task/none\nJobAcctGatherFrequency=1\nJobAcctGatherParams=OverMemoryKill"
    return f"""\
ClusterName=bingo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.sock,cred_expire=5
CredType=cred/munge
FirstJobId={ports[0]}
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/run/slurmctld.pid
SlurmdPidFile={base}/run/slurmd-%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/%n.log
ProctrackType=proctrack/linuxproc
{memory}
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=2000
ReturnToService=2
SlurmdTimeout={settings.slurmd_timeout_s}
KillWait={settings.kill_wait_s}
InactiveLimit=0
MinJobAge=3600
SchedulerParameters=bf_interval=2,sched_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
{accounting(base, ports) if settings.accounting else "AccountingStorageType=accounting_storage/none"}
GresTypes=gpu
NodeName=c[1-{settings.nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{",".join(map(str, ports[3:]))}] \
CPUs={settings.cpus} RealMemory={settings.memory_mb} Gres=gpu:2 State=UNKNOWN
{partitions(settings)}"""


def accounting(base: Path, ports: list[int]) -> str:
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={ports[1]}
AccountingStoragePass={base}/run/munge.sock"""


def partitions(settings: Settings) -> str:
    """The lines that slurmctld reads again while it runs."""
    rest = "Nodes=ALL MaxTime=INFINITE State=UP"
    parameters = "SlurmctldParameters=preempt_send_user_signal\n" if settings.user_signal else ""
    return f"""\
{parameters}PartitionName=debug {rest} Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=low {rest} PriorityTier=1 PreemptMode=REQUEUE GraceTime={settings.grace_s}
PartitionName=high {rest} PriorityTier=20 PreemptMode=OFF
"""


def slurmdbd_conf(base: Path, ports: list[int]) -> str:
    return f"""\
DbdHost=localhost
DbdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={base}/run/munge.sock
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[2]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile={base}/log/slurmdbd.log
PidFile={base}/run/slurmdbd.pid
"""
