"""`bingo bench gpu --out DIR`: all that a GPU has to show: correctness, kernels, a distillation step.

Needs torch and triton alone. Writes DIR/gpu.json (all samples and checks, the environment) after every part and in
between, so that a kill leaves what was done, DIR/gpu.txt, the table that it prints last, and DIR/kernels.txt, that of
`bingo bench kernels`. Exit status 1 if a check failed or could not be run. On a GPU each part, and each group of
checks, has a process of its own: a kernel that crashes or hangs costs one check.

Under a sanitizer (one process, small shapes):
  compute-sanitizer --tool racecheck python -m bingo bench gpu --only correctness --quick --impl hopper --out DIR
One op at the main shape for a profiler, the first launches skipped as warm-up:
  ncu --clock-control none --kernel-name regex:'split_kernel|partials_kernel|bag_kernel' --launch-skip 9
    --launch-count 3 --set full python -m bingo bench gpu --only one --impl hopper --rows 768
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bingo.bench.arguments import pick_device
from bingo.bench.gpu.children import Child, say, work_through
from bingo.bench.gpu.record import Check, Part, PartName, State
from bingo.bench.gpu.rows import rows
from bingo.bench.gpu.table import summarise, table
from bingo.bench.record import write_result
from bingo.errors import UserError
from bingo.files import atomic_write, hash_file, make_folder, write_json

if TYPE_CHECKING:
    import torch

PARTS: tuple[PartName, ...] = ("correctness", "kernels", "step", "bags")
# Shares of the time left when a part begins; what one leaves goes to the next.
SHARES = {"correctness": 0.35, "kernels": 0.55, "step": 0.75, "bags": 1.0}
MARGIN_SECONDS = 15.0
# A check that says nothing for so long counts as hung; a first torch.compile on busy cores takes its time.
SILENCE_SECONDS, COMPILE_SECONDS = 60.0, 150.0
SAVE_SECONDS = 2.0
ONE_CALLS = 5
KERNEL_ROWS = (256, 768, 1536, 3072)
Work = Callable[[str, float, str], None]
"""A child's work: device, seconds, and the file that its findings go to."""


def main(options: argparse.Namespace) -> int:
    """Measure, print the table; 1 if a check failed."""
    device = pick_device("cuda" if options.device == "auto" else options.device)
    if options.only == "one":
        return one(device, options.impl or "auto", options.rows)
    make_folder(options.out)
    run = GpuRun(options, device)
    for part in (options.only,) if options.only else PARTS:
        run.measure(part)
    run.finish()
    return 1 if run.state["failures"] else 0


class GpuRun:
    """One run of the command: its deadline, and what it has found so far, kept in DIR/gpu.json."""

    def __init__(self, options: argparse.Namespace, device: "torch.device") -> None:
        self.options, self.device = options, device
        self.began = time.monotonic()
        self.deadline = self.began + 60 * options.minutes - (MARGIN_SECONDS if device.type == "cuda" else 0)
        self.saved, self.ended = 0.0, False
        self.state: State = {"environment": environment(device), "failures": 0}
        self.save()

    def measure(self, part: PartName) -> None:
        """One part within its share of the time; a part that breaks is a sentence in its place."""
        until = time.monotonic() + SHARES[part] * max(0.0, self.deadline - time.monotonic())
        if self.options.only:
            until = self.deadline
        print(f"[{time.monotonic() - self.began:5.0f} s] {part}, at most {until - time.monotonic():.0f} s", flush=True)
        began = time.monotonic()
        try:
            {"correctness": correctness, "kernels": kernels, "step": step, "bags": bags}[part](self, until)
        except Exception as error:  # a part must not stop the others
            self.put(part, {"error": f"{type(error).__name__}: {error}"})
        self.found(part)["took_seconds"] = round(time.monotonic() - began, 1)
        if "error" in self.state[part]:
            print(f"         {part}: {self.state[part]['error']}", flush=True)
        self.save()

    def found(self, part: PartName) -> Part[Any]:
        """What a part has found so far."""
        nothing: Part[Any] = {}
        return self.state.setdefault(part, nothing)

    def put(self, part: PartName, found: Part[Any]) -> None:
        """Add to what a part has found; written to disk every few seconds."""
        self.found(part).update(found)
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        checks = self.state.get("correctness", {}).get("checks", [])
        bad = sum(check["status"] in ("failed", "missed") for check in checks)
        self.state["failures"] = bad + sum("error" in self.state.get(part, {}) for part in PARTS)
        self.state["seconds"] = round(time.monotonic() - self.began, 1)
        write_result(
            self.options.out / "gpu.json", "gpu", rows(self.state), self.state, partial=not self.ended,
            environment=self.state["environment"],
        )  # fmt: skip
        self.write("gpu.txt", table(self.state))
        if "table" in self.state.get("kernels", {}):
            self.write("kernels.txt", self.state["kernels"]["table"])
        self.saved = time.monotonic()

    def write(self, name: str, lines: list[str]) -> None:
        with atomic_write(self.options.out / name) as file:
            file.write(("\n".join(lines) + "\n").encode())

    def finish(self) -> None:
        """The table, last."""
        self.state["environment"]["nvidia_smi_after"] = nvidia_smi()
        self.ended = True
        self.save()
        print("\n" + (self.options.out / "gpu.txt").read_text(), end="", flush=True)


