"""`bingo bench`: env, aot, kernels, step, gpu."""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from bingo.errors import UserError
from bingo.files import write_json

# Measurements that read their own flags.
OWN_FLAGS = {"step": "bingo.bench.step", "gpu": "bingo.bench.gpu"}


def main(argv: list[str]) -> int:
    """Run one measurement; `--json FILE` keeps every sample."""
    if argv and argv[0] in OWN_FLAGS:
        status: int = importlib.import_module(OWN_FLAGS[argv[0]]).main(argv[1:])
        return status
    parser = argparse.ArgumentParser(prog="bingo bench", description="Measurements; each prints a table.")
    parser.add_argument("what", choices=["env", "aot", "kernels", *OWN_FLAGS])
    parser.add_argument("--json", type=Path, help="write the result and the environment here")
    parser.add_argument("--rows", type=int, default=768, help="kernels: query rows R")
    parser.add_argument("--queue", type=int, default=65536, help="kernels: queue length K")
    parser.add_argument("--samples", type=int, default=7, help="kernels: timed samples of each variant")
    options = parser.parse_args(argv)
    result = {"env": env, "aot": aot, "kernels": kernels}[options.what](options)
    if options.json:
        from bingo.environment import fingerprint

        write_json(options.json, {"environment": fingerprint(), options.what: result})
    return 0


def env(options: argparse.Namespace) -> dict[str, Any]:
    """The environment record that every run keeps."""
    import torch  # noqa: F401  (with torch loaded the record names the GPUs)

    from bingo.environment import fingerprint

    record = fingerprint()
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


def kernels(options: argparse.Namespace) -> dict[str, Any]:
    """The chunked loss against the naive one on this machine's CPU."""
    from bingo.bench.kernels import print_table, run

    if min(options.rows, options.queue, options.samples) < 1:
        raise UserError("--rows, --queue and --samples must be at least 1")
    result = run(options.rows, options.queue, samples=options.samples)
    print_table(result)
    return result
