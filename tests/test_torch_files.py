"""Files that torch.save has not written, or not whole: each is said by what it is, in one sentence."""

import argparse
import json
import pickle
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path, PosixPath

import numpy as np
import pytest
import torch

from bingo.errors import TransientError, UserError
from bingo.files import hash_file, write_sealed
from bingo.torch_files import read_network, read_torch

SAFETENSORS = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()


def pack(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("tensors"))


def script(path: Path) -> None:
    module = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(module, path)


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "module": (lambda p: torch.save(torch.nn.Linear(2, 2), p), "object of class torch.nn.modules.linear.Linear, which"),
    "arguments": (
        lambda p: torch.save({"args": argparse.Namespace(loss=torch.nn.Linear(1, 1))}, p),
        "of class torch.nn.modules.linear.Linear, which",
    ),
    "legacy module": (
        lambda p: torch.save(torch.nn.Linear(1, 1), p, _use_new_zipfile_serialization=False),
        "of class torch.nn.modules.linear.Linear",
    ),
    "script": (script, "is a TorchScript archive"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "is a bare Python pickle"),
    "safetensors": (
        lambda p: p.write_bytes(len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS + bytes(4)),
        "is a safetensors file",
    ),
    "onnx": (lambda p: p.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x032.1"), "is an ONNX model"),
    "h5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "is an HDF5 file"),
    "npy": (lambda p: np.save(p.open("wb"), np.zeros(3)), "is a NumPy array"),
    "npz": (lambda p: np.savez(p.open("wb"), a=np.zeros(3)), "is an archive of NumPy arrays"),
    "tar": (pack, "is a tar archive"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b\x08" + bytes(30)), "is compressed by gzip"),
    "page": (lambda p: p.write_text("\n<!DOCTYPE html><title>404 é</title>"), "is a web page or XML"),
    "lfs": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid"), "is a git-lfs pointer"),
    "json": (lambda p: p.write_text('{"a": 1}'), "is a JSON file"),
    "text": (lambda p: p.write_text("hello"), 'is a text file that begins with "hello"'),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "zeros": (lambda p: p.write_bytes(bytes(600)), "is of no kind that is known here"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "missing": (lambda p: None, "does not exist"),
    "loop": (lambda p: p.symlink_to(p), "cannot read"),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_said_by_what_they_are(kind: str, tmp_path: Path) -> None:
    make, said = FOREIGN[kind]
    path = tmp_path / "model.pt"
    make(path)
    with pytest.raises(UserError) as caught:
        read_torch(path, "give a run folder")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    if kind not in ("missing", "loop"):
        assert str(caught.value).endswith("; give a run folder")


@pytest.mark.parametrize("legacy", [False, True])
def test_whole_files_and_parts_of_them(legacy: bool, tmp_path: Path) -> None:
    path, value = tmp_path / "a.pt", {"w": torch.arange(600.0), "name": "x"}
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    read = read_torch(path, "")
    assert torch.equal(read["w"], value["w"])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 500])
    with pytest.raises(UserError, match="is truncated or damaged"):
        read_torch(path, "")


@pytest.mark.parametrize("legacy", [False, True])
def test_what_scripts_leave_beside_the_tensors_is_read(legacy: bool, tmp_path: Path) -> None:
    value = {"args": argparse.Namespace(lr=0.1, out=PosixPath("a/b"), nested=argparse.Namespace(x=[1])),
             "best": np.float64(0.5), "step": np.int64(7), "mean": np.float32(2), "right": np.bool_(True)}  # fmt: skip
    torch.save(value, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert read_torch(tmp_path / "a.pt", "") == value


def test_safetensors_are_read_where_a_network_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.bin"
    save_file({"w": torch.arange(6.0)}, path)
    assert torch.equal(read_network(path, "")["w"], torch.arange(6.0))
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(
        UserError, match=r"a.bin is a safetensors file; to read it: pip install 'bingo-distill\[teachers\]'"
    ):
        read_network(path, "")
    monkeypatch.undo()
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"a.bin is truncated or damaged \("):
        read_network(path, "")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_no_memory_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    torch.save({"w": torch.ones(6)}, tmp_path / "a.pt")

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(TransientError, match=r"cannot read \S+a.pt: the memory of this machine is used up; end other"):
        read_torch(tmp_path / "a.pt", "")


def test_a_part_that_does_not_match_its_checksum_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(600)}, path)
    data = path.read_bytes()
    path.write_bytes(data.replace(torch.ones(600).numpy().tobytes(), torch.full((600,), 1.5).numpy().tobytes()))
    with pytest.raises(UserError, match=r"a.pt is damaged: its part a/data/0 does not match its checksum"):
        read_torch(path, "")


def test_a_sound_file_that_the_stage_did_not_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(6)}, path)
    write_sealed(tmp_path / "stage.json", {"outputs": {"a.pt": hash_file(path)}})
    assert torch.equal(read_torch(path, "")["w"], torch.ones(6))
    torch.save({"w": torch.zeros(6)}, tmp_path / "b.pt")
    shutil.copyfile(tmp_path / "b.pt", path)
    differs = (
        r"a.pt is not the file that its stage wrote: its content hash differs from the one recorded in .*stage.json"
    )
    with pytest.raises(UserError, match=differs):
        read_torch(path, "")
