"""What ranks exchange in a step, and for how long: alpha-beta per link, DDP's buckets, what the backward pass hides."""

import math
from collections.abc import Sequence

from bingo.bench.predict.gpus import Machine

FIRST_BUCKET, BUCKET = 1 << 20, 25 << 20
"""DDP's: bytes of the first bucket, which is sent earliest, and of the others."""
RELEASE_GATHERS = 7
"""Blocking collectives of a step of the published code; two of them gather images."""


def all_reduce_s(size: float, machine: Machine, nodes: int, per_node: int) -> float:
    """Seconds to add up `size` bytes: rings within nodes, and between nodes each GPU its share of the node's sum."""
    if nodes * per_node == 1:
        return 0.0
    within = 2 * (per_node - 1) / per_node * size / machine.nvlink
    between = 2 * (nodes - 1) / nodes * size / per_node / machine.network
    return _alpha(machine, nodes, per_node) + within + between


def all_gather_s(size: float, machine: Machine, nodes: int, per_node: int) -> float:
    """Seconds until every rank has the `size` bytes of each."""
    if nodes * per_node == 1:
        return 0.0
    within = (nodes * per_node - 1) * size / machine.nvlink
    between = (nodes - 1) * size / machine.network
    return _alpha(machine, nodes, per_node) + max(within, between)


def _alpha(machine: Machine, nodes: int, per_node: int) -> float:
    inside = machine.node_alpha_s if per_node > 1 else 0.0
    return inside + machine.network_alpha_s * math.ceil(math.log2(nodes))


def buckets(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """DDP's buckets of gradients in the order of the backward pass: (bytes, how many gradients have to be ready).

    sizes: bytes of each gradient, in the order of the forward pass.
    """
    found: list[tuple[int, int]] = []
    filled = 0
    for ready, size in enumerate(reversed(sizes), 1):
        filled += size
        if filled >= (BUCKET if found else FIRST_BUCKET):
            found.append((filled, ready))
            filled = 0
    return [*found, (filled, len(sizes))] if filled else found


def exposed_s(
    sizes: Sequence[int], backward_s: float, views: int, machine: Machine, nodes: int, per_node: int
) -> float:
    """How long the ranks still wait for each other's gradients after the backward pass.

    A gradient is ready once the pass has gone through every view; the first view comes last, so buckets leave during
    the last of `views` equal parts, as evenly as there are gradients.
    """
    end = 0.0
    for size, ready in buckets(sizes):
        start = backward_s * (1 - (1 - ready / len(sizes)) / views)
        end = max(end, start) + all_reduce_s(size, machine, nodes, per_node)
    return max(0.0, end - backward_s)


def release_gathers_s(rows: int, size: int, machine: Machine, nodes: int, per_node: int) -> float:
    """The blocking gathers of a release-style step: fp32 images of both key views, and small ones."""
    images = all_gather_s(4 * 3 * rows * size * size, machine, nodes, per_node)
    return 2 * images + (RELEASE_GATHERS - 2) * all_gather_s(4 * rows, machine, nodes, per_node)
