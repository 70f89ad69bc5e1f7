"""What a chain is: groups of stages, the arms that a report compares, and what recipe.json says of them."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import RECORD, hash_json, read_object, read_sealed
from bingo.paths import as_text
from bingo.stages import Stage

RECIPE, PAGE = "recipe.json", "report.html"


@dataclass(frozen=True)
class Group:
    """Stages that run one after another in one job; parallel: on all ranks, otherwise on one, on a CPU."""

    name: str
    stages: tuple[Stage, ...]
    parallel: bool = False


@dataclass(frozen=True)
class Recipe:
    """Groups in an order in which each may use what the ones before it made."""

    jobs: tuple[Group, ...]
    arms: dict[str, tuple[str, ...]]
    """Arm of the comparison -> names of its evaluation stages, one per seed."""
    root: Path | None = None
    """The folder that all stages lie below, where that is not the chain's own: of a sweep."""
    settings: Mapping[str, Any] | None = None
    """What it was built with, as JSON; None: it was not built by name."""


SUMMARY = ("recipe", "arms", "stages")
"""Keys of every recipe.json; earlier releases wrote no others."""


def summary(name: str, recipe: Recipe) -> dict[str, Any]:
    """What recipe.json says: the stages, which evaluations belong to which arm, and the settings it was built with."""
    stages = [stage.to_json() for group in recipe.jobs for stage in group.stages]
    place = {} if recipe.root is None else {"root": as_text(recipe.root)}
    given = {} if recipe.settings is None else {"settings": recipe.settings}
    return {"recipe": name, **given, **place, "arms": recipe.arms, "stages": stages}


def results_hash(recipe: Mapping[str, Any], folders: Iterable[Path]) -> str:
    """What a report is made from: the content of recipe.json and the outputs that the stages in `folders` recorded."""
    return hash_json({"recipe": recipe, "outputs": [read_sealed(out / RECORD).get("outputs") for out in folders]})


def reported(root: Path, content: str) -> bool:
    """Whether the page in `root` shows the results as they are now, of the recipe.json with this hash."""
    with contextlib.suppress(UserError, OSError, KeyError, TypeError):
        recipe = read_object(root / RECIPE)
        with open(root / PAGE, "rb") as file:
            found = re.search(rb'<meta name="results" content="(\w+)">', file.read(4096))
        folders = [Path(stage["config"]["out"]) for stage in recipe["stages"]]
        return hash_json(recipe) == content and found is not None and found[1].decode() == results_hash(recipe, folders)
    return False
