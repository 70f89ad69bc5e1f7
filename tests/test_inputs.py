"""What stages are given: what is not there, what is of another kind, and what a run recorded of its network."""

import json
from pathlib import Path
from typing import Any

import pytest

from bingo.cli import main
from bingo.config import DistillConfig, KeysConfig, PretrainConfig
from bingo.config_json import to_json, to_record
from bingo.config_parts import Augmentation, Loader, Monitor, TrainingLoader
from bingo.errors import UserError
from bingo.files import hash_json, write_json, write_sealed
from bingo.flags import stage_of
from bingo.identity import input_paths
from bingo.inputs import FORMS, HOLDS, OF_IMAGES, check_input, recorded
from bingo.stages import ALL_KINDS, KINDS
from tests.support.settings import HOSTILE, least

pytestmark = pytest.mark.quick
AUGMENT = Augmentation(size=32, scale=(0.4, 1.0), mean=(0.5, 0.5, 0.5))


def folder(path: Path, kind: str, *files: str) -> Path:
    """The folder of a stage as far as its kind is concerned."""
    write_sealed(path / "stage.json", {"kind": kind, "key": "k", "name": kind})
    for name in files:
        (path / name).touch()
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run at 32 pixels that was started with relative paths in a folder of its own."""
    place = tmp_path / "runs" / "teacher"
    loader = TrainingLoader(fancy_upsampling=False, max_bad=0.5)
    monitor = Monitor(val=Path("d/val"))
    config = PretrainConfig(data=Path("d/train"), out=place, augment=AUGMENT, loader=loader, monitor=monitor)
    monkeypatch.chdir(tmp_path)
    write_json(place / "config.json", to_record("pretrain", config))
    folder(place, "pretrain", "model.pt")
    return place


def test_every_input_of_every_stage_has_its_forms() -> None:
    found: set[str] = set()
    for kind in KINDS:
        numbers = ("linear_", "teacher_temperature")
        absent = [name for name, value in least(kind).items() if value is None and not name.startswith(numbers)]
        values = least(kind) | dict.fromkeys(absent, "x")
        values |= {"keys": None, "monitor": {"val": "v"}} if kind == "distill" else {}
        values |= {"monitor": {"val": "v"}} if kind == "pretrain" else {}
        values |= {"finetune": {"names": "n"}} if kind == "eval" else {}
        found |= set(input_paths(json_config(kind, values)))
    assert found - set(OF_IMAGES) | {"keys"} == set(FORMS)
    assert set(HOLDS) == set(ALL_KINDS)


def json_config(kind: str, values: dict[str, Any]) -> Any:
    from bingo.config_json import from_json

    return from_json(KINDS[kind].config, values)


@pytest.mark.parametrize("setting", FORMS)
def test_what_is_not_there_is_answered_with_what_may_be(setting: str, tmp_path: Path) -> None:
    for path in (tmp_path / "resnet50", tmp_path / "no" / "such" / "folder", Path("resnet50")):
        with pytest.raises(UserError) as caught:
            check_input(setting, path)
        assert f"{path} does not exist" in str(caught.value)
        assert FORMS[setting].words in str(caught.value)
        assert ("`bingo " in str(caught.value)) == bool(FORMS[setting].verb), "no verb writes a list of names"
        assert f"`bingo {FORMS[setting].verb}` makes one" in str(caught.value) or not FORMS[setting].verb
        assert str(caught.value).isprintable()


def test_a_typo_is_answered_with_close_names(tmp_path: Path) -> None:
    for name in ("teacher", "students", ".teacher"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=f"did you mean {tmp_path}/runs/teacher\\? Give a run folder, its model.pt, a"):
        check_input("teacher", tmp_path / "runs" / "teachr")
    with pytest.raises(
        UserError, match=f"--monitor.val: .* {tmp_path} holds no rums. Give a folder made by `bingo pack"
    ):
        check_input("monitor.val", tmp_path / "rums" / "teacher")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/x does not exist"):
        check_input("data", tmp_path / "file" / "x")


@pytest.mark.parametrize(
    ("setting", "kind", "told"),
    [
        ("teacher", "bags", "--teacher: .* holds bags, not a model; give a run folder"),
        ("bags", "pretrain", "--bags: .* holds a model, not bags; give a folder made by `bingo bags`"),
        ("run", "pack", "RUN: .* holds packed images, not a model"),
        ("model", "eval", "--model: .* holds an evaluation, not a model"),
        ("features", "keys", "--features: .* holds cached keys, not features"),
        ("keys", "features", "--keys: .* holds features, not cached keys"),
        ("data", "demo-data", "--data: .* holds demo images .*, not images"),
        ("val", "distill", "--val: .* holds a model, not images"),
        ("classifier", "export", "--classifier: .* holds exported weights, not an evaluation"),
        ("run", "other", "RUN: .* does not hold a model \\(no model.pt in it\\)"),
    ],
)
def test_a_folder_of_another_kind(setting: str, kind: str, told: str, tmp_path: Path) -> None:
    place = folder(tmp_path / "x", kind)
    if kind == "other":
        (place / "stage.json").unlink()
    with pytest.raises(UserError, match=told):
        check_input(setting, place)


def test_right_inputs(tmp_path: Path) -> None:
    check_input("teacher", folder(tmp_path / "a", "distill", "model.pt"))
    check_input("teacher", tmp_path / "a" / "model.pt")
    check_input("run", folder(tmp_path / "b", "pretrain"))  # not finished: the stage's record says so
    check_input("data", folder(tmp_path / "c", "pack"))
    (tmp_path / "d" / "cat").mkdir(parents=True)
    check_input("data", tmp_path / "d")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "model.pt").touch()
    check_input("model", tmp_path / "e")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("features", "--data d --model {} --out o"),
        ("keys", "--data d --teacher {} --out o"),
        ("distill", "--data d --teacher {} --bags b --out o"),
    ],
)
def test_images_are_seen_as_the_model_saw_them(
    kind: str, words: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for path in (run, run / "model.pt"):
        config = stage_of(kind, words.format(path).split()).config
        assert config.augment == Augmentation(size=32, mean=AUGMENT.mean), "what is drawn is not the network's"
        assert not config.loader.fancy_upsampling
    (line, _) = caplog.messages
    assert line.startswith("augment.size=32 augment.mean=0.5,0.5,0.5 loader.fancy_upsampling=off")
    assert str(run / "config.json") in line
    typed = stage_of(kind, [*words.format(run).split(), "--augment.size", "64", "--loader.fancy-upsampling"]).config
    assert (typed.augment.size, typed.augment.mean, typed.loader.fancy_upsampling) == (64, AUGMENT.mean, True)
    write_json(run.parent / "file.json", to_json(stage_of(kind, [*words.format("x").split()]).config))
    told = stage_of(kind, [*words.format(run).split(), "--config", str(run.parent / "file.json")]).config
    assert told.augment == Augmentation(), "a config file says otherwise"
    (run / "config.json").unlink()
    assert stage_of(kind, words.format(run).split()).config.augment == Augmentation()


def test_a_recipe_says_how_images_are_seen(run: Path) -> None:
    words = ["--recipe", "resnet18-r50", "--data", "d", "--bags", "b", "--out", "o", "--teacher", str(run)]
    assert stage_of("distill", words).config.augment == Augmentation()


def test_a_student_of_cached_keys_sees_their_views(tmp_path: Path) -> None:
    config = KeysConfig(Path("d"), Path("t"), tmp_path, augment=AUGMENT, loader=Loader(fancy_upsampling=False))
    write_json(tmp_path / "config.json", to_record("keys", config))
    found = stage_of("distill", f"--data d --keys {tmp_path} --bags b --out o".split()).config
    assert (found.augment, found.loader.fancy_upsampling) == (AUGMENT, False)


def test_an_evaluation_asks_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    for path in (run, run / "model.pt"):
        config = stage_of("eval", ["knn", str(path)]).config
        assert (config.augment, config.loader) == (AUGMENT, Loader(fancy_upsampling=False))
        top = run.parent.parent
        assert (config.train, config.val, config.out) == (top / "d/train", top / "d/val", run / "eval/knn")
    folders = {
        "linear": "linear", "linear --protocol cached": "linear", "linear --protocol moco": "linear-moco",
        "finetune": "finetune-0.01", "finetune --finetune.fraction 0.1": "finetune-0.1",
        "finetune --finetune.names /l.txt": "finetune",
    }  # fmt: skip
    for words, name in folders.items():
        kind, *flags = words.split()
        assert stage_of("eval", [kind, str(run), *flags]).config.out == run / "eval" / name


def test_a_folder_in_place_of_a_list_of_names(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--finetune.names: \S+ is a folder; give a text file with the name of one image"
    ):
        check_input("finetune.names", tmp_path)


def test_a_config_file_is_read_from_any_folder(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    config = stage_of("pretrain", ["--config", str(run / "config.json"), "--out", "o"]).config
    assert (config.data, config.out) == (run.parent.parent / "d/train", Path("o"))
    with pytest.raises(UserError, match=r"--config: .* holds settings of pretrain, not of distill"):
        stage_of("distill", ["--config", str(run / "config.json")])


def test_a_folder_of_images_in_place_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "knn", str(folder(tmp_path / "d", "pack")), "--val", "v"]) == 2
    assert "holds packed images, not a model; give a run folder" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["cwd", "data", "augment", "loader", "monitor", "kind"])
def test_a_damaged_record_is_one_sentence_or_fine(place: str, run: Path) -> None:
    whole = json.loads((run / "config.json").read_text())
    for value in HOSTILE.values():
        (run / "config.json").write_text(json.dumps({**whole, place: value}))
        try:
            recorded(run)
        except UserError as error:
            assert str(error).isprintable()  # noqa: PT017
    del whole["data"]
    write_json(run / "config.json", whole)
    with pytest.raises(UserError, match="'data' is missing"):
        recorded(run)


def test_a_record_of_a_distillation_without_a_loader(tmp_path: Path) -> None:
    config = DistillConfig(data=Path("/d"), out=tmp_path, bags=Path("b"), teacher=Path("t"), augment=AUGMENT)
    values = to_record("distill", config)
    del values["loader"], values["cwd"]
    write_json(tmp_path / "config.json", values)
    found = recorded(tmp_path)
    assert found is not None
    assert (found[0].data, found[0].augment, found[0].loader) == (Path("/d"), AUGMENT, Loader())


def test_a_config_that_is_not_its_run_s_is_not_inherited_from(tmp_path: Path) -> None:
    """One digit of the image size, and features would be of other images."""
    record = {"kind": "pretrain", "data": "d", "augment": to_json(Augmentation(size=32))}
    write_json(tmp_path / "config.json", record)
    write_sealed(tmp_path / "stage.json", {"kind": "pretrain", "key": "k", "config": hash_json(record)})
    found = recorded(tmp_path)
    assert found is not None
    assert found[0].augment.size == 32
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"size": 32', '"size": 72'))
    with pytest.raises(UserError, match=r"config.json is not the one that its stage wrote: edited or damaged"):
        recorded(tmp_path)
