"""A stage's settings as its key has them: what earlier releases made is recognised where it means the same."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from bingo.config import DistillConfig
from bingo.config_evaluation import EvalConfig
from bingo.config_flags import defaults
from bingo.config_json import to_json
from bingo.config_parts import Finetune

CHOICES = ("class_from", "ext")
"""Settings of a pack that say what of its source is read."""
FINETUNE = tuple(f"finetune.{setting.name}" for setting in dataclasses.fields(Finetune))
ADDED: dict[str, tuple[str, ...]] = {
    "": (
        *("augment.blur", "arch", "runtime.engine", "contrast.layers", "optim.kind", "optim.warmup_epochs"),
        *("monitor.sinks", *CHOICES),
    ),
    "demo-data": ("from_idx", "train_images", "val_images", "seed"),
    "pretrain": ("key_bn",),
    "features": ("dtype",),
    "distill": ("teacher_bn", "cutmix_block", "teacher_temperature", "student_ema"),
    "eval": (
        "protocol",
        "linear_min_lr",
        "linear_batch",
        "crop_scale",
        "flip_p",
        *FINETUNE,
        "transfer_l2",
        "holdout",
    ),
    "export": ("format",),
}
"""Kind (or "", of every kind) -> settings that came later, and whose default means what was done before."""
AUTO = {"runtime.precision": "fp32", "contrast.queue_dtype": "fp32"}
"""Settings -> what they were by default before there was an `auto`: in a key it counts as that.

What it stood for where a stage ran is in the stage's record; see `other_arithmetic`.
"""
MARKS = {kind: {"centre_crop": "torchvision"} for kind in ("features", "eval")}
"""Kind -> what its settings say besides, because what they mean has changed: what was made before is told apart."""


def left_out(kind: str, config: Any) -> dict[str, Any]:
    """Settings that came later -> the value for which a key does not have them, as JSON."""
    usual = {name: list(value) if isinstance(value, tuple) else value for name, value in defaults(type(config)).items()}
    return {name: usual[name] for name in (*ADDED[""], *ADDED.get(kind, ())) if name in usual}


def settings_in_key(kind: str, config: Any) -> dict[str, Any]:
    """Settings as JSON, as earlier releases knew them where they mean the same: what those made is still recognised."""
    settings, values = to_json(config), flat(to_json(config))
    for name, usual in left_out(kind, config).items():
        if values[name] == usual:
            _group(settings, name).pop(name.rpartition(".")[2])
    for name, usual in AUTO.items():
        if values.get(name) == "auto":
            _group(settings, name)[name.rpartition(".")[2]] = usual
    settings = {name: value for name, value in settings.items() if value != {}}  # groups that came later as a whole
    if isinstance(config, (DistillConfig, EvalConfig)):
        settings = config.in_key(settings)
    if isinstance(config, EvalConfig) and len(config.k) == 1:
        settings["k"] = config.k[0]
    return settings | MARKS.get(kind, {})


def _group(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The nested settings that hold the one of this dotted name."""
    return functools.reduce(dict.__getitem__, name.split(".")[:-1], settings)


def asked_of(config: Any) -> dict[str, Any]:
    """Dotted name -> value of the settings in `AUTO` that are not left to the device."""
    values = flat(to_json(config))
    return {name: values[name] for name in AUTO if values.get(name, "auto") != "auto"}


def other_arithmetic(asked: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """How a finished stage's arithmetic differs from what is asked for, one phrase each. asked: see `asked_of`.

    Only what no key tells: what `auto` was where the stage ran, which is in the figures of its record.
    """
    made = record.get("figures") or {}
    found = {name: made.get(name.rpartition(".")[2]) for name in asked}
    return [f"{name}={found[name]}, not {asked[name]}" for name in asked if found[name] not in (None, asked[name])]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of nested settings."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found
