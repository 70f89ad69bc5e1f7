"""Why a job waits, in a sentence, and whether somebody must act."""

import pytest

from bingo.launch.cluster import reasons
from bingo.launch.cluster.slurm import Row

pytestmark = pytest.mark.quick
SENT = 1_795_522_026.0


@pytest.mark.parametrize(
    ("reason", "sentence", "stuck"),
    [
        ("QOSMaxJobsPerUserLimit", "a limit of its QOS is reached; it waits until your other jobs end", False),
        ("QOSMaxWallDurationPerJobLimit", "it will never start: it asks for more than its QOS allows one job", True),
        ("QOSGrpNodeLimit", "all that its QOS may use is in use", False),
        ("AssocGrpGRES", "all that its account may use is in use", False),
        ("AssocMaxJobsLimit", "a limit of its account is reached", False),
        ("PartitionTimeLimit", "it will never start: it asks for more time", True),
        ("JobHeldUser", "it is held; `scontrol release 7` lets it go", True),
        ("SomethingNew", "Slurm's reason is: SomethingNew", False),
    ],
)
def test_reasons(reason: str, sentence: str, stuck: bool) -> None:
    text, must_act = reasons.waits(Row("7", "PENDING", reason, SENT), SENT)
    assert text.startswith(sentence)
    assert must_act is stuck