def environment(device: "torch.device") -> dict[str, Any]:
    """The usual record, and what a GPU number needs beside it; source: content hash of kernels and benchmarks."""
    import torch

    from bingo.environment import environment_record

    top = Path(__file__).resolve().parents[2]
    files = sorted([*top.glob("bench/**/*.py"), *top.glob("kernels/*.py")])
    found = environment_record() | {
        "device": str(device),
        "cuda": torch.version.cuda,
        "nvidia_smi": nvidia_smi(),
        "source": {str(path.relative_to(top)): hash_file(path)[:12] for path in files},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        }
    return found


def nvidia_smi() -> str | None:
    """Driver, clocks, temperature, power and throttle reasons in one line; None without the tool."""
    import subprocess

    fields = "driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_throttle_reasons.active"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def correctness(run: GpuRun, until: float) -> None:
    """Every check, each a record; in processes of their own on a GPU, in this one for --quick and on the CPU."""
    from bingo.bench.gpu.checks import record
    from bingo.bench.gpu.suite import suite

    device, options = run.device, run.options
    quick, impls = options.quick or device.type == "cpu", (options.impl,) if options.impl else ()
    groups = {name: list(tasks) for name, tasks in suite(device, quick=quick, impls=impls).items()}
    checks: list[Check] = []
    run.put("correctness", {"quick": quick, "checks": checks})

    def ended(group: str, item: str, found: Check) -> None:
        checks.append(found)
        if found["status"] == "failed":
            print(f"         FAILED {group}, {item}: {summarise(found)}", flush=True)
        if sum(check["group"] == group for check in checks) == len(groups[group]):
            print(f"         {group}: {len(groups[group])} checks done", flush=True)
        run.put("correctness", {})

    def lost(group: str, item: str, why: str, in_time: bool) -> None:
        ended(group, item, record(group, item, "failed" if in_time else "missed", why))

    if quick:
        for group in groups:
            _in_this_process(device, quick, impls, group, until, ended, lost)
        return
    parallel = max(1, min(12, (len(os.sched_getaffinity(0)) * 3) // 4))
    with tempfile.TemporaryDirectory() as folder:

        def start(group: str, first: int, path: Path) -> Child:
            arguments = [str(device), quick, list(impls), group, first, str(path)]
            return Child(check_group, arguments, path.with_suffix(".log"))

        work_through(groups, start, Path(folder), parallel=parallel, deadline=until, silence=_silence,
                     ended=ended, lost=lost)  # fmt: skip


def _silence(check: str) -> float:
    return COMPILE_SECONDS if "compile" in check else SILENCE_SECONDS


def _in_this_process(
    device: "torch.device", quick: bool, impls: tuple[str, ...], group: str, until: float,
    ended: Callable[[str, str, Check], None], lost: Callable[[str, str, str, bool], None],
) -> None:  # fmt: skip
    from bingo.bench.gpu.checks import perform
    from bingo.bench.gpu.suite import suite

    for name, task in suite(device, quick=quick, impls=impls)[group].items():
        if time.monotonic() < until:
            ended(group, name, perform(group, name, task))
        else:
            lost(group, name, "the time was up", False)


def check_group(name: str, quick: bool, impls: list[str], group: str, first: int, path: str) -> None:
    """A child's work: the checks of one group from item `first` on. Leaves after an error of the device itself."""
    import torch

    from bingo.bench.gpu.checks import perform
    from bingo.bench.gpu.suite import suite

    device = _take(name)
    tasks = suite(device, quick=quick, impls=tuple(impls))[group]
    for number, (item, task) in list(enumerate(tasks.items()))[first:]:
        say(Path(path), {"begin": number})
        found = perform(group, item, task)
        say(Path(path), {"end": number, "record": found})
        try:
            if device.type == "cuda":
                torch.cuda.synchronize()
        except RuntimeError as error:  # the context is lost: the parent starts another process for the rest
            raise SystemExit(f"after {item}: {error}") from error
    say(Path(path), {"done": True})


def _take(name: str) -> "torch.device":
    """The device of that name, made the current one."""
    import torch

    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def kernels(run: GpuRun, until: float) -> None:
    """The kernels beside their peers."""
    _on_a_gpu(run, "kernels", kernel_part, until)


def _on_a_gpu(run: GpuRun, part: PartName, work: Work, until: float) -> None:
    """A part that has a command of its own for CPUs."""
    if run.device.type == "cpu":
        run.put(part, {"skipped": f"a GPU's; on the CPU type `bingo bench {part}`"})
        return
    # It starts nothing new after these seconds, but ends what is under way, and a compilation can take a minute.
    seconds = max(10.0, 0.8 * (until - time.monotonic()))
    _part(run, part, work, seconds, until)


def kernel_part(device: str, seconds: float, path: str) -> None:
    """A child's work: measure, and write {result, table} to `path`."""
    from bingo.bench.kernels.on_gpu import print_table, run_gpu

    found = run_gpu(_take(device), rows=KERNEL_ROWS, seconds_budget=seconds)
    write_json(Path(path), {"result": found})
    lines = io.StringIO()
    with contextlib.redirect_stdout(lines):
        print_table(found)
    write_json(Path(path), {"result": found, "table": lines.getvalue().splitlines()})


def step(run: GpuRun, until: float) -> None:
    """The distillation step beside a release-style one."""
    if run.device.type == "cpu":
        from bingo.bench.step import main as bench_step

        result = bench_step.run(replace(bench_step.default_shape(run.device), samples=3), until - time.monotonic())
        run.put("step", {"result": result})
        return
    seconds = max(10.0, until - time.monotonic() - 5)
    _part(run, "step", step_part, seconds, until)


def step_part(device: str, seconds: float, path: str) -> None:
    """A child's work: measure, writing the result so far to `path`; tiny networks where torchvision is missing."""
    from bingo.bench.step.main import STAND_INS, default_shape, has_torchvision, run

    shape = default_shape(_take(device))
    if not has_torchvision():
        shape = replace(shape, student=STAND_INS[0], teacher=STAND_INS[1])
    run(shape, seconds, lambda found: write_json(Path(path), {"result": found}))


def bags(run: GpuRun, until: float) -> None:
    """Neighbours of 200 000 rows, and what that means for 1.28 million."""
    _on_a_gpu(run, "bags", bags_part, until)


def bags_part(device: str, seconds: float, path: str) -> None:
    """A child's work: measure, and write {result} to `path`."""
    from bingo.bench.neighbours import default_shape, run

    taken = _take(device)
    write_json(Path(path), {"result": run(taken, default_shape(taken), seconds)})


def _part(run: GpuRun, part: PartName, work: Work, seconds: float, until: float) -> None:
    """Run a part in a child that writes its findings to a file; take them over whenever they change."""
    with tempfile.TemporaryDirectory() as folder:
        path, seen = Path(folder) / "part.json", 0.0
        child = Child(work, [str(run.device), seconds, str(path)], Path(folder) / "log")
        try:
            running = True
            while running and time.monotonic() < until:
                time.sleep(0.5)
                running = child.running()
                if path.exists() and path.stat().st_mtime > seen:
                    seen = path.stat().st_mtime
                    run.put(part, json.loads(path.read_text()))
        finally:
            child.stop()
        if path.exists():
            run.put(part, json.loads(path.read_text()))
        if running:
            run.put(part, {"note": "cut off by the time limit"})
            if not path.exists():
                run.put(part, {"error": "the time was up before anything was measured"})
        elif child.process.returncode:
            run.put(part, {"error": child.last_words()})


def one(device: "torch.device", impl: str, rows: int) -> int:
    """`bag_loss` and `queue_softmax` a few times at the main shape (small on the CPU), for a profiler."""
    import torch

    from bingo.bench.gpu.bag_checks import make_bag
    from bingo.bench.gpu.checks import Setting, T
    from bingo.bench.gpu.suite import MAIN
    from bingo.kernels import bag_loss, queue_softmax

    gpu = device.type == "cuda"
    keys, channels = MAIN if gpu else (256, 32)
    s = Setting(device, impl, torch.bfloat16 if gpu else torch.float32, not gpu)
    bag = make_bag(s, rows, 1, keys, channels)
    q, queue = bag.q.detach().to(s.dtype), bag.queue.to(s.dtype)
    try:
        for _ in range(3 + ONE_CALLS):
            bag_loss(bag.q, bag.keys, bag.weights, queue, T, normalize=True, unit_rows=True, impl=impl)
            queue_softmax(q, queue, T, impl=impl, unit_rows=True)
    except (ValueError, ImportError) as error:
        raise UserError(f"--impl {impl}: {error}") from error
    if gpu:
        torch.cuda.synchronize()
    print(f"{3 + ONE_CALLS} calls each of bag_loss and queue_softmax, impl {impl}, R={rows} K={keys} C={channels}")
    return 0
