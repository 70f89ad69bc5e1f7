"""Recipes: what their chains hold, the papers' settings, and wrong ones refused."""

from pathlib import Path

import pytest

from bingo.errors import UserError
from bingo.recipes import build


def test_wrong_settings_of_a_recipe(tmp_path: Path, images: Path) -> None:
    for name, settings, text in (
        ("digts", {}, "recipe 'digts' is unknown; did you mean 'digits'?"),
        ("digits", {"teacher": tmp_path}, "--teacher is no setting of the recipe digits; it takes --seeds, --epochs"),
        ("digits", {"seeds": 0}, "--seeds 0 is not allowed: it must be at least 1"),
        ("resnet18-r50", {"images": images}, "the recipe resnet18-r50 needs --teacher"),
        ("resnet18-r50", {"images": tmp_path, "teacher": tmp_path}, "has neither a folder train nor a file train.tar"),
    ):
        with pytest.raises(UserError) as raised:
            build(name, tmp_path, settings)
        assert text in str(raised.value)
