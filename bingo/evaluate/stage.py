"""What an evaluation opens, writes, and measures on stored features: kNN, few labels, transfer, `cached`."""

from typing import Any, NamedTuple

import torch

from bingo.config_evaluation import EvalConfig
from bingo.distributed import World
from bingo.errors import UserError
from bingo.evaluate.accuracy import LinearProbe, fewshot_accuracy, knn_accuracies, linear_probe
from bingo.evaluate.input import input_of
from bingo.evaluate.transfer import PROTOCOL, held_out, transfer_probe
from bingo.features.alike import load_same, open_same
from bingo.features.extract import extract
from bingo.features.stored import check_rows
from bingo.files import write_sealed, write_torch
from bingo.images.classes import check_labels, check_shots
from bingo.images.dataset import Dataset
from bingo.models import Encoder


class Subject(NamedTuple):
    """What is evaluated, and on what: images with labels, their common classes, a network and its content hash."""

    train: Dataset
    val: Dataset
    classes: list[str]
    encoder: Encoder
    model: str


def open_subject(config: EvalConfig, world: World) -> Subject:
    """Called by every rank; `UserError` for what cannot be evaluated so, before any work."""
    train, val = (open_same(path, config.loader, world) for path in (config.train, config.val))
    classes = check_labels(train, val, tell=world.main)
    check_kinds(config, train, len(classes))
    encoder, model = load_same(config.run, config.augment.size, world, head=False, arch=config.arch)
    return Subject(train, val, classes, encoder, model)


def measure(config: EvalConfig, subject: Subject, world: World) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Accuracies of the kinds that stored features are enough for, and the linear classifier if it is one of them.

    Called by every rank; only rank 0 has results.
    """
    if not stored_kinds(config):
        return {}, None
    x, y = [], []
    for data in (subject.train, subject.val):
        rows = extract(subject.encoder, data, config.augment, config.batch, config.runtime, world, loader=config.loader)
        check_rows(rows, "features", config.run, data.paths.__getitem__, zeros=True)
        x.append(rows)
        y.append(torch.from_numpy(data.labels).long().to(world.device))
    if not world.main:
        return {}, None
    results, probe = evaluate(config, x[0], y[0], x[1], y[1], len(subject.classes))
    return results, {"weight": probe.weight.cpu(), "bias": probe.bias.cpu()} if probe else None


def stored_kinds(config: EvalConfig) -> list[str]:
    """The kinds that are measured on features that are computed once."""
    trained = ("finetune", *(["linear"] if config.linear.augmented else []))
    return [kind for kind in config.kinds if kind not in trained]


def write(
    config: EvalConfig, subject: Subject, world: World, results: dict[str, Any], classifier: dict[str, Any] | None
) -> dict[str, Any]:
    """Write `results.json` (accuracies as fractions) and a linear classifier as `linear.pt`; the record's figures.

    Both name the model's content hash and the classes; `results.json` also says what images the model was shown.
    """
    if not world.main:
        return {}
    named = {"model": subject.model, "classes": subject.classes}
    if classifier is not None:
        write_torch(config.out / "linear.pt", {**classifier, **named})
    header = {**named, "train": subject.train.hash, "val": subject.val.hash, "input": input_of(config.augment)}
    write_sealed(config.out / "results.json", {**header, **results})
    protocol = {"protocol": results["protocol"]} if "protocol" in results else {}
    figures = {**protocol, **{name: value for name, value in results.items() if isinstance(value, float)}}
    return figures | {f"knn_{k}": accuracy for k, accuracy in list(results.get("knn_by_k", {}).items())[1:]}


def check_kinds(config: EvalConfig, train: Dataset, classes: int) -> None:
    """Refuse, before features are computed, what these training images cannot be evaluated by."""
    probes = [kind for kind in config.kinds if kind != "knn"]
    if probes and classes < 2:
        raise UserError(
            f"{config.train} has one class only: no classes to tell apart for {' and '.join(probes)}; "
            "give images of two classes or more"
        )
    if "transfer" in config.kinds:
        held_out(train.labels, classes=classes, share=config.holdout, seed=config.seed)
    if "fewshot" in config.kinds:
        check_shots(train, classes, config.shots)
    if "knn" in config.kinds and max(config.k) > len(train):
        raise UserError(f"--k {max(config.k)} is more than the {len(train)} images of {config.train}; lower --k")


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
        by_k = knn_accuracies(train_x, train_y, val_x, val_y, ks=config.k)
        results |= {"knn": by_k[config.k[0]], "knn_by_k": {str(k): accuracy for k, accuracy in by_k.items()}}
    if "fewshot" in config.kinds:
        draws = fewshot_accuracy(
            train_x, train_y, val_x, val_y, classes=classes, shots=config.shots, draws=config.draws, seed=config.seed
        )
        results |= {"fewshot": sum(draws) / len(draws), "fewshot_draws": draws, "shots": config.shots}
    if "linear" in stored_kinds(config):
        schedule = config.linear.schedule
        probe = linear_probe(
            train_x,
            train_y,
            val_x,
            val_y,
            classes=classes,
            solver=config.solver,
            lr=schedule.lr,
            epochs=schedule.epochs,
            milestones=schedule.milestones,
            batch=config.linear_batch,
            seed=config.seed,
        )
        results |= {"protocol": config.protocol, "linear": probe.top1, "linear_top5": probe.top5}
        results["solver"] = config.solver
    if "transfer" in config.kinds:
        found = transfer_probe(
            train_x, train_y, val_x, val_y,
            classes=classes, penalties=config.transfer_l2, holdout=config.holdout, seed=config.seed,
        )  # fmt: skip
        probe = probe or found.probe
        results |= {"transfer": found.probe.top1, "transfer_per_class": found.per_class, "transfer_protocol": PROTOCOL}
        chosen = {f"{penalty:g}": accuracy for penalty, accuracy in found.held_out.items()}
        results |= {"transfer_l2": found.penalty, "transfer_held_out": chosen}
    return results, probe
