"""From recipes to jobs: what needs what, how large a job is, and which tasks are done."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bingo.cli import main
from bingo.config import BagsConfig, DistillConfig
from bingo.errors import UserError
from bingo.files import write_json
from bingo.launch.cluster.site import Cluster
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.graph import absolute, jobs_of, open_tasks, report_job
from bingo.recipes import (
    CARDS,
    PAGE,
    RECIPE,
    Group,
    build,
    digits,
    from_teacher,
    resnet18_r50,
    results_hash,
    summary,
)
from bingo.stages import Stage, run_stage
from tests.support.small_imagenet import submitted_here


def jobs(groups: tuple[Group, ...], cluster: Cluster) -> list[JobSpec]:
    return jobs_of(groups, cluster, min_nodes=None, preflight=False)


def test_jobs_need_what_they_read(cluster: Cluster, tmp_path: Path) -> None:
    needs = {job.name: set(job.needs) for job in jobs(digits(tmp_path, seeds=3).jobs, cluster)}
    for seed in range(3):
        assert needs[f"seed {seed}"] == {"prepare", "teacher", "bags"}, "seeds wait for each other"
    assert needs["export"] == {"seed 0"}
    assert needs["bags"] == {"prepare", "teacher"}
    assert needs["prepare"] == set()


def test_the_report_is_the_last_job(cluster: Cluster, tmp_path: Path) -> None:
    recipe = digits(tmp_path, seeds=3)
    report = report_job(jobs(recipe.jobs, cluster), tmp_path, summary("digits", recipe))
    assert set(report.needs) == {"export", "seed 1", "seed 2"}, "those that need no other job's end"
    assert JobSpec.from_json(json.loads(json.dumps(report.to_json()))) == report
    assert open_tasks([report]) == {"report": [0]}


def test_the_imagenet_chain(cluster: Cluster, tmp_path: Path, images: Path) -> None:
    recipe = build("resnet34-r50", tmp_path / "out", {"images": images, "teacher": tmp_path / "r50.pth", "seeds": None})
    found = {job.name: job for job in jobs(recipe.jobs, cluster)}
    assert {name: set(job.needs) for name, job in found.items()} == {
        "pack train": set(),
        "pack val": set(),
        "features": {"pack train"},
        "bags": {"pack train", "features"},
        "distill": {"pack train", "bags"},
        "eval": {"pack train", "pack val", "distill"},
        "export": {"distill", "eval"},
    }
    assert {name for name, job in found.items() if job.parallel} == {"features", "bags", "distill", "eval"}
    config = found["distill"].tasks[0][0].config
    assert config == replace(resnet18_r50(config.data, config.out, config.teacher, config.bags), student="resnet34")
    assert config.optim.epochs == 200
    assert found["eval"].tasks[0][0].config.kinds == ("linear", "knn")
    assert found["eval"].tasks[0][0].config.protocol == "release", "what the published numbers were judged by"
    shorter = from_teacher(CARDS["resnet18-r50"], tmp_path, images=images, teacher=tmp_path, epochs=3, device="cpu")
    (short,) = [s for group in shorter.jobs for s in group.stages if s.kind == "distill"]
    assert (short.config.optim.epochs, short.config.runtime.device, short.config.runtime.precision) == (
        3,
        "cpu",
        "bf16",
    )


@pytest.mark.slow
def test_the_imagenet_chain_runs_to_its_end(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every stage of it, with its own wiring, on a dozen images of 32 pixels; the rest of the settings as they are."""
    command = submitted_here("resnet18-r50", tmp_path, teacher, monkeypatch)
    assert main(command) == 0
    assert json.loads((tmp_path / "out" / "export" / "weights.json").read_text())["model"] == "resnet18"
    scores = json.loads((tmp_path / "out" / "eval" / "stage.json").read_text())["figures"]
    assert {"linear", "knn"} <= set(scores)
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("done before") == 7


def test_paths_are_absolute_and_links_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    config = absolute(DistillConfig(data=Path("link/../link/d"), out=Path("o"), bags=Path("b"), teacher=Path("t")))
    assert (config.data, config.out) == (tmp_path / "link" / "d", tmp_path / "o")


def test_size_of_jobs(cluster: Cluster, tmp_path: Path) -> None:
    made = jobs_of(digits(tmp_path, seeds=1).jobs, cluster, min_nodes=1, preflight=True)
    shape = {job.name: (job.ranks, job.min_nodes, job.preflight) for job in made}
    assert (shape["teacher"], shape["bags"]) == ((2, 1, True), (1, 1, False))
    with pytest.raises(UserError, match=r"--min-nodes 3 is not allowed: it must be between 1 and the 2 nodes"):
        jobs_of((), cluster, min_nodes=3, preflight=False)


def test_what_is_done_is_recognised_and_what_follows_a_gap_is_not(
    cluster: Cluster, source: Path, tmp_path: Path
) -> None:
    first = BagsConfig(data=source, out=tmp_path / "first", kind="random", k=1)
    second = BagsConfig(data=source, out=tmp_path / "second", kind="label", k=1, compare=tmp_path / "first")
    stages = [Stage("first", "bags", first), Stage("second", "bags", second)]
    made = jobs(tuple(Group(s.name, (s,)) for s in stages), cluster)
    assert [job.needs for job in made] == [(), ("first",)]
    assert open_tasks(made) == {"first": [0], "second": [0]}
    for one in stages:
        run_stage(one)
    assert open_tasks(made) == {}
    (tmp_path / "second" / "bags.npz").write_bytes(b"damaged")
    assert open_tasks(made) == {"second": [0]}
    run_stage(stages[1])
    told = {"recipe": "r", "arms": {}, "stages": [stage.to_json() for stage in stages]}
    made.append(report_job(made, tmp_path, told))
    assert made[-1].needs == ("second",)
    write_json(tmp_path / RECIPE, told)
    assert open_tasks(made) == {"report": [0]}
    outs = [stage.out for stage in stages]
    page = f'<html><meta name="results" content="{results_hash(told, outs)}"></html>'
    (tmp_path / PAGE).write_text(page)
    assert open_tasks(made) == {}
    for wrong in ("", page.replace('content="', 'content="0'), page.replace("results", "title")):
        (tmp_path / PAGE).write_text(wrong)
        assert open_tasks(made) == {"report": [0]}, wrong
    (tmp_path / PAGE).write_text(page)
    assert open_tasks([report_job(made[:2], tmp_path, told | {"arms": {"a": []}})]) == {"report": [0]}, "another recipe"
    write_json(tmp_path / RECIPE, told | {"arms": {"a": []}})
    assert open_tasks(made) == {"report": [0]}
    write_json(tmp_path / RECIPE, told)
    assert open_tasks(made) == {}
    (tmp_path / "first" / "bags.npz").write_bytes(b"damaged")
    assert open_tasks(made) == {"first": [0], "second": [0], "report": [0]}, "what follows a gap is not done"
