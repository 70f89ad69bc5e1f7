"""A stage is recognised by the content of what it reads: what changes it is noticed, what does not is no reason."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from bingo import __version__, identity, key_settings
from bingo.cli import main
from bingo.config import BagsConfig, DistillConfig, FeaturesConfig, PackConfig, PretrainConfig
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_parts import Augmentation, Finetune
from bingo.errors import UserError
from bingo.identity import fingerprint, identify, in_words, inputs_read_once, read_record
from bingo.stages import Stage, finished, run_stage, stage_key
from tests.support.inputs import make_features


def bags(data: Path, features: Path, out: Path, k: int = 3) -> Stage:
    return Stage("bags", "bags", BagsConfig(data=data, features=features, out=out, k=k))


@pytest.fixture
def features(digits: Path, teacher: Path, tmp_path: Path) -> Path:
    return make_features(tmp_path / "features", digits / "train", teacher)


def flip(path: Path, at: int, *, keep_time: bool = False) -> None:
    """Change one bit; keep_time: as a failing disk does."""
    content, status = bytearray(path.read_bytes()), path.stat()
    content[at] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", ["features.npy", "features.json", "stage.json"])
def test_a_changed_input_is_refused_and_nothing_is_done_before(
    digits: Path, features: Path, tmp_path: Path, name: str
) -> None:
    """The bags are there: the same command says what changed, and so does one with a new --out."""
    run_stage(bags(digits / "train", features, tmp_path / "bags"))
    flip(features / name, -20)
    for out in ("bags", "new"):
        with pytest.raises(UserError, match=name):
            run_stage(bags(digits / "train", features, tmp_path / out))
    assert not (tmp_path / "new").exists()


def test_a_changed_size_a_missing_output_and_a_touched_one(digits: Path, features: Path, tmp_path: Path) -> None:
    stage = bags(digits / "train", features, tmp_path / "bags")
    key = stage_key(stage)
    (features / "features.npy").touch()
    assert stage_key(stage) == key, "another time alone: hashed again, and equal"
    (features / "notes.txt").write_text("not an output")
    assert stage_key(stage) == key
    whole = (features / "features.npy").read_bytes()
    (features / "features.npy").write_bytes(whole[:-1])
    with pytest.raises(UserError, match=rf"features.npy has {len(whole) - 1} bytes, its stage wrote {len(whole)}"):
        stage_key(stage)
    (features / "features.npy").unlink()
    with pytest.raises(UserError, match=r"features.npy is missing, its stage wrote it; restore it"):
        stage_key(stage)


def test_a_file_of_a_stage_given_by_its_own_name(digits: Path, teacher: Path, tmp_path: Path) -> None:
    """`--model RUN/model.pt`: the record beside the file is heard too."""
    run = tmp_path / "run"
    config = PretrainConfig(data=digits / "train", out=run, model="tiny")
    run.mkdir()
    shutil.copy(teacher, run / "model.pt")
    files = identity.output_hashes(run)
    record = {"name": "teacher", **identify("pretrain", config).to_json(), "files": files}
    record["outputs"] = {name: entry["hash"] for name, entry in files.items()}
    (run / "stage.json").write_text(json.dumps(record))
    stage = Stage("f", "features", FeaturesConfig(data=digits / "train", model=run / "model.pt", out=tmp_path / "f"))
    stage_key(stage)
    flip(run / "model.pt", 700, keep_time=True)
    with pytest.raises(UserError, match=r"model.pt is not the file that its stage wrote: its content hash differs"):
        stage_key(stage)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "notes.txt", ".hidden.jpg"])
def test_what_is_not_read_changes_no_image_folder(source: Path, name: str) -> None:
    before = fingerprint(source)
    (source / "class0" / name).write_bytes(b"x")
    assert fingerprint(source) == before


def replace_behind_the_link(source: Path) -> None:
    (source.parent / "elsewhere.png").write_bytes((source / "class1" / "1.png").read_bytes())


def add(source: Path) -> None:
    shutil.copy(source / "class0" / "0.png", source / "class0" / "more.png")


def empty_class(source: Path) -> None:
    (source / "class00").mkdir()


@pytest.mark.parametrize("change", [replace_behind_the_link, add, empty_class])
def test_what_is_read_does(source: Path, change: Callable[[Path], None]) -> None:
    (source.parent / "elsewhere.png").write_bytes((source / "class0" / "0.png").read_bytes())
    (source / "class0" / "link.png").symlink_to(source.parent / "elsewhere.png")
    before = fingerprint(source)
    change(source)
    assert fingerprint(source) != before


def test_a_training_on_a_folder_goes_on_after_somebody_looked_at_it(source: Path, tmp_path: Path) -> None:
    stage = Stage("p", "pretrain", PretrainConfig(data=source, out=tmp_path / "run", model="tiny"))
    key = stage_key(stage)
    (source / ".DS_Store").write_bytes(b"x")
    assert stage_key(stage) == key


def test_what_a_pack_is_told_to_leave_changes_nothing(source: Path, tmp_path: Path) -> None:
    stage = Stage("pack", "pack", PackConfig(source=source, out=tmp_path / "out", ext="png"))
    key = stage_key(stage)
    Image.new("RGB", (9, 9)).save(source / "class0" / "0.gif")
    assert stage_key(stage) == key
    assert stage_key(replace(stage, config=replace(stage.config, ext=""))) != key


def test_a_pack_without_choices_is_recognised_as_before_there_were_any(source: Path, tmp_path: Path) -> None:
    """A new setting must not change the key of what is done: a recipe would make all of it again."""
    config = PackConfig(source=source, out=tmp_path / "out")
    settings = {"source": fingerprint(source), "convert": False, "allow_bad": False, "shard_gib": 64.0}
    assert identify("pack", config).settings == settings


def test_the_images_of_a_pack_are_not_hashed_for_every_stage(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their index has the hash of each image, which is compared when the image is read; a size is compared here."""
    packed = tmp_path / "packed"
    shutil.copytree(digits / "train", packed)  # other times
    (flat,) = packed.glob("images-*.bin")
    flat.touch()
    stage = Stage("bags", "bags", BagsConfig(data=packed, out=tmp_path / "bags", kind="random", k=3))
    hashed = []
    monkeypatch.setattr(identity, "hash_file", lambda path: hashed.append(path.name) or "0")
    stage_key(stage)
    assert flat.name not in hashed


