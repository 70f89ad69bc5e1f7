"""Hours that a recipe's card trains, with the settings it trains with: on one GPU and on the eight of a node."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from bingo.bench.predict import passes
from bingo.bench.predict.flow import fused
from bingo.bench.predict.gpus import Machine
from bingo.bench.predict.ladder import chosen
from bingo.bench.predict.step import Job, Step, predict, seconds
from bingo.config import DistillConfig, PretrainConfig
from bingo.config_flags import defaults
from bingo.recipes.cards import IMAGES, TABLE, Card
from bingo.recipes.chains import KEY_DIM
from bingo.recipes.teachers import TEACHERS

GPUS = (1, 8)
AT_ONCE = 256
"""Views that pass the teacher at once while keys are cached."""


def all_hours(machine: Machine, gpus: Sequence[int] = GPUS) -> dict[str, list[float]]:
    """Recipe -> hours to one decimal, for each of these numbers of GPUs."""
    return {name: [round(hours(card, machine, count), 1) for count in gpus] for name, card in TABLE.items()}


def hours(card: Card, machine: Machine, gpus: int) -> float:
    """Of the training, and of caching keys where the card does; the live teacher and the student are compiled.

    Left out: packing, features, bags and evaluations; averages of weights, and the passes of DisCo's; the exchange of
    images for a shuffled batch norm.
    """
    values = {**defaults(DistillConfig if card.distils else PretrainConfig), **card.settings}
    job = job_of(card, values, gpus)
    variant = chosen("compiled" if card.distils else "plain", "yes", cached=card.key_views > 0, graph=False)
    step = predict(job, variant, machine)
    if gpus == 1 and step.host_s > step.gpu_s:
        step = predict(job, replace(variant, graph=True), machine)
    if crops := int(values.get("local_crops", 0)):
        step = _with_local_crops(step, job, crops, values["local_size"], machine)
    return step.hours(IMAGES, card.epochs) + _caching_hours(card, machine) / gpus


def job_of(card: Card, values: dict[str, Any], gpus: int) -> Job:
    """What the card trains. Of several teachers the first: they are of one network."""
    teacher = TEACHERS[next(iter(card.expected))].network if card.distils else card.student
    return Job(
        card.student, teacher, 224, values["optim.batch"] // gpus, card.objective or "pretrain",
        values["contrast.queue"], values["contrast.dim"], values["contrast.hidden"], 1, gpus,
    )  # fmt: skip


def _with_local_crops(step: Step, job: Job, crops: int, size: int, machine: Machine) -> Step:
    kernels = passes.student_pass(job.student, job.rows, size, torch.bfloat16, job.dim, job.hidden, crops)
    joined = fused(kernels)
    parts = {**step.parts, "student": step.parts["student"] + seconds(joined, machine)}
    host = step.host_s and step.host_s + len(joined) * machine.host_s
    return replace(step, parts=parts, host_s=host, launches=step.launches + len(joined))


def _caching_hours(card: Card, machine: Machine) -> float:
    """Of one GPU; the images are decoded meanwhile."""
    if not card.key_views:
        return 0.0
    network = TEACHERS[next(iter(card.expected))].network
    kernels = passes.teacher_pass(network, AT_ONCE, 224, torch.bfloat16, KEY_DIM, 2048, rounded=True)
    return card.key_views * IMAGES / AT_ONCE * seconds(fused(kernels), machine) / 3600
