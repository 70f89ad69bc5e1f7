"""The `eval` stage: what is trained on new crops first, with checkpoints, then what is measured on stored features."""

from collections.abc import Sequence
from typing import Any

from bingo.config_evaluation import EvalConfig
from bingo.distributed import World
from bingo.evaluate.stage import Subject, measure, open_subject, stored_kinds, write
from bingo.features.alike import engine_same, rounded_by
from bingo.files import write_torch
from bingo.supervised.finetune import torchvision_state, train_few
from bingo.supervised.linear import train_linear
from bingo.supervised.loop import Score


def run(config: EvalConfig, key: str, world: World) -> dict[str, Any]:
    """Write `results.json`, for `linear` the classifier in `linear.pt`, for `finetune` the network in `finetuned.pt`.

    Accuracies are fractions. Of what is trained the last epoch is the result; the best epoch stands beside it, chosen
    on the validation images and therefore too good.
    """
    subject = open_subject(config, world)
    results, classifier, ranks = dict[str, Any](), None, world.ranks
    if "finetune" in config.kinds:
        results, ranks = _finetune(config, key, subject, world)
    if "finetune" not in config.kinds or stored_kinds(config):
        subject = _made_fast(config, subject, world)
    if config.trains and "finetune" not in config.kinds:
        scores, classifier, counted = train_linear(config, key, subject, world)
        results, ranks = {"protocol": config.protocol, **reported("linear", scores)}, counted.ranks
    found, fitted = measure(config, subject, world)
    figures = write(config, subject, world, {**found, **results}, classifier or fitted)
    figures |= {n: value for n, value in rounded_by(subject.encoder, config.runtime, world).items() if value}
    return figures | {"ranks": ranks} if config.trains else figures


def _made_fast(config: EvalConfig, subject: Subject, world: World) -> Subject:
    """With the engine of its network, which nothing trains from here on: for the images of a step, or of a batch."""
    images = min(config.batch, max(len(subject.train), len(subject.val)))
    rows = max(1, config.linear_batch // world.ranks) if config.trains else images
    return subject._replace(
        encoder=engine_same(subject.encoder, config.runtime, world, rows=rows, size=config.augment.size)
    )


def _finetune(config: EvalConfig, key: str, subject: Subject, world: World) -> tuple[dict[str, Any], int]:
    scores, images, network, counted = train_few(config, key, subject, world)
    if world.main:
        saved = {"model": network.encoder.name, "classes": subject.classes, "state_dict": torchvision_state(network)}
        write_torch(config.out / "finetuned.pt", saved)
    labels = {"images": len(images), "fraction": None if config.finetune.names else config.finetune.fraction}
    return {**reported("finetune", scores), "labels": labels}, counted.ranks


def reported(name: str, scores: Sequence[Score]) -> dict[str, Any]:
    """What results.json says of a training: the last epoch's accuracy, and the best one's under its own name."""
    last, best = scores[-1], max(scores, key=lambda score: score.top1)
    return {
        name: last.top1,
        f"{name}_top5": last.top5,
        f"{name}_epochs": last.epochs,
        f"{name}_best": best.top1,
        f"{name}_best_epoch": best.epochs,
        f"{name}_by_epoch": [list(score) for score in scores],
    }
