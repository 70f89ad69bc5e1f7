"""What a stage is given: which forms an input may have, what is wrong with one, what a model's run recorded of it."""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bingo.config_flags import defaults
from bingo.config_json import from_json, from_record
from bingo.config_parts import Augmentation, Loader, Monitor
from bingo.errors import UserError, file_error
from bingo.files import RECORD, hash_json, read_object, read_sealed
from bingo.paths import library_name

CONFIG = "config.json"


class Form(NamedTuple):
    """What an input may be: in words, the kinds of stages that write it, the verb that makes one, and a file in it."""

    words: str
    kinds: tuple[str, ...]
    verb: str
    file: str = ""


IMAGES = Form("a folder made by `bingo pack`, or an image folder (one folder per class)", ("pack",), "pack")
MODEL = Form(
    "a run folder, its model.pt, a checkpoint (docs/teachers.md), timm:NAME or torchvision:NAME",
    ("pretrain", "distill", "teacher"),
    "pretrain",
    "model.pt",
)
BAGS = Form("a folder made by `bingo bags`, or its bags.npz", ("bags",), "bags", "bags.npz")
FORMS = {
    **dict.fromkeys(("data", "train", "val", "monitor.val"), IMAGES),
    **dict.fromkeys(("teacher", "model", "run"), MODEL),
    **dict.fromkeys(("bags", "compare"), BAGS),
    "features": Form("a folder made by `bingo features`", ("features",), "features", "features.json"),
    "keys": Form("a folder made by `bingo keys`", ("keys",), "keys", "keys.json"),
    "classifier": Form("a folder made by `bingo eval linear`, or its linear.pt", ("eval",), "eval linear", "linear.pt"),
    "finetune.names": Form("a text file with the name of one image per line", (), ""),
}
"""Setting -> what may stand there."""
OF_IMAGES = ("source", "from_idx")
"""Settings that are none of them: `bingo.images.sources` and `bingo.images.idx` know their forms."""
HOLDS = {
    "demo-data": "demo images (in train and val)",
    "pack": "packed images",
    "pretrain": "a model",
    "distill": "a model",
    "teacher": "a model",
    "features": "features",
    "bags": "bags",
    "keys": "cached keys",
    "eval": "an evaluation",
    "export": "exported weights",
    "scaling": "measured training steps",
}
"""Kind of stage -> what its folder holds."""
WROTE = {
    kind: re.compile(names)
    for kind, names in {
        "demo-data": r"(train|val)/\d{1,3}/\d{4,9}\.jpg|(digits|images)\.json",
        "pack": r"images-[0-9a-f]{12}(-\d{3,})?\.bin|index\.npz|verdicts\.json",
        "pretrain": r"model\.pt",
        "distill": r"model\.pt",
        "teacher": r"model\.pt|teacher\.json",
        "features": r"features\.(npy|json)",
        "bags": r"bags\.npz|diagnostics\.json",
        "keys": r"keys\.(npy|json)",
        "eval": r"linear\.pt|results\.json|finetuned\.pt",
        "export": r"weights\.(pt|json|onnx)|detectron2\.pkl|(hub/)?README\.md|hub/(config\.json|model\.safetensors)",
        "scaling": r"samples\.json",
    }.items()
}
"""Kind of stage -> relative names of what it writes in its folder, besides what every stage does."""


def shown(setting: str) -> str:
    """A setting as a message names it."""
    return "RUN" if setting == "run" else f"--{setting.replace('_', '-')}"


def check_input(setting: str, path: Path) -> None:
    """`UserError` if nothing is at `path`, or a folder of another kind than this setting takes.

    setting: dotted name of a field of a config (`teacher`, `monitor.val`).
    """
    form = FORMS[setting]
    if form is MODEL and library_name(path):
        return
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise missing_input(setting, path) from None
    except OSError as error:
        raise file_error(error, f"{shown(setting)}: cannot read {path}: {error.strerror or error}") from None
    if not path.is_dir():
        return
    if not form.kinds:
        raise UserError(f"{shown(setting)}: {path} is a folder; give {form.words}")
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
    maker = f"; `bingo {form.verb}` makes one" if form.verb else ""
    return UserError(
        f"{shown(setting)}: {path} does not exist (no such file or folder). {hint}Give {form.words}{maker}"
    )


def is_gone(path: Path) -> bool:
    """Whether nothing is there, as below a mount point whose storage is away."""
    try:
        return (path.is_dir() and next(path.iterdir(), None) is None) or not path.exists()
    except OSError:
        return True


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
    file = _config_of(path)
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


def _config_of(path: Path) -> Path:
    return (path.parent if path.name == "model.pt" and not path.is_dir() else path) / CONFIG


def seen_by(path: Path) -> dict[str, Any] | None:
    """How a network that is no run's sees images: dotted settings. Of a folder of `bingo teacher`, of a library's
    network, of a checkpoint whose kind says so; None where nothing is known: then it is as for ImageNet.

    torch is imported only where there is such a file. `UserError` for a record that is damaged.
    """
    file = _config_of(path)
    if file.is_file() and (record := read_config(file)).get("kind") == "teacher":
        loader = from_json(Loader, record.get("loader", {}), str(file))
        return {**_seen(from_json(Augmentation, record.get("augment", {}), str(file))),
                "loader.fancy_upsampling": loader.fancy_upsampling}  # fmt: skip
    if file.is_file() or not (library_name(path) or _may_be_weights(path)):
        return None
    from bingo.models.seen import seen

    try:
        found = seen(path)
    except UserError:  # the stage that loads it says what is wrong
        return None
    return _seen(found) if found else None


def augmentation_of(path: Path) -> Augmentation | None:
    """How the network at `path` sees images: its run's own views; of others size, mean and deviation, or None.

    As for `recorded` and `seen_by`.
    """
    if run := recorded(path):
        return run[0].augment
    parts = {n.removeprefix("augment."): v for n, v in (seen_by(path) or {}).items() if n.startswith("augment.")}
    return Augmentation(**parts) if parts else None


def _seen(augment: Augmentation) -> dict[str, Any]:
    return {f"augment.{name}": getattr(augment, name) for name in ("size", "mean", "std")}


def _may_be_weights(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return head.startswith((b"PK\x03\x04", b"\x80")) or head[8:9] == b"{"


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
