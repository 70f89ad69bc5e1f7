"""Images that go bad after packing: named, replaced alike for any number of ranks, counted, refused past a limit."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bingo.config import FeaturesConfig
from bingo.config_evaluation import EvalConfig
from bingo.config_parts import Augmentation, Loader, TrainingLoader
from bingo.distributed import World
from bingo.errors import UserError
from bingo.images.dataset import Dataset
from bingo.images.open import open_dataset
from bingo.images.pack import pack_folder
from bingo.stages import Stage, run_stage
from bingo.views.decode_failures import Failures
from bingo.views.loader import Batch, evaluation_batches, training_batches
from bingo.views.plan import Plan
from tests.support.bad_images import encode, picture, write
from tests.support.ranks import bingo, finish, start_ranks

CPU = torch.device("cpu")
IMAGES, BATCH = 24, 8


def damage(folder: Path, *images: int) -> None:
    """Flip the first bytes of images inside the flat file; the index stays as it is."""
    data = open_dataset(folder)
    (flat,) = folder.glob("*.bin")
    with open(flat, "r+b") as file:
        for image in images:
            encoded = data.encoded(image)
            file.seek(encoded.ctypes.data - data.encoded(0).ctypes.data + int(data._offsets[0]))
            file.write(bytes(255 - byte for byte in encoded[:64].tolist()))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of very different sizes, packed."""
    root = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    files = {
        f"{'ab'[i % 2]}/{i:02d}.jpg": encode(picture(i, *(int(x) for x in rng.integers(30, 120, 2))), quality=90)
        for i in range(IMAGES)
    }
    pack_folder(write(root / "images", files), root / "packed", workers=1)
    return root / "packed"


def plan_of(data: Dataset) -> Plan:
    bags = np.random.default_rng(1).integers(0, len(data), (len(data), 3)).astype(np.int32)
    return Plan(data.sizes, BATCH, Augmentation(size=16), seed=3, views=(2, 1), bags=bags)


def stream(data: Dataset, failures: Failures, start: int = 0, rank: int = 0, world: int = 1) -> list[Batch]:
    return list(
        training_batches(data, plan_of(data), World(rank, world, CPU, 1), start=start, stop=6, failures=failures)
    )


def joined(parts: list[Batch]) -> list[torch.Tensor]:
    """The crops of one step of all ranks."""
    places = [(group, view) for group, crops in enumerate(parts[0].crops) for view in range(len(crops))]
    return [torch.cat([part.crops[group][view] for part in parts]) for group, view in places]


@pytest.fixture(scope="module")
def bad(intact: Path) -> tuple[int, int, int]:
    """An anchor of step 1 with the image after it, and a positive of step 2 that is neither."""
    plan = plan_of(open_dataset(intact))
    first = int(plan.step(1).groups[0][2])
    second = (first + 1) % IMAGES
    third = next(int(i) for i in plan.step(2).groups[1] if int(i) not in (first, second))
    return first, second, third


