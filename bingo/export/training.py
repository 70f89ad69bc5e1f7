"""How a model was trained, and what an evaluation found, as its records say it: no paths, content hashes instead."""

import re
from pathlib import Path
from typing import Any

from bingo.config_json import to_json
from bingo.errors import UserError
from bingo.files import RECORD, read_object
from bingo.identity import read_record
from bingo.inputs import CONFIG
from bingo.key_settings import flat

KINDS = ("pretrain", "distill")
SHOWN = {
    "model": "network", "student": "student", "objective": "objective", "key_view": "keys from the view",
    "optim.epochs": "epochs", "optim.batch": "batch", "optim.lr": "learning rate per 256 images",
    "optim.weight_decay": "weight decay", "optim.schedule": "cosine per", "contrast.temperature": "temperature",
    "contrast.queue": "queue", "augment.size": "image size", "runtime.precision": "precision", "seed": "seed",
}  # fmt: skip
"""Setting -> what the card calls it."""
MEASURED = re.compile(r"(linear|knn|fewshot|finetune|transfer)(?!.*(lr|l2|decay|epochs|temperature|share)$)")
"""Names in results.json that are accuracies, not settings."""


def training_of(model: Path) -> dict[str, Any] | None:
    """Kind, version, settings and inputs of a model's training.

    In the settings every path is replaced by its content hash; of an input there are a name and its hash.

    None where nothing is recorded, as for a checkpoint of others. `UserError` for a damaged record.
    """
    folder = model.parent if model.name == "model.pt" and not model.is_dir() else model
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder)
    if record["kind"] not in KINDS or not record.keys() >= {"settings", "inputs"}:
        return None
    inputs = {
        name: {"name": name_of(Path(each["path"])), "hash": each["hash"]} for name, each in record["inputs"].items()
    }
    return {"kind": record["kind"], "version": record.get("version"), "settings": record["settings"], "inputs": inputs}


def name_of(path: Path) -> str:
    """What an input is called without saying where it lies: its folder's name for files that are called alike."""
    return path.parent.name if path.name in ("model.pt", "bags.npz") else path.name


def settings_shown(training: dict[str, Any]) -> list[tuple[str, str]]:
    """The settings that a model card shows: (name, value)."""
    values = flat(training["settings"])
    return [(words, _text(values[name])) for name, words in SHOWN.items() if values.get(name) is not None]


def figures_of(results: dict[str, Any], folder: Path | None) -> list[tuple[str, float, str]]:
    """What an evaluation measured: (name, fraction, protocol).

    results: of results.json. Without `protocol` it is `cached`: fitted on features of centre crops. folder: of the
    evaluation, whose settings say what else counts.
    """
    settings = _settings(folder)
    by_k = results.get("knn_by_k") or {}
    others = {f"knn_{k}": value for k, value in list(by_k.items())[1:]}  # the first is `knn` itself
    found = []
    for name, value in {**results, **others}.items():
        if MEASURED.match(name) and isinstance(value, float) and 0 <= value <= 1:
            found.append((name, value, _protocol(name, results, settings)))
    return found


def _settings(folder: Path | None) -> dict[str, Any]:
    try:
        return read_object(folder / CONFIG) if folder else {}
    except UserError:  # the settings only explain the numbers
        return {}


def _protocol(name: str, results: dict[str, Any], settings: dict[str, Any]) -> str:
    if name.startswith("linear"):
        parts = [f"protocol {results.get('protocol') or 'cached'}"]
        return ", ".join([*parts, *([f"solver {results['solver']}"] if "solver" in results else [])])
    if name == "knn" and (by_k := results.get("knn_by_k")):
        return f"k = {next(iter(by_k))}"
    if name == "knn" and "k" in settings:
        return f"k = {settings['k']}"
    if name.startswith("knn_"):
        return f"k = {name.removeprefix('knn_')}"
    if name.startswith("fewshot") and "shots" in results:
        return f"{results['shots']} labelled images per class, mean of {len(results.get('fewshot_draws', [0]))} draws"
    return str(results.get(f"{name.partition('_')[0]}_protocol", ""))


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(to_json(value))
