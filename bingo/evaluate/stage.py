"""The `eval` stage: extract a model's features once, then linear, kNN and few-label accuracy on them."""

from typing import Any

import torch

from bingo.config import EvalConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.evaluate.accuracy import LinearProbe, fewshot_accuracy, knn_accuracy, linear_probe
from bingo.evaluate.export import input_of
from bingo.features.extract import extract
from bingo.features.stored import check_rows
from bingo.files import write_sealed, write_torch
from bingo.images.classes import check_labels, check_shots
from bingo.images.dataset import Dataset
from bingo.images.open import open_images
from bingo.models import check_alive, load_encoder


def run(config: EvalConfig, key: str, world: World) -> dict[str, Any]:
    """Write `results.json` (accuracies as fractions) and, for `linear`, the classifier in `linear.pt`.

    Both name the model's content hash and the classes; `results.json` also says what images the model was shown.
    """
    train, val = (open_images(path, config.loader, tell=world.main) for path in (config.train, config.val))
    classes = check_labels(train, val, tell=world.main)
    check_kinds(config, train, len(classes))
    encoder, model_hash = load_encoder(config.run)
    check_alive(encoder.to(world.device), config.run, config.augment.size, head=False)
    x, y = [], []
    for data in (train, val):
        rows = extract(encoder, data, config.augment, config.batch, config.runtime, world, loader=config.loader)
        check_rows(rows, "features", config.run, data.paths.__getitem__, zeros=True)
        x.append(rows)
        y.append(torch.from_numpy(data.labels).long().to(world.device))
    if not world.main:
        return {}
    results, probe = evaluate(config, x[0], y[0], x[1], y[1], len(classes))
    if probe is not None:
        classifier = {"weight": probe.weight.cpu(), "bias": probe.bias.cpu()}
        write_torch(config.out / "linear.pt", {**classifier, "model": model_hash, "classes": classes})
    header = {"model": model_hash, "train": train.hash, "val": val.hash, "classes": classes}
    write_sealed(config.out / "results.json", {**header, "input": input_of(config.augment), **results})
    return {name: value for name, value in results.items() if isinstance(value, float)}


def check_kinds(config: EvalConfig, train: Dataset, classes: int) -> None:
    """Refuse, before features are computed, what these training images cannot be evaluated by."""
    probes = [kind for kind in config.kinds if kind != "knn"]
    if probes and classes < 2:
        raise UserError(
            f"{config.train} has one class only: no classes to tell apart for {' and '.join(probes)}; "
            "give images of two classes or more"
        )
    if "fewshot" in config.kinds:
        check_shots(train, classes, config.shots)
    if "knn" in config.kinds and config.k > len(train):
        raise UserError(f"--k {config.k} is more than the {len(train)} images of {config.train}; lower --k")


def evaluate(
    config: EvalConfig,
    train_x: torch.Tensor,
    train_y: torch.Tensor,
    val_x: torch.Tensor,
    val_y: torch.Tensor,
    classes: int,
) -> tuple[dict[str, Any], LinearProbe | None]:
    """The accuracies asked for, on N x D features, and the linear classifier if there is one."""
    results: dict[str, Any] = {}
    probe = None
    if "knn" in config.kinds:
        results["knn"] = knn_accuracy(train_x, train_y, val_x, val_y, k=config.k)
    if "fewshot" in config.kinds:
        draws = fewshot_accuracy(
            train_x, train_y, val_x, val_y, classes=classes, shots=config.shots, draws=config.draws, seed=config.seed
        )
        results |= {"fewshot": sum(draws) / len(draws), "fewshot_draws": draws, "shots": config.shots}
    if "linear" in config.kinds:
        probe = linear_probe(
            train_x,
            train_y,
            val_x,
            val_y,
            classes=classes,
            solver=config.solver,
            lr=config.linear_lr,
            epochs=config.linear_epochs,
            milestones=(config.linear_epochs * 3 // 5, config.linear_epochs * 4 // 5),
            seed=config.seed,
        )
        results |= {"linear": probe.top1, "linear_top5": probe.top5, "solver": config.solver}
    return results, probe
