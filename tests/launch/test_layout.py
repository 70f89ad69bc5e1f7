"""Names of a submission's folders and files, from Slurm's own variables."""

from pathlib import Path

import pytest

from bingo.launch.layout import attempt_folder, job_folder, rank_beat, rank_events, slurm_id

pytestmark = pytest.mark.quick


def test_blanks_of_a_name() -> None:
    assert job_folder(Path("s"), "distill knn 0") == Path("s/jobs/distill-knn-0")


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "local-0"),
        ({"SLURM_JOB_ID": "12", "SLURM_RESTART_COUNT": "2"}, "12-2"),
        ({"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}, "12_3-0"),
    ],
)
def test_the_folder_of_a_start(environ: dict[str, str], name: str) -> None:
    folder = attempt_folder(Path("job"), environ)
    assert folder == Path("job/attempts") / name
    assert folder.name.startswith(f"{slurm_id(environ)}-")
    assert (rank_events(folder, 1).name, rank_beat(folder, 1).name) == ("rank-1.jsonl", "rank-1.beat")
