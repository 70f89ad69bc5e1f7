"""Names of a submission's folders and files, from Slurm's own variables."""

import re
from pathlib import Path

import pytest

from bingo.launch import layout
from bingo.launch.layout import attempt_folder, job_folder, rank_beat, rank_events, slurm_id
from tests.support.ranks import ROOT

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


def test_every_file_of_the_description_is_known() -> None:
    """Whoever adds a file to a submission names it above, and in `KNOWN`: `bingo prune` deletes no other."""
    folders = {2: "", 4: "jobs/NAME/", 6: "jobs/NAME/attempts/ID-RESTART/"}
    names = [
        folders[len(line) - len(line.lstrip())] + line.split()[0]
        for line in (layout.__doc__ or "").splitlines()
        if line.startswith("  ") and not line.startswith(" " * 8)
    ]
    files = [name for name in names if not name.endswith("/")]
    plain = {"STATE-REPAIR": "done-0", "RESTART": "0", "RANK": "0", "rank-R": "rank-0", "ID": "12"}
    for word, value in plain.items():
        files = [name.replace(word, value) for name in files]
    assert len(files) > 12
    assert [name for name in files if not layout.KNOWN.fullmatch(name)] == []
    assert not layout.KNOWN.fullmatch("notes.txt")


def test_commands_to_copy_are_quoted() -> None:
    """A path in a command that is printed is one word for a shell, see `bingo.paths.quoted`."""
    plain = {"typed", "run.name", "part"}  # quoted before; words of our own
    named = {
        f"{path.relative_to(ROOT)}: {field}"
        for folder in ("bingo", "launch", "bench")
        for path in (ROOT / folder).rglob("*.py")
        for command in re.findall(r"`bingo [a-z]+[^`\n]*", path.read_text())
        for field in re.findall(r"\{([^{}]*)\}", command)
        if not field.startswith("quoted(") and field not in plain
    }
    assert named == set()
