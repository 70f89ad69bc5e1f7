"""Attention, whose speed is published, as the ruler of the cost model: `python -m tests.support.attention`.

Prints the table of docs/cost-model.md (half a minute). TRITON_INTERPRET must not be set.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import triton
import triton.language as tl

from bingo.kernels.aot import report
from bingo.kernels.cycles import PRODUCTS, together
from bingo.kernels.triton_queue_softmax import load_tile
from bingo.kernels.variants import Variant

REACHED = {80: 0.8 * 312, 90: 790, 100: 0.8 * 2250}
"""TFLOP/s of a plain product in bf16: published for an H200 with random data, 80 % of the peak; the same share for an
A100 (NVIDIA/cutlass issue 105) and, assumed, a B200."""


@dataclass(frozen=True)
class Published:
    """A forward pass without mask over 8 to 16 thousand keys, TFLOP/s. issue: instructions per warp and tile, if many.

    launch: rows, keys, warps and stages, where the model reads the compiled kernel; without it, it takes two products
    and an exponential per score by `overlap`.
    """

    name: str
    arch: int
    channels: int
    speed: float
    overlap: str = ""
    issue: int = 0
    launch: tuple[int, int, int, int] | None = None


BY_HAND = (
    Published("FlashAttention-3, H100", 90, 64, 497, "warp"),
    Published("FlashAttention-3, H100", 90, 128, 648, "warp"),
    Published("FlashAttention-3, H100", 90, 256, 756, "warp"),
    Published("FlashAttention-3 without overlap inside a warp, H100", 90, 128, 582, "blocks"),
    Published("TLX, warp-specialised and pipelined, H100", 90, 128, 611, "warp"),
    Published("TLX, warp-specialised, H100", 90, 128, 502, "blocks"),
    # 256 HMMA, 64 LDSM of 32 rows per warp, and 355 of the softmax.
    Published("FlashAttention-2, A100", 80, 128, 0.7 * 312, "blocks", issue=675),
    Published("FlashAttention-4, B200", 100, 128, 1605, "warp"),
)
"""Sources: the papers of FlashAttention-3 (figures and table of the ablation) and FlashAttention-4; pull request 206 of
facebookexperimental/triton; "around 70%" of the A100's peak, issue 1059 of Dao-AILab/flash-attention."""
COMPILED = (
    Published("Triton tutorial, H100", 90, 64, 403, launch=(128, 64, 4, 3)),
    Published("Triton tutorial, H100", 90, 128, 487, launch=(128, 128, 8, 2)),
    Published("Triton tutorial of 2024, H100", 90, 128, 395, launch=(128, 128, 8, 2)),
    Published("Triton tutorial, B200", 100, 128, 746, launch=(128, 128, 8, 2)),
)
"""The paper of FlashAttention-3 (64 channels, and that of 2024), the pull request above, and pull request 1014 of
meta-pytorch/tritonbench. The launch is the model's favourite among some of the tutorial's."""


@triton.jit
def attention_kernel(  # type: ignore[no-untyped-def]
    q_ptr, keys, values, out_ptr, K, scale, C: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, TMA: tl.constexpr
):  # fmt: skip
    """BM rows over K keys and as many values; one head, no mask."""
    rows = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    cols = tl.arange(0, C)
    q = tl.load(q_ptr + rows[:, None] * C + cols[None, :])
    largest = tl.full([BM], -float("inf"), tl.float32)
    total = tl.zeros([BM], tl.float32)
    mean = tl.zeros([BM, C], tl.float32)
    for first in range(0, K, BN):
        z = tl.dot(q, tl.trans(load_tile(keys, first, cols, cols, C, C, BN, TMA, True)))
        larger = tl.maximum(largest, tl.max(z, 1) * scale)
        weights = tl.exp2(z * scale - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        v = load_tile(values, first, cols, cols, C, C, BN, TMA, True)
        mean = tl.dot(weights.to(v.dtype), v, mean * shrink[:, None])
        largest = larger
    tl.store(out_ptr + rows[:, None] * C + cols[None, :], mean / total[:, None])


def compiled_share(row: Published) -> float:
    """The share of the tensor cores' peak that the model gives the compiled kernel."""
    assert row.launch
    rows, keys, warps, stages = row.launch
    tile = f"tensordesc<bf16[{keys},{row.channels}]>"
    signature = {"q_ptr": "*bf16", "keys": tile, "values": tile, "out_ptr": "*fp32", "K": "i32", "scale": "fp32"}
    constants = {"C": row.channels, "BM": rows, "BN": keys, "TMA": True}
    variant = Variant(
        "attention", "", "bf16", row.channels, attention_kernel, signature, constants, warps, stages, tile=(rows, keys),
        products=2,
    )  # fmt: skip
    return float(report(variant, row.arch)["cost"]["peak"])


def share_by_hand(row: Published) -> float:
    """The same of two products and one exponential per score."""
    products = 64 * 128 * row.channels * 2 / PRODUCTS[row.arch]
    pipes = {"tensor": products, "mufu": 64 * 128 / 16, "issue": float(row.issue)}
    return products / together(pipes, row.overlap)


def lines(rows: Iterator[tuple[Published, float]]) -> Iterator[str]:
    """A line of the document's table for every row and its share."""
    for row, share in rows:
        found = share * REACHED[row.arch]
        yield f"| {row.name} | {row.channels} | {row.speed:.0f} | {found:.0f} | {found / row.speed - 1:+.0%} |"


if __name__ == "__main__":
    print("\n".join(lines((row, share_by_hand(row)) for row in BY_HAND)))
    print("\n".join(lines((row, compiled_share(row)) for row in COMPILED)))
