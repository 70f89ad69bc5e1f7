"""`detectron2.pkl`: the backbone under detectron2's names, for ResNet-18, 34 and 50.

Names and the form of the file: detectron2's `tools/convert-torchvision-to-d2.py` and its `modeling/backbone/resnet.py`,
MoCo's `detection/convert-pretrain-to-detectron2.py`.
"""

import pickle
import re

import numpy as np

from bingo.errors import UserError
from bingo.export.network import Network

FILE = "detectron2.pkl"
DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50}


def files(network: Network) -> dict[str, bytes]:
    """Name -> content: a pickle of {model: name -> array, __author__, matching_heuristics}, without the classifier.

    `UserError` for other networks.
    """
    plain_name(network.name)
    arrays: dict[str, np.ndarray] = {}
    for name, tensor in network.state.items():
        if (theirs := their_name(name)) is not None:
            arrays[theirs] = tensor.numpy()
    whole = {"model": arrays, "__author__": "bingo-distill", "matching_heuristics": True}
    return {FILE: pickle.dumps(whole, protocol=4)}


def plain_name(name: str) -> str:
    """torchvision's name of a ResNet that detectron2 has; timm's three have the same weights. `UserError` otherwise."""
    plain = name.removeprefix("timm:").partition(".")[0]
    if plain not in DEPTHS:
        raise UserError(
            f"detectron2's backbones are {', '.join(DEPTHS)} here, not {name}: leave detectron2 out of --format"
        )
    return plain


def their_name(name: str) -> str | None:
    """torchvision's key as detectron2 has it; None for what detectron2 does not have: the classifier, counters."""
    if name.startswith("fc.") or name.endswith("num_batches_tracked"):
        return None
    name = re.sub(r"\bbn(\d)\b", r"conv\1.norm", name)
    name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
    stage = re.match(r"layer(\d)\.", name)
    return f"res{int(stage[1]) + 1}.{name[stage.end() :]}" if stage else f"stem.{name}"


def loading(network: Network) -> str:
    """The part of a detectron2 config that goes with the file."""
    depth = DEPTHS[plain_name(network.name)]
    lines = ["MODEL:", f'  WEIGHTS: "DIR/{FILE}"']
    if network.input:
        mean, std = ([round(255 * value, 3) for value in network.input[name]] for name in ("mean", "std"))
        lines += [f"  PIXEL_MEAN: {mean}", f"  PIXEL_STD: {std}"]
    lines += ["  RESNETS:", f"    DEPTH: {depth}", "    STRIDE_IN_1X1: False"]
    lines += ["    RES2_OUT_CHANNELS: 64"] * (depth < 50)
    return "\n".join([*lines, "INPUT:", '  FORMAT: "RGB"'])
