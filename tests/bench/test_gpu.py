"""`bingo bench gpu` on the CPU: its checks on small shapes, its files, what a failure does, and children that die."""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bingo.bench.gpu import bag_checks as gpu_bag_checks
from bingo.bench.gpu import checks as gpu_checks
from bingo.bench.gpu import main as gpu
from bingo.bench.gpu import suite as gpu_suite
from bingo.bench.gpu import view_checks as gpu_view_checks
from bingo.bench.gpu.checks import Outcome, Setting, Skip, perform
from bingo.bench.gpu.children import Child, work_through
from bingo.bench.gpu.record import Check, State
from bingo.bench.gpu.table import MOST_LINES, table
from bingo.bench.step import main as bench_step
from bingo.cli import main
from bingo.kernels import NewKeys, bag_loss, queue_softmax
from bingo.kernels.augment import augment
from bingo.kernels.triton_queue_softmax import is_interpreted
from tests.support import fake_group
from tests.support.fake_group import ITEMS
from tests.support.ranks import ROOT
from tests.support.toy_step import BARE, TOY

CPU = torch.device("cpu")
KEYS = set(Check.__annotations__)
interpreted = pytest.mark.skipif(not is_interpreted(), reason="the kernels run on a GPU here")


def few(kind: str, only: Callable[[str], bool] = lambda name: True) -> Callable[..., gpu_suite.Suite]:
    """The suite with one kind of group and some of its checks."""
    whole = gpu_suite.suite

    def suite(device: torch.device, *, quick: bool, impls: tuple[str, ...] = ()) -> gpu_suite.Suite:
        groups = {g: tasks for g, tasks in whole(device, quick=quick, impls=impls).items() if kind in g}
        return {g: {n: task for n, task in tasks.items() if only(n)} for g, tasks in groups.items()}

    return suite


def run(out: Path, *words: str) -> tuple[int, dict[str, Any]]:
    status = main(["bench", "gpu", "--device", "cpu", "--out", str(out), *words])
    return status, json.loads((out / "gpu.json").read_text())


def test_whole_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_suite, "suite", few("chunked", lambda name: "compile" not in name))
    monkeypatch.setattr(bench_step, "default_shape", lambda device: TOY)
    status, state = run(tmp_path, "--impl", "chunked")
    assert status == 0
    checks = state["correctness"]["checks"]
    assert len({(c["group"], c["name"]) for c in checks}) == len(checks) > 80
    assert all(set(c) == KEYS for c in checks)
    assert all(c["ok"] and c["error"] <= c["bound"] for c in checks if c["status"] != "skipped")
    assert {c["note"] for c in checks if c["status"] == "skipped"} == {"needs a CUDA device"}
    assert "bench kernels" in state["kernels"]["skipped"]
    assert len(state["step"]["result"]["variants"]["ours fp32"]["seconds"]["samples"]) == 3
    assert {"kernels/ring.py", "bench/samples.py", "bench/gpu/checks.py"} <= state["environment"]["source"].keys()
    printed = capsys.readouterr().out
    text = (tmp_path / "gpu.txt").read_text()
    assert printed.endswith(text)
    assert len(text.splitlines()) <= MOST_LINES
    assert "0 failed" in text
    assert "0 failure(s)" in text.splitlines()[-1]


@pytest.mark.slow
@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_triton_kernels_pass(dtype: torch.dtype) -> None:
    s = Setting(CPU, "triton", dtype, True)
    tasks = gpu_suite._shapes(s)["shapes"] | gpu_suite._loss(s) | gpu_suite._edges(s)
    wanted = (
        "R=",
        "bag_loss, normalize",
        "ring, with ids",
        "nothing else counts, K=140",
        "NaN",
        "rows of",
        "a row",
        "ranks",
    )
    found = [perform("triton", name, task) for name, task in tasks.items() if name.startswith(wanted)]
    assert [record for record in found if not record["ok"]] == []
    assert len(found) == 15


def test_the_suite_for_a_gpu_is_listed_without_one() -> None:
    groups = gpu_suite.suite(torch.device("cuda", 0), quick=False)
    assert sum(map(len, groups.values())) > 250
    for group in (
        "triton bf16 loss",
        "hopper bf16 shapes, C=128",
        "triton fp32 edges",
        "hopper runtime",
        "triton step",
    ):
        assert group in groups
    assert "gates, R=3072 K=65536 C=128" in groups["hopper bf16 loss"]
    assert "K * C beyond 2^31" in groups["triton runtime"]


