"""What stages keep for themselves is verified too: records, indices, scans, work half done; as in test_damage.py."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bingo.config import BagsConfig
from bingo.errors import UserError
from bingo.features.blocks import fill_blocks
from bingo.identity import outputs_of
from bingo.images.check import check_folder
from bingo.images.demo_data import write_digits
from bingo.images.image_folder import ImageFolder
from bingo.images.journal import Journal
from bingo.images.open import open_dataset
from bingo.images.sources import list_source
from bingo.stages import Stage, finished, run_stage, stage_key
from bingo.train.checkpoint import load_newest, save_checkpoint
from tests.support.blocks import ALONE, BLOCK, SHAPE, Killed, fill, values
from tests.support.damage import Artefact, campaign

CPU = torch.device("cpu")
Reader = Callable[[], object]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images in two classes, one of them cut off."""
    root = tmp_path_factory.mktemp("pictures")
    for at in range(8):
        path = root / f"class{at % 2}" / f"{at}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((24, 24), 20 + 8 * at).convert("RGB").save(path)
    cut = root / "class0" / "0.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    return root


def index(folder: Path, digits: Path, pictures: Path) -> tuple[Path, Reader]:
    shutil.copytree(digits / "val", folder / "packed")

    def read() -> object:
        data = open_dataset(folder / "packed")
        columns = (data.labels, data.sizes, data.formats, data.digests, data._shards, data._offsets, data._lengths)
        names = list(data.paths[:50])
        return [c.tobytes() for c in columns], names, data.classes, data.hash, data.counts

    return folder / "packed" / "index.npz", read


def images(folder: Path, digits: Path, pictures: Path) -> tuple[Path, Reader]:
    shutil.copytree(digits / "val", folder / "packed")
    (flat,) = (folder / "packed").glob("images-*.bin")

    def read() -> object:
        data = open_dataset(folder / "packed")
        if damaged := data.damaged(range(len(data))):
            raise UserError(f"{flat.name}: {len(damaged)} image(s) are not what was packed")
        return b"".join(data.encoded(i).tobytes() for i in range(len(data)))

    return flat, read


def record_of_an_input(folder: Path, digits: Path, pictures: Path) -> tuple[Path, Reader]:
    run_stage(Stage("b", "bags", BagsConfig(data=digits / "val", out=folder / "bags", kind="random", k=2)))
    return folder / "bags" / "stage.json", lambda: outputs_of(folder / "bags")


def record_of_what_is_done(folder: Path, digits: Path, pictures: Path) -> tuple[Path, Reader]:
    stage = Stage("b", "bags", BagsConfig(data=digits / "val", out=folder / "bags", kind="random", k=2))
    run_stage(stage)
    key = stage_key(stage)
    # An empty record is none: then the stage finds outputs that it knows nothing of, and refuses the folder.
    return folder / "bags" / "stage.json", lambda: finished(stage, key) or run_stage(stage)


def scan(folder: Path, digits: Path, pictures: Path) -> tuple[Path, Reader]:
    """A damaged cache is made anew, so that every reading is the same."""
    ImageFolder(pictures)
    (cache,) = (folder / "cache" / "bingo").glob("*.npz")
    kept = cache.read_bytes()

    def read() -> object:
        try:
            data = ImageFolder(pictures)
            return data.hash, data.sizes.tobytes(), data.formats.tobytes(), list(data.paths), data.left_out
        finally:
            cache.write_bytes(kept)

    return cache, read


def journal(folder: Path, digits: Path, pictures: Path) -> tuple[Path, Reader]:
    """Rows whose frame is damaged are judged again."""
    path = folder / "journal"
    check_folder(pictures, workers=1, journal=path)
    listing = list_source(pictures)
    with_rows = Journal(path, listing.fingerprint, "check", len(listing.paths))
    whole, reasons = with_rows.rows.copy(), list(with_rows.reasons)
    with_rows.close()

    def read() -> object:
        found = Journal(path, listing.fingerprint, "check", len(listing.paths))
        known = found.rows["verdict"] > 0
        found.close()
        return bool((found.rows[known] == whole[known]).all()) and found.reasons == reasons[: len(found.reasons)]

    return path, read


def half_done(name: str) -> Callable[[Path, Path, Path], tuple[Path, Reader]]:
    def make(folder: Path, digits: Path, pictures: Path) -> tuple[Path, Reader]:
        """The file is gone once it is read to the end, and comes back for the next damage."""
        path = folder / "rows.npy"
        with pytest.raises(Killed):
            fill(path, stop=4)
        files = {p: p.read_bytes() for p in folder.glob(".rows.npy.*")}

        def read() -> object:
            fill_blocks(
                path, SHAPE, np.float16, block=BLOCK, key="key", world=ALONE,
                compute=lambda ranges: (values(first, last) for first, last in ranges),
            )  # fmt: skip
            found = path.read_bytes()
            path.unlink()
            for file, content in files.items():
                file.write_bytes(content)
            return found

        return folder / name, read

    return make


def checkpoint(folder: Path, digits: Path, pictures: Path) -> tuple[Path, Reader]:
    """A damaged one is left for the one before it, which there is none of here."""
    state = {"key": "k", "modules": {"weight": torch.arange(600.0)}, "optimiser": {"lr": 0.1}, "metrics_offset": 7}
    save_checkpoint(folder, 12, state)
    (path,) = folder.glob("step-*.pt")

    def read() -> object:
        if (found := load_newest(folder, "k", CPU)) is None:
            raise UserError(f"{path.name} is damaged")
        return {**found, "modules": found["modules"]["weight"].tolist()}

    return path, read


def manifest(folder: Path, digits: Path, pictures: Path) -> tuple[Path, Reader]:
    write_digits(folder / "digits", size=8)
    return folder / "digits" / "digits.json", lambda: write_digits(folder / "digits", size=8)


# Name -> what makes the file, and whether a truncated one must be refused: some are made anew instead.
RECORDS: dict[str, tuple[Callable[[Path, Path, Path], tuple[Path, Reader]], bool]] = {
    "index.npz of a pack": (index, True),
    "images of a pack": (images, True),
    "stage.json of an input": (record_of_an_input, True),
    "stage.json of what is done": (record_of_what_is_done, True),
    "the cached scan of a folder": (scan, False),
    "the journal of a check": (journal, False),
    ".partial of half-done rows": (half_done(".rows.npy.partial"), False),
    ".marks of half-done rows": (half_done(".rows.npy.marks"), False),
    "a checkpoint": (checkpoint, True),
    "digits.json of demo data": (manifest, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDS)
def test_damage_is_named_or_changes_nothing(
    name: str, tmp_path: Path, digits: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    logging.disable(logging.WARNING)
    make, refuses = RECORDS[name]
    try:
        outcome = campaign(Artefact(*make(tmp_path, digits, pictures)))
    finally:
        logging.disable(logging.NOTSET)
    print(outcome.row(name))
    assert outcome.wrong == []
    assert outcome.counts["refused"] >= 12 * refuses


def test_the_campaign_finds_what_passes_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "plain.json"
    path.write_text(json.dumps({"lr": 12345.678, "name": "x" * 300}))
    assert len(campaign(Artefact(path, lambda: path.read_bytes())).wrong) == 76
