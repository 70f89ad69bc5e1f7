"""GPU kinds: what the datasheet promises, and the share of it that networks of convolutions reach.

Peaks are those of NVIDIA's datasheets, dense, of the SXM form. The shares (600 of 989 TFLOP/s in bf16, 300 of 495 in
TF32, 2.9 of 3.35 TB/s, 3 microseconds for the shortest kernel) were set on the H100, where with them MLPerf v3.0's
ResNet-50 comes out right (`calibration.py`); the A100's were only checked there, the H200's by nothing.

Links: NVLink as NCCL's rings reach it ("an effective NVLink bandwidth of 370GB/s", NVIDIA/nccl-tests issue 212; about
230 GB/s on an A100, issue 149), one adapter per GPU at 46 of 50 GB/s (issue 290) or 23 of 25.
"""

from dataclasses import dataclass, replace

from bingo.errors import UserError, did_you_mean

MATMUL_SHARE = 600 / 989.4
COPY_SHARE = 2.9 / 3.35
KERNEL_S = 3e-6
HOST_S = 18e-6
"""One launch in eager PyTorch, known within a factor of 2.5: the geometric mean of 7 us, which an EPYC core takes at
best without any GPU (`bingo bench roof`), and 45 us of a public profile (facebookresearch/sam2 issue 768: 1 185
launches in 53.7 ms)."""
DECODER = {"H100": 7000.0, "H200": 7000.0, "A100": 5000.0}
"""JPEGs a second that GPU and library take beside the cores that are counted: MLPerf's H100 row needs 7 009, and DALI
publishes 5 to 7 thousand for an A100."""


@dataclass(frozen=True)
class Machine:
    """What a GPU and its surroundings do: FLOP/s by precision, bytes/s, seconds, all as reached and not as promised."""

    name: str
    bf16: float
    tf32: float
    fp32: float
    """FLOP/s of products: convolutions in bf16, in TF32, and fp32 products, which use no tensor core."""
    memory: float
    """Bytes per second, read and written."""
    kernel_s: float = KERNEL_S
    """The shortest kernel."""
    host_s: float = HOST_S
    """What one launch costs the host in eager PyTorch."""
    nvlink: float = 370e9
    network: float = 46e9
    """Bytes per second and GPU within a node, and between nodes."""
    node_alpha_s: float = 20e-6
    network_alpha_s: float = 10e-6
    """Fixed cost of an all-reduce: within a node, and for every doubling of the number of nodes."""
    straggler: float = 0.0
    """By what share of a step the slowest rank is behind the median; 0 until a result of `bench scaling` says more."""
    decoder: float = 0.0
    """Images a second of the GPU's JPEG decoder."""


def _sxm(name: str, bf16: float, tf32: float, fp32: float, memory: float, nvlink: float, network: float) -> Machine:
    return Machine(
        name, bf16 * MATMUL_SHARE, tf32 * MATMUL_SHARE, fp32 * MATMUL_SHARE, memory * COPY_SHARE,
        nvlink=nvlink, network=network, decoder=DECODER[name],
    )  # fmt: skip


GPUS = {
    "H100": _sxm("H100", 989.4e12, 494.7e12, 66.9e12, 3.35e12, 370e9, 46e9),
    "H200": _sxm("H200", 989.4e12, 494.7e12, 66.9e12, 4.8e12, 370e9, 46e9),
    "A100": _sxm("A100", 312e12, 156e12, 19.5e12, 2.039e12, 230e9, 23e9),
}
"""SXM forms; the A100 with 80 GB."""


def machine(name: str) -> Machine:
    """A kind by name, in whatever case; `UserError` for one that is not in the table."""
    found = GPUS.get(name.upper())
    if found is None:
        raise UserError(
            f"--gpu {name}: no such kind in the table; {did_you_mean(name.upper(), GPUS)}; "
            "or measure yours with `bingo bench roof --json FILE` and add --fit FILE"
        )
    return replace(found)