def test_every_refusal_names_what_differs(digits: Path, features: Path, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "bags"
    run_stage(bags(digits / "train", features, out))
    other = make_features(tmp_path / "other", digits / "train", teacher, size=24)
    said = {
        "bags holds bags made with k=3, not 4; choose another --out": bags(digits / "train", features, out, k=4),
        f"made with features {features}, not {other}; choose": bags(digits / "train", other, out),
        "bags holds bags, not features; choose another --out": Stage(
            "f", "features", FeaturesConfig(data=digits / "train", model=teacher, out=out)
        ),
    }
    for sentence, stage in said.items():
        with pytest.raises(UserError) as refused:
            run_stage(stage)
        assert sentence in str(refused.value)
    shutil.rmtree(features)
    make_features(features, digits / "train", teacher, size=24)
    with pytest.raises(UserError, match=f"made with another content of features {features}; choose"):
        run_stage(bags(digits / "train", features, out))


def test_settings_that_came_later_count_once_they_are_used(digits: Path, teacher: Path, tmp_path: Path) -> None:
    """What earlier releases made is still recognised: with its default such a setting is as if it were not there."""
    data, out = digits / "train", tmp_path / "out"
    made = {"bags": teacher / "model.pt", "keys": None, "teacher": teacher}
    configs = {
        "pretrain": (PretrainConfig(data=data, out=out), {"key_bn": "shuffle"}),
        "features": (FeaturesConfig(data, teacher, out), {"dtype": "fp32"}),
        "distill": (
            DistillConfig(data=data, out=out, **made),
            {"teacher_bn": "batch", "cutmix_block": 32, "teacher_temperature": 0.05, "student_ema": 0.99},
        ),
        "eval": (
            EvalConfig(teacher, data, data, out),
            {"linear_batch": 64, "crop_scale": (0.5, 1.0), "flip_p": 0.0, "holdout": 0.5, "transfer_l2": (1.0,)},
        ),
        "export": (ExportConfig(teacher, out), {"format": ("onnx",)}),
    }
    elsewhere = {"eval": {"protocol", "linear_min_lr", *key_settings.FINETUNE}}  # in the tests of protocols
    assert {kind: changes.keys() | elsewhere.get(kind, set()) for kind, (_, changes) in configs.items()} == {
        kind: set(names) for kind, names in key_settings.ADDED.items() if kind
    }
    for kind, (config, changes) in configs.items():
        plain = identify(kind, config, made={data, teacher}).settings
        if not isinstance(config, ExportConfig):
            with_blur = replace(config, augment=replace(config.augment, blur="pil"))
            blurred = identify(kind, with_blur, made={data, teacher}).settings
            assert ("blur" in plain["augment"], blurred["augment"]["blur"]) == (False, "pil")
        for name, value in changes.items():
            assert name not in plain
            changed = identify(kind, replace(config, **{name: value}), made={data, teacher}).settings
            assert changed[name] == (list(value) if isinstance(value, tuple) else value)


def test_features_of_crops_that_were_not_rounded_are_told_apart(
    digits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augment = Augmentation(size=16)
    config = FeaturesConfig(digits / "train", teacher, tmp_path / "features", augment=augment)
    stage = Stage("features", "features", config)
    monkeypatch.setattr(key_settings, "MARKS", {})
    make_features(tmp_path / "features", digits / "train", teacher)
    before = read_record(tmp_path / "features")
    monkeypatch.undo()
    assert "centre_crop" not in before["settings"]
    with pytest.raises(UserError, match=r"features made with centre_crop=none, not torchvision;"):
        run_stage(stage)
    assert read_record(tmp_path / "features") == before


def test_the_version_is_named(digits: Path, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = bags(digits / "train", features, tmp_path / "bags")
    run_stage(stage)
    monkeypatch.setattr(identity, "__version__", "99.0")
    with pytest.raises(UserError, match=r"made with version \S+ of bingo, not 99.0; choose"):
        run_stage(stage)


def test_a_record_of_before_seals_is_still_one(digits: Path, features: Path, tmp_path: Path) -> None:
    stage = bags(digits / "train", features, tmp_path / "bags")
    run_stage(stage)
    path = tmp_path / "bags" / "stage.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({name: record[name] for name in ("name", "kind", "key", "figures", "outputs", "files")}))
    assert finished(stage, stage_key(stage)) is not None
    with pytest.raises(UserError, match="holds bags made with other settings or inputs"):
        run_stage(replace(stage, config=replace(stage.config, k=4)))


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": 3},
        {"outputs": {}},
        {"outputs": {"bags.npz": "0" * 32}},
        {"files": {}},
        {"files": {"bags.npz": {"hash": 1}}},
        {"key": None},
        {"settings": 3},
        {"inputs": [1]},
        {"inputs": {"data": {"path": "p"}}},
        {"inputs": {"another": {"path": "p", "hash": "h", "by": "b"}}},
    ],
    ids=str,
)
def test_a_record_that_is_none(digits: Path, features: Path, tmp_path: Path, change: dict[str, object]) -> None:
    """An input's record with outputs of another type once passed for a finished stage."""
    run_stage(bags(digits / "train", features, tmp_path / "bags"))
    path = tmp_path / "bags" / "stage.json"
    record = json.loads(path.read_text())
    del record["seal"]
    path.write_text(json.dumps(record | change))
    with pytest.raises(UserError, match=r"stage.json"):
        read_record(tmp_path / "bags")
    assert main(["explain", str(tmp_path / "bags")]) == 2


def test_inputs_are_read_once_inside_one_command_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside: again only when the file itself has changed; a wrong input is refused every time; outside: always."""
    read: list[Path] = []

    def hash_file(path: Path) -> str:
        read.append(path)
        return real(path)

    real = identity.hash_file
    monkeypatch.setattr(identity, "hash_file", hash_file)
    model = tmp_path / "model.pt"
    model.write_bytes(b"weights")
    stage = Stage("export", "export", ExportConfig(model=model, out=tmp_path / "out"))
    gone = Stage("export", "export", ExportConfig(model=tmp_path / "none.pt", out=tmp_path / "out"))
    with inputs_read_once():
        key = stage_key(stage)
        with inputs_read_once():
            assert stage_key(stage) == key
        assert len(read) == 1
        model.write_bytes(b"longer weights")
        assert stage_key(stage) != key
        for _ in range(2):
            with pytest.raises(UserError, match=r"none.pt does not exist"):
                stage_key(gone)
    assert len(read) == 2
    assert stage_key(stage) == stage_key(stage)
    assert len(read) == 4


def test_an_evaluation_is_recognised_as_before_there_were_protocols() -> None:
    """On stored features nothing has changed; what a protocol leaves open is in the key as it is used."""
    here = Path("somewhere")
    config = EvalConfig(run=here, train=here, val=here, out=here)
    earlier = {
        "run", "train", "val", "kinds", "k", "shots", "draws", "solver", "linear_lr", "linear_epochs", "augment",
        "batch", "runtime", "loader", "seed",
    }  # fmt: skip
    settings = identify("eval", config, made=frozenset()).settings
    assert settings.keys() == earlier | {"centre_crop"}
    assert (settings["linear_lr"], settings["linear_epochs"]) == (30.0, 100)
    typed = replace(config, linear_lr=30.0, linear_epochs=100)
    assert identify("eval", typed, made=frozenset()).settings == settings
    release = identify("eval", replace(config, protocol="release"), made=frozenset()).settings
    assert release.keys() == earlier | {"centre_crop", "protocol", "linear_min_lr"}
    recorded = {"settings": release, "version": __version__}
    rates = ["linear_epochs=120, not 100", "linear_min_lr=0.01, not none"]
    assert in_words(recorded, identify("eval", config, made=frozenset())) == [*rates, "protocol=release, not cached"]
    tuned = [replace(config, kinds=("finetune",), finetune=Finetune(lr=lr)) for lr in (0.01, 0.3)]
    usual, other = (identify("eval", each, made=frozenset()) for each in tuned)
    assert in_words(usual.to_json(), other) == ["finetune.lr=0.01, not 0.3"]
    assert (release["protocol"], release["linear_min_lr"], release["linear_epochs"]) == ("release", 0.01, 120)
    few = replace(config, kinds=("finetune",), finetune=Finetune(names=Path("list.txt")))
    assert identify("eval", few, made=frozenset()).unknown == {"run", "train", "val", "finetune.names"}
