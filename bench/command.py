"""`bingo bench`: env, aot, kernels, step, loader, bags, gpu."""

import argparse
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from bingo.arguments import Parser
from bingo.bench import arguments
from bingo.errors import UserError, did_you_mean
from bingo.files import write_json

Options = argparse.Namespace


class Measurement(NamedTuple):
    """One line about it, its flags, and what runs with them and returns the exit status."""

    help: str
    flags: Callable[[], Parser]
    run: Callable[[Options], int]


def main(argv: list[str]) -> int:
    """Run one measurement; `--json FILE` keeps every sample. 1 if a check or a gate failed."""
    if argv and argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if not argv or argv[0] not in MEASUREMENTS:
        wrong = f"unknown measurement {argv[0]!r}" if argv else "missing: the measurement"
        raise UserError(f"{wrong}; {did_you_mean(argv[0] if argv else '', MEASUREMENTS)} (see `bingo bench --help`)")
    measurement = MEASUREMENTS[argv[0]]
    return measurement.run(measurement.flags().parse_args(argv[1:]))


def usage() -> str:
    """What can be measured."""
    lines = ["usage: bingo bench MEASUREMENT [flags]   (bingo bench MEASUREMENT --help for its flags)", ""]
    lines += ["Measurements; each prints a table.", "", "example: bingo bench kernels --json kernels.json", ""]
    return "\n".join([*lines, *(f"  {name:10s} {measurement.help}" for name, measurement in MEASUREMENTS.items())])


def env(options: Options) -> int:
    """The environment record that every run keeps."""
    import torch  # noqa: F401  (with torch loaded the record names the GPUs)

    from bingo.environment import environment_record

    record = environment_record()
    print(json.dumps(record, indent=2))
    return keep(options, "env", record)


def keep(options: Options, name: str, result: Any) -> int:
    """Write a result where --json says; 0."""
    if options.json:
        from bingo.environment import environment_record

        write_json(options.json, {"environment": environment_record(), name: result})
    return 0


def aot(options: Options) -> int:
    """Every kernel compiled for sm_80, sm_90 and sm_100, no GPU needed."""
    from bingo.kernels.aot import compile_report, print_table

    try:
        records = [record for arch in (80, 90, 100) for record in compile_report(arch)]
    except ValueError as error:
        raise UserError(str(error)) from error
    print_table(records)
    keep(options, "aot", records)
    return int(any(record["gate"] != "ok" for record in records))


def kernels(options: Options) -> int:
    """Our kernels and their peers on a GPU, or the chunked loss against the naive one on a CPU."""
    check_picture(options)
    from bingo.bench.kernels.on_gpu import print_table, run_any

    name = options.device if options.device != "auto" else arguments.pick_device("auto").type
    seconds = arguments.seconds_on(name, options.seconds, 150.0)
    try:
        result = run_any(name, options.rows, options.queue, options.dim, options.samples, seconds=seconds)
    except ValueError as error:
        raise UserError(str(error)) from error
    print_table(result)
    if options.picture:
        from bingo.bench.kernels.pictures import save_picture

        print(save_picture(result, options.picture))
    return keep(options, "kernels", result)


def check_picture(options: Options) -> None:
    """`UserError` for a picture that could not be written."""
    if options.picture and options.picture.suffix not in (".svg", ".png"):
        raise UserError(f"--picture {options.picture}: the name must end in .svg or .png")
    if options.picture and not options.picture.absolute().parent.is_dir():
        raise UserError(f"--picture {options.picture}: there is no folder {options.picture.parent}; make it first")


def step(options: Options) -> int:
    """One distillation step beside a release-style one."""
    from bingo.bench.step.main import main

    return main(options)


def loader(options: Options) -> int:
    """Decoding, cropping and augmenting, beside other loaders."""
    arguments.check_loader(options)
    from bingo.bench.loader.main import main

    return main(options)


def bags(options: Options) -> int:
    """Exact neighbours, beside faiss and plain PyTorch."""
    from bingo.bench.neighbours import main

    return main(options)


def gpu(options: Options) -> int:
    """Everything a GPU has to show."""
    arguments.check_gpu(options)
    from bingo.bench.gpu.main import main

    return main(options)


MEASUREMENTS = {
    "env": Measurement("the environment record that every run keeps", arguments.env_flags, env),
    "aot": Measurement("every kernel compiled for three GPU generations, without one", arguments.aot_flags, aot),
    "kernels": Measurement("the queue-softmax loss beside its peers", arguments.kernels_flags, kernels),
    "step": Measurement("one distillation step beside a release-style one", arguments.step_flags, step),
    "loader": Measurement("decoding, cropping and augmenting, beside other loaders", arguments.loader_flags, loader),
    "bags": Measurement("exact neighbours, beside faiss and plain PyTorch", arguments.bags_flags, bags),
    "gpu": Measurement("everything a GPU has to show, in one command", arguments.gpu_flags, gpu),
}
