"""The bags stage: any number of ranks, every wrong combination in a sentence, copies, inverted lists, comparison."""

import json
from pathlib import Path

import numpy as np
import pytest

from bingo.bags.file import load_bags
from bingo.bags.neighbours import knn_bags
from bingo.config import BagsConfig, Runtime
from bingo.errors import UserError
from bingo.images.dataset import Dataset
from bingo.images.open import open_dataset
from bingo.stages import Stage, run_stage
from tests.support.ranks import finish, start_ranks

pytest.importorskip("faiss")


def stage(digits: Path, out: Path, **settings: object) -> Stage:
    return Stage("bags", "bags", BagsConfig(data=digits / "train", out=out, **settings))  # type: ignore[arg-type]


def diagnostics(out: Path) -> dict[str, object]:
    return json.loads((out / "diagnostics.json").read_text())


VARIANTS: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "faiss": ({"engine": "faiss"}, (2, 4)),
    "ivf": ({"index": "ivf", "nlist": 20, "nprobe": 4, "duplicates": "collapse"}, (2,)),
    "kmeans": ({"kind": "kmeans", "clusters": 30}, (2,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_number_of_ranks_writes_the_same_file(variant: str, digits: Path, bags: Path, tmp_path: Path) -> None:
    settings, several = VARIANTS[variant]
    features = bags.parent / "features"
    alone = tmp_path / "alone"
    run_stage(stage(digits, alone, features=features, runtime=Runtime(device="cpu"), **settings))
    for ranks in several:
        out = tmp_path / str(ranks)
        words = ["bags", "--data", digits / "train", "--features", features, "--out", out, "--runtime.device", "cpu"]
        words += [word for name, value in settings.items() for word in (f"--{name}", value)]
        results = finish(start_ranks(words, ranks))
        assert [code for code, _ in results] == [0] * ranks, results
        for name in ("bags.npz", "diagnostics.json"):
            assert (out / name).read_bytes() == (alone / name).read_bytes()
        assert ("approximate" in results[0][1]) == (variant == "ivf")
        assert not any("approximate" in output for _, output in results[1:])


def test_both_engines_make_the_same_members(digits: Path, bags: Path, tmp_path: Path) -> None:
    features = bags.parent / "features"
    run_stage(stage(digits, tmp_path / "triton", features=features, engine="triton"))
    dataset = open_dataset(digits / "train")
    ours, theirs = (
        load_bags(folder / "bags.npz", dataset_hash=dataset.hash, teacher_hash=None)
        for folder in (tmp_path / "triton", bags)
    )
    assert np.array_equal(ours.members, theirs.members)
    assert (ours.header["engine"], theirs.header["engine"]) == ("triton", "faiss")
    assert np.array_equal(ours.members, knn_bags(np.load(features / "features.npy"), 5))


def test_recall_of_inverted_lists_is_recorded(digits: Path, bags: Path, tmp_path: Path) -> None:
    settings = {"features": bags.parent / "features", "index": "ivf", "nlist": 40, "nprobe": 2}
    record = run_stage(stage(digits, tmp_path / "ivf", compare=bags, **settings))
    dataset = open_dataset(digits / "train")
    exact, found = (
        load_bags(folder / "bags.npz", dataset_hash=dataset.hash, teacher_hash=None)
        for folder in (bags, tmp_path / "ivf")
    )
    sample = np.unique(np.linspace(0, len(dataset) - 1, 1000).astype(int))
    share = (exact.members[sample][:, :, None] == found.members[sample][:, None, :]).any(2).mean()
    assert 0.5 < share < 1
    assert record["figures"]["recall"] == diagnostics(tmp_path / "ivf")["recall"] == round(float(share), 5)
    assert found.header["engine"] == "faiss ivf"
    overlap = diagnostics(tmp_path / "ivf")["overlap"][str(bags)]
    assert overlap["found"] == record["figures"]["overlap"] > 0.5 > 0.01 > overlap["random"]


def test_copies_are_counted_and_collapsed(digits: Path, bags: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Digests of three images made equal, as if the files were."""

    def with_copies(path: Path) -> Dataset:
        dataset = open_dataset(path)
        digests = dataset.digests.copy()
        digests[[40, 700]] = digests[7]
        object.__setattr__(dataset, "digests", digests)
        return dataset

    monkeypatch.setattr("bingo.features.alike.open_dataset", with_copies)
    features = bags.parent / "features"
    kept = run_stage(stage(digits, tmp_path / "kept", features=features))
    collapsed = run_stage(stage(digits, tmp_path / "collapsed", features=features, duplicates="collapse"))
    assert kept["figures"]["duplicates"] == collapsed["figures"]["duplicates"] == 2
    dataset = open_dataset(digits / "train")
    members = load_bags(tmp_path / "collapsed" / "bags.npz", dataset_hash=dataset.hash, teacher_hash=None).members
    groups = np.arange(len(dataset))
    groups[[40, 700]] = 7
    assert np.array_equal(members, knn_bags(np.load(features / "features.npy"), 5, groups=groups))
    assert not np.isin(members, [40, 700]).any()
    assert not np.isin(members[[7, 40, 700]], [7, 40, 700]).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "triton", "k": 24}, "--engine triton finds bags of at most 23 images, k = 24"),
        ({"index": "ivf", "nlist": 5000}, "--nlist 5000 is more than the 1078 images"),
        ({"k": 5000}, "bag size k = 5000 is not between 1 and 1077"),
        ({"compare": Path("nowhere")}, "nowhere does not exist"),
    ],
)
def test_refused_by_the_data(settings: dict[str, object], message: str, digits: Path, bags: Path, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        run_stage(stage(digits, tmp_path / "bags", features=bags.parent / "features", **settings))
    assert not (tmp_path / "bags" / "bags.npz").exists()


def test_bags_of_other_images_are_not_compared(digits: Path, bags: Path, tmp_path: Path) -> None:
    config = BagsConfig(data=digits / "val", out=tmp_path / "bags", kind="random", compare=bags / "bags.npz")
    with pytest.raises(UserError, match="was made from another dataset"):
        run_stage(Stage("bags", "bags", config))
