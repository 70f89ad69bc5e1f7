"""Settings as flags and back."""

import contextlib
import json
from pathlib import Path

import pytest

from bingo.config_flags import MISSING, Setting, build, defaults, settings, shown
from bingo.config_json import from_json, to_json
from bingo.errors import UserError
from bingo.flags import DOORS, flags_of, stage_of
from bingo.stages import KINDS
from tests.support.settings import one_sentence

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
    usual |= {"bags": Path("b")} if kind == "distill" else {}
    chosen = [setting for setting in settings(config) if setting.name not in DOORS[kind].unused]
    chosen = [each for each in chosen if each.type != bool | None]  # on, off, or left out: that has no word
    words = [word for setting in chosen for word in as_words(setting, usual[setting.name])]
    given = vars(flags_of(kind).parse_args([*(["knn", "RUN"] if kind == "eval" else []), *words]))
    assert {setting.name: given[setting.name] for setting in chosen} == {s.name: usual[s.name] for s in chosen}
    if kind not in ("eval", "bags"):
        assert build(config, {**usual, **given}) == build(config, usual)


def test_a_switch_that_is_left_open() -> None:
    words: dict[str, bool | None] = {"--runtime.compile": True, "--runtime.no-compile": False}
    assert [vars(flags_of("distill").parse_args([word])) for word in words] == [
        {"runtime.compile": value} for value in words.values()
    ]
    assert "runtime.compile" not in vars(flags_of("distill").parse_args([]))
    assert defaults(KINDS["distill"].config)["runtime.compile"] is None


WORDS = (
    *(
        "",
        " ",
        "~nobody-has-this-name",
        "x" * 5000,
        "9" * 5000,
        "1e400",
        "-1e400",
        "nan",
        "inf",
        "-0.0",
        "-1",
        "0",
        "1",
    ),
    *("1e-300", str(2**63), str(2**70), str(10**30), "1.5", "None", "true", ",", "1,2", "1,2,3", "nan,nan", "linear"),
    *("\udcff", "a\nb", "[]", "{}", "--", "-"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_words_for_every_setting_are_one_sentence_or_fine(kind: str) -> None:
    paths = {"data": "d", "out": "o", "features": "f", "bags": "b", "teacher": "t", "model": "m", "train": "t"}
    paths |= {"val": "v", "source": "s"}
    needed = {name: paths[name] for name in DOORS[kind].usual if name in paths}
    parser = flags_of(kind)
    for setting in settings(KINDS[kind].config):
        for word in WORDS if setting.name not in DOORS[kind].unused else ():
            words = [f"--{name}={value}" for name, value in {**needed, setting.name: word}.items()]
            with contextlib.suppress(UserError), one_sentence((setting.name, word)):
                stage = stage_of(kind, [*(["knn", __file__] if kind == "eval" else []), *words], parser=parser)
                text = json.dumps(to_json(stage.config), allow_nan=False)
                assert from_json(KINDS[kind].config, json.loads(text)) == stage.config, (setting.name, word)


def test_a_quoted_home_folder_in_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = vars(flags_of("pretrain").parse_args(["--data", "~/d/train", "--out=~/x", "--monitor.val", "~/d/val"]))
    assert given == {"data": Path("/home/me/d/train"), "out": Path("/home/me/x"), "monitor.val": Path("/home/me/d/val")}
