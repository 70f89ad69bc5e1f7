"""The cards: what each trains, the numbers that are published for it, and its chain."""

from pathlib import Path
from typing import Any

import pytest

from bingo.config import DistillConfig, PretrainConfig
from bingo.errors import UserError
from bingo.recipes import CARDS, CHAINS, DISTILL, build
from bingo.recipes.cards import Card
from bingo.recipes.teachers import TEACHERS

pytestmark = pytest.mark.quick
PUBLISHED = {
    "resnet18-r50": {"moco-r50-800": 64.0, "moco-r50-200": 61.4},
    "resnet34-r50": {"moco-r50-800": 66.1, "moco-r50-200": 63.5},
    "resnet18-r152": {"moco-r152-800": 65.9},
    "resnet34-r152": {"moco-r152-800": 69.1},
    "resnet18-r50x2": {"swav-r50x2": 65.5},
    "resnet34-r50x2": {"swav-r50x2": 68.9},
    "efficientnet-b0-r50x2": {"swav-r50x2": 69.3},
    "mobilenetv3-r50x2": {"swav-r50x2": 67.1},
    "moco-resnet18": {"": 52.5},
    "moco-resnet34": {"": 57.4},
    "moco-resnet18-1pct": {"": 30.9},
    "moco-resnet18-10pct": {"": 45.8},
    "resnet18-r152-10pct": {"moco-r152-800": 61.2},
    "seed-resnet18-r50": {"moco-r50-200": 57.6},
    "disco-resnet18-r50": {"moco-r50-200": 60.6},
    "simreg-resnet18-byol": {"byol-r50": 66.8},
    "compress-resnet18-swav": {"swav-r50": 65.6},
}


def configs(name: str, images: Path) -> dict[str, Any]:
    """Kind of stage -> its settings, packs aside."""
    teacher = {"teacher": images / "teacher.pth"} if CARDS[name].distils else {}
    recipe = build(name, images / "out", {"images": images, **teacher})
    return {s.kind: s.config for g in recipe.jobs for s in g.stages if s.kind != "pack"}


def test_numbers_are_the_papers() -> None:
    assert {name: dict(CARDS[name].expected) for name in PUBLISHED} == PUBLISHED
    assert CARDS["resnet18-r50"].reported.startswith("64.0 from MoCo-v2 ResNet-50, 800 epochs; 61.4 from")
    assert CARDS["resnet50-r50x2"].reported.startswith("no number known")
    assert all(card.source and card.status == "not yet run" for card in CARDS.values())


@pytest.mark.parametrize("name", CARDS)
def test_a_chain_trains_what_its_card_says(name: str, images: Path) -> None:
    card, made = CARDS[name], configs(name, images)
    training = made["distill" if card.distils else "pretrain"]
    assert (training.student if card.distils else training.model) == card.student
    assert (training.optim.epochs, training.runtime.precision) == (card.epochs, "bf16")
    assert training.out == made["eval"].run
    assert len({TEACHERS[each].network for each in card.expected if each}) <= 1, "hours are of one network"
    if card.labels is None:
        assert made["eval"].protocol == card.judge.get("protocol", "release")
        simreg = made["eval"].protocol == "simreg"
        assert made["export"].classifier == (None if simreg else made["eval"].out), "it acts on standardised features"
    else:
        assert (made["eval"].kinds, made["eval"].finetune.fraction) == (("finetune",), card.labels)


@pytest.mark.parametrize("student", ["efficientnet-b0-r50x2", "mobilenetv3-r50x2", "resnet18-r50"])
def test_small_students_have_settings_of_their_own(student: str, images: Path) -> None:
    made = configs(student, images)
    config, judge = made["distill"], made["eval"].linear.schedule
    own = student != "resnet18-r50"
    assert (config.contrast.temperature, config.optim.weight_decay) == ((0.12, 4e-5) if own else (0.2, 1e-4))
    assert (judge.lr, judge.min_lr) == ((3.0, 0.001) if student.startswith("efficientnet") else (30.0, 0.01))
    assert config.cutmix_block == 32


def test_a_baseline_has_mocos_batch_norm(images: Path) -> None:
    made = configs("moco-resnet18", images)
    config = made["pretrain"]
    assert isinstance(config, PretrainConfig)
    assert (config.key_bn, config.contrast.queue, config.contrast.temperature) == ("shuffle", 65536, 0.2)
    assert made.keys() == {"pretrain", "eval", "export"}


@pytest.mark.parametrize(("end", "rates"), [("1pct", (0.01, 0.02, 5.0)), ("10pct", (0.1, 0.01, 0.2))])
def test_few_labels_take_the_student_of_the_linear_row(end: str, rates: tuple[float, ...], images: Path) -> None:
    """In the same folder, so that what is trained there is recognised."""
    few, whole = configs(f"resnet18-r50-{end}", images), configs("resnet18-r50", images)
    assert few["distill"] == whole["distill"]
    how = few["eval"].finetune
    assert (how.fraction, how.lr, how.head_lr) == rates
    assert few["eval"].out != whole["eval"].out
    assert "export" not in few


def test_peers_keep_their_own_settings(images: Path) -> None:
    """No bags; SimReg on the features of its teacher, by crops alone, judged by its own protocol."""
    made = configs("simreg-resnet18-swav", images)
    config = made["distill"]
    assert (config.objective, config.bags, config.same_view) == ("simreg", None, True)
    assert (config.contrast.dim, config.contrast.layers, config.optim.epochs, config.optim.lr) == (2048, 4, 130, 0.05)
    assert (config.augment.jitter_p, config.augment.blur_p, config.augment.flip_p) == (0, 0, 0.5)
    assert config.teacher == made["teacher"].out
    assert (made["teacher"].head, made["eval"].protocol) == ("none", "simreg")
    assert made.keys() == {"teacher", "distill", "eval", "export"}


def test_cached_keys_are_of_the_views_that_are_trained_on(images: Path) -> None:
    made = configs("resnet18-dinov2b", images)
    config, keys = made["distill"], made["keys"]
    assert (config.keys, config.teacher, keys.teacher) == (keys.out, None, made["teacher"].out)
    assert (keys.augment, keys.views) == (config.augment, 16)
    assert (made["teacher"].head, made["teacher"].dim, config.contrast.dim) == ("pca", 256, 256)
    assert (config.student_ema, config.optim.warmup_epochs, config.optim.batch) == (0.9995, 5, 1024)


def test_a_recipe_without_a_teacher_takes_none(images: Path) -> None:
    with pytest.raises(UserError, match="--teacher is no setting of the recipe moco-resnet18; it takes --images"):
        build("moco-resnet18", images / "out", {"images": images, "teacher": images})


def test_settings_of_a_card_start_a_distillation() -> None:
    assert set(DISTILL) == {name for name, card in CARDS.items() if card.distils and card.labels is None}
    assert set(CARDS) < set(CHAINS)
    path: Any = Path("x")
    assert all(isinstance(make(path, path, path, path), DistillConfig) for make in DISTILL.values())


def test_passes_count_every_view() -> None:
    card = CARDS["resnet18-r50"]
    assert (card.passes, CARDS["moco-resnet18"].passes) == (600, 200)
    local = Card("", "resnet18", {"dinov2-b": None}, "", {"objective": "simreg", "local_crops": 4})
    assert local.passes == pytest.approx(200 * (1 + 4 * (96 / 224) ** 2))
