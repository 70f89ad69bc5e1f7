"""Deletes one synchronising instruction at a time from a compiled kernel and asks whether the executor notices.

`python -m tests.softgpu.mutate_ptx KERNEL ARCH` prints a line for each, and ends with 1 where one is neither noticed
nor among `ALLOWED`. README.md of this folder has the same table.
"""

import argparse
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from bingo.kernels.triton_queue_softmax import choose_tile
from tests.softgpu.cases import Case, run
from tests.softgpu.mutations import BAG, CASES, SPLIT
from tests.softgpu.planting import judge

SYNCHRONISING = re.compile(
    r"\s*(@!?%\w+\s+)?(bar\.|barrier\.|membar|fence|cp\.async\.(wait|commit|mbarrier)|cp\.async\.bulk|mbarrier\."
    r"|wgmma\.(wait|commit|fence)|setmaxnreg|tcgen05\.(wait|commit|fence|relinquish|dealloc))[^;]*;\s*$"
)
TEST = re.compile(r"mbarrier\.(?:try|test)_wait\S*\s+(\S+),")
KERNELS = {
    "hopper": "partials_kernel",
    "hopper-ids": "partials_kernel",
    "split": "split_kernel",
    "ranks": "rank_kernel",
    "combine": "combine_kernel",
    "bag": "bag_kernel",
    "nearest": "nearest_kernel",
}
"""Name -> entry function."""
OPCODE = re.compile(r"\s*(?:@!?%\w+\s+)?([\w.:]+)")
ENDS = "the kernel's last instructions: nothing is read any more"
SHADOWED = "their words are not used again"
STAGES = (
    "of the first of two operands, whose copies go with the next group of that operand; the wait leaves out the "
    "groups of the second operand alone"
)
ALIKE = "before the second stage is filled, behind the barrier before the first; after the last wait, before others"
PERMIT = "nothing else wants tensor memory"
ALSO = "the next wait of the same kind covers it"
EARLIER = "of the product before: the commit that is waited for next covers it"
OWN = "behind a wait, or between the arming and the start of a copy, which the issuing thread does itself"
TWICE = "one of two that follow each other without an access in between"
ALLOWED: dict[tuple[str, int], dict[str, tuple[int, str]]] = {
    ("hopper", 90): {
        "bar.sync": (4, "two of each consumer before its loop: each warp waits for the mbarriers itself, and only "
                        "registers are used in between"),
        "bar.warp.sync": (2, "one thread arms the mbarrier and issues the copy, in this order; others touch nothing"),
        "barrier.sync": (2, "in the padding of the worker loop, where no warp comes in our launches"),
        "setmaxnreg": (3, "not redundant: the executor counts the pool, not what registers a piece of code needs"),
    },
    ("nearest", 90): {
        "cp.async.commit_group": (2, STAGES),
        "bar.sync": (2, ALIKE),
        "wgmma.fence": (1, "of a turn's second product: the fence before the first one is behind the zeros, too"),
    },
    ("ranks", 90): {
        "fence.proxy": (1, "before the loop: each turn has one of its own behind the wait for its copies"),
        "cp.async.wait_group": (1, ENDS),
        "bar.sync": (1, ENDS),
    },
    ("combine", 90): {},
    ("bag", 90): {},
    ("split", 90): {
        "bar.sync": (7, "each alone: four before the loop, of which one is enough, since the thread that makes the "
                        "mbarriers arms them and copies; one behind a wait that each warp does itself; two before the "
                        "next copy, of which one is enough"),
        "mbarrier.inval": (3, SHADOWED),
    },
    ("split", 80): {"cp.async.wait_group": (1, "nothing is copied past the last tile"), "bar.sync": (1, "the same")},
    ("ranks", 80): {"cp.async.wait_group": (1, ENDS), "bar.sync": (1, ENDS)},
    ("nearest", 80): {"cp.async.commit_group": (2, STAGES), "bar.sync": (2, ALIKE)},
    ("split", 100): {
        "bar.sync": (19, f"{OWN}; {TWICE}; or with barriers again behind the last access"),
        "mbarrier.inval": (7, SHADOWED),
        "fence.proxy": (2, "queries in shared memory are not written again behind the fence before the first product"),
        "mbarrier.try_wait": (1, EARLIER),
        "tcgen05.wait::st": (1, ALSO),
        "tcgen05.relinquish": (1, PERMIT),
    },
    ("ranks", 100): {
        "bar.sync": (9, f"{OWN}; {TWICE}; {ENDS}"),
        "mbarrier.inval": (2, SHADOWED),
        "fence.proxy": (1, "each turn has one of its own behind the wait for its copies"),
        "cp.async.wait_group": (1, ENDS),
        "tcgen05.relinquish": (1, PERMIT),
    },
    ("nearest", 100): {
        "bar.sync": (15, f"{OWN}; {TWICE}; {ALIKE}"),
        "cp.async.commit_group": (4, STAGES),
        "mbarrier.try_wait": (2, EARLIER),
        "tcgen05.wait::st": (1, ALSO),
        "tcgen05.relinquish": (1, PERMIT),
    },
}  # fmt: skip
ALLOWED["hopper-ids", 90] = ALLOWED["hopper", 90] | {
    "bar.sync": (2, "one of each consumer, as without ids; the other one of theirs is needed"),
    "wgmma.fence": (2, "of the second product: its operands are in shared memory, and no sum is written before it"),
}
"""(kernel, generation) -> how an opcode begins -> how many deletions may stay unnoticed, and why."""


