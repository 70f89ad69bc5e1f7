"""Checkpoints of others with random tensors: the names and shapes of each published layout, one function a row."""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

State = dict[str, torch.Tensor]


class Row(NamedTuple):
    """A layout: what makes its file's content, and what is to be found in it.

    key: a tensor of the backbone as the file names it; ours: as we do. head: prefix of its head there, "" for none.
    """

    make: Callable[[], dict[str, Any]]
    network: str
    form: str
    widths: tuple[int, ...]
    key: str
    ours: str
    head: str = ""


def filled(module: nn.Module) -> State:
    """Tensors of the names, shapes and dtypes of a module that may have none, each of its own small number."""
    state = {}
    for at, (name, value) in enumerate(module.state_dict().items()):
        number = 1 if name.endswith("running_var") else (1 + at % 97) / 5000
        state[name] = torch.full(value.shape, number if value.is_floating_point() else 0, dtype=value.dtype)
    return state


def resnet(name: str, head: nn.Module | None = None, widen: int = 1) -> State:
    """A ResNet of torchvision's or SwAV's names whose fc is another head, or none."""
    from torchvision import models as zoo

    from bingo.models.wide_resnet import WideResNet

    with torch.device("meta"):
        model = zoo.get_model(name) if widen == 1 else WideResNet(widen)
        model.fc = nn.Identity() if head is None else head
    return filled(model)


def vit(name: str, **settings: Any) -> State:
    import timm

    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, **settings)
    return filled(model)


def layers(*sizes: int, norm: bool = False, bias: bool = True, last: str = "") -> nn.Sequential:
    """An MLP: linear layers of these sizes, with batch norm or not; last: "b" and "B", a batch norm at its end."""
    with torch.device("meta"):
        found: list[nn.Module] = []
        for at in range(len(sizes) - 1):
            end = at == len(sizes) - 2
            found.append(nn.Linear(sizes[at], sizes[at + 1], bias=bias))
            if not end:
                found += [nn.BatchNorm1d(sizes[at + 1])] * norm + [nn.ReLU()]
        return nn.Sequential(*found, *([nn.BatchNorm1d(sizes[-1], affine=last == "B")] if last else []))


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def some(prefix: str, state: State) -> State:
    """A few tensors, of other values, of a network that is to be left out."""
    names = [*list(state)[:4], *list(state)[-2:]]
    return {prefix + name: torch.full_like(state[name], 7) for name in names}


