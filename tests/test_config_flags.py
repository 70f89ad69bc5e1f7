"""Settings as flags and back."""

from pathlib import Path

import pytest

from bingo.config_flags import MISSING, Setting, build, defaults, settings, shown
from bingo.flags import DOORS, flags_of
from bingo.stages import KINDS

pytestmark = pytest.mark.quick


def as_words(setting: Setting, value: object) -> list[str]:
    if setting.type is bool:
        parent, dot, leaf = setting.flag[2:].rpartition(".")
        return [setting.flag if value else f"--{parent}{dot}no-{leaf}"]
    return [setting.flag, "None" if value is None else shown(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_read_back_as_it_is_shown(kind: str) -> None:
    config = KINDS[kind].config
    usual = {name: Path("x") if value is MISSING else value for name, value in defaults(config).items()}
    usual |= {"teacher": Path("t")} if "teacher" in usual else {}
    chosen = [setting for setting in settings(config) if setting.name not in DOORS[kind].unused]
    words = [word for setting in chosen for word in as_words(setting, usual[setting.name])]
    given = vars(flags_of(kind).parse_args([*(["knn", "RUN"] if kind == "eval" else []), *words]))
    assert {setting.name: given[setting.name] for setting in chosen} == {s.name: usual[s.name] for s in chosen}
    if kind not in ("eval", "bags"):
        assert build(config, {**usual, **given}) == build(config, usual)
