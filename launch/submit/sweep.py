"""A grid of settings as tasks: every combination is a stage with a readable folder, equal ones once."""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bingo.errors import UserError
from bingo.stages import Stage, stage_key

MOST_NAME = 120  # bytes; file systems take 255, and messages are read


@dataclass(frozen=True)
class Sweep:
    """The stages of a grid in order, and for each combination that equals an earlier one: its name and that one's."""

    stages: tuple[Stage, ...]
    merged: tuple[tuple[str, str], ...]


def grid(
    kind: str,
    flags: Sequence[str],
    varied: Sequence[str],
    root: Path,
    parse: Callable[[str, list[str]], Stage],
) -> Sweep:
    """All combinations of the `varied` settings (`optim.lr=0.03,0.06`), each below `root` under its own name.

    parse: a verb and its flags -> a stage. Two combinations are equal if their content hashes are. Raises `UserError`
    for a malformed setting, flags with an --out, and inputs that are not there.
    """
    if any(word.split("=")[0] == "--out" for word in flags):
        raise UserError("leave --out out of the flags after `--`: every run of a sweep gets a folder in --out ROOT")
    settings = dict(_setting(text) for text in varied)
    if len(settings) < len(varied):
        raise UserError("--set names a setting twice; put all its values after one `=`: --set seed=0,1,2")
    labels = _labels(list(settings))
    stages: dict[str, Stage] = {}
    merged: list[tuple[str, str]] = []
    taken: set[str] = set()
    for values in itertools.product(*settings.values()):
        given = [(f"--{key}", ",".join(value.split())) for key, value in zip(settings, values, strict=True)]
        name = _name([f"{labels[key]}-{value}" for key, value in zip(settings, values, strict=True)], taken)
        stage = parse(kind, [*flags, *itertools.chain(*given), "--out", str(root / name)])
        stage = Stage(name, stage.kind, stage.config)
        key = stage_key(stage)
        if key in stages:
            merged.append((name, stages[key].name))
        else:
            stages[key] = stage
    return Sweep(tuple(stages.values()), tuple(merged))


def _setting(text: str) -> tuple[str, list[str]]:
    """`optim.lr=0.03,0.06` -> the flag's name and its values; blanks in a value stand for the commas of one flag."""
    name, equals, values = text.partition("=")
    found = [value.strip() for value in values.split(",")]
    if not equals or not re.fullmatch(r"[A-Za-z][\w.-]*", name) or not all(found):
        raise UserError(f"--set {text} is not allowed: write NAME=VALUE,VALUE such as --set optim.lr=0.03,0.06")
    return name.replace("_", "-"), found


def _labels(names: list[str]) -> dict[str, str]:
    """The last part of each dotted name; the whole where two are alike."""
    last = [name.rpartition(".")[2] for name in names]
    return {name: short if last.count(short) == 1 else name for name, short in zip(names, last, strict=True)}


def _name(parts: list[str], taken: set[str]) -> str:
    """`lr-0.03_seed-1`: letters, digits and `.-_` only; a number where that would be another's."""
    clean = [re.sub(r"[^\w.-]+", "-", part, flags=re.ASCII).strip("-") for part in parts]
    plain = "_".join(clean)[:MOST_NAME]
    name = next(n for n in itertools.chain([plain], (f"{plain}_{i}" for i in itertools.count(2))) if n not in taken)
    taken.add(name)
    return name