def cases(kernel: str, arch: int) -> list[Case]:
    """Calls with one and the same code: tiles that end in every stage of a ring, loops of one turn and of more."""
    many = {"keys": 2300, "sms": 10}  # 18 splits are more than the join takes at a time
    if kernel in ("hopper", "hopper-ids"):
        return [CASES[kernel.replace("-", ", ")] | {"keys": 128 * tiles} for tiles in (10, 9, 1)]
    if kernel == "split":
        keys = choose_tile(torch.bfloat16, 128, arch, busy=False).keys
        case = SPLIT | {"arch": arch, "rows": 70, "channels": 128, "splits": 1}
        return [case | {"keys": tiles * keys} for tiles in (4, 5, 6)]
    if kernel == "combine":
        return [SPLIT | many | {"arch": arch, "rows": 5, "splits": 18}]
    if kernel == "bag":
        return [BAG | many | {"arch": arch, "channels": 64, "new": 25, "excluded_ids": 0}]
    return [CASES[kernel] | {"arch": arch}]


def places(text: str) -> list[int]:
    """Lines of PTX with one synchronising instruction and nothing else."""
    return [i for i, line in enumerate(text.splitlines()) if SYNCHRONISING.match(line)]


def without(text: str, place: int) -> str:
    """The code without that line; a test of an mbarrier is answered at once."""
    lines = text.splitlines()
    test = TEST.search(lines[place])
    lines[place] = f"setp.eq.b32 {test[1]}, 0, 0;" if test else ""
    return "\n".join(lines)


def compiled(entry: str, case: Case) -> str:
    """The kernel's PTX, from a run that must be right."""
    gpus: list[Any] = []
    off = run(case | {"policy": "random", "seed": 0}, gpus.append)
    assert off <= 1, f"{entry} is wrong without any change"
    return next(record["ptx"] for record in gpus[0].log if record["kernel"] == entry)


def replaced(old: str, new: str) -> Any:
    """A `prepare` that launches `new` in place of `old`."""

    def prepare(gpu: Any) -> None:
        gpu.edit = lambda text: new if text == old else text

    return prepare


def opcode(line: str) -> str:
    """bar.sync, setmaxnreg.inc.sync.aligned.u32, ..."""
    found = OPCODE.match(line)
    assert found is not None, line
    return found[1]


def unexplained(unnoticed: Counter[str], kernel: str, arch: int) -> dict[str, int]:
    """Opcode -> how many deletions stay unnoticed beyond those that are allowed."""
    allowed = ALLOWED.get((kernel, arch), {})
    found = Counter[str]()
    for name, count in unnoticed.items():
        found[next((start for start in allowed if name.startswith(start)), name)] += count
    over = {name: count - allowed.get(name, (0, ""))[0] for name, count in found.items()}
    return {name: count for name, count in over.items() if count > 0}


def source(text: str, place: int) -> str:
    """file:line of the kernel's source that the instruction comes from."""
    found = [line for line in text.splitlines()[:place] if line.strip().startswith(".loc")]
    name = re.search(r"//\s*(\S+?):(\d+)", found[-1]) if found else None
    return f"{name[1].rpartition('/')[2]}:{name[2]}" if name else "?"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.softgpu.mutate_ptx", description=__doc__)
    parser.add_argument("kernel", choices=KERNELS)
    parser.add_argument("arch", type=int, choices=(80, 90, 100))
    parser.add_argument("--unnoticed", action="store_true", help="print only what is not noticed")
    together = "then delete what is not noticed one after another, and keep what is missed once others are gone"
    parser.add_argument("--together", action="store_true", help=together)
    given = parser.parse_args(arguments)
    called = cases(given.kernel, given.arch)
    text = compiled(KERNELS[given.kernel], called[0])
    found = places(text)

    def told(gone: Iterable[int]) -> str:
        """What gives it away that these are gone; the last one is printed."""
        edit = replaced(text, functools.reduce(without, gone, text))
        seen = next((seen for case in called if (seen := judge(case, edit))), "")
        if not (seen and given.unnoticed):
            *_, place = gone
            line = text.splitlines()[place].strip().replace("\t", " ")
            print(f"{place + 1:5d} {line:60s} {source(text, place):32s} {seen or 'NOT NOTICED'}", flush=True)
        return seen

    unnoticed = [place for place in found if not told([place])]
    names = Counter(opcode(text.splitlines()[place]) for place in unnoticed)
    print(f"{given.kernel} sm_{given.arch}: {len(found)} deletions, {len(found) - len(unnoticed)} noticed")
    if given.together:
        gone: list[int] = []
        for place in unnoticed:
            gone += [] if told([*gone, place]) else [place]
        print(f"together: {len(gone)} of the {len(unnoticed)} are not missed")
    left = unexplained(names, given.kernel, given.arch)
    for name, count in left.items():
        print(f"{name}: {count} more than are allowed stay unnoticed; find out why, then mend a case or add to ALLOWED")
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
