"""The verbs of launching: one stage as a job, and roots without a submission."""

import re
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.identity import read_record
from bingo.launch.cluster.site import Cluster
from bingo.launch.job.spec import JobSpec
from tests.support.submissions import staged


def test_a_single_stage(source: Path, tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--", "--data", str(source), "--kind", "random", "--k", "1", "--out", str(tmp_path / "bags")]
    assert main(["submit", "bags", "--cluster", str(cluster.path), "--dry-run", *flags]) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path}/bags.jobs/submissions/" in printed
    assert "#SBATCH --nodes=2\n" in printed, "a stage that uses all ranks gets them"
    assert main(["submit", "bags", "--cluster", "debug", *flags]) == 0
    assert (tmp_path / "bags" / "bags.npz").exists()
    for words, text in (
        (["submit", "bags", "--cluster", "debug"], "bags needs its flags after `--`"),
        (["submit", "digits", "--cluster", "debug", *flags], "digits takes no flags after `--`"),
        (["submit", "digit", "--cluster", "debug"], "RECIPE|VERB: 'digit' is not allowed; did you mean 'digits'?"),
        (["submit", "bags", "--cluster", "debug", "--seeds", "2", *flags], "--seeds is a setting of recipes"),
    ):
        capsys.readouterr()
        assert main(words) == 2
        assert text in capsys.readouterr().err
    for wrong in (["--frobnicate", "1"], ["--k", "0"]):
        capsys.readouterr()
        assert main(["submit", "bags", "--cluster", "nowhere.toml", *flags, *wrong]) == 2
        assert "nowhere.toml" not in capsys.readouterr().err, "flags come before the site file"


def test_replaced_here(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`run`, `submit` and `sweep` on this machine: other work is refused before anything runs, or moved aside."""
    flags = ["--data", str(source), "--kind", "random", "--k", "1"]
    words = ["sweep", "bags", "--set", "seed=0,1", "--cluster", "debug", "--out", str(tmp_path / "s"), "--", *flags]
    assert main(words) == 0
    (tmp_path / "s" / "seed-1" / "notes.txt").write_text("mine")
    words[-1] = "2"
    capsys.readouterr()
    assert main(words) == 2
    assert f"{tmp_path}/s/seed-0 holds bags made with k=1, not 2; choose another --out" in capsys.readouterr().err
    assert not list((tmp_path / "s").glob("*.replaced-*"))
    assert main([*words[:2], "--replace", *words[2:]]) == 0
    moved = sorted(path.name.split(".replaced-")[0] for path in (tmp_path / "s").glob("*.replaced-*"))
    assert moved == ["seed-0", "seed-1"]
    assert f"{tmp_path}/s/seed-0: what was there is in {tmp_path}/s/seed-0.replaced-" in capsys.readouterr().out
    assert (tmp_path / "s" / "seed-1" / "notes.txt").read_text() == "mine"
    assert read_record(tmp_path / "s" / "seed-1")["settings"]["k"] == 2


def test_repair_and_cancel_without_a_submission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("repair", "cancel"):
        assert main([verb, str(tmp_path)]) == 2
        assert "holds no submission" in capsys.readouterr().err
    staged(tmp_path, JobSpec("teacher", ((),)))
    assert main(["cancel", str(tmp_path), "teachr"]) == 2
    assert "no job 'teachr' in" in capsys.readouterr().err


def test_flags_in_place_of_the_site_file(
    source: Path, tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site.toml"
    site.write_text(cluster.path.read_text() + '[cpu]\npartition = "low"\n')
    words = ["submit", "digits", "--cluster", str(site), "--seeds", "1", "--out", str(tmp_path / "r"), "--dry-run"]
    flags = ["--partition=high", "--qos", "fast", "--time", "1-12:00:00", "--exclude", "c[3-4]", "--nodelist", "c1,c2"]
    assert main([*words, *flags, "--account", "a", "--reservation", "r", "--constraint", "x&y"]) == 0
    scripts = re.split(r"^(?=# .*: sbatch )", capsys.readouterr().out, flags=re.M)[1:]
    for script in scripts:
        for line in ("qos=fast", "time=2160", "exclude='c[3-4]'", "account=a", "reservation=r", "constraint='x&y'"):
            assert f"#SBATCH --{line}\n" in script
        ranks = "--nodes=2\n" in script
        assert f"#SBATCH --partition={'high' if ranks else 'low'}\n" in script
        assert ("#SBATCH --nodelist=c1,c2\n" in script) == ranks
    for wrong, text in (
        (["--time", "1h"], "--time: '1h' is no time: write minutes, H:MM:SS or D-HH:MM:SS"),
        (["--time", "1"], "--time 1 is not allowed: it must be at least 2, for the site's signal_delay_s"),
        (["--qos", ""], "--qos: '' is not one word"),
        (["--partition", "a b"], "--partition: 'a b' is not one word"),
        (["--exclude", "a\nb"], "is not one word"),
        (["--partitions", "1"], "unknown flag '--partitions'; did you mean '--partition'?"),
    ):
        assert main([*words, *wrong]) == 2
        assert text in (said := capsys.readouterr().err), said
        assert len(said.splitlines()) == 1
    assert main(["submit", "digits", "--cluster", "local", "--qos", "x"]) == 2
    assert "--qos is for a cluster, and --cluster local is none" in capsys.readouterr().err
    pack = ["--", "--source", str(source), "--out", str(tmp_path / "p")]
    assert main(["submit", "pack", "--cluster", str(site), "--nodelist", "c1", *pack]) == 2
    assert "--nodelist is for jobs on all ranks, and there is none here" in capsys.readouterr().err


def test_what_a_leaderboard_is_about(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher, photos = ["--teacher", "timm:vit_tiny"], tmp_path / "photos"
    for split in ("train", "val"):
        (photos / split).mkdir(parents=True)
    for words, text in (
        (
            ["digit"],
            "'digit' is no leaderboard and no folder; name a folder with train and val, or one of: digits, fash",
        ),
        ([str(source), *teacher], f"--images {source} has neither a folder train nor a file train.tar"),
        ([str(source), "--images", str(source), *teacher], "are both given: leave one of them out"),
        ([str(source)], "the recipe leaderboard-imagenet needs --teacher"),
        (["imagenet", *teacher], "the recipe leaderboard-imagenet needs --images"),
        (["digits", *teacher], "--teacher is no setting of the recipe leaderboard-digits"),
        (["digits", "--", "--student", "tiny"], "leaderboard-digits takes no flags after `--`"),
        ([str(photos), *teacher, "--", "--frobnicate"], "unknown flag '--frobnicate' (see `bingo distill --help`)"),
        ([str(photos), "--teacher", str(photos / "x.pth")], f"--teacher: {photos}/x.pth does not exist"),
        (["digits", "--ranks", "0"], "--ranks 0 is not allowed: it must be between 1 and 1024"),
    ):
        capsys.readouterr()
        assert main(["leaderboard", *words, "--out", str(tmp_path / "out")]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
