"""`hub/`: safetensors and a config that timm loads strictly, in the layout of a model hub."""

import json
import math
from typing import Any

from torch import nn

from bingo.errors import UserError
from bingo.export.network import Network
from bingo.files import first_line

FOLDER = "hub"
WEIGHTS, CONFIG = f"{FOLDER}/model.safetensors", f"{FOLDER}/config.json"
PACKAGES = ("timm", "safetensors")
SAME = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2", "densenet121", "densenet161", "densenet169",
    "densenet201", "inception_v3",
)  # fmt: skip
"""Networks that torchvision and timm have under one name, with the same keys, shapes and answers."""


def files(network: Network) -> dict[str, bytes]:
    """Name -> content. `UserError`: timm has no such network, or computes other logits with it."""
    import safetensors.torch

    architecture, arguments = timm_name(network)
    state = {name: tensor.clone() for name, tensor in network.state.items()}  # safetensors takes no shared memory
    content = safetensors.torch.save(state, metadata={"format": "pt"})
    model = proven(network, architecture, arguments)
    config = json.dumps(config_of(network, architecture, model, arguments), indent=2) + "\n"
    return {WEIGHTS: content, CONFIG: config.encode()}


def timm_name(network: Network) -> tuple[str, dict[str, Any]]:
    """timm's name of a network and the arguments that make it; `UserError` where timm has none with its keys."""
    import timm

    if found := made_by_timm(network):
        return found
    name = network.name
    if name in SAME:
        return name, {}
    instead = f" (timm:{name} is another one, to be trained under that name)" if timm.is_model(name) else ""
    raise UserError(
        f"timm has no network with the weights of {name}{instead}: leave safetensors out of --format; "
        f"it is for timm:NAME and {', '.join(SAME)}"
    )


def made_by_timm(network: Network) -> tuple[str, dict[str, Any]] | None:
    """As `timm_name`, of a network that timm itself has made; None for others."""
    module: Any = network.module
    known = getattr(module, "pretrained_cfg", None)
    if not (known and type(module).__module__.startswith("timm.")):
        return None
    import timm.models

    read: Any = getattr(timm.models, "get_model_args", lambda made: {})  # earlier releases do not say
    arguments = {name: value for name, value in read(module).items() if name not in ("num_classes", "in_chans")}
    return known["architecture"], arguments


def proven(network: Network, architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """timm's network of that name, which answers with our weights as ours does; `UserError` if it does not."""
    import timm

    try:
        model = timm.create_model(architecture, num_classes=network.classes, **arguments).eval()
        model.load_state_dict(network.probe.state, strict=True)
        network.probe.prove(model, "timm", "safetensors")
    except UserError:
        raise
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:  # of this size, or of the argument
        raise UserError(
            f"timm's {architecture} does not take the weights of {network.name} ({first_line(error)}): leave "
            "safetensors out of --format"
        ) from error
    return model


def config_of(network: Network, architecture: str, model: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """What timm's `local-dir:` and `hf-hub:` read: the network, its classes, and the images that it is shown."""
    known = model.pretrained_cfg
    seen: dict[str, Any] = {"input_size": [3, network.size, network.size]}
    if network.input:
        seen |= {
            "crop_pct": crop_share(network.size, network.input["resize"]), "crop_mode": "center",
            "interpolation": "bilinear", "mean": network.input["mean"], "std": network.input["std"],
        }  # fmt: skip
    return {
        "architecture": architecture,
        "num_classes": network.classes,
        "num_features": model.num_features,
        **({"label_names": network.class_names} if network.class_names else {}),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {
            **seen,
            "fixed_input_size": bool(known.get("fixed_input_size")) and not arguments.get("dynamic_img_size"),
            "num_classes": network.classes,
            "pool_size": None,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
            "custom_load": False,
        },
    }


def crop_share(size: int, resize: int) -> float:
    """The share of the resized image that is kept: timm resizes the shorter side to floor(size / share) pixels."""
    share = size / resize
    return share if math.floor(size / share) == resize else size / (resize + 0.25)


def loading(network: Network, folder: str = "DIR/hub") -> str:
    """Python that loads the folder."""
    return (
        f'import timm\n\nmodel = timm.create_model("local-dir:{folder}", pretrained=True).eval()\n'
        "data = timm.data.resolve_model_data_config(model)\n"
        "transform = timm.data.create_transform(**data, is_training=False)"
    )
