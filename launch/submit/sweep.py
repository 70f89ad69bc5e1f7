"""A grid of settings: every combination is a stage, or a chain, with a readable folder; what is equal is made once."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bingo.config_json import to_json
from bingo.errors import UserError
from bingo.files import hash_json
from bingo.identity import inputs_read_once
from bingo.recipes import Group, Recipe
from bingo.stages import Stage, stage_key

C = TypeVar("C")

MOST_NAME = 120  # bytes; file systems take 255, and messages are read


@dataclass(frozen=True)
class Sweep:
    """The stages of a grid in order, and for each combination that equals an earlier one: its name and that one's."""

    stages: tuple[Stage, ...]
    merged: tuple[tuple[str, str], ...]


@inputs_read_once()
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
    stages: dict[str, Stage] = {}
    merged: list[tuple[str, str]] = []
    for name, words in combinations(varied, root):
        stage = parse(kind, [*flags, *words])
        stage = Stage(name, stage.kind, stage.config)
        key = stage_key(stage)
        if key in stages:
            merged.append((name, stages[key].name))
        else:
            stages[key] = stage
    return Sweep(tuple(stages.values()), tuple(merged))


def chains(varied: Sequence[str], root: Path, parse: Callable[[list[str]], Recipe]) -> dict[str, Recipe]:
    """Combination -> what its chain, in a folder of that name below `root`, adds to those before it.

    A stage that equals one of an earlier chain, in its settings and in all that it reads, is not made again: what reads
    it reads that one. Names of groups, stages and arms begin with the combination's. parse: flags -> a recipe.
    `UserError` for a malformed setting.
    """
    known: dict[str, Stage] = {}
    found = {}
    for name, words in combinations(varied, root):
        recipe, groups = parse(words), []
        moved: dict[Path, Path] = {}
        named: dict[str, str] = {}
        for group in recipe.jobs:
            own = []
            for stage in group.stages:
                config = _reading(stage.config, moved)
                key = hash_json({"kind": stage.kind, **to_json(dataclasses.replace(config, out=root))})
                first = known.setdefault(key, Stage(f"{name} {stage.name}", stage.kind, config))
                moved[stage.out], named[stage.name] = first.out, first.name
                if first.out == stage.out:
                    own.append(first)
            if own:
                groups.append(Group(f"{name} {group.name}", tuple(own), group.parallel))
        arms = {f"{name} {arm}": tuple(named[one] for one in names) for arm, names in recipe.arms.items()}
        found[name] = Recipe(tuple(groups), arms)
    return found


def _reading(config: C, moved: Mapping[Path, Path]) -> C:
    """The same settings, of which those that lie in a folder of `moved` lie in its new place. The output stays."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _reading(value, moved)
        elif isinstance(value, Path) and field.name != "out":
            place = next((folder for folder in (value, *value.parents) if folder in moved), None)
            changes[field.name] = value if place is None else moved[place] / value.relative_to(place)
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def combinations(varied: Sequence[str], root: Path) -> Iterator[tuple[str, list[str]]]:
    """Each combination of the settings: a readable name, and its flags, --out below `root` among them."""
    settings = dict(_setting(text) for text in varied)
    if len(settings) < len(varied):
        raise UserError("--set names a setting twice; put all its values after one `=`: --set seed=0,1,2")
    labels = _labels(list(settings))
    taken: set[str] = set()
    for values in itertools.product(*settings.values()):
        given = [(f"--{key}", ",".join(value.split())) for key, value in zip(settings, values, strict=True)]
        name = _name([f"{labels[key]}-{value}" for key, value in zip(settings, values, strict=True)], taken)
        yield name, [*itertools.chain(*given), "--out", str(root / name)]


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
