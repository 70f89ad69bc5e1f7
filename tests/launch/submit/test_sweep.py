"""Grids of settings: readable names, equal ones once, one array of jobs."""

from pathlib import Path

import pytest

from bingo import identity
from bingo.cli import main
from bingo.errors import UserError
from bingo.launch.submit.sweep import grid
from bingo.stages import Stage
from tests.support.ranks import ROOT

SITE = ROOT / "tests" / "cluster" / "site.toml"


def parse_stage(kind: str, flags: list[str]) -> Stage:
    from bingo.flags import stage_of

    return stage_of(kind, flags)


def test_a_grid_has_readable_names_and_runs_equal_settings_once(source: Path, tmp_path: Path) -> None:
    flags = ["--source", str(source)]
    found = grid("pack", flags, ["shard-gib=1,1.0,2", "workers=1,2"], tmp_path, parse_stage)
    assert [stage.name for stage in found.stages] == ["shard-gib-1_workers-1", "shard-gib-2_workers-1"]
    assert dict(found.merged) == {  # threads are no part of what is made
        "shard-gib-1_workers-2": "shard-gib-1_workers-1",
        "shard-gib-1.0_workers-1": "shard-gib-1_workers-1",
        "shard-gib-1.0_workers-2": "shard-gib-1_workers-1",
        "shard-gib-2_workers-2": "shard-gib-2_workers-1",
    }
    assert [stage.out for stage in found.stages] == [tmp_path / stage.name for stage in found.stages]


def test_settings_of_a_grid(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").write_text(name)
    teacher, again = tmp_path / "one" / "model.pt", tmp_path / "two" / "model.pt"
    bags = tmp_path / "bags" / "bags.npz"
    bags.parent.mkdir()
    bags.write_bytes(b"bags")
    flags = ["--data", str(source), "--bags", str(bags), "--student", "tiny"]
    found = grid(
        "distill", flags, [f"teacher={teacher},{again}", "augment.scale=0.2 1.0,0.4 1.0"], tmp_path, parse_stage
    )
    assert len({stage.name for stage in found.stages}) == 4, "two values of one name get two folders"
    assert [stage.config.augment.scale for stage in found.stages] == [(0.2, 1.0), (0.4, 1.0)] * 2
    assert all(set(stage.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-") for stage in found.stages)
    for varied, words, text in (
        (["seed"], [], "--set seed is not allowed: write NAME=VALUE,VALUE"),
        (["seed=0,,1"], [], "--set seed=0,,1 is not allowed"),
        (["seed=0", "seed=1"], [], "--set names a setting twice"),
        (["seed=0"], ["--out=x"], "leave --out out of the flags"),
    ):
        with pytest.raises(UserError) as raised:
            grid("distill", [*flags, *words], varied, tmp_path, parse_stage)
        assert text in str(raised.value)
    with pytest.raises(UserError, match=r"--teacher: nowhere does not exist"):
        grid("distill", [*flags, "--teacher", "nowhere"], ["seed=0"], tmp_path, parse_stage)


def test_a_sweep_sends_the_unfinished_tasks_of_one_array(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", "bags", "--set", "seed=1,2,3", "--limit", "2", "--out", str(tmp_path / "s")]
    flags = ["--", "--data", str(source), "--kind", "random", "--k", "1"]
    assert main(["bags", *flags[1:], "--seed", "2", "--out", str(tmp_path / "s" / "seed-2")]) == 0
    assert main([*words, "--cluster", str(SITE), "--dry-run", *flags]) == 0
    printed = capsys.readouterr().out
    assert "# sweep: sbatch --parsable --array=0,2%2 /" in printed
    assert "#SBATCH --array=0-2%2\n" in printed
    assert main([*words, "--cluster", "debug", *flags]) == 0
    printed = capsys.readouterr().out
    assert [line.split("  ")[0] for line in printed.splitlines()] == ["seed-1", "seed-2", "seed-3"]
    assert printed.count("done before") == 1
    assert main([*words, "--cluster", str(SITE), *flags]) == 0
    assert "everything is done; nothing was sent" in capsys.readouterr().out


def test_a_large_sweep_reads_its_inputs_once(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tasks: a teacher of 100 MB is hashed once, and so is the listing of the images; a relative path
    and the absolute one of the job are the same input."""
    read: list[Path] = []

    def hash_file(path: Path) -> str:
        read.append(Path(path).absolute())
        return real(path)

    def fingerprint(path: Path, **choices: str) -> str:
        read.append(Path(path).absolute())
        return listed(path, **choices)

    real, listed = identity.hash_file, identity.fingerprint
    (tmp_path / "model.pt").write_text("teacher")
    (tmp_path / "bags.npz").write_bytes(b"bags")
    monkeypatch.setattr(identity, "hash_file", hash_file)
    monkeypatch.setattr(identity, "fingerprint", fingerprint)
    monkeypatch.chdir(tmp_path)
    seeds = ",".join(map(str, range(200)))
    words = ["sweep", "distill", "--set", f"seed={seeds}", "--out", "s", "--cluster", str(SITE), "--dry-run"]
    assert main([*words, "--", "--data", str(source), "--teacher", "model.pt", "--bags", "bags.npz"]) == 0
    assert "#SBATCH --array=0-199%200\n" in capsys.readouterr().out
    assert sorted(read) == sorted([source, tmp_path / "model.pt", tmp_path / "bags.npz"])
