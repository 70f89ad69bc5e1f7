"""What the flags of `bingo bench scaling` ask for, and those that ask for nothing that can be measured."""

from pathlib import Path

import pytest

from bingo.cli import main
from bingo.errors import UserError
from bingo.kinds import ALL_KINDS, KINDS
from tests.support.scaling import TINY, plan

pytestmark = pytest.mark.quick
SITE = 'nodes = 2\nranks_per_node = 4\npartition = "gpu"\ngpus_per_node = 4\n'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    return path


def test_points_of_a_cluster(site: Path, tmp_path: Path) -> None:
    """Weak and strong scaling share their first point; a job knows its nodes and its ranks."""
    found = plan(tmp_path / "out", "--cluster", site, "--nodes", "4,1,2", "--ranks-per-node", "8")
    assert [(point.nodes, point.ranks, point.batch, point.modes) for point in found.points] == [
        (1, 8, 256, ("weak", "strong")), (2, 16, 128, ("strong",)), (2, 16, 256, ("weak",)),
        (4, 32, 64, ("strong",)), (4, 32, 256, ("weak",)),
    ]  # fmt: skip
    assert found.points[2].case.startswith("2 nodes x 8 ranks, 256 per rank, resnet18 from resnet50, 224 px, bf16")
    assert found.cluster is not None
    assert (found.cluster.jobs.nodes, found.cluster.jobs.ranks_per_node) == (4, 8)
    config = found.points[1].stages[0].config
    assert (config.ranks, config.batch, config.contrast.queue_dtype) == (16, 128, "bf16")
    assert found.settings["ranks_per_node"] == 8


def test_points_here_take_turns(tmp_path: Path) -> None:
    found = plan(tmp_path, "--local", "1,2", "--mode", "weak", "--repeats", "3", *TINY)
    assert [stage.name for stage in found.stages] == [
        f"{ranks} ranks batch 8 repeat {repeat}" for repeat, order in enumerate([(1, 2), (2, 1), (1, 2)])
        for ranks in order
    ]  # fmt: skip
    assert [point.case for point in found.points] == [
        f"{n} ranks, 8 per rank, tiny-2 from tiny-2, 16 px, fp32, random crops" for n in (1, 2)
    ]
    assert {stage.config.seed for stage in found.stages} == {0, 1, 2}


def test_jobs_go_one_after_another(site: Path, tmp_path: Path) -> None:
    from bingo.bench.scaling.cluster import jobs_for
    from bingo.launch.submit.graph import turns

    jobs = jobs_for(plan(tmp_path / "out", "--cluster", site, "--nodes", "1,2", "--mode", "weak"))
    assert [(job.nodes, job.min_nodes, job.ranks, job.needs) for job in jobs] == [(1, 1, 4, ()), (2, 2, 8, ())]
    assert turns(jobs, {job.name: [0] for job in jobs})[jobs[1].name] == [jobs[0].name], "however that one ends"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "missing: --out"),
        ("--out o", "missing: --cluster FILE; or measure ranks on this machine: --local 1,2,4"),
        ("--out o --cluster SITE", "missing: --nodes 1,2,4"),
        ("--out o --local 1 --nodes 2", "--local is about ranks here, and --nodes about a cluster: leave one"),
        ("--out o --local 1 --partition p", "--local is about ranks here, and --partition about a cluster"),
        ("--out o --local 1 --time 5", "--local is about ranks here, and --time about a cluster"),
        ("--out o --local 0", "--local: '0' is not between 1 and 1024"),
        ("--out o --cluster SITE --nodes 0", "--nodes: '0' is not a whole number of at least 1"),
        ("--out o --cluster nowhere.toml --nodes 1", "cannot read the site file nowhere.toml"),
        ("--out o --local 1 --mode week", "--mode: 'week' is not allowed; did you mean 'weak'?"),
        (
            "--out o --local 2,3 --batch 8",
            "what 2 ranks take at --batch 8 does not divide among 3 ranks; set",
        ),
        (
            "--out o --cluster SITE --nodes 2,3 --batch 8",
            "among 3 nodes; set --batch to a multiple of 3, or add",
        ),
        ("--out o --local 1 --rounds 0", "--rounds: '0' is not a whole number of at least 1"),
        ("--out o --local 1 --predicted nothing.json", "nothing.json does not exist"),
    ],
)
def test_wrong_flags(
    words: str, sentence: str, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "scaling", *words.replace("SITE", str(site)).split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.toml"], "nothing is written"


def test_no_slurm(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    words = ["bench", "scaling", "--cluster", str(site), "--nodes", "1", "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "no Slurm here (sinfo is not on PATH); go to a login node" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_verb_runs_the_measured_stage() -> None:
    assert set(ALL_KINDS) - set(KINDS) == {"scaling"}
    with pytest.raises(UserError, match="ranks=0 is not allowed: it must be between 1 and"):
        ALL_KINDS["scaling"].config(out=Path("o"), ranks=0, batch=1)
