"""`weights.pt`: a state dict that `load_state_dict(..., strict=True)` of the named network takes."""

import io

import torch

from bingo.export.hub import made_by_timm
from bingo.export.network import Network

FILE = "weights.pt"


def files(network: Network) -> dict[str, bytes]:
    """Name -> content; the same bytes for the same weights."""
    buffer = io.BytesIO()
    torch.save(network.state, buffer)
    return {FILE: buffer.getvalue()}


def loading(network: Network) -> str:
    """Python that loads the file in the folder `DIR`."""
    return (
        f"import torch\n{maker(network)}\n"
        f'model.load_state_dict(torch.load("DIR/{FILE}", weights_only=True), strict=True)\nmodel.eval()'
    )


def maker(network: Network) -> str:
    """Python that makes the network."""
    name, classes = network.name, network.classes
    if found := made_by_timm(network):
        more = "".join(f", {key}={value!r}" for key, value in found[1].items())
        return f'import timm\n\nmodel = timm.create_model("{found[0]}", num_classes={classes}{more})'
    import torchvision.models as zoo

    if name in ("googlenet", "inception_v3"):
        extra = ", aux_logits=False, init_weights=False"
    elif name in zoo.list_models(module=zoo):
        extra = ""
    else:
        return f'from bingo.models import build_classifier\n\nmodel = build_classifier("{name}", {classes})'
    return f'from torchvision.models import get_model\n\nmodel = get_model("{name}", num_classes={classes}{extra})'
