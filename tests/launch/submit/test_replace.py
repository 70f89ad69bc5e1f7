"""`bingo submit` into folders that hold other work, with a pretended Slurm: what is refused, moved, moved back."""

import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.config import BagsConfig
from bingo.identity import read_record
from bingo.launch.cluster import slurm
from bingo.launch.cluster.site import Cluster
from bingo.launch.submit.claims import CLAIM
from bingo.stages import Stage, run_stage
from tests.support.ranks import ROOT


@dataclass
class Pretended:
    """A folder where `queue` has squeue's rows, `sent` the words of each sbatch, and `refuse` makes it refuse."""

    folder: Path

    def queue(self, *rows: str) -> None:
        """What squeue says from now on, once the last answer is old."""
        time.sleep(slurm.INTERVAL_S)
        (self.folder / "queue").write_text("".join(f"{row}|PENDING|None|1|1|1|1|0||0|\n" for row in rows))

    @property
    def sent(self) -> list[str]:
        path = self.folder / "sent"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretended:
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {
        "sinfo": "echo 'debug*|infinite|1-infinite|2'",
        "squeue": f'case "$*" in *%F*) ;; *) cat {folder}/queue ;; esac',
        "sacct": "",
        "scancel": "",
        "sbatch": f'[ -e {folder}/refuse ] && echo "sbatch: error: Invalid qos" >&2 && exit 1\n'
        f'echo "$*" >> {folder}/sent; grep -c . {folder}/sent',
    }
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(slurm, "INTERVAL_S", 0.3)
    pretended = Pretended(folder)
    pretended.queue()
    return pretended


Submit = Callable[..., int]


@pytest.fixture
def submit(source: Path, tmp_path: Path, fake: Pretended) -> Submit:
    """`bingo submit bags` into tmp_path/bags, where bags of seed 0 and a note of the user are."""
    run_stage(Stage("bags", "bags", BagsConfig(data=source, out=tmp_path / "bags", kind="random", k=1)))
    (tmp_path / "bags" / "notes.txt").write_text("mine")
    site = ROOT / "tests" / "cluster" / "site.toml"

    def call(root: str, seed: int, *flags: str) -> int:
        words = ["submit", "bags", "--cluster", site, "--out", tmp_path / root, *flags, "--", "--data", source]
        more = ["--kind", "random", "--k", "1", "--seed", seed, "--out", tmp_path / "bags"]
        return main([str(word) for word in (*words, *more)])

    return call


def seed_of(folder: Path) -> int:
    return int(read_record(folder)["settings"]["seed"])


def test_other_work_is_refused_before_anything_is_sent(
    submit: Submit, fake: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in (tmp_path / "bags").iterdir()}
    for flags in ((), ("--dry-run",)):
        assert submit("r", 1, *flags) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{tmp_path / 'bags'} holds bags made with seed=0, not 1; choose another --out, or have" in line
        assert "--replace" in line
    assert not fake.sent
    assert not (tmp_path / "r").exists()
    assert {path.name for path in (tmp_path / "bags").iterdir()} == before
    assert submit("r", 0) == 0, "the same settings: done before"
    assert not fake.sent


def test_replaced_on_request(
    submit: Submit, fake: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit("r", 1, "--dry-run", "--replace") == 0
    assert f"# {tmp_path / 'bags'}: what is there is moved aside" in capsys.readouterr().out
    assert seed_of(tmp_path / "bags") == 0
    (fake.folder / "refuse").touch()
    assert submit("r", 1, "--replace") == 2
    assert (
        f"change the key qos; `sacctmgr show qos` lists them; {tmp_path / 'bags'} is as it was"
        in capsys.readouterr().err
    )
    assert seed_of(tmp_path / "bags") == 0
    assert not list(tmp_path.glob("bags.replaced-*"))
    assert not (tmp_path / "bags" / CLAIM).exists()
    (fake.folder / "refuse").unlink()
    assert submit("r", 1, "--replace") == 0
    (aside,) = tmp_path.glob("bags.replaced-*")
    assert f"{tmp_path / 'bags'}: what was there is in {aside}" in capsys.readouterr().out
    assert seed_of(aside) == 0
    assert (tmp_path / "bags" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "bags" / "stage.json").exists()
    assert len(fake.sent) == 1


def test_two_roots_and_one_folder(
    submit: Submit, fake: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit("r1", 1, "--replace") == 0
    fake.queue("1")
    for seed in (1, 2):
        assert submit("r2", seed, "--replace") == 2
        told = capsys.readouterr().err
        assert f"{tmp_path / 'bags'} belongs to the job bags (1) of {tmp_path / 'r1'}/submissions/" in told
    assert len(fake.sent) == 1
    assert not (tmp_path / "r2").exists()
    fake.queue()  # it has ended
    assert submit("r2", 2) == 0
    fake.queue("2")
    assert main(["repair", str(tmp_path / "r1")]) == 2
    assert f"belongs to the job bags (2) of {tmp_path / 'r2'}/submissions/" in capsys.readouterr().err
    fake.queue()
    assert main(["repair", str(tmp_path / "r1")]) == 0
    assert len(fake.sent) == 3


def test_repair_refuses_other_work_and_takes_inputs_as_they_are(
    submit: Submit, fake: Pretended, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit("r", 1, "--replace") == 0
    (sent,) = tmp_path.glob("r/submissions/*/jobs/bags/sent.json")
    before = json.loads(sent.read_text())["inputs"]
    (source / "class0" / "0.png").touch()
    assert main(["repair", str(tmp_path / "r")]) == 0
    assert json.loads(sent.read_text())["inputs"] != before
    run_stage(Stage("bags", "bags", BagsConfig(data=source, out=tmp_path / "bags", kind="random", k=1, seed=7)))
    capsys.readouterr()
    assert main(["repair", str(tmp_path / "r")]) == 2
    assert "bags holds bags made with seed=7, not 1; choose another --out" in capsys.readouterr().err
    assert len(fake.sent) == 2


def test_recipe_json_stays_as_it_was(
    cluster: Cluster, fake: Pretended, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Put back where Slurm refuses; a file of the user's under that name is not touched."""
    path, words = tmp_path / "r" / "recipe.json", ["submit", "digits", "--cluster", str(cluster.path)]
    path.parent.mkdir()
    (fake.folder / "refuse").touch()
    for text in ('{"recipe": "digits", "arms": {}, "stages": []}', '{"flour": 500}'):
        path.write_text(text)
        assert main([*words, "--out", str(path.parent)]) == 2
        assert json.loads(path.read_text()) == json.loads(text)
    assert "recipe.json is not what bingo writes under that name" in capsys.readouterr().err
    path.unlink()
    assert main([*words, "--out", str(path.parent)]) == 2
    assert not path.exists()
