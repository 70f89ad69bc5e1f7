"""Facts of a small cluster, in Slurm 22.05's own words."""

from bingo.launch.cluster.facts import NODE_KEYS, QOS_KEYS, Facts, parse_config, parse_rows, parse_table

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
