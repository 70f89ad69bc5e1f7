"""What a checkpoint says without torch, in every layout and both forms of file; and that no code in it runs."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bingo.models import save_encoder, seeded_encoder
from bingo.recipes.glance import LEGACY_MAGIC, glance
from tests.support.checkpoints import EXTRAS, ROWS, save, thin
from tests.support.ranks import ROOT

UNTOLD = ("BYOL in PyTorch", "DINO checkpoint", "DINOv3 ViT-S/16", "torchvision MobileNetV3")
NAMES = ("MoCo v2 R-50", "MoCo v2 without arch", "SwAV R-50", "BYOL", "SEED", "SimReg", "CompRess", "DINOv2 ViT-S/14")


@pytest.mark.parametrize("name", [*NAMES, *UNTOLD])
def test_network_and_epoch_of_each_layout(name: str, tmp_path: Path) -> None:
    """Of some layouts the network is not told; never is it told wrongly."""
    row = ROWS[name]
    made = thin({**row.make(), **EXTRAS})
    found = glance(save(made, tmp_path / "new.pth"))
    assert found is not None
    assert (found.network, found.epoch) == ("" if name in UNTOLD else row.network, 200)
    torch.save(made, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert glance(tmp_path / "old.pth") == found


def test_a_model_of_ours_names_its_network(tmp_path: Path) -> None:
    save_encoder(tmp_path / "model.pt", seeded_encoder("tiny-6", dim=4, hidden=8, seed=3))
    found = glance(tmp_path)
    assert found is not None
    assert (found.network, found.own, found.epoch) == ("tiny-6", True, None)


def test_safetensors_are_told_by_their_header(tmp_path: Path) -> None:
    header = {"layer1.0.conv1.weight": [64, 64, 3, 3], "conv1.weight": [64, 3, 7, 7]}
    header |= {f"layer{a}.{b}.conv1.weight": [8, 8, 3, 3] for a in range(1, 5) for b in range(2)}
    text = json.dumps({n: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for n, s in header.items()}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    found = glance(tmp_path / "a.safetensors")
    assert found is not None
    assert found.network == "resnet18"


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.path, "run"))


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    """Neither what a pickle calls nor what it imports; the pickle itself would write the file."""
    trap = tmp_path / "trap"
    content = {"epoch": 3, "evil": Evil(trap), "state_dict": {}}
    with open(tmp_path / "evil.pth", "wb") as file:
        for part in (LEGACY_MAGIC, 1001, {}, content):
            pickle.dump(part, file, protocol=2)
    assert glance(tmp_path / "evil.pth") is None
    assert not trap.exists()
    pickle.loads(pickle.dumps(content))
    assert trap.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x02.", bytes(8) + b"{", b"\x80\x02]."])
def test_other_files_say_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert glance(tmp_path / "file") is None
    assert glance(tmp_path) is None
    assert glance(tmp_path / "absent") is None


def test_no_torch_is_imported() -> None:
    code = "import sys, bingo.recipes.command; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
