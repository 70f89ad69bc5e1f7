"""Every artefact is verified when it is read: 64 bit flips and 12 truncations each, none silent, no traceback."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bingo.bags.file import load_bags
from bingo.config_evaluation import EvalConfig, ExportConfig
from bingo.config_parts import Augmentation, Runtime
from bingo.export import stage as export
from bingo.features.extract import load_features
from bingo.features.keys import load_keys
from bingo.images.open import open_dataset
from bingo.models import load_encoder
from bingo.stages import Stage, run_stage
from tests.support.cached_keys import ALONE, SMALL, keys_config
from tests.support.damage import Artefact, campaign


class Inputs:
    """Copies of what the stages have written, without the records that would vouch for them."""

    def __init__(self, root: Path, digits: Path, teacher: Path, bags: Path) -> None:
        self.root, self.digits = root, digits
        shutil.copyfile(teacher, root / "model.pt")
        shutil.copytree(bags.parent / "features", root / "features")
        shutil.copytree(bags, root / "bags")
        run_stage(Stage("keys", "keys", keys_config(digits, teacher, root / "keys")))
        evaluation = EvalConfig(
            run=teacher, train=digits / "val", val=digits / "val", out=root / "eval", kinds=("linear",),
            linear_epochs=1, augment=Augmentation(size=16), batch=512, runtime=Runtime(threads=1),
        )  # fmt: skip
        run_stage(Stage("eval", "eval", evaluation))
        for record in root.glob("*/stage.json"):
            record.unlink()

    def features(self) -> object:
        rows, header = load_features(self.root / "features", ALONE)
        return rows.tobytes(), header["dataset"], header["teacher"]

    def keys(self) -> object:
        opened = load_keys(self.root / "keys", open_dataset(self.digits / "train"), SMALL, ALONE)
        return opened.rows_NMC.tobytes(), opened.dtype, opened.teacher

    def model(self) -> object:
        encoder, content = load_encoder(self.root / "model.pt")
        return content, encoder.name, encoder.dim, encoder.hidden

    def bags(self) -> object:
        found = load_bags(
            self.root / "bags" / "bags.npz", dataset_hash=open_dataset(self.digits / "train").hash, teacher_hash=None
        )
        return found.members.tobytes(), found.header

    def exported(self) -> object:
        config = ExportConfig(model=self.root / "model.pt", out=self.root / "export", classifier=self.root / "eval")
        export.run(config, "key", ALONE)
        return [(config.out / name).read_bytes() for name in ("weights.pt", "weights.json")]


ARTEFACTS: dict[str, tuple[str, Callable[[Inputs], Any]]] = {
    "features.npy in bags": ("features/features.npy", Inputs.features),
    "features.json in bags": ("features/features.json", Inputs.features),
    "keys.npy in distill": ("keys/keys.npy", Inputs.keys),
    "keys.json in distill": ("keys/keys.json", Inputs.keys),
    "model.pt in features, keys, eval": ("model.pt", Inputs.model),
    "model.pt in export": ("model.pt", Inputs.exported),
    "linear.pt in export": ("eval/linear.pt", Inputs.exported),
    "results.json in export": ("eval/results.json", Inputs.exported),
    "bags.npz in distill": ("bags/bags.npz", Inputs.bags),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, digits: Path, teacher: Path, bags: Path) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("damage"), digits, teacher, bags)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARTEFACTS)
def test_damage_is_named_or_changes_nothing(name: str, inputs: Inputs) -> None:
    file, read = ARTEFACTS[name]
    outcome = campaign(Artefact(inputs.root / file, lambda: read(inputs)))
    print(outcome.row(name))
    assert outcome.wrong == []
    assert outcome.counts["refused"] >= 12, "a truncated file is never whole"
