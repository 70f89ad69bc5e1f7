"""The table of `bingo bench gpu`: at most 60 lines."""

from typing import TYPE_CHECKING, Any

from bingo.bench.gpu.record import Check, Part, State

if TYPE_CHECKING:
    from bingo.bench import neighbours
    from bingo.bench.kernels.record import GpuResult
    from bingo.bench.step import record as step

MOST_LINES, MOST_COLUMNS = 60, 160
MOST_FAILURES = 10
STATUSES = ("passed", "failed", "skipped", "missed")


def table(state: State) -> list[str]:
    """Environment, verdict of correctness, kernel rows, step rows; longer parts are cut and say so."""
    head = _environment(state["environment"])
    checks = _correctness(state["correctness"]) if "correctness" in state else []
    step = _step(state["step"]) if "step" in state else []
    step += _bags(state["bags"]) if "bags" in state else []
    room = MOST_LINES - len(head) - len(checks) - len(step) - 1
    kernels = _cut(_kernels(state["kernels"]), max(4, room)) if "kernels" in state else []
    return [*head, *checks, *kernels, *step, f"{state['failures']} failure(s), {state['seconds']:.0f} s"]


def summarise(check: Check) -> str:
    """What a check found, in a few words."""
    if check["error"] is None:
        return str(check["note"])
    error, bound = check["error"], check["bound"]
    shown = error if isinstance(error, str) else f"{error:.3g}"
    return f"{shown} (bound {bound:.3g}) {check['note']}".rstrip()


def _environment(found: dict[str, Any]) -> list[str]:
    gpu = ", ".join(found["gpu"]) if found["device"] != "cpu" and found["gpu"] else found["cpu"]
    packages = found["packages"]
    return [
        f"{gpu}; torch {packages['torch']}, triton {packages['triton']}, python {found['python']}, "
        f"git {found['git'] or 'unknown'}",
        *([f"nvidia-smi: {found['nvidia_smi'].splitlines()[0]}"] if found.get("nvidia_smi") else []),
    ]


def _correctness(found: Part[None]) -> list[str]:
    if "error" in found:
        return [f"correctness: {found['error']}"]
    checks = found["checks"]
    counts = {status: sum(c["status"] == status for c in checks) for status in STATUSES}
    lines = [f"correctness{' (small shapes)' if found['quick'] else ''}: "
             + ", ".join(f"{count} {status}" for status, count in counts.items())]  # fmt: skip
    groups: dict[str, list[Check]] = {}
    for check in checks:
        groups.setdefault(" ".join(check["group"].split()[:2]), []).append(check)
    for name, group in groups.items():
        shares = [c["error"] / c["bound"] for c in group if isinstance(c["error"], float) and c["bound"]]
        worst = f"largest error {max(shares):.2f} of its bound" if shares else ""
        passed, skipped = (sum(c["status"] == status for c in group) for status in ("passed", "skipped"))
        reason = next((c["note"] for c in group if c["status"] == "skipped"), "")
        note = f"; {skipped} skipped: {reason[:90]}" if skipped else ""
        lines.append(f"  {name:18} {passed:>3} of {len(group):<3} passed  {worst}{note}")
    bad = [c for c in checks if c["status"] in ("failed", "missed")]
    lines += [
        f"  {c['status'].upper()} {c['group']}, {c['name']}: {summarise(c)}"[:MOST_COLUMNS] for c in bad[:MOST_FAILURES]
    ]
    return lines + ([f"  and {len(bad) - MOST_FAILURES} more, in gpu.json"] if len(bad) > MOST_FAILURES else [])


def _kernels(found: "Part[GpuResult]") -> list[str]:
    """The aims beside what was measured, where the benchmark gives them; its whole table is in kernels.txt."""
    lines = list(found.get("table", []))
    if "result" in found and found["result"]["aims"]:
        lines = [*lines[:2], "aims of the kernels (the whole table: kernels.txt):"]
        lines += [f"  {aim['text']}" for aim in found["result"]["aims"]]
    return [line[:MOST_COLUMNS] for line in _remark("kernels", found) + lines]


def _step(found: "Part[step.Result]") -> list[str]:
    from bingo.bench.step.table import table as step_table

    return _remark("step", found) + (step_table(found["result"]) if "result" in found else [])


def _bags(found: "Part[neighbours.Result]") -> list[str]:
    from bingo.bench.neighbours import table as bags_table

    return _remark("bags", found) + (bags_table(found["result"]) if "result" in found else [])


def _remark(name: str, found: Part[Any]) -> list[str]:
    """Why something is not there, if so."""
    remark = found.get("error") or found.get("skipped") or found.get("note")
    return [f"{name}: {remark}"] if remark else []


def _cut(lines: list[str], most: int) -> list[str]:
    return lines if len(lines) <= most else [*lines[: most - 1], f"... {len(lines) - most + 1} more lines, in gpu.json"]
