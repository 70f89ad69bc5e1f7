"""What `bingo bench gpu` found as rows of the one schema: those of its parts, and how many checks ended how."""

from bingo.bench.gpu.record import State
from bingo.bench.record import Row


def rows(state: State) -> list[Row]:
    """Rows of every part that has a result, and the number of checks that failed of each group."""
    from bingo.bench import neighbours
    from bingo.bench.kernels.rows import rows as kernel_rows
    from bingo.bench.step.rows import rows as step_rows

    made = _checks(state)
    if "result" in (kernels := state.get("kernels", {})):
        made += kernel_rows(kernels["result"])
    if "result" in (step := state.get("step", {})):
        made += step_rows([step["result"]])
    if "result" in (bags := state.get("bags", {})):
        made += neighbours.rows(bags["result"])
    return made


def _checks(state: State) -> list[Row]:
    counts: dict[str, list[bool]] = {}
    for check in state.get("correctness", {}).get("checks", []):
        if check["status"] != "skipped":
            counts.setdefault(check["group"], []).append(check["status"] != "passed")
    return [
        {
            "case": group, "variant": "ours", "metric": "checks that did not pass", "better": "lower", "clock": "none",
            "processes": [[sum(bad)]], "exact": True, "notes": [f"of {len(bad)}"],
        }
        for group, bad in counts.items()
    ]  # fmt: skip
