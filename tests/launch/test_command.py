"""The verbs of launching: one stage as a job, and roots without a submission."""

from pathlib import Path

import pytest

from bingo.cli import main
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


def test_repair_and_cancel_without_a_submission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("repair", "cancel"):
        assert main([verb, str(tmp_path)]) == 2
        assert "holds no submission" in capsys.readouterr().err
    staged(tmp_path, JobSpec("teacher", ((),)))
    assert main(["cancel", str(tmp_path), "teachr"]) == 2
    assert "no job 'teachr' in" in capsys.readouterr().err
