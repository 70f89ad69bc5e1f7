"""Features on disk: the same bytes for any number of ranks and after a kill, nothing done twice."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from bingo.bags.file import load_bags
from bingo.config import BagsConfig, FeaturesConfig
from bingo.config_parts import Augmentation, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.features.extract import extract, load_features
from bingo.images.dataset import Dataset
from bingo.images.open import open_dataset
from bingo.models import load_encoder
from bingo.stages import Stage, run_stage
from tests.support.blocks import marked
from tests.support.ranks import finish, start_ranks, wait_for

# The verb with blocks of one batch, each of which takes a little longer than it would.
PROGRAM = """
import sys, time
from bingo.features import extract as features
from bingo.cli import main
features.BLOCK_IMAGES = 1
intact = features.features_of_batches
def slowly(*args, **settings):
    for rows in intact(*args, **settings):
        time.sleep(0.03)
        yield rows
features.features_of_batches = slowly
sys.exit(main(sys.argv[1:]))
"""
BATCH = 48


def command(digits: Path, teacher: Path, out: Path, batch: int = BATCH) -> list[object]:
    words = ["features", "--data", digits / "train", "--model", teacher, "--out", out, "--batch", batch]
    return [*words, "--augment.size", 16, "--runtime.threads", 1, "--runtime.device", "cpu"]


def run(words: list[object], ranks: int) -> None:
    results = finish(start_ranks(words, ranks, ("-c", PROGRAM)))
    assert [code for code, _ in results] == [0] * ranks, results


@pytest.fixture(scope="module")
def whole(digits: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "features"
    run(command(digits, teacher, out), 1)
    return out


def marks(out: Path) -> int:
    return marked(out / ".features.npy.marks")


def figures(out: Path) -> dict[str, object]:
    return json.loads((out / "stage.json").read_text())["figures"]


def test_the_file_holds_what_extract_computes(whole: Path, digits: Path, teacher: Path) -> None:
    dataset, (encoder, model_hash) = open_dataset(digits / "train"), load_encoder(teacher)
    world = World(0, 1, torch.device("cpu"), 1)
    features = extract(encoder, dataset, Augmentation(size=16), BATCH, Runtime(device="cpu"), world)
    found, header = load_features(whole, world)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, features.to(torch.float16).numpy())
    assert (header["dataset"], header["teacher"]) == (dataset.hash, model_hash)
    assert sorted(p.name for p in whole.iterdir() if not p.name.startswith(".")) == [
        "config.json", "environment.json", "features.json", "features.npy", "stage.json",
    ]  # fmt: skip


def test_single_precision_is_stored_as_it_is(whole: Path, digits: Path, teacher: Path, tmp_path: Path) -> None:
    """And bags are made of it; the header of the usual format says nothing about it, as in earlier releases."""
    dataset, (encoder, _) = open_dataset(digits / "train"), load_encoder(teacher)
    runtime, augment = Runtime(device="cpu", threads=1), Augmentation(size=16)
    config = FeaturesConfig(
        digits / "train", teacher, tmp_path / "features", dtype="fp32", augment=augment, batch=BATCH, runtime=runtime
    )
    run_stage(Stage("features", "features", config))
    world = World(0, 1, torch.device("cpu"), 1)
    found, header = load_features(config.out, world)
    expected = extract(encoder, dataset, augment, BATCH, runtime, world).numpy()
    assert (found.dtype, header["dtype"]) == (np.float32, "fp32")
    assert np.array_equal(found, expected)
    assert not np.array_equal(found.astype(np.float16).astype(np.float32), expected)
    assert "dtype" not in json.loads((whole / "features.json").read_text())
    bags = BagsConfig(data=digits / "train", out=tmp_path / "bags", features=config.out, runtime=runtime)
    run_stage(Stage("bags", "bags", bags))
    members = load_bags(bags.out / "bags.npz", dataset_hash=dataset.hash, teacher_hash=header["teacher"]).members
    unit = expected.astype(np.float64) / np.linalg.norm(expected.astype(np.float64), axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2)
    assert (np.sort(members[:50]) == np.sort(np.argsort(-similarity[:50], axis=1)[:, :5])).mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "victim", "after"), [(2, 1, 9), (1, 0, 3)])
def test_sigkill_of_a_rank_then_the_same_bytes_by_two_ranks(
    whole: Path, digits: Path, teacher: Path, tmp_path: Path, ranks: int, victim: int, after: int
) -> None:
    out = tmp_path / "features"
    processes = start_ranks(command(digits, teacher, out), ranks, ("-c", PROGRAM))
    wait_for(lambda: marks(out) >= after, *processes)
    os.kill(processes[victim].pid, signal.SIGKILL)
    codes = [code for code, _ in finish(processes)]
    assert codes[victim] == -signal.SIGKILL
    assert all(codes), "no other rank may report success"
    assert not (out / "features.npy").exists()
    done = marks(out)
    assert after <= done < -(-len(open_dataset(digits / "train")) // BATCH)
    run(command(digits, teacher, out), 2)
    assert (out / "features.npy").read_bytes() == (whole / "features.npy").read_bytes()
    assert (out / "features.json").read_bytes() == (whole / "features.json").read_bytes()
    assert figures(out)["resumed_blocks"] == done
    assert figures(whole)["resumed_blocks"] is None


def test_blocks_of_other_settings_are_not_continued(digits: Path, teacher: Path, tmp_path: Path) -> None:
    """Refused in the same folder; and where record and settings are gone, the block file itself tells."""
    out = tmp_path / "features"
    processes = start_ranks(command(digits, teacher, out), 1, ("-c", PROGRAM))
    wait_for(lambda: marks(out) >= 2, *processes)
    os.kill(processes[0].pid, signal.SIGKILL)
    finish(processes)
    augment = Augmentation(size=8)
    config = FeaturesConfig(data=digits / "train", model=teacher, out=out, augment=augment, batch=BATCH)
    with pytest.raises(UserError, match=r"holds features made with augment.size=16, not 8; choose another --out"):
        run_stage(Stage("features", "features", config))
    assert marks(out) >= 2, "a refused run leaves the work of the other"
    for name in ("stage.json", "config.json"):
        (out / name).unlink()
    assert run_stage(Stage("features", "features", config))["figures"]["resumed_blocks"] is None


def test_work_done_before_an_error_stays(
    digits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that cannot be decoded ends the stage in a new folder; the blocks before it are kept."""
    out, intact = tmp_path / "features", Dataset.encoded

    def encoded(self: Dataset, index: int) -> np.ndarray:
        return np.frombuffer(b"\xff\xd8 no jpeg", np.uint8) if index == 900 else intact(self, index)

    monkeypatch.setattr(Dataset, "encoded", encoded)
    monkeypatch.setattr("bingo.features.extract.BLOCK_IMAGES", 1)
    config = FeaturesConfig(data=digits / "train", model=teacher, out=out, augment=Augmentation(size=16), batch=BATCH)
    with pytest.raises(UserError):
        run_stage(Stage("features", "features", config))
    done = marks(out)
    assert done > 0
    monkeypatch.setattr(Dataset, "encoded", intact)
    assert run_stage(Stage("features", "features", config))["figures"]["resumed_blocks"] == done
