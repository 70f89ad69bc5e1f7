"""The command line: help without torch; one sentence, a non-zero exit and nothing half-written for wrong input."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bingo.bags.file import random_bags, save_bags
from bingo.cli import VERBS, main
from bingo.images.open import open_dataset
from bingo.models import save_encoder, seeded_encoder
from tests.support.ranks import ROOT, bingo

SMALL = ["--augment.size", "16", "--contrast.dim", "16", "--contrast.hidden", "32", "--contrast.queue", "100"]
SMALL += ["--optim.batch", "64", "--optim.epochs", "1"]


@pytest.fixture
def distill(digits: Path, teacher: Path, bags: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments of a distill run that would work, with some replaced."""

    def words(**changes: object) -> list[str]:
        base = {"data": digits / "train", "teacher": teacher, "bags": bags, "out": tmp_path / "run", "student": "tiny"}
        flags = [str(w) for name, value in {**base, **changes}.items() for w in (f"--{name.replace('_', '-')}", value)]
        return ["distill", *flags, *SMALL]

    return words


def refused(argv: list[str], capsys: pytest.CaptureFixture[str], out: Path | None = None) -> str:
    """Run in this process, expect exit status 2 and one line on stderr, return it."""
    assert main(argv) == 2
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) == 1, text
    assert "Traceback" not in text
    assert out is None or not out.exists(), "a refused run must leave nothing behind"
    return text


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bingo.cli import main; main(['--help']); "
        "assert not {'torch', 'submitit', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m bingo distill --help | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: bingo distill")
    assert done.stderr == ""


@pytest.mark.slow
def test_recipes_are_defaults_that_flags_override(
    distill: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*distill(), "--recipe", "resnet18-r50"]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["runtime"]["precision"], config["contrast"]["queue_dtype"]) == ("bf16", "bf16"), "from the recipe"
    assert (config["student"], config["optim"]["epochs"]) == ("tiny", 1), "from the flags"
    assert "did you mean 'resnet18-r50'" in refused([*distill(), "--recipe", "resnet18-r5"], capsys)


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown verb 'distil'; did you mean 'distill'?" in refused(["distil"], capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "resnet81"}, r"model 'resnet81' is unknown; did you mean"),
        ({"student": "resnet81", "contrast.queue": 1078}, r"model 'resnet81' is unknown; did you mean"),
        ({"data": "/nowhere/at/all"}, "/nowhere/at/all does not exist"),
        ({"teacher": "/nowhere/model.pt"}, "/nowhere/model.pt does not exist"),
        ({"optim.batch": 2000}, "global batch of 2000 is larger than the 1078 images"),
        ({"contrast.queue": 1078}, "queue of 1078 keys is not smaller than the 1078 images"),
        ({"contrast.dim": 32}, "contrast.dim=32 but the teacher"),
        ({"out": "/dev/null/run"}, "cannot"),
    ],
)
def test_wrong_distill_settings(
    distill: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    words = distill(**{k: v for k, v in changes.items() if "." not in k})
    words += [w for k, v in changes.items() if "." in k for w in (f"--{k}", str(v))]
    out = Path(words[words.index("--out") + 1])
    assert message in refused(words, capsys, out)


@pytest.mark.parametrize("temperature", ["0", "-0.5", "nan"])
def test_temperature_that_is_not_positive(
    distill: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], temperature: str
) -> None:
    told = refused([*distill(), "--contrast.temperature", temperature], capsys, tmp_path / "run")
    assert f"contrast.temperature={float(temperature)} is not allowed: it must be between 0.001" in told