QUEUE = {"module.queue": torch.zeros(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
EXTRAS: dict[str, Any] = {
    "args": argparse.Namespace(lr=0.03, out=PosixPath("runs"), best=np.float64(0.5), names=["a"]), "epoch": 200,
}  # fmt: skip


def moco(name: str, dim: int, *, arch: bool = True, hidden: int = 0) -> dict[str, Any]:
    head = layers(dim, hidden or dim, 128)
    state = resnet(name, head)
    all_of = under("module.encoder_q.", state) | some("module.encoder_k.", state) | QUEUE
    return {"state_dict": all_of, "optimizer": {"state": {}}, **({"arch": name} if arch else {})}


def moco_v1() -> dict[str, Any]:
    with torch.device("meta"):
        head = nn.Linear(2048, 128)
    return {"arch": "resnet50", "state_dict": under("module.encoder_q.", resnet("resnet50", head)) | QUEUE}


def moco_v3(state: State, arch: str) -> dict[str, Any]:
    predictor = under("module.predictor.", filled(layers(256, 64, 256, norm=True, bias=False)))
    all_of = under("module.base_encoder.", state) | some("module.momentum_encoder.", state) | predictor
    return {"arch": arch, "state_dict": all_of, "scaler": {"scale": 1.0}}


def moco_v3_vit() -> dict[str, Any]:
    head = under("head.", filled(layers(384, 4096, 4096, 256, norm=True, bias=False, last="b")))
    return moco_v3(vit("vit_small_patch16_224") | head, "vit_small")


def swav(widen: int, hidden: int) -> dict[str, Any]:
    head = under("projection_head.", filled(layers(2048 * widen, hidden, 128, norm=True)))
    return under("module.", {**resnet("resnet50", widen=widen), **head, "prototypes.weight": torch.zeros(3000, 128)})


def dino() -> dict[str, Any]:
    backbone = vit("vit_small_patch16_224")
    mlp = {f"{at}.{n}": torch.full((o, i) if n == "weight" else (o,), 0.01) for at, o, i in
           ((0, 2048, 384), (2, 2048, 2048), (4, 256, 2048)) for n in ("weight", "bias")}  # fmt: skip
    last = {"head.last_layer.weight_g": torch.ones(64, 1), "head.last_layer.weight_v": torch.zeros(64, 256)}
    teacher = under("backbone.", backbone) | under("head.mlp.", mlp) | last
    student = some("module.backbone.", backbone)
    return {"student": student, "teacher": teacher, "dino_loss": {"center": torch.zeros(1, 64)}, "fp16_scaler": {}}


def dinov2() -> dict[str, Any]:
    return {"mask_token": torch.zeros(1, 384), **vit("vit_small_patch14_dinov2")}


def dinov3(width: int = 384, depth: int = 12) -> dict[str, Any]:
    """By the names of the release's own module; k has no bias."""
    sizes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width), "storage_tokens": (1, 4, width), "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 16, 16), "patch_embed.proj.bias": (width,),
        "rope_embed.periods": (16,), "norm.weight": (width,), "norm.bias": (width,),
    }  # fmt: skip
    block: dict[str, tuple[int, ...]] = {
        "norm1.weight": (width,), "norm1.bias": (width,), "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,), "attn.qkv.bias_mask": (3 * width,), "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,), "ls1.gamma": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
        "mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,), "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,), "ls2.gamma": (width,),
    }  # fmt: skip
    sizes |= {f"blocks.{at}.{name}": size for at in range(depth) for name, size in block.items()}
    state = {name: torch.full(size, (1 + at % 97) / 5000) for at, (name, size) in enumerate(sizes.items())}
    for at in range(depth):
        state[f"blocks.{at}.attn.qkv.bias_mask"] = torch.ones(3, width).index_fill(0, torch.tensor(1), 0).flatten()
    return state


def byol() -> dict[str, Any]:
    """A converted file: flat, and without the counters of batch norm."""
    return {n: v for n, v in resnet("resnet50").items() if not n.endswith("num_batches_tracked")}


def byol_pytorch() -> dict[str, Any]:
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    state = resnet("resnet50")
    children = {f"{places[n.split('.')[0]]}.{n.partition('.')[2]}": v for n, v in state.items()}
    head = {"0": "l1", "1": "bn1", "3": "l2"}
    mlp = {f"{head[n[0]]}{n[1:]}": v for n, v in filled(layers(2048, 4096, 256, norm=True)).items()}
    online = under("online_network.encoder.", children) | under("online_network.projetion.", mlp)
    others = some("target_network.encoder.", children) | some("predictor.predictor.", mlp)
    return {"model": under("module.", online | others), "optimizer": {}, "steps": 1}


def simsiam() -> dict[str, Any]:
    head = layers(2048, 2048, 2048, 2048, norm=True, bias=False, last="b")
    with torch.device("meta"):
        head[6] = nn.Linear(2048, 2048)
    predictor = under("module.predictor.", filled(layers(2048, 64, 2048, norm=True)))
    state = under("module.encoder.", resnet("resnet50", head))
    return {"arch": "resnet50", "state_dict": state | predictor}


def twins(*, bias: bool) -> dict[str, Any]:
    """Barlow Twins (linear layers without bias, a batch norm beside) and VICReg; the projector is narrower here."""
    projector = layers(2048, 1024, 1024, 1024, norm=True, bias=bias)
    with torch.device("meta"):
        projector[6] = nn.Linear(1024, 1024, bias=False)
        norm = nn.BatchNorm1d(1024, affine=False)
    state = under("module.backbone.", resnet("resnet50")) | under("module.projector.", filled(projector))
    return {"model": state | ({} if bias else under("module.bn.", filled(norm))), "optimizer": {}}


def classifier(name: str) -> dict[str, Any]:
    from torchvision import models as zoo

    with torch.device("meta"):
        model = zoo.get_model(name)
    return filled(model)


