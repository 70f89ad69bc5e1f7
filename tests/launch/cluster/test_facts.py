"""What Slurm's commands say, as tables and numbers."""

import pytest

from bingo.launch.cluster.facts import NODE_KEYS, minutes, parse_config, parse_rows, parse_table
from tests.support.cluster_facts import CONFIG, NODES, PARTITIONS

pytestmark = pytest.mark.quick


def test_minutes() -> None:
    assert minutes("1-00:30:00") == 1470
    assert minutes("00:30:00") == 30
    assert minutes("UNLIMITED") == float("inf")


def test_words_of_slurm_as_tables() -> None:
    config = parse_config(CONFIG)
    assert (config["KillWait"], config["AuthInfo"]) == ("10 sec", "socket=/run/munge.sock,cred_expire=5")
    assert [row["PartitionName"] for row in parse_rows(PARTITIONS)] == ["low", "high", "other"]
    assert parse_rows(PARTITIONS)[1]["MaxTime"] == "1-00:30:00"
    last = parse_table(NODES, NODE_KEYS)[-1]
    assert list(last) == list(NODE_KEYS)
    assert list(last.values()) == ["d1", "other", "mix", "64", "500000", "gpu:h100:8(S:0-1)", "fast,ib"]
