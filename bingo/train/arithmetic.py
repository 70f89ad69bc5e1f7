"""A training without `auto`: its arithmetic is settled when it begins, and stays for life, on whatever device.

Its checkpoints say what it is.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from bingo.config import DistillConfig, TrainingConfig
from bingo.errors import UserError
from bingo.key_settings import AUTO
from bingo.models.arithmetic import engine_of, precision_of, queue_dtype_of, student_is_compiled

T = TypeVar("T", bound=TrainingConfig)
EARLIER: dict[str, Any] = {
    "runtime.precision": "fp32", "runtime.engine": "plain", "runtime.compile": False, "contrast.queue_dtype": "fp32"
}  # fmt: skip
"""What `auto` means for a checkpoint that does not say what it was made with: the defaults of its time."""


def settled(config: T, device: torch.device, steps: int, begun: Mapping[str, Any] | None = None) -> T:
    """The same settings without `auto`: a run keeps its arithmetic for life, on whatever device it goes on.

    steps: of the whole training. begun: the state that it goes on from, if any. `UserError` where the settings ask for
    another precision than the run was begun with.
    """
    runtime, contrast = config.runtime, config.contrast
    if begun is not None:
        values = {**_asked(config), **begun.get("arithmetic", {})}
        _refuse_another(config, values)
    else:
        precision = precision_of(runtime, device)
        compiled = student_is_compiled(runtime, device, steps)
        values = {
            "runtime.precision": precision, "runtime.engine": _teacher_engine(config, device),
            "runtime.compile": compiled, "contrast.queue_dtype": queue_dtype_of(contrast, precision),
        }  # fmt: skip
    return _with(config, values)


def _asked(config: TrainingConfig) -> dict[str, Any]:
    """Each setting of arithmetic as it was asked for, or as it was before there was an `auto`."""
    asked = arithmetic(config)
    return {name: EARLIER[name] if value in ("auto", None) else value for name, value in asked.items()}


def _refuse_another(config: TrainingConfig, begun: Mapping[str, Any]) -> None:
    for name, asked in arithmetic(config).items():
        if name in AUTO and asked not in ("auto", begun[name]):
            flag = f"--{name.replace('_', '-')}"
            raise UserError(
                f"{config.out} was begun with {name}={begun[name]}, not {asked}: leave out {flag} to go on with it, or "
                "choose another --out"
            )


def _teacher_engine(config: TrainingConfig, device: torch.device) -> str:
    """Without a frozen teacher there is nothing to make fast; nor where batch norm takes the batch's statistics."""
    frozen = isinstance(config, DistillConfig) and config.keys is None and config.teacher_bn == "eval"
    return engine_of(config.runtime, device) if frozen else "plain"


def _with(config: T, values: Mapping[str, Any]) -> T:
    groups: dict[str, dict[str, Any]] = {"runtime": {}, "contrast": {}}
    for name, value in values.items():
        group, _, leaf = name.partition(".")
        groups[group][leaf] = value
    runtime = dataclasses.replace(config.runtime, **groups["runtime"])
    contrast = dataclasses.replace(config.contrast, **groups["contrast"])
    return dataclasses.replace(config, runtime=runtime, contrast=contrast)


def arithmetic(config: TrainingConfig) -> dict[str, Any]:
    """Dotted name -> value of the settings that decide how a training rounds, for its checkpoints."""
    runtime, contrast = config.runtime, config.contrast
    values = (runtime.precision, runtime.engine, runtime.compile, contrast.queue_dtype)
    return dict(zip(EARLIER, values, strict=True))


def unusual(config: TrainingConfig) -> dict[str, Any]:
    """For a stage's record: the arithmetic by its last names; None for what earlier releases did by default."""
    return {n.rpartition(".")[2]: None if value == EARLIER[n] else value for n, value in arithmetic(config).items()}
