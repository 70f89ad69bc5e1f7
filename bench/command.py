"""`bingo bench`: env, aot, kernels, step, loader, bags, gpu."""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import write_json

# Measurements that read their own flags.
OWN_FLAGS = {
    "step": "bingo.bench.step.main",
    "loader": "bingo.bench.loader.main",
    "bags": "bingo.bench.neighbours",
    "gpu": "bingo.bench.gpu.main",
}


def main(argv: list[str]) -> int:
    """Run one measurement; `--json FILE` keeps every sample. 1 if a check or a gate failed."""
    if argv and argv[0] in OWN_FLAGS:
        status: int = importlib.import_module(OWN_FLAGS[argv[0]]).main(argv[1:])
        return status
    parser = argparse.ArgumentParser(prog="bingo bench", description="Measurements; each prints a table.")
    parser.add_argument("what", choices=["env", "aot", "kernels", *OWN_FLAGS])
    parser.add_argument("--json", type=Path, help="write the result and the environment here")
    add_kernel_flags(parser)
    options = parser.parse_args(argv)
    result: Any = {"env": env, "aot": aot, "kernels": kernels}[options.what](options)
    if options.json:
        from bingo.environment import environment_record

        write_json(options.json, {"environment": environment_record(), options.what: result})
    return 1 if options.what == "aot" and any(record["gate"] != "ok" for record in result) else 0


def env(options: argparse.Namespace) -> dict[str, Any]:
    """The environment record that every run keeps."""
    import torch  # noqa: F401  (with torch loaded the record names the GPUs)

    from bingo.environment import environment_record

    record = environment_record()
    print(json.dumps(record, indent=2))
    return record


def aot(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every kernel compiled for sm_80, sm_90 and sm_100, no GPU needed."""
    from bingo.kernels.aot import compile_report, print_table

    try:
        records = [record for arch in (80, 90, 100) for record in compile_report(arch)]
    except ValueError as error:
        raise UserError(str(error)) from error
    print_table(records)
    return records


def add_kernel_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `kernels`; None stands for what differs between a CPU and a GPU."""
    group = parser.add_argument_group("kernels")
    group.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda or cuda:N")
    group.add_argument("--rows", type=int, nargs="+", help="query rows R: one on a CPU, several on a GPU")
    group.add_argument("--queue", type=int, default=65536, help="queue length K")
    group.add_argument("--dim", type=int, default=128, help="channels C")
    group.add_argument("--samples", type=int, help="timed samples of each variant; GPU: in each of 10 visits")
    group.add_argument("--seconds", type=float, default=150.0, help="GPU: start nothing new after this long")
    group.add_argument("--picture", type=Path, help="draw the result here, .svg or .png (needs matplotlib)")


def kernels(options: argparse.Namespace) -> object:
    """Our kernels and their peers on a GPU, or the chunked loss against the naive one on a CPU."""
    from bingo.bench.kernels.on_gpu import print_table, run_any

    if options.picture and options.picture.suffix not in (".svg", ".png"):
        raise UserError(f"--picture {options.picture}: the name must end in .svg or .png")
    if options.picture and not options.picture.absolute().parent.is_dir():
        raise UserError(f"--picture {options.picture}: there is no folder {options.picture.parent}; make it first")
    try:
        result = run_any(
            options.device, options.rows, options.queue, options.dim, options.samples, seconds=options.seconds
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    print_table(result)
    if options.picture:
        from bingo.bench.kernels.pictures import save_picture

        print(save_picture(result, options.picture))
    return result
