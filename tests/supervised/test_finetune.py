"""Fine-tuning on few labels against a plain torch loop, and killed and resumed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bingo.config_evaluation import EvalConfig
from bingo.config_parts import Augmentation, Finetune, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.images.open import open_dataset
from bingo.models import build_classifier, load_encoder
from bingo.stages import Stage, run_stage
from bingo.supervised.linear import seeded_linear
from bingo.supervised.plan import LabelPlan, crops_and_flips, labelled_batches
from bingo.supervised.subset import drawn
from bingo.train.lines import read_metrics
from bingo.views.loader import augmenter
from tests.support.forked_ranks import Ranks, run_ranks

ALONE = World(0, 1, torch.device("cpu"), 1)


@pytest.fixture
def config(digits: Path, teacher: Path, tmp_path: Path) -> EvalConfig:
    return EvalConfig(
        run=teacher, train=digits / "train", val=digits / "val", out=tmp_path / "out", kinds=("finetune",),
        seed=3, augment=Augmentation(size=16), flip_p=0.0,
        finetune=Finetune(batch=5, epochs=1, lr=0.05, head_lr=0.4, weight_decay=0.01),
        runtime=Runtime(device="cpu", threads=1, checkpoint_every=5, log_every=1),
    )  # fmt: skip


def tuned(out: Path) -> dict[str, Tensor]:
    return torch.load(out / "finetuned.pt", weights_only=True)["state_dict"]


def test_one_percent_is_a_naive_loop_of_two_steps(config: EvalConfig) -> None:
    record = run_stage(Stage("e", "eval", config))
    data, encoder = open_dataset(config.train), load_encoder(config.run)[0].train()
    images = drawn(data.labels, data.classes, 0.01, config.seed)
    assert len(images) == 10, "one of each class"
    augment = crops_and_flips(config.augment, (0.08, 1.0), 0.0)
    plan = LabelPlan(data.sizes, images, 5, augment, config.seed, whole=False)
    layer = seeded_linear(encoder.feature_dim, 10, config.seed)
    groups = [{"params": encoder.backbone.parameters()}, {"params": layer.parameters(), "lr": 0.4}]
    optimiser = torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.01)
    views = augmenter(augment, torch.float32)
    steps = list(labelled_batches(data, plan, ALONE, start=0, stop=2, settings=config.loader))
    assert sorted(np.concatenate([share.images for share, _ in steps])) == sorted(images)
    for share, crops in steps:
        labels = torch.from_numpy(data.labels[share.images]).long()
        optimiser.zero_grad()
        F.cross_entropy(layer(encoder.backbone(views(crops, share.view.params))), labels).backward()
        optimiser.step()
    expected = dict(encoder.backbone.state_dict())
    expected |= {f"{encoder.classifier_name}.{name}": value for name, value in layer.state_dict().items()}
    found = tuned(config.out)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    before = load_encoder(config.run)[0].backbone.state_dict()
    assert not torch.equal(found["0.weight"], before["0.weight"]), "the network itself has learned"
    assert not torch.equal(found["1.running_mean"], before["1.running_mean"])
    network = build_classifier("tiny-8", 10)
    network.load_state_dict(found, strict=True)
    results = json.loads((config.out / "results.json").read_text())
    assert results["labels"] == {"images": 10, "fraction": 0.01}
    assert results["finetune"] == record["figures"]["finetune"] == results["finetune_by_epoch"][-1][1]
    assert not (config.out / "linear.pt").exists()


@pytest.fixture
def longer(config: EvalConfig) -> EvalConfig:
    tune = Finetune(fraction=0.3, batch=20, epochs=5, every=2)
    return replace(config, finetune=tune)


@pytest.mark.slow
def test_killed_and_resumed_by_as_many_or_fewer_processes(longer: EvalConfig, tmp_path: Path) -> None:
    """16 steps per epoch by two ranks, whose batch-norm statistics are their own; bit for bit what nobody stopped."""
    whole = replace(longer, out=tmp_path / "whole")
    run_ranks(Stage("e", "eval", whole), 2, tmp_path)
    assert [x["epoch"] for x in read_metrics(whole.out / "metrics.jsonl", "accuracy")] == [2, 4, 5]
    rates = [line["lr"] for line in read_metrics(whole.out / "metrics.jsonl", "train")][::16]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.002, 0.0004])
    for then in (2, 1):
        config = replace(longer, out=tmp_path / str(then))
        stage = Stage("e", "eval", config)
        Ranks(stage, 2, tmp_path).kill_once(config.out / "checkpoints" / "step-0000000025.pt")
        assert not (config.out / "results.json").exists()
        run_ranks(stage, then, tmp_path)
        expected = tuned(whole.out)
        for name, value in tuned(config.out).items():
            assert torch.equal(value, expected[name]), (then, name)
        assert (config.out / "results.json").read_bytes() == (whole.out / "results.json").read_bytes()


def test_a_list_of_names_is_an_input_of_the_stage(config: EvalConfig, tmp_path: Path) -> None:
    data = open_dataset(config.train)
    first = [int(np.flatnonzero(data.labels == label)[0]) for label in range(10)]
    file = tmp_path / "1percent.txt"
    file.write_text("".join(f"{data.paths[index]}\n" for index in first))
    config = replace(config, finetune=replace(config.finetune, names=file))
    run_stage(Stage("e", "eval", config))
    results = json.loads((config.out / "results.json").read_text())
    assert results["labels"] == {"images": 10, "fraction": None}
    assert run_stage(Stage("e", "eval", config))["skipped"]
    file.write_text("".join(f"{data.paths[index + 1]}\n" for index in first))
    with pytest.raises(UserError, match=r"another content of finetune.names"):
        run_stage(Stage("e", "eval", config))


def test_what_fills_no_step_is_refused_before_any_work(config: EvalConfig) -> None:
    wrong = replace(config, finetune=Finetune(batch=11))
    with pytest.raises(UserError, match=r"--finetune.batch 11 is more than the 10 labelled images; lower it"):
        run_stage(Stage("e", "eval", wrong))
    alone = replace(config, finetune=Finetune(batch=1))
    with pytest.raises(UserError, match=r"--finetune.batch 1 gives a rank of 1 a single image.* raise it to 2 or more"):
        run_stage(Stage("e", "eval", alone))
    assert not config.out.exists(), "a refused run leaves nothing behind"


def test_it_stands_alone(config: EvalConfig) -> None:
    with pytest.raises(UserError, match="finetune changes the network and stands alone"):
        replace(config, kinds=("finetune", "knn"))