def wrong_lse(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    lse, mean = queue_softmax(*args, **kwargs)
    return lse + 0.1, mean


def last_key_missing(q: torch.Tensor, queue: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return queue_softmax(q, queue[:-1] if len(queue) > 1 else queue, *args, **kwargs)


def one_key_too_many(q: torch.Tensor, queue: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    return queue_softmax(q, torch.cat([queue, torch.zeros_like(queue[:1])]), *args, **kwargs)


def not_a_number(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    lse, mean = queue_softmax(*args, **kwargs)
    return lse * math.nan, mean


@pytest.mark.parametrize(
    ("function", "kind", "check"),
    [
        (wrong_lse, "fp32 shapes", "R=65"),
        (last_key_missing, "bf16 edges", "every key counts, K=140, t=0.05"),
        (one_key_too_many, "bf16 edges", "nothing else counts, K=140, t=0.2"),
        (not_a_number, "fp16 shapes", "R=1 K=1"),
    ],
)
def test_a_wrong_kernel_is_found(
    function: Callable[..., Any], kind: str, check: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(gpu_suite, "suite", few(kind, lambda name: name.startswith(check)))
    monkeypatch.setattr(gpu_checks, "queue_softmax", function)
    status, state = run(tmp_path, "--only", "correctness", "--impl", "chunked")
    (found,) = state["correctness"]["checks"]
    assert (status, found["status"], found["ok"]) == (1, "failed", False)
    assert state["failures"] == 1
    assert f"FAILED chunked {kind}, {found['name']}" in capsys.readouterr().out
    assert "1 failure(s)" in (tmp_path / "gpu.txt").read_text()


def test_a_wrong_ring_write_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def early(*args: Any, new_keys: NewKeys, **kwargs: Any) -> torch.Tensor:
        loss = bag_loss(*args, new_keys=new_keys, **kwargs)
        new_keys.cursor[0] -= 1
        return loss

    monkeypatch.setattr(gpu_bag_checks, "bag_loss", early)
    s = Setting(CPU, "chunked", torch.float32, True)
    found = perform("g", "ring", lambda: gpu_bag_checks.writes_ring(s, 64, 5, 62, 32, ids=False))
    assert found["status"] == "failed"
    assert "cursor is [2, 0], not [3, 0]" in found["note"]


@pytest.mark.slow
@interpreted
def test_views_pass_and_a_wrong_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = gpu_suite._views(Setting(CPU, "triton", torch.float16, True))
    found = {name: perform("views", name, task) for name, task in tasks.items()}
    assert {name: record["status"] for name, record in found.items()} == {
        "augment, 8 of 20x20": "passed",
        "augment, 3 of 31x41": "passed",
        "cutmix": "passed",
        "views without host synchronisation": "skipped",
    }
    for error, words in ((0.02, "0.0"), (0.1, "levels off")):

        def wrong(*args: Any, error: float = error, **kwargs: Any) -> torch.Tensor:
            views = augment(*args, **kwargs)
            views[0, 0, :4] += error * (kwargs["impl"] == "triton")
            return views

        monkeypatch.setattr(gpu_view_checks, "augment", wrong)
        record = perform("views", "augment", tasks["augment, 8 of 20x20"])
        assert record["status"] == "failed"
        assert words in f"{record['error']} {record['note']}"


def test_whatever_happens_in_a_check_becomes_a_record() -> None:
    def breaks() -> Outcome:
        raise RuntimeError("CUDA error: an illegal memory access\nmore")

    def skips() -> Outcome:
        raise Skip("no such thing")

    outcomes = {
        "passed": lambda: Outcome(1.0, 1.0),
        "failed": lambda: Outcome(math.nan, 1.0),
        "skipped": skips,
    }
    for status, task in outcomes.items():
        found = perform("g", "n", task)
        assert (found["status"], set(found)) == (status, KEYS)
        json.dumps(found, allow_nan=False)
    assert perform("g", "n", breaks)["note"].startswith("RuntimeError: CUDA error: an illegal memory access (test_")


def test_only_hopper_may_refuse_and_only_outside_its_domain() -> None:
    for impl, expected in (("hopper", Skip), ("triton", ValueError)):
        s = Setting(CPU, impl, torch.float32, True)
        with pytest.raises(expected), gpu_checks.allowed(s, 128, 64, 0.2):
            raise ValueError("not here")


def test_a_long_table_is_cut() -> None:
    packages = {"torch": "2", "triton": "3"}
    checks = [
        gpu_checks.record(f"triton bf16 {i}", f"n{i}", "failed", "w" * 200, error=2.0, bound=1.0) for i in range(99)
    ]
    state: State = {
        "environment": {"gpu": [], "device": "cpu", "cpu": "x", "packages": packages, "python": "3", "git": ""},
        "failures": 99, "seconds": 1.0,
        "correctness": {"quick": False, "checks": checks},
        "kernels": {"table": [f"row {i}" for i in range(80)], "result": {"aims": []}},
        "step": {"error": "none"},
    }  # fmt: skip
    lines = table(state)
    assert len(lines) <= MOST_LINES
    assert any("more, in gpu.json" in line for line in lines)
    assert any("more lines, in gpu.json" in line for line in lines)
    assert max(map(len, lines)) <= 160
    state["kernels"]["result"]["aims"] = [{"text": "768: reached"}]
    assert "  768: reached" in table(state)


def children(
    work: Callable[..., None], groups: dict[str, list[str]], folder: Path, *, seconds: float, silence: float
) -> list[tuple]:
    heard: list[tuple] = []

    def start(group: str, first: int, path: Path) -> Child:
        return Child(work, [first, str(path)], path.with_suffix(".log"))

    work_through(
        groups, start, folder, parallel=2, deadline=time.monotonic() + seconds, silence=lambda item: silence,
        ended=lambda group, item, record: heard.append((group, item, record["seconds"])),
        lost=lambda *loss: heard.append(loss),
    )  # fmt: skip
    return heard


def test_children_that_die_or_hang_cost_one_item_each(tmp_path: Path) -> None:
    heard = children(fake_group.work, {"g": ITEMS}, tmp_path, seconds=900, silence=10)
    assert [entry[1] for entry in heard] == ITEMS
    assert [entry for entry in heard if len(entry) == 3] == [("g", "good", 0), ("g", "last", 3)]
    died, hung = (entry for entry in heard if len(entry) == 4)
    assert died[2:] == ("the process died: exit status 11, last output: something about memory", True)
    assert hung[2:] == ("no answer for 10 s", True)


def test_a_child_that_never_starts_and_a_deadline(tmp_path: Path) -> None:
    lost = children(fake_group.never_starts, {"g": ["a", "b"]}, tmp_path, seconds=900, silence=900)
    assert [entry[1] for entry in lost] == ["a", "b"]
    assert all("exit status 1, last output: no such device" in entry[2] and entry[3] for entry in lost)
    (tmp_path / "late").mkdir()
    groups = {"g": ["a", "b"], "h": ["c"], "i": ["d"]}
    late = children(fake_group.sleeps, groups, tmp_path / "late", seconds=1, silence=900)
    assert sorted(entry[1] for entry in late) == ["a", "b", "c", "d"]
    assert all(entry[2:] == ("the time was up", False) for entry in late)


def test_a_part_that_breaks_leaves_what_it_found(tmp_path: Path) -> None:
    options = argparse.Namespace(out=tmp_path, minutes=1.0, only=None, quick=True, impl=None)
    run = gpu.GpuRun(options, CPU)
    gpu._part(run, "kernels", fake_group.part, 1.0, time.monotonic() + 900)
    run.finish()
    state = json.loads((tmp_path / "gpu.json").read_text())
    assert state["kernels"] == {
        "result": {"aims": []}, "table": ["a row"], "error": "exit status 1, last output: out of memory",
    }  # fmt: skip
    assert state["failures"] == 1
    assert "a row" in (tmp_path / "gpu.txt").read_text()


def test_what_the_time_cuts_off_is_said_and_is_a_failure(tmp_path: Path) -> None:
    status, state = run(tmp_path, "--only", "correctness", "--impl", "chunked", "--minutes", "0.000001")
    assert status == 1
    assert {c["status"] for c in state["correctness"]["checks"]} == {"missed"}
    assert "MISSED" in (tmp_path / "gpu.txt").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--device cpu", "--out is missing; add --out DIR"),
        ("--device cpu --out x --minutes 0", "--minutes: '0' is not above 0"),
        ("--device cpu --out x --only all", "--only: 'all' is not allowed"),
        ("--device cpu --only one --rows 0", "'0' is not a whole number of at least 1"),
        ("--device cpu --only one --impl hopper", "hopper"),
        ("--device cpu --out x --rows 8", "--rows says nothing without --only one"),
        ("--device cpu --out x --only step --quick", "--quick says nothing beside --only step"),
        ("--device cpu --out x --only bags --impl triton", "--impl says nothing beside --only bags"),
        ("--device cpu --out x --only one", "--out says nothing beside --only one"),
        ("--device cpu --only one --minutes 3", "--minutes says nothing beside --only one"),
        pytest.param(
            "--out x", "torch sees no GPU; add --device cpu",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)  # fmt: skip
def test_wrong_flags_are_one_sentence(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "gpu", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_one_op_for_a_profiler(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", "--device", "cpu", "--only", "one", "--impl", "chunked", "--rows", "5"]) == 0
    assert "8 calls each of bag_loss and queue_softmax, impl chunked, R=5" in capsys.readouterr().out


def test_the_checks_of_a_child(tmp_path: Path) -> None:
    heard: list[Check] = []
    group = "chunked fp32 shapes"
    names = list(gpu_suite.suite(CPU, quick=True, impls=("chunked",))[group])

    def start(name: str, first: int, path: Path) -> Child:
        arguments = ["cpu", True, ["chunked"], name, first + 2, str(path)]
        return Child(gpu.check_group, arguments, path.with_suffix(".log"))

    work_through(
        {group: names}, start, tmp_path, parallel=1, deadline=time.monotonic() + 900, silence=gpu._silence,
        ended=lambda group, item, record: heard.append(record), lost=lambda *loss: pytest.fail(str(loss)),
    )  # fmt: skip
    assert [record["name"] for record in heard] == names[2:]
    assert all(record["ok"] for record in heard)


def test_runs_with_torch_alone() -> None:
    words = ["bench", "gpu", "--device", "cpu", "--only", "one", "--rows", "4"]
    done = subprocess.run([sys.executable, "-c", BARE, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "R=4 K=256" in done.stdout
