"""What is broken about a node's GPUs, in words: memory errors, rows to remap, brakes, and XIDs in the kernel's log.

Read by nvidia-smi and dmesg (or journalctl) as their own text, which NVIDIA documents; where there is no nvidia-smi,
nothing is found. Counts of a GPU's whole life are recorded only: once its rows are remapped, such a GPU is sound.
"""

import re
import subprocess
import time
from collections.abc import Iterator, Sequence

ANSWER_S = 10.0
"""Seconds for all questions: a node that takes longer than the others would count as silent."""
ADDRESS = "pci.bus_id"
COUNTS = {"ecc.errors.uncorrected.volatile.total": "uncorrected memory errors since the driver started"}
LIFETIME = "ecc.errors.uncorrected.aggregate.total"
STATES = {
    "retired_pages.pending": "a memory page waits to be retired: reset the GPU",
    "remapped_rows.pending": "a memory row waits to be remapped: reset the GPU",
    "remapped_rows.failure": "a memory row could not be remapped: replace the GPU",
    "clocks_throttle_reasons.hw_slowdown": "its hardware slows it down",
    "clocks_throttle_reasons.hw_thermal_slowdown": "its hardware slows it down: too hot",
    "clocks_throttle_reasons.hw_power_brake_slowdown": "its hardware slows it down: power brake",
}
FIELDS = (ADDRESS, *COUNTS, LIFETIME, *(name for name in STATES if not name.startswith("remapped")))
ROWS = ("gpu_bus_id", "remapped_rows.pending", "remapped_rows.failure")
XIDS = {
    48: "uncorrected memory error",
    63: "a memory row or page to be replaced was recorded",
    64: "a memory row or page to be replaced could not be recorded",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "too many corrected memory errors",
    94: "contained memory error",
    95: "uncontained memory error",
    119: "its system processor does not answer",
    120: "its system processor failed",
}
"""XIDs that speak of hardware. Others (13, 31, 43, 45, ...) mostly come from a program and blame no node."""
LOST = re.compile(r"(?i)[^\n]*(?:GPU is lost|unable to determine the device handle)[^\n]*")


def gpu_faults() -> tuple[list[str], dict[str, str]]:
    """Phrases about the faults of the GPUs that this process may use, and their lifetime counts of memory errors."""
    over = time.monotonic() + ANSWER_S
    told = query("gpu", FIELDS, over)
    if told is None:
        return [], {}
    gpus = table(FIELDS, told)
    found = list(of_gpus(gpus))
    found += of_gpus(table(ROWS, query("remapped-rows", ROWS, over) or ""))
    found += of_log(_said(over, "dmesg") or _said(over, "journalctl", "-k", "-b", "--no-pager", "-q") or "")
    if lost := LOST.search(told):
        found.append(lost[0].strip())
    return found, {gpu[ADDRESS]: gpu[LIFETIME] for gpu in gpus if gpu.get(LIFETIME, "").isdigit()}


def query(what: str, fields: Sequence[str], over: float) -> str | None:
    """What nvidia-smi says of these fields, `-` for those that this version does not know; None where there is none.

    over: when it must have answered, on the monotonic clock.
    """
    known = list(fields)
    while True:
        said = _said(over, "nvidia-smi", f"--query-{what}={','.join(known)}", "--format=csv,noheader,nounits")
        unknown = re.search(r'Field "([^"]+)" is not a valid field', said or "")
        if said is None or unknown is None or unknown[1] not in known:
            break
        known.remove(unknown[1])
    if said is None or known == list(fields):
        return said
    rows = (dict(zip(known, line.split(","), strict=False)) for line in said.splitlines())
    return "\n".join(",".join(row.get(name, "-") for name in fields) for row in rows)


def table(fields: Sequence[str], text: str) -> list[dict[str, str]]:
    """Rows of nvidia-smi's CSV, one per GPU, by field; lines that are no rows are left out."""
    rows = ([value.strip() for value in line.split(",")] for line in text.splitlines())
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]


def of_gpus(gpus: Sequence[dict[str, str]]) -> Iterator[str]:
    """Phrases about rows of a query."""
    for gpu in gpus:
        place = gpu.get(ADDRESS) or gpu["gpu_bus_id"]
        for name, value in gpu.items():
            if name in COUNTS and value.isdigit() and int(value):
                yield f"GPU {place}: {value} {COUNTS[name]}"
            elif name in STATES and value in ("Yes", "Active", "1"):
                yield f"GPU {place}: {STATES[name]}"


def of_log(text: str) -> Iterator[str]:
    """Phrases about the XIDs in a kernel's log, each GPU's of one number once."""
    found = re.findall(r"NVRM: Xid \(PCI:([0-9A-Fa-f:.]+)\): (\d+)", text)
    for place, number in dict.fromkeys(found):
        if int(number) in XIDS:
            yield f"GPU {place}: XID {number} since the node was started ({XIDS[int(number)]})"


def _said(over: float, *words: str) -> str | None:
    """What a program prints, to its errors too; None where it is absent, may not tell, or takes too long."""
    left = over - time.monotonic()
    if left <= 0:
        return None
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=left,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode and words[0] != "nvidia-smi" else done.stdout + done.stderr
