"""A distillation of four short epochs on the digits: its command, and what it left behind."""

import json
from pathlib import Path

import torch

EPOCHS, PER_EPOCH = 4, 16


def command(digits: Path, teacher: Path, bags: Path, out: Path, objective: str = "release") -> list[object]:
    small = [
        "--augment.size",
        16,
        "--contrast.dim",
        16,
        "--contrast.hidden",
        32,
        "--contrast.queue",
        100,
        "--optim.batch",
        64,
    ]
    pace = [
        "--optim.epochs",
        EPOCHS,
        "--runtime.threads",
        1,
        "--runtime.checkpoint-every",
        7,
        "--runtime.log-every",
        1,
        "--warm-epochs",
        1,
    ]
    return [
        "distill",
        "--data",
        digits / "train",
        "--teacher",
        teacher,
        "--bags",
        bags,
        "--student",
        "tiny",
        "--objective",
        objective,
        "--out",
        out,
        *small,
        *pace,
    ]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "model.pt", weights_only=True)["state_dict"]


def steps(out: Path) -> list[int]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line["kind"] == "train"]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
