"""Recipes: functions that return chains. Two are the whole suite on two cores, the others published rows."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bingo.config import DistillConfig
from bingo.errors import UserError, brief, did_you_mean
from bingo.paths import as_text
from bingo.recipes.cards import CARDS, Card
from bingo.recipes.chain import PAGE, RECIPE, SUMMARY, Group, Recipe, reported, results_hash, summary
from bingo.recipes.chains import alone, distillation, from_teacher, resnet18_r50
from bingo.recipes.demo import digits
from bingo.recipes.fashion import fashion
from bingo.recipes.leaderboard import leaderboard_digits, leaderboard_fashion, leaderboard_imagenet

__all__ = [
    "CARDS",
    "CHAINS",
    "DISTILL",
    "PAGE",
    "RECIPE",
    "REST",
    "SUMMARY",
    "Card",
    "Group",
    "Recipe",
    "build",
    "digits",
    "fashion",
    "from_teacher",
    "reported",
    "resnet18_r50",
    "results_hash",
    "summary",
]

REST = "flags"
"""The setting that is the words after `--`: what a recipe's trainings share."""
DISTILL: dict[str, Callable[..., DistillConfig]] = {
    name: partial(distillation, card) for name, card in CARDS.items() if card.distils and card.labels is None
}
CHAINS: dict[str, Callable[..., Recipe]] = {
    "digits": digits,
    "fashion": fashion,
    "leaderboard-digits": leaderboard_digits,
    "leaderboard-fashion": leaderboard_fashion,
    "leaderboard-imagenet": leaderboard_imagenet,
    **{name: partial(from_teacher if card.distils else alone, card) for name, card in CARDS.items()},
}


def build(name: str, root: Path, settings: Mapping[str, Any]) -> Recipe:
    """The chain `name` below `root`; settings that are None keep the recipe's own value.

    Raises `UserError` for an unknown name and for a setting that the recipe does not have, or needs.
    """
    if name not in CHAINS:
        raise UserError(f"recipe {name!r} is unknown; {did_you_mean(name, CHAINS)}")
    parameters = dict(list(inspect.signature(CHAINS[name]).parameters.items())[1:])
    given = {key: value for key, value in settings.items() if value is not None}
    takes = ", ".join(f"--{key}" if key != REST else "flags of `bingo distill` after `--`" for key in parameters)
    for key in given:
        if key not in parameters:
            found = (
                f"{name} takes no flags after `--`" if key == REST else f"--{key} is no setting of the recipe {name}"
            )
            raise UserError(f"{found}; it takes {takes}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in given:
            raise UserError(f"the recipe {name} needs --{key}; it takes {takes}")
    for key, most in (("seeds", 1000), ("epochs", 10**8)):
        if not 1 <= given.get(key, 1) <= most:
            raise UserError(f"--{key} {brief(given[key])} is not allowed: it must be between 1 and {most}")
    written = {key: as_text(value) if isinstance(value, Path) else value for key, value in given.items()}
    return replace(CHAINS[name](root, **given), settings=written)
