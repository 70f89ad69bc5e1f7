"""`bingo bench`: env, aot, kernels."""

import argparse
import json
from pathlib import Path

from bingo.files import write_json


def main(argv: list[str]) -> int:
    """Run one measurement; `--json FILE` keeps every sample."""
    parser = argparse.ArgumentParser(
        prog="bingo bench", description="Measurements; each prints a table and can write JSON."
    )
    parser.add_argument("what", choices=["env", "aot", "kernels"])
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args(argv)
    result = {"env": env, "aot": aot, "kernels": kernels}[options.what]()
    if options.json:
        write_json(options.json, result)
    return 0


def env() -> dict[str, object]:
    """The environment record that every run keeps."""
    import torch  # noqa: F401  (with torch loaded the record names the GPUs)

    from bingo.environment import fingerprint

    record = fingerprint()
    print(json.dumps(record, indent=2))
    return record