def compress() -> dict[str, Any]:
    return {"opt": argparse.Namespace(lr=0.01), "model": under("module.", resnet("resnet18")), "optimizer": {}}


def seed_student() -> dict[str, Any]:
    teacher = some("module.teacher.", resnet("resnet50"))
    student = under("module.student.", resnet("resnet18", layers(512, 512, 128)))
    return {"arch": "resnet18", "state_dict": student | teacher | QUEUE, "optimizer": {}}


def simreg() -> dict[str, Any]:
    """Each part is wrapped by DataParallel on its own; no batch norm and ReLU after the second layer."""
    widths = (512, 1024, 512, 1024, 2048)
    with torch.device("meta"):
        linear = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
        norms = [nn.BatchNorm1d(1024), nn.ReLU()]
        mlp = nn.Sequential(linear[0], *norms, linear[1], linear[2], *norms, linear[3])
    state = under("encoder_q.module.", resnet("resnet18")) | under("predict_q.module.", filled(mlp))
    state |= some("encoder_t.module.", resnet("resnet50"))
    return {"opt": argparse.Namespace(epochs=130), "state_dict": state, "optimizer": {}}


def disco() -> dict[str, Any]:
    student = resnet("resnet18", layers(512, 2048, 128))
    teacher = resnet("resnet50", layers(2048, 2048, 128))
    parts = under("module.encoder_q.", student) | some("module.encoder_k.", student)
    parts |= some("module.teacher_encoder_q.", teacher) | some("module.teacher_encoder_k.", teacher)
    return {"arch": "resnet18", "state_dict": parts | QUEUE}


def bingo() -> dict[str, Any]:
    student = under("module.encoder_q.", resnet("resnet18", layers(512, 2048, 128)))
    teacher = some("module.encoder_k.", resnet("resnet50", layers(2048, 2048, 128)))
    return {"state_dict": student | teacher | QUEUE, "optimizer": {}}


def efficientnet(name: str = "efficientnet-b0") -> State:
    """The names of `efficientnet_pytorch`, which BINGO and SEED copied."""
    from efficientnet_lite_pytorch import EfficientNet

    return {n: v for n, v in filled(EfficientNet.from_name(name)).items() if not n.startswith("_fc.")}


def bingo_efficientnet() -> dict[str, Any]:
    student = efficientnet() | under("fc.", filled(layers(1280, 2048, 128)))
    return {"state_dict": under("module.encoder_q.", student) | QUEUE}


