"""Teachers with the names and shapes of published files, and random weights: what a card is checked with."""

import re
from pathlib import Path

import torch

from bingo.files import write_torch
from bingo.models import Encoder
from bingo.models.heads import Head
from bingo.recipes.teachers import MOCO, SWAV, Teacher

State = dict[str, torch.Tensor]
HEADS = {MOCO: "LRL", SWAV: "LBRL"}
"""Marks of a layout -> the form of its head."""
SWAV_HIDDEN = {"resnet50": 2048, "resnet50w2": 8192}
BRANCH, BRANCH_SCALE = re.compile(r"layer\d\.\d+\.bn3\.weight$"), 0.1
"""The end of a bottleneck's branch. Untrained statistics normalise nothing, and 50 whole branches grow past fp16."""
KEY = 128
"""Channels of a published key."""


def write_teacher(teacher: Teacher, path: Path) -> Path:
    """A file as `teacher`'s, small numbers for weights that are a function of a fixed seed. Returns `path`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(teacher.network, head=_head(teacher))
    state = encoder.state_dict()
    for name, value in state.items():
        if BRANCH.search(name):
            value.fill_(BRANCH_SCALE)
    backbone = {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
    head = {n.removeprefix("head."): v for n, v in state.items() if n.startswith("head.")}
    write_torch(path, _layout(teacher, backbone, head))
    return path


def _head(teacher: Teacher) -> Head:
    form = HEADS.get(teacher.marks, "")
    if not form:
        return Head()
    hidden = SWAV_HIDDEN[teacher.network] if teacher.marks == SWAV else 2048
    return Head(form, (hidden, KEY))


def _layout(teacher: Teacher, backbone: State, head: State) -> dict[str, object]:
    """What the published script saves."""
    if teacher.marks == MOCO:
        inside = {f"module.encoder_q.{n}": v for n, v in backbone.items()}
        inside |= {f"module.encoder_q.fc.{n}": v for n, v in head.items()}
        inside |= {"module.queue": torch.zeros(KEY, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
        return {"epoch": teacher.epoch, "arch": teacher.network, "state_dict": inside}
    if teacher.marks == SWAV:
        flat = {f"module.{n}": v for n, v in backbone.items()}
        flat |= {f"module.projection_head.{n}": v for n, v in head.items()}
        return {**flat, "module.prototypes.weight": torch.zeros(3000, KEY)}
    if teacher.marks:  # DINOv2
        return {**backbone, "mask_token": torch.zeros(1, len(backbone["cls_token"].flatten()))}
    return dict(backbone)
