"""`bingo bench`: see `MEASUREMENTS`."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from bingo.arguments import Parser
from bingo.bench import arguments
from bingo.bench.compare.flags import compare_flags, history_flags
from bingo.bench.predict.flags import predict_flags
from bingo.bench.profile.flags import profile_flags
from bingo.bench.roof.flags import roof_flags
from bingo.bench.scaling.flags import scaling_flags
from bingo.errors import UserError, did_you_mean

Options = argparse.Namespace


class Measurement(NamedTuple):
    """One line about it, its flags, and what runs with them and returns the exit status.

    takes_rest: whether words may follow after `--`; they are its `options.rest`.
    """

    help: str
    flags: Callable[[], Parser]
    run: Callable[[Options], int]
    takes_rest: bool = False


def main(argv: list[str]) -> int:
    """Run one measurement; `--json FILE` keeps every sample. 1 if a check or a gate failed."""
    if argv and argv[0] in ("-h", "--help"):
        print(usage())
        return 0
    if not argv or argv[0] not in MEASUREMENTS:
        wrong = f"unknown measurement {argv[0]!r}" if argv else "missing: the measurement"
        raise UserError(f"{wrong}; {did_you_mean(argv[0] if argv else '', MEASUREMENTS)} (see `bingo bench --help`)")
    name, *words = argv
    measurement, rest = MEASUREMENTS[name], list[str]()
    if measurement.takes_rest and "--" in words:
        place = words.index("--")
        words, rest = words[:place], words[place + 1 :]
    options = measurement.flags().parse_args(words)
    options.rest = rest
    if measurement.takes_rest or (getattr(options, "processes", None) or 1) == 1:
        return measurement.run(options)
    from bingo.bench.processes import repeat

    return repeat(name, words, options.processes, options.json)


def usage() -> str:
    """What can be measured."""
    lines = ["usage: bingo bench MEASUREMENT [flags]   (bingo bench MEASUREMENT --help for its flags)", ""]
    lines += ["Measurements; each prints a table.", "", "example: bingo bench kernels --json kernels.json", ""]
    return "\n".join([*lines, *(f"  {name:10s} {measurement.help}" for name, measurement in MEASUREMENTS.items())])


def env(options: Options) -> int:
    """The environment record that every run keeps."""
    import torch  # noqa: F401  (with torch loaded the record names the GPUs)

    from bingo.bench.keeper import Keeper
    from bingo.environment import environment_record

    record = environment_record()
    print("\n".join(table_of(record)))
    return Keeper(options.json, "env").finish([], record)


def table_of(record: dict[str, Any], indent: str = "") -> list[str]:
    """A line per entry of an environment record; what is absent is a dash."""
    lines = []
    for name, value in record.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *table_of(value, indent + "  ")] if value else [f"{indent}{name:24}-"]
            continue
        text = " ".join(map(str, value)) if isinstance(value, list) else str("-" if value is None else value)
        lines.append(f"{indent}{name:{24 - len(indent)}}{text or '-'}")
    return lines


def aot(options: Options) -> int:
    """Every kernel compiled for sm_80, sm_90 and sm_100, no GPU needed."""
    from bingo.bench.keeper import Keeper
    from bingo.bench.kernels.rows import aot_rows
    from bingo.kernels.aot import compile_report, print_table

    keeper, records = Keeper(options.json, "aot"), list[dict[str, Any]]()
    for arch in (80, 90, 100):
        keeper.say(f"compiling for sm_{arch}")
        try:
            records += compile_report(arch)
        except ValueError as error:
            raise UserError(str(error)) from error
        keeper.keep(aot_rows(records), records)
    print_table(records)
    keeper.finish(aot_rows(records), records)
    return int(any(record["gate"] != "ok" for record in records))


def kernels(options: Options) -> int:
    """Our kernels and their peers on a GPU, or the chunked loss against the naive one on a CPU."""
    check_picture(options)
    from bingo.bench.keeper import Keeper
    from bingo.bench.kernels.on_gpu import print_table, run_any
    from bingo.bench.kernels.rows import rows

    name = options.device if options.device != "auto" else arguments.pick_device("auto").type
    seconds = arguments.seconds_on(name, options.seconds, 150.0)
    keeper = Keeper(options.json, "kernels")
    keeper.say(f"on {name}")
    try:
        result = run_any(
            name, options.rows, options.queue, options.dim, options.samples, options.variants, seconds=seconds,
            on_change=lambda found: keeper.keep(rows(found), found),
        )  # fmt: skip
    except ValueError as error:
        raise UserError(str(error)) from error
    print_table(result)
    if options.picture:
        from bingo.bench.kernels.pictures import save_picture

        print(save_picture(result, options.picture))
    return keeper.finish(rows(result), result)


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


def roof(options: Options) -> int:
    """This machine's ceilings."""
    from bingo.bench.roof.main import main

    return main(options)


def predict(options: Options) -> int:
    """Throughput before anything runs."""
    from bingo.bench.predict.main import main

    return main(options)


def scaling(options: Options) -> int:
    """How a training step scales over nodes."""
    from bingo.bench.scaling.main import main

    return main(options)


def gpu(options: Options) -> int:
    """Everything a GPU has to show."""
    arguments.check_gpu(options)
    from bingo.bench.gpu.main import main

    return main(options)


def profile(options: Options) -> int:
    """Some steps of a real training under a profiler."""
    from bingo.bench.profile.main import main

    return main(options)


def compare(options: Options) -> int:
    """Two results, or two checkouts, against each other."""
    from bingo.bench.compare.main import main

    return main(options)


def history(options: Options) -> int:
    """Results over commits and machines."""
    from bingo.bench.history import main

    return main(options)


MEASUREMENTS = {
    "env": Measurement("the environment record that every run keeps", arguments.env_flags, env),
    "aot": Measurement("every kernel compiled for three GPU generations, without one", arguments.aot_flags, aot),
    "kernels": Measurement("the queue-softmax loss beside its peers", arguments.kernels_flags, kernels),
    "step": Measurement("one distillation step beside a release-style one", arguments.step_flags, step),
    "loader": Measurement("decoding, cropping and augmenting, beside other loaders", arguments.loader_flags, loader),
    "bags": Measurement("exact neighbours, beside faiss and plain PyTorch", arguments.bags_flags, bags),
    "roof": Measurement("this machine's ceilings: products, copies, launches, all-reduce", roof_flags, roof),
    "predict": Measurement("throughput and hours to train before anything runs", predict_flags, predict),
    "scaling": Measurement("how a training step scales over nodes of a cluster, or ranks here", scaling_flags, scaling),
    "gpu": Measurement("everything a GPU has to show, in one command", arguments.gpu_flags, gpu),
    "profile": Measurement("some steps of a real training: trace and anatomy", profile_flags, profile),
    "compare": Measurement("two results or two checkouts: faster, slower, same, unsure", compare_flags, compare, True),
    "history": Measurement("committed results over commits and machines", history_flags, history),
}