CONV, MOCO = "layer2.0.conv1.weight", "module.encoder_q."
R50, R18 = "resnet50", "resnet18"
NORM = "blocks.3.norm2.weight"
ROWS = {
    "MoCo v2 R-50": Row(lambda: moco(R50, 2048), R50, "LRL", (2048, 128), MOCO + CONV, CONV, MOCO + "fc."),
    "MoCo v2 R-152": Row(lambda: moco("resnet152", 2048), "resnet152", "LRL", (2048, 128), MOCO + CONV, CONV,
                         MOCO + "fc."),
    "MoCo v2 R-18": Row(lambda: moco(R18, 512), R18, "LRL", (512, 128), MOCO + CONV, CONV, MOCO + "fc."),
    "MoCo v2 without arch": Row(lambda: moco("resnet34", 512, arch=False), "resnet34", "LRL", (512, 128),
                                MOCO + CONV, CONV, MOCO + "fc."),
    "MoCo v1 R-50": Row(moco_v1, R50, "L", (128,), MOCO + CONV, CONV),
    "MoCo v3 R-50": Row(
        lambda: moco_v3(resnet(R50, layers(2048, 4096, 256, norm=True, bias=False, last="b")), R50),
        R50, "lBRlb", (4096, 256), "module.base_encoder." + CONV, CONV, "module.base_encoder.fc."),
    "MoCo v3 ViT-S": Row(moco_v3_vit, "moco_v3_vit_small", "lBRlBRlb", (4096, 4096, 256), "module.base_encoder." + NORM,
                         NORM, "module.base_encoder.head."),
    "SwAV R-50": Row(lambda: swav(1, 2048), R50, "LBRL", (2048, 128), "module." + CONV, CONV,
                     "module.projection_head."),
    "SwAV R-50x2": Row(lambda: swav(2, 8192), "resnet50w2", "LBRL", (8192, 128), "module." + CONV, CONV,
                       "module.projection_head."),
    "DINO R-50": Row(lambda: dict(resnet(R50)), R50, "", (), CONV, CONV),
    "DINO ViT-S/16": Row(lambda: dict(vit("vit_small_patch16_224")), "timm:vit_small_patch16_224", "", (), NORM, NORM),
    "DINO checkpoint": Row(dino, "timm:vit_small_patch16_224", "LGLGL", (2048, 2048, 256), "backbone." + NORM, NORM,
                           "head.mlp."),
    "DINOv2 ViT-S/14": Row(dinov2, "timm:vit_small_patch14_dinov2", "", (), NORM, NORM),
    "DINOv3 ViT-S/16": Row(dinov3, "dinov3_vits16", "", (), NORM, NORM),
    "BYOL": Row(byol, R50, "", (), CONV, CONV),
    "BYOL in PyTorch": Row(byol_pytorch, R50, "LBRL", (4096, 256), "module.online_network.encoder.5.0.conv1.weight",
                           CONV, "module.online_network.projetion."),
    "SimSiam": Row(simsiam, R50, "lBRlBRLb", (2048, 2048, 2048), "module.encoder." + CONV, CONV, "module.encoder.fc."),
    "Barlow Twins": Row(lambda: twins(bias=False), R50, "lBRlBRl", (1024, 1024, 1024), "module.backbone." + CONV, CONV,
                        "module.projector."),
    "VICReg": Row(lambda: twins(bias=True), R50, "LBRLBRl", (1024, 1024, 1024), "module.backbone." + CONV, CONV,
                  "module.projector."),
    "torchvision R-50": Row(lambda: classifier(R50), R50, "", (), CONV, CONV),
    "torchvision MobileNetV3": Row(lambda: classifier("mobilenet_v3_large"), "mobilenet_v3_large", "", (),
                                   "features.4.block.0.0.weight", "features.4.block.0.0.weight"),
    "timm ViT": Row(lambda: {"head.weight": torch.zeros(1000, 192), "head.bias": torch.zeros(1000),
                             **vit("vit_tiny_patch16_224")}, "timm:vit_tiny_patch16_224", "", (), NORM, NORM),
    "CompRess": Row(compress, R18, "", (), "module." + CONV, CONV),
    "SEED": Row(seed_student, R18, "LRL", (512, 128), "module.student." + CONV, CONV, "module.student.fc."),
    "SimReg": Row(simreg, R18, "LBRLLBRL", (1024, 512, 1024, 2048), "encoder_q.module." + CONV, CONV,
                  "predict_q.module."),
    "DisCo": Row(disco, R18, "LRL", (2048, 128), MOCO + CONV, CONV, MOCO + "fc."),
    "BINGO R-18": Row(bingo, R18, "LRL", (2048, 128), MOCO + CONV, CONV, MOCO + "fc."),
    "BINGO EfficientNet-B0": Row(bingo_efficientnet, "timm:tf_efficientnet_b0", "LRL", (2048, 128),
                                 MOCO + "_blocks.3._bn1.weight", "blocks.2.0.bn2.weight", MOCO + "fc."),
    "EfficientNet-Lite0": Row(lambda: dict(efficientnet("efficientnet-lite0")), "timm:tf_efficientnet_lite0", "", (),
                              "_blocks.3._bn1.weight", "blocks.2.0.bn2.weight"),
}  # fmt: skip


def holder(saved: dict[str, Any], key: str) -> dict[str, Any]:
    """The dict inside a file's content that has this tensor."""
    return next(d for d in (saved, *saved.values()) if isinstance(d, dict) and key in d)


def thin(saved: dict[str, Any]) -> dict[str, Any]:
    """The same names, shapes and entries, with one number stored for each tensor: what is not to be loaded."""
    return {
        name: thin(value) if isinstance(value, dict)
        else torch.zeros((), dtype=value.dtype).expand(value.shape) if isinstance(value, torch.Tensor)
        else value
        for name, value in saved.items()
    }  # fmt: skip


def save(saved: dict[str, Any], path: Path) -> Path:
    torch.save(saved, path)
    return path
