"""From recipes to jobs: what needs what, how large a job is, and which tasks are done."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from bingo.cli import main
from bingo.config import BagsConfig, DistillConfig
from bingo.config_parts import Augmentation
from bingo.errors import UserError
from bingo.launch.cluster.site import Cluster
from bingo.launch.job.spec import JobSpec
from bingo.launch.submit.graph import absolute, jobs_of, open_tasks
from bingo.recipes import CHAINS, Group, build, digits, imagenet, resnet18_r50
from bingo.stages import Stage, run_stage


def jobs(groups: tuple[Group, ...], cluster: Cluster) -> list[JobSpec]:
    return jobs_of(groups, cluster, min_nodes=None, preflight=False)


def test_jobs_need_what_they_read(cluster: Cluster, tmp_path: Path) -> None:
    needs = {job.name: set(job.needs) for job in jobs(digits(tmp_path, seeds=3).jobs, cluster)}
    for seed in range(3):
        assert needs[f"seed {seed}"] == {"prepare", "teacher", "bags"}, "seeds wait for each other"
    assert needs["export"] == {"seed 0"}
    assert needs["bags"] == {"prepare", "teacher"}
    assert needs["prepare"] == set()


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
    shorter = imagenet(resnet18_r50, tmp_path, images=images, teacher=tmp_path, epochs=3, device="cpu")
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
    for at in range(18):
        path = tmp_path / "images" / ("train" if at < 12 else "val") / f"class{at % 2}" / f"{at}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 48), 20 + 8 * at).convert("RGB").save(path)

    def small(data: Path, out: Path, teacher: Path, bags: Path) -> DistillConfig:
        config = resnet18_r50(data, out, teacher, bags)
        contrast = replace(config.contrast, dim=16, hidden=32, queue=8)
        return replace(config, contrast=contrast, optim=replace(config.optim, batch=4), augment=Augmentation(size=32))

    monkeypatch.setitem(CHAINS, "resnet18-r50", partial(imagenet, small))
    words = ["--images", tmp_path / "images", "--teacher", teacher, "--out", tmp_path / "out", "--epochs", "1"]
    command = ["submit", "resnet18-r50", "--cluster", "debug", "--device", "cpu", *map(str, words)]
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
    (tmp_path / "first" / "bags.npz").write_bytes(b"damaged")
    assert open_tasks(made) == {"first": [0], "second": [0]}, "what follows a gap is not done"
