"""The result of a kernel benchmark on a GPU, with made-up numbers."""

import torch

from bingo.bench.kernels import tables as kernel_tables
from bingo.bench.kernels.peers import COMPILED, LIBRARIES, PLAIN
from bingo.bench.kernels.record import Case, GpuResult, Roof, Row
from bingo.bench.kernels.rounds import reference
from bingo.bench.kernels.workload import LOSS, LossShape
from bingo.bench.samples import median_interval, ratio_interval


def fake_gpu_result() -> GpuResult:
    """Made-up numbers in the form of a GPU's: for the table and the picture only."""
    generator = torch.Generator().manual_seed(0)
    roof: Roof = {
        "matmul_flops": 790e12, "copy_bytes": 4.3e12, "exp_per_second": 4.2e12, "seconds": {}, "work": "",
    }  # fmt: skip
    factors = {"triton": 1.6, "hopper": 1.25, "triton fp32": 14.0, "chunked": 40.0, "two matrix products": 1.7}
    factors |= {"cuDNN attention": 1.9, "flash attention": 2.2, "naive bf16 autocast": 45.0, "naive fp32": 80.0}
    factors |= {
        "cut_cross_entropy": 4.0,
        "cut_cross_entropy filtered": 3.0,
        "flex_attention": 2.1,
        "liger_kernel": 300.0,
    }
    everything = [*PLAIN[LOSS], *LIBRARIES[LOSS], *(variant for together in COMPILED for variant in together)]
    cases: list[Case] = []
    for rows in (256, 768, 1536, 3072):
        shape = LossShape(rows)
        floors = {"matrix products": shape.flops(LOSS) / 790e12, "exponentials": 0.0, "memory": 0.0}
        case: Case = {
            "rows": rows, "task": LOSS, "flops": shape.flops(LOSS), "results": [], "least_bytes": shape.least_bytes(),
            "floors_s": floors, "floor_s": max(floors.values()),
        }  # fmt: skip
        for variant in everything:
            row: Row = {
                "variant": variant.name, "group": variant.group, "rows": rows, "task": LOSS, "status": "ok",
                "reason": "", "note": variant.note, "repeat": False,
            }  # fmt: skip
            case["results"].append(row)
            if variant.name not in factors:
                row |= {"status": "absent", "reason": f"{variant.name} is not installed"}
                continue
            noise = 1 + 0.02 * torch.randn(50, generator=generator)
            row["samples_s"] = (case["floor_s"] * factors[variant.name] * noise).tolist()
            summary = median_interval(row["samples_s"])
            row |= {"median_s": summary["median"], "interval_s": summary["interval"], "n": 50, "method": "CUDA graph"}
            row |= {"flops_per_second": case["flops"] / row["median_s"], "host_s": [3e-5], "extra_bytes": 8_000_000}
            row |= {"over_floor": row["median_s"] / case["floor_s"], "error": {"loss": 1e-6, "dq": 9e-5}}
            row |= {"share_of_roof": row["flops_per_second"] / roof["matmul_flops"]}
            if "attention" in variant.name:
                row["option"] = "16"
        best = reference(case["results"])
        assert best is not None
        for row in case["results"]:
            if "samples_s" in row and row is not best:
                row["over_ours"] = {**ratio_interval(row["samples_s"], best["samples_s"]), "ours": best["variant"]}
        cases.append(case)
    return {
        "kind": "gpu",
        "device": {
            "type": "cuda", "name": "NOT MEASURED, A TEST'S NUMBERS", "l2_bytes": 50_000_000, "torch": "0",
            "triton": "0",
        },
        "shape": {"rows": [256], "queue": 65536, "dim": 128, "positives": 2, "temperature": 0.2, "dtype": "bfloat16"},
        "settings": {"rounds": 5, "samples": 5, "repeats": 20, "queues": 6, "seed": 0, "seconds_budget": 150.0,
                     "order": "ABBA"},
        "roof": roof,
        "cases": cases,
        "seconds": 1.0,
        "aims": kernel_tables.aims(LossShape(256), cases),
    }  # fmt: skip