@pytest.fixture(scope="module")
def damaged(intact: Path, bad: tuple[int, int, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged") / "packed"
    shutil.copytree(intact, folder)
    damage(folder, *bad)
    return folder


def test_replacements_and_all_other_bytes(intact: Path, damaged: Path, bad: tuple[int, int, int]) -> None:
    """Expected: the plan with the replacements known beforehand, on the dataset before the damage."""
    data = open_dataset(damaged)
    failures = Failures(data, None)
    found = stream(data, failures)
    assert set(failures.found) == set(bad)
    assert all("JPEG" in reason or "image" in reason for reason in failures.found.values())
    after = next(i % IMAGES for i in range(bad[1] + 1, bad[1] + IMAGES) if i % IMAGES not in bad)
    assert failures.instead[bad[0]] == failures.instead[bad[1]] == after
    known = Failures(open_dataset(intact), None)
    known.instead = {image: failures.instead[image] for image in bad}
    expected, untouched = stream(known.dataset, known), stream(known.dataset, Failures(known.dataset))
    replaced = 0
    for mine, theirs, plain in zip(found, expected, untouched, strict=True):
        assert not {*bad} & {int(i) for images in mine.plan.groups for i in images}
        sides = zip(mine.plan.groups, plain.plan.groups, strict=True)
        for g, (images, planned) in enumerate(sides):
            same = torch.from_numpy(images == planned)
            replaced += int((~same).sum())
            for v, view in enumerate(mine.plan.views[g]):
                assert (view.end <= data.sizes[images]).all()
                assert torch.equal(mine.crops[g][v], theirs.crops[g][v])
                assert torch.equal(mine.crops[g][v][same], plain.crops[g][v][same])
    assert replaced > 2
    taken = 0
    for mine, plain in zip(found, untouched, strict=True):
        (anchors, members), (planned, positives) = mine.plan.groups, plain.plan.groups
        rows = np.isin(positives, bad) & (anchors == planned)
        taken += rows.sum()
        assert (members[rows] == anchors[rows]).all()
    assert taken, "a bad positive's place is taken by its anchor"


@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_ranks_and_a_resumed_run_replace_alike(damaged: Path, world: int) -> None:
    data = open_dataset(damaged)
    whole = stream(data, Failures(data, None))
    parts = [stream(data, Failures(data, None), 0, rank, world) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert all(map(torch.equal, joined([part[step] for part in parts]), joined([batch])))
    for before, after in zip(whole[4:], stream(data, Failures(data, None), 4), strict=True):
        assert all(map(torch.equal, joined([before]), joined([after])))


def test_the_limit(damaged: Path, bad: tuple[int, int, int]) -> None:
    data = open_dataset(damaged)
    assert len(stream(data, Failures(data, 3))) == 6
    with pytest.raises(UserError, match=r"3 image\(s\) of .* cannot be decoded, 2 may be: .*\.jpg \("):
        stream(data, Failures(data, 2))
    with pytest.raises(UserError, match=r"1 image\(s\) of .* cannot be decoded: [ab]/\d\d\.jpg \("):
        stream(data, Failures(data))
    heard = Failures(data, 2)
    heard.hear([(1, "x"), (2, "y")])
    with pytest.raises(UserError, match="3 image"):
        heard.hear([(2, "y"), (3, "z")])
    settings = TrainingLoader()
    assert (settings.most_bad(1_281_167), settings.most_bad(800)) == (1281, 0)
    assert TrainingLoader(allow_bad=True).most_bad(800) is None


def flip(folder: Path, at: float) -> tuple[Dataset, int]:
    """Change one bit of a pack's images; the dataset, and the image that has the bit."""
    (flat,) = folder.glob("*.bin")
    place = int(at * flat.stat().st_size)
    with open(flat, "r+b") as file:
        byte = os.pread(file.fileno(), 1, place)[0] ^ 1 << place % 8
        os.pwrite(file.fileno(), bytes([byte]), place)
    data = open_dataset(folder)
    (image,) = np.flatnonzero((data._offsets <= place) & (place < data._offsets + data._lengths))
    return data, int(image)


def test_one_bit_anywhere_in_the_images(intact: Path, tmp_path: Path) -> None:
    """Most such bits decode to other pixels without an error: the content hash of the image tells."""
    folder = Path(shutil.copytree(intact, tmp_path / "packed"))
    for at in np.linspace(0, 1, 60, endpoint=False):
        data, image = flip(folder, at)
        assert data.damaged(range(IMAGES)) == {image}
        flip(folder, at)  # back again
    data, image = flip(folder, 0.5)

    def read(settings: Loader) -> int:
        whole = [np.arange(IMAGES)]
        return sum(map(len, evaluation_batches(
            data, Augmentation(size=16), whole, device=CPU, threads=1, settings=settings
        )))  # fmt: skip

    assert read(Loader(verify=False)) == IMAGES, "DALI decodes it without an error"
    named = re.escape(f"{data.paths[image]} (not the bytes that were packed: damaged on disk)")
    with pytest.raises(UserError, match=named):
        read(Loader())


def test_an_image_is_hashed_once(intact: Path) -> None:
    data = open_dataset(intact)
    assert data.damaged(range(IMAGES), threads=2) == set()
    object.__setattr__(data, "digests", np.zeros_like(data.digests))
    assert data.damaged([3, 4]) == set(), "they have been looked at"


def test_all_bad(intact: Path, tmp_path: Path) -> None:
    shutil.copytree(intact, tmp_path / "packed")
    damage(tmp_path / "packed", *range(IMAGES))
    data = open_dataset(tmp_path / "packed")
    with pytest.raises(UserError, match=r"no image of .* can be decoded"):
        stream(data, Failures(data, None))


@pytest.fixture(scope="module")
def spoiled(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training digits, three of which went bad after packing."""
    folder = tmp_path_factory.mktemp("spoiled") / "train"
    shutil.copytree(digits / "train", folder)
    damage(folder, 5, 100, 101)
    return folder


def distill(data: Path, teacher: Path, bags: Path, out: Path, *more: object) -> list[object]:
    paths = ["distill", "--data", data, "--teacher", teacher, "--bags", bags, "--out", out, "--student", "tiny"]
    small = ["--augment.size", 16, "--contrast.dim", 16, "--contrast.hidden", 32, "--contrast.queue", 100]
    return [*paths, *small, "--optim.batch", 64, "--optim.epochs", 1, "--runtime.threads", 1, *more]


@pytest.mark.slow
def test_a_run_goes_on_and_its_record_has_the_count(
    spoiled: Path, digits: Path, teacher: Path, bags: Path, tmp_path: Path
) -> None:
    """Two ranks; the kNN accuracy on the way leaves the same images out."""
    out = tmp_path / "run"
    words = distill(spoiled, teacher, bags, out, "--loader.max-bad", 0.01, "--monitor.val", digits / "val")
    results = finish(start_ranks(words, 2))
    assert [code for code, _ in results] == [0, 0], results
    assert json.loads((out / "stage.json").read_text())["figures"]["bad_images"] == 3
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    paths = open_dataset(spoiled).paths
    assert {line["path"] for line in lines if line["kind"] == "bad"} == {paths[5], paths[100], paths[101]}
    assert [line["left_out"] for line in lines if line["kind"] == "eval"] == [3]
    assert "bad_images=3" in results[0][1]
    said = "".join(text for _, text in results)
    assert f"{paths[100]} of {spoiled} cannot be decoded (not an image); another image takes its place" in said


def test_past_the_limit_the_run_stops(spoiled: Path, teacher: Path, bags: Path, tmp_path: Path) -> None:
    done = bingo(*distill(spoiled, teacher, bags, tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "2 image(s) of" in last
    assert "cannot be decoded, 1 may be: " in last
    assert "raise --loader.max-bad" in last
    assert not (tmp_path / "run" / "model.pt").exists()


def evaluation(spoiled: Path, teacher: Path, out: Path) -> Stage:
    return Stage("e", "eval", EvalConfig(run=teacher, train=spoiled, val=spoiled, out=out, kinds=("knn",)))


def features(spoiled: Path, teacher: Path, out: Path) -> Stage:
    return Stage("f", "features", FeaturesConfig(data=spoiled, model=teacher, out=out))


@pytest.mark.parametrize("make", [features, evaluation])
def test_rows_of_features_are_never_another_image_s(
    make: Callable[[Path, Path, Path], Stage], spoiled: Path, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"1 image\(s\) of .* cannot be decoded: .* none can stand in for it"):
        run_stage(make(spoiled, teacher, tmp_path / "out"))
    assert not (tmp_path / "out" / "features.npy").exists()