def test_no_gpu_when_one_is_asked_for(distill: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    text = refused([*distill(), "--runtime.device", "cuda"], capsys)
    assert "runtime.device=cuda was asked for but torch sees no GPU" in text


def test_triton_without_gpu_or_interpreter(distill: Callable[..., list[str]]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = bingo(*distill(), "--runtime.impl", "triton", TRITON_INTERPRET="0")
    assert done.returncode == 2
    assert "runtime.impl=triton" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["nvidia.dali", "faiss"])
def test_without_a_package(
    distill: Callable[..., list[str]],
    digits: Path,
    bags: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    module: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    features = str(bags.parent / "features")
    make_bags = ["bags", "--data", str(digits / "train"), "--features", features, "--out", str(tmp_path / "bags")]
    text = refused(distill() if module == "nvidia.dali" else make_bags, capsys)
    assert "pip install" in text


def test_bags_of_another_dataset_and_of_another_teacher(
    distill: Callable[..., list[str]], digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    val = open_dataset(digits / "val")
    header = {"features_hash": None, "engine": "numpy", "seed": 0}
    save_bags(
        tmp_path / "a.npz",
        random_bags(len(val), 5, 0),
        kind="random",
        dataset_hash=val.hash,
        teacher_hash=None,
        **header,
    )
    assert "another dataset" in refused(distill(bags=tmp_path / "a.npz"), capsys, tmp_path / "run")
    save_encoder(tmp_path / "other.pt", seeded_encoder("tiny-8", dim=16, hidden=32, seed=6))
    assert "another teacher" in refused(distill(teacher=tmp_path / "other.pt"), capsys, tmp_path / "run")


def test_teacher_whose_keys_do_not_match(
    distill: Callable[..., list[str]], teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = torch.load(teacher, weights_only=True)
    saved["state_dict"]["backbone.extra"] = saved["state_dict"].pop("backbone.1.running_mean")
    torch.save(saved, tmp_path / "broken.pt")
    text = refused(distill(teacher=tmp_path / "broken.pt"), capsys, tmp_path / "run")
    assert "missing keys backbone.1.running_mean; unexpected keys backbone.extra" in text


@pytest.mark.parametrize("kind", ["missing", "empty", "class-less"])
@pytest.mark.parametrize("verb", ["check", "pack"])
def test_folders_that_hold_no_images(kind: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "images"
    if kind != "missing":
        source.mkdir()
    if kind == "class-less":
        (source / "a.jpg").write_bytes(b"x")
    out = tmp_path / "packed"
    text = refused([verb, str(source), *([str(out)] if verb == "pack" else [])], capsys)
    assert str(source) in text
    assert not out.exists()


@pytest.mark.slow
def test_bad_files_are_named_and_nothing_is_written(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "images"
    shutil.copytree(digits / "images" / "val" / "0", source / "0")
    first, second = sorted((source / "0").iterdir())[:2]
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:300])
    assert main(["check", str(source), "--json", str(tmp_path / "verdicts.json")]) == 1
    printed = capsys.readouterr().out
    verdicts = json.loads((tmp_path / "verdicts.json").read_text())["files"]
    assert {v["path"] for v in verdicts if v["verdict"] == "bad"} == {f"0/{first.name}", f"0/{second.name}"}
    assert all(f"0/{path.name}: " in printed for path in (first, second))
    assert main(["pack", str(source), str(tmp_path / "packed")]) == 2
    told = capsys.readouterr().err
    assert f"0/{first.name}: zero bytes" in told
    assert "--allow-bad" in told
    assert main(["pack", str(source), str(tmp_path / "packed"), "--allow-bad"]) == 0
    assert f"{'excluded':12s} 0/{first.name}: zero bytes\n" in capsys.readouterr().out
    assert len(open_dataset(tmp_path / "packed")) == len(list((source / "0").iterdir())) - 2


@pytest.mark.slow
def test_a_config_file_is_taken_back(
    distill: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(distill()) == 0
    run = tmp_path / "run"
    again = ["distill", "--config", str(run / "config.json"), "--out", str(tmp_path / "copy")]
    assert main(again) == 0
    a, b = (torch.load(p / "model.pt", weights_only=True)["state_dict"] for p in (run, tmp_path / "copy"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    config = json.loads((run / "config.json").read_text())
    assert config["student"] == "tiny"
    config["contrast"]["temprature"] = 0.1
    (tmp_path / "typo.json").write_text(json.dumps(config))
    text = refused(["distill", "--config", str(tmp_path / "typo.json")], capsys)
    assert "unknown key 'temprature'; did you mean 'temperature'?" in text


@pytest.mark.slow
def test_eval_takes_its_data_from_the_run(
    distill: Callable[..., list[str]], digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(distill()) == 0
    for kind in ("knn", "fewshot", "linear"):
        extra = ["--solver", "lbfgs"] if kind == "linear" else []
        assert main(["eval", kind, str(tmp_path / "run"), "--val", str(digits / "val"), *extra]) == 0
        results = json.loads((tmp_path / "run" / "eval" / kind / "results.json").read_text())
        assert 0.1 < results[kind] <= 1
    capsys.readouterr()
    assert main(distill()) == 0
    assert "already done" in capsys.readouterr().out, "evaluations inside the run's folder are not the run's outputs"
    export = ["export", "--model", str(tmp_path / "run"), "--classifier", str(tmp_path / "run" / "eval" / "linear")]
    assert main([*export, "--out", str(tmp_path / "export")]) == 0
    assert "'lineal' is not allowed; did you mean 'linear'?" in refused(["eval", "lineal", "x"], capsys)
    assert "RUN: nowhere does not exist" in refused(["eval", "knn", "nowhere"], capsys)
    assert "missing: RUN" in refused(["eval", "knn"], capsys)


@pytest.mark.slow
def test_bench_kernels_small(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [
        "bench",
        "kernels",
        "--rows",
        "48",
        "--queue",
        "2000",
        "--samples",
        "3",
        "--variants",
        "naive,chunked,plain,F.",
        "--json",
        str(tmp_path / "k.json"),
    ]
    assert main(words) == 0
    result = json.loads((tmp_path / "k.json").read_text())["detail"]
    assert result["over_chunked"]["naive"]["n"] == 3
    assert result["accuracy"]["chunked"]["gradient"] < 1e-5
    assert np.isfinite(result["median_seconds"]["chunked"])
    assert "CPU time over ours" in capsys.readouterr().out


def test_no_more_memory_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr("bingo.cli.answer", fails)
    assert "the memory of this machine is used up; end other programs" in refused(["features"], capsys)
