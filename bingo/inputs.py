"""What a stage is given: which forms an input may have, what is wrong with one, what a model's run recorded of it."""

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bingo.config_flags import defaults
from bingo.config_json import from_record
from bingo.config_parts import Augmentation, Loader, Monitor
from bingo.errors import UserError, file_error
from bingo.files import RECORD, hash_json, read_object, read_sealed

CONFIG = "config.json"


class Form(NamedTuple):
    """What an input may be: in words, the kinds of stages that write it, the verb that makes one, and a file in it."""

    words: str
    kinds: tuple[str, ...]
    verb: str
    file: str = ""


IMAGES = Form("a folder made by `bingo pack`, or an image folder (one folder per class)", ("pack",), "pack")
MODEL = Form("a run folder, its model.pt, or a MoCo-v2 checkpoint", ("pretrain", "distill"), "pretrain", "model.pt")
BAGS = Form("a folder made by `bingo bags`, or its bags.npz", ("bags",), "bags", "bags.npz")
FORMS = {
    **dict.fromkeys(("data", "train", "val", "monitor.val"), IMAGES),
    **dict.fromkeys(("teacher", "model", "run"), MODEL),
    **dict.fromkeys(("bags", "compare"), BAGS),
    "features": Form("a folder made by `bingo features`", ("features",), "features", "features.json"),
    "keys": Form("a folder made by `bingo keys`", ("keys",), "keys", "keys.json"),
    "classifier": Form("a folder made by `bingo eval linear`, or its linear.pt", ("eval",), "eval linear", "linear.pt"),
}
"""Setting -> what may stand there. The source of a pack is none of them: `bingo.images.sources` knows its forms."""
HOLDS = {
    "demo-data": "demo images (in train and val)",
    "pack": "packed images",
    "pretrain": "a model",
    "distill": "a model",
    "features": "features",
    "bags": "bags",
    "keys": "cached keys",
    "eval": "an evaluation",
    "export": "exported weights",
}
"""Kind of stage -> what its folder holds."""


def shown(setting: str) -> str:
    """A setting as a message names it."""
    return "RUN" if setting == "run" else f"--{setting.replace('_', '-')}"


def check_input(setting: str, path: Path) -> None:
    """`UserError` if nothing is at `path`, or a folder of another kind than this setting takes.

    setting: dotted name of a field of a config (`teacher`, `monitor.val`).
    """
    form = FORMS[setting]
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise missing_input(setting, path) from None
    except OSError as error:
        raise file_error(error, f"{shown(setting)}: cannot read {path}: {error.strerror or error}") from None
    if not path.is_dir():
        return
    kind, wanted = kind_of(path), "images" if form is IMAGES else HOLDS[form.kinds[0]]
    if kind is not None and kind not in form.kinds:
        raise UserError(f"{shown(setting)}: {path} holds {HOLDS[kind]}, not {wanted}; give {form.words}")
    if kind is None and form.file and not (path / form.file).exists():
        raise UserError(f"{shown(setting)}: {path} does not hold {wanted} (no {form.file} in it); give {form.words}")


def missing_input(setting: str, path: Path) -> UserError:
    """The error about an input that is not there: what may stand there, names that are close, what makes one."""
    form = FORMS[setting]
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    if folder == path.parent:
        names = {entry.name for entry in _entries(folder) if not entry.name.startswith(".")}
        close = difflib.get_close_matches(path.name, sorted(names), n=3)
        hint = "did you mean " + " or ".join(str(folder / name) for name in close) + "? " if close else ""
    else:
        hint = f"{folder} holds no {path.relative_to(folder).parts[0]}. "
    return UserError(
        f"{shown(setting)}: {path} does not exist (no such file or folder). {hint}Give {form.words}; "
        f"`bingo {form.verb}` makes one"
    )


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def kind_of(path: Path) -> str | None:
    """The kind of stage whose folder this is; None for anything else, also for a record that cannot be read."""
    try:
        kind = read_object(path / RECORD)["kind"]
    except (UserError, KeyError):
        return None
    return kind if kind in tuple(HOLDS) else None


@dataclass(frozen=True)
class Recorded:
    """What config.json of a training, or of a key cache, says about images and how its network sees them."""

    data: Path
    augment: Augmentation
    loader: Loader = field(default_factory=Loader)
    monitor: Monitor = field(default_factory=Monitor)


def recorded(path: Path) -> tuple[Recorded, Path] | None:
    """What is recorded of the run or the key cache in a folder, or of the run whose model.pt this is, and where.

    None where nothing is, as for a checkpoint of others; `UserError` for a record that is damaged.
    """
    file = (path.parent if path.name == "model.pt" and not path.is_dir() else path) / CONFIG
    if not file.is_file():
        return None
    record = read_config(file)
    if record.get("kind") not in ("pretrain", "distill", "keys"):
        return None
    found: dict[str, Any] = {
        name: record[name] for name in ("cwd", "data", "augment", "loader", "monitor") if name in record
    }
    if isinstance(found.get("loader"), dict):  # a training's says more
        found["loader"] = {name: value for name, value in found["loader"].items() if name in defaults(Loader)}
    return from_record(Recorded, found, str(file)), file


def read_config(file: Path) -> dict[str, Any]:
    """What config.json of a stage says; `UserError` when it is not what the record beside it was written with."""
    config = read_object(file)
    if (file.parent / RECORD).is_file():
        wanted = read_sealed(file.parent / RECORD).get("config")
        if wanted is not None and wanted != hash_json(config):
            raise UserError(
                f"{file} is not the one that its stage wrote: edited or damaged; restore it, or delete "
                f"{file.parent} and run its stage again"
            )
    return config
