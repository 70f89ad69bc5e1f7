"""What a checkpoint says of itself, read without torch: its plain entries, and the names and shapes of its tensors.

A file of `torch.save` is a pickle that names tensors, beside their numbers. Here an unpickler reads it that makes
nothing but shapes: classes are never looked up, so no code of the file runs, and no number of a tensor is read.
"""

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bingo.shapes import WRAPPERS, dinov2_name, resnet_name, vit_name

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of what torch.save wrote before release 1.6; two more come before the object."""
MOST_BYTES = 1 << 26
"""Of the part of a file that is read; a checkpoint of ResNet-152 with its optimiser has under one megabyte."""
STATES = ("state_dict", "model", "teacher")
"""Entries below which a state dict may lie; otherwise the file is one itself."""
FIRST = "layer1.0.conv1.weight"
ASIDE = ("encoder_k.", "momentum_encoder.", "teacher", "encoder_t.", "target_network.")
"""Beginnings of names of networks that are beside the one that is meant."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Glance:
    """entries: numbers and texts of the file (`epoch`, `arch`, `format`); shapes: of its tensors, without `module.`."""

    entries: Mapping[str, Any]
    shapes: Mapping[str, Shape]

    @property
    def own(self) -> bool:
        """Whether this project wrote it."""
        return str(self.entries.get("format", "")).startswith("bingo-")

    @property
    def epoch(self) -> int | None:
        """Epochs of training, as MoCo's script counts them."""
        found = self.entries.get("epoch")
        return found if type(found) is int else None

    @property
    def network(self) -> str:
        """By shapes, or by the file's own word; "" where neither tells."""
        if self.own:
            return str(self.entries.get("model", ""))
        shapes = self.shapes
        prefixes = sorted(n.removesuffix(FIRST) for n in shapes if n.endswith(FIRST) and not n.startswith(ASIDE))
        for prefix in prefixes:
            backbone = {n.removeprefix(prefix): shape for n, shape in shapes.items() if n.startswith(prefix)}
            if "conv1.weight" in backbone and (name := resnet_name(backbone)):
                return name
        if "patch_embed.proj.weight" in shapes:
            if "storage_tokens" in shapes:  # DINOv3
                return ""
            if "mask_token" in shapes:
                return dinov2_name(shapes["patch_embed.proj.weight"][0], registers="register_tokens" in shapes)
            return vit_name(shapes)
        return str(self.entries.get("arch", ""))

    def holds(self, beginning: str) -> bool:
        """Whether a tensor's name begins so."""
        return any(name.startswith(beginning) for name in self.shapes)


def glance(path: Path) -> Glance | None:
    """None where nothing can be told: what loads the file says what is wrong with it."""
    try:
        saved = _read(path / "model.pt" if path.is_dir() else path)
    except Exception:  # a file of anyone's may be anything; pickle alone raises a dozen types
        return None
    if not isinstance(saved, dict):
        return None
    state = next((saved[name] for name in STATES if isinstance(saved.get(name), dict)), saved)
    shapes = {WRAPPERS.sub("", str(n)): tuple(v) for n, v in state.items() if isinstance(v, _Tensor)}
    entries = {str(n): v for n, v in saved.items() if type(v) in (int, float, str, bool)}
    return Glance(entries, shapes) if shapes else None


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        head = file.read(9)
        file.seek(0)
        if head[:4] == b"PK\x03\x04":
            return _from_zip(file)
        if head[8:9] == b"{":
            return _from_safetensors(file)
        if _Unpickler(file).load() != LEGACY_MAGIC:
            return None
        _Unpickler(file).load()
        _Unpickler(file).load()
        return _Unpickler(file).load()


def _from_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        (member,) = (info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
        if member.file_size > MOST_BYTES:
            return None
        with archive.open(member) as inside:
            return _Unpickler(inside).load()


def _from_safetensors(file: IO[bytes]) -> Any:
    size = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(size)) if size <= MOST_BYTES else {}
    return {name: _Tensor(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


class _Tensor(tuple[int, ...]):
    """The shape of a tensor that is not read."""


class _Dict(dict[Any, Any]):
    """An OrderedDict, with room for the attributes that it is pickled with."""


class _Thing:
    """Stands for an object of any other class, whatever it is made of."""

    def __new__(cls, *args: Any, **more: Any) -> "_Thing":
        return super().__new__(cls)

    def __init__(self, *args: Any, **more: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, name: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass


def _tensor(storage: Any, offset: Any, size: Any, *rest: Any) -> _Tensor:
    return _Tensor(size)


def _parameter(data: Any, *rest: Any) -> Any:
    return data


MAKERS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("collections", "OrderedDict"): _Dict,
}
"""What a pickle names -> what is called instead."""


class _Unpickler(pickle.Unpickler):
    """Makes shapes, plain containers and `_Thing`s, whatever the pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        return MAKERS.get((module, name), _Thing)

    def persistent_load(self, pid: Any) -> None:
        """A storage, whose numbers stay where they are."""
