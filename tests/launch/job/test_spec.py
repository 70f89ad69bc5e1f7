"""A job as a file, and the variables of its ranks."""

from pathlib import Path

import pytest

from bingo.config import DemoDataConfig
from bingo.errors import UserError
from bingo.launch.job.spec import JobSpec, first_host, rank_variables
from bingo.stages import Stage

pytestmark = pytest.mark.quick


def test_ranks_from_slurm() -> None:
    step = {
        "SLURM_JOB_ID": "12", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4",
        "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "c[1-2]",
    }  # fmt: skip
    found = rank_variables(step)
    port = int(found.pop("MASTER_PORT"))
    expected = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "c1"}
    assert found == expected
    others = [rank_variables({**step, "SLURM_RESTART_COUNT": "1"}), rank_variables(step, shift=1)]
    others.append(rank_variables({**step, "SLURM_JOB_ID": "13"}))
    ports = {port, *(int(other["MASTER_PORT"]) for other in others)}
    assert len(ports) == 4
    assert 1024 < min(ports) < max(ports) < 32768
    assert rank_variables({**step, "RANK": "0", "WORLD_SIZE": "1"})["WORLD_SIZE"] == "1", "torchrun's go first"
    assert rank_variables({}) == {}
    batch_script = {"SLURM_JOB_ID": "12", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}
    assert rank_variables(batch_script) == {}
    assert rank_variables({**step, "SLURM_NTASKS": "5"})["LOCAL_WORLD_SIZE"] == "3", "of two nodes one has more"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"SLURM_NTASKS": None}, r"SLURM_NTASKS is not set, but other variables of Slurm's are; start the ranks with"),
        ({"SLURM_PROCID": "x"}, r"SLURM_PROCID='x' is not a whole number of 0 or more; type `unset SLURM_PROCID`"),
        ({"SLURM_LOCALID": ""}, "SLURM_LOCALID is empty"),
        ({"SLURM_RESTART_COUNT": "-1"}, "SLURM_RESTART_COUNT='-1' is not a whole number"),
    ],
)
def test_variables_of_slurm_that_are_wrong(changes: dict[str, str | None], sentence: str) -> None:
    step = {
        "SLURM_JOB_ID": "12", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4",
        "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "c[1-2]",
    }  # fmt: skip
    with pytest.raises(UserError, match=sentence):
        rank_variables({name: value for name, value in {**step, **changes}.items() if value is not None})


def test_a_task_that_a_job_does_not_have() -> None:
    spec = JobSpec("one", ((),))
    assert spec.task(0) == ()
    with pytest.raises(UserError, match=r"SLURM_ARRAY_TASK_ID=1, but job one has 1 task\(s\), from 0"):
        spec.task(1)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("c1", "c1"), ("c[1-2]", "c1"), ("n[03-05,9]x,m1", "n03x"), ("r[1-2]n[07,9]", "r1n07")],
)
def test_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_a_job_comes_back_from_its_file(tmp_path: Path) -> None:
    tasks = tuple((Stage(f"digits {n}", "demo-data", DemoDataConfig(out=tmp_path / f"{n}")),) for n in range(2))
    spec = JobSpec(
        "a b", tasks, parallel=True, nodes=3, min_nodes=2, ranks_per_node=4, needs=("c",), array=True, limit=1
    )
    spec.write(tmp_path)
    assert JobSpec.read(tmp_path) == spec
    assert spec.ranks == 12
