"""Networks that nothing can be learned from are refused by every stage that is given one, and blamed for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.config import DistillConfig, FeaturesConfig
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_parts import Augmentation, Runtime
from bingo.errors import UserError
from bingo.features.extract import as_stored
from bingo.images.open import open_dataset
from bingo.models import Encoder, check_alive, load_encoder, save_encoder, seeded_encoder
from bingo.stages import Stage, run_stage
from tests.support.cached_keys import SMALL, keys_config


def break_weights(encoder: Encoder) -> None:
    encoder.backbone[0].weight.data[0, 0, 0, 0] = torch.nan  # type: ignore[index,union-attr]


def break_statistics(encoder: Encoder) -> None:
    encoder.backbone[4].running_var[3] = -1  # type: ignore[index,union-attr]


def silence(encoder: Encoder) -> None:
    encoder.backbone[7].weight.data.zero_()  # type: ignore[index,union-attr]
    encoder.backbone[7].bias.data.fill_(-1)  # type: ignore[index,union-attr]


def stiffen(encoder: Encoder) -> None:
    encoder.backbone[7].weight.data.zero_()  # type: ignore[index,union-attr]
    encoder.backbone[7].bias.data.fill_(0.7)  # type: ignore[index,union-attr]


def overflow(encoder: Encoder) -> None:
    for block in (1, 4, 7):
        encoder.backbone[block].weight.data.fill_(1e25)  # type: ignore[index,union-attr]


def empty_head(encoder: Encoder) -> None:
    encoder.head[2].weight.data.zero_()
    encoder.head[2].bias.data.zero_()


def stiff_head(encoder: Encoder) -> None:
    encoder.head[0].weight.data.zero_()


BREAKS: dict[str, tuple[Callable[[Encoder], None], str]] = {
    "NaN": (break_weights, r"model.pt: backbone.0.weight is not finite \(NaN or infinity\)"),
    "variance": (break_statistics, r"model.pt: backbone.4.running_var holds negative variances"),
    "zeros": (silence, r"the features of the network in .* are all zeros"),
    "constant": (stiffen, r"the features of the network in .* are the same whatever the image"),
    "overflow": (overflow, r"the features of the network in .* are not finite \(NaN or infinity\)"),
    "no key": (empty_head, r"the keys of the network in .* are all zeros"),
    "one key": (stiff_head, r"the keys of the network in .* are the same whatever the image"),
}


def write(folder: Path, change: Callable[[Encoder], None]) -> Path:
    encoder = seeded_encoder("tiny-8", dim=16, hidden=32, seed=5)
    with torch.no_grad():
        change(encoder)
    save_encoder(folder / "model.pt", encoder)
    return folder / "model.pt"


def configs(digits: Path, model: Path, config: DistillConfig) -> dict[str, Any]:
    train, out = digits / "train", model.parent / "out"
    common: dict[str, Any] = {"augment": SMALL, "runtime": Runtime(threads=1), "out": out}
    return {
        "features": FeaturesConfig(data=train, model=model, **common),
        "keys": keys_config(digits, model, out),
        "distill": replace(config, keys=None, teacher=model, out=out),
        "eval": EvalConfig(run=model, train=train, val=digits / "val", **common),
        "export": ExportConfig(model=model, out=out),
    }


@pytest.mark.parametrize("kind", BREAKS)
def test_every_stage_blames_the_network(kind: str, digits: Path, config: DistillConfig, tmp_path: Path) -> None:
    change, message = BREAKS[kind]
    stages = configs(digits, write(tmp_path, change), config)
    for name in ("keys", "distill") if kind.endswith("key") else stages:
        with pytest.raises(UserError, match=f"{message}: the network is broken, not the images; train it"):
            run_stage(Stage(name, name, stages[name]))
        assert not list((tmp_path / "out").glob("[!.]*.[np]*")), "nothing was made of it"


def test_features_that_float16_cannot_hold(digits: Path, config: DistillConfig, tmp_path: Path) -> None:
    def enlarge(encoder: Encoder) -> None:
        encoder.backbone[7].weight.data.mul_(1e6)  # type: ignore[index,union-attr]

    stage = configs(digits, write(tmp_path, enlarge), config)["features"]
    with pytest.raises(
        UserError, match=r"features of the network in .* reach \S+e\+\d+, more than the 65504 that float16"
    ):
        run_stage(Stage("features", "features", stage))


def test_one_bad_row_is_blamed_on_its_image(digits: Path, teacher: Path) -> None:
    dataset, rows = open_dataset(digits / "train"), torch.ones(20, 4)
    assert (as_stored(rows, "fp16", 5, dataset, teacher) == 1).all()
    rows[3, 1] = torch.nan
    with pytest.raises(UserError) as caught:
        as_stored(rows, "fp16", 5, dataset, teacher)
    assert f"the features of {dataset.paths[8]} are not finite" in str(caught.value)
    assert "look at that image" in str(caught.value)


@pytest.mark.parametrize("name", ["tiny-1", "tiny", "resnet18", "regnet_y_400mf"])
def test_a_fresh_network_is_alive_and_left_as_it_was(name: str, tmp_path: Path) -> None:
    encoder = seeded_encoder(name, dim=4, hidden=8, seed=0)
    before, random = {n: t.clone() for n, t in encoder.state_dict().items()}, torch.random.get_rng_state()
    check_alive(encoder, tmp_path, 32, head=True)
    assert encoder.training
    assert all(torch.equal(t, before[n]) for n, t in encoder.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), random)


def test_a_size_that_the_network_cannot_take(tmp_path: Path) -> None:
    save_encoder(tmp_path / "model.pt", seeded_encoder("vit_b_32", dim=4, hidden=8, seed=0))
    with pytest.raises(
        UserError, match=r"vit_b_32 of .* cannot take images of 64 x 64 pixels \(.*\); set --augment.size"
    ):
        check_alive(load_encoder(tmp_path)[0], tmp_path, Augmentation(size=64).size, head=False)
