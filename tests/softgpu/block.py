"""One thread block: the scheduler and all of the parts, and the launch of a grid."""

import random
import traceback
from typing import Any

import numpy as np

from tests.softgpu.block_barriers import Barriers
from tests.softgpu.block_flights import Flights
from tests.softgpu.block_global import GlobalOrder
from tests.softgpu.block_mbarriers import Mbarriers
from tests.softgpu.block_races import Races
from tests.softgpu.block_tensor_memory import TensorMemory
from tests.softgpu.clocks import LANES
from tests.softgpu.memory import GlobalMemory
from tests.softgpu.numbers import UNWRITTEN
from tests.softgpu.parse import Kernel
from tests.softgpu.program import Program, translate
from tests.softgpu.state import Fault, Fragment
from tests.softgpu.team import Team
from tests.softgpu.writer import KINDS

GROUP = 4  # warps of a warp group
APART = 0.1  # how often a fragment goes on though another is behind it: lanes of a warp may run apart

ACTORS = {"copies": "cp.async.c", "tensor": "tcgen05"}  # instructions that the clocks need columns for


class Block(Races, GlobalOrder, Mbarriers, Flights, TensorMemory, Barriers):
    """The parts are mixed in; see `state.BlockState`."""

    def __init__(self, program: Program, *arguments: Any, team_warps: int, **options: Any) -> None:
        """team_warps: warps per team, which run in lockstep."""
        super().__init__(program, *arguments, **options)
        self.teams = [Team(self, first, team_warps) for first in range(0, self.threads // LANES, team_warps)]

    def run(self) -> None:
        """Until every thread has returned."""
        with np.errstate(all="ignore"):
            while any(team.fragments for team in self.teams):
                ready = [team for team in self.teams if any(f.tried != self.progress for f in team.fragments)]
                if not ready:
                    if not self._land():
                        self._deadlock()
                    continue
                if self.flights and self.policy == "random" and self.random.random() < 0.3:
                    self._land()
                self._step(ready[0] if len(ready) == 1 else self.random.choice(ready))
        if self.flights:
            raise Fault(f"block {self.index} ended with {len(self.flights)} copies in flight")
        if self.tmem_held:
            raise Fault(f"block {self.index} ended and still holds tensor memory")
        if any(barrier.bytes for barrier in self.mbarriers.values()):
            raise Fault(f"block {self.index} ended while an mbarrier waits for bytes that nothing copies")

    def _step(self, team: Team) -> None:
        """A few stretches of one fragment; only one when its team has others, which it may meet."""
        if len(team.fragments) > 1:
            team.join()
        fragment = self._choose(team)
        for _ in range(self.random.randint(1, 6)):
            function = self.program.function(fragment.at, fragment.mask is not None)
            try:
                after = function(team, team.R, fragment.mask, fragment)
            except (TypeError, AttributeError) as error:
                self._explain(error, team)
                raise
            self.steps += 1
            if after is None:
                fragment.tried = self.progress
                return
            self.progress += 1
            if after < 0:
                team.leave(fragment)
                return
            fragment.at, fragment.arrived, fragment.waits_for = after, False, ""
            if len(team.fragments) > 1:
                return

    def _choose(self, team: Team) -> Fragment:
        """The fragment that is furthest behind, so that threads meet again; now and then another."""
        ready = [f for f in team.fragments if f.tried != self.progress]
        apart = len(ready) > 1 and self.policy == "random" and self.random.random() < APART
        return self.random.choice(ready) if apart else ready[0]

    def _explain(self, error: Exception, team: Team) -> None:
        """Raise Fault when generated code has met a register that is `UNWRITTEN`."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith("<ptx_")]
        if not frames or "Unwritten" not in str(error):
            return
        at = self.program.sources[frames[-1].filename][frames[-1].lineno - 2]
        names = [n.strip() for o in self.program.kernel.code[at].operands for n in o.strip("{}[] ").split(",")]
        empty = [n for n in names if n in self.program.number and team.R[self.program.number[n]] is UNWRITTEN]
        lines = sorted({self.program.kernel.code[i].line for i in team.pending_registers.values()})
        flying = f" or while an asynchronous instruction of PTX lines {lines} is in flight" if lines else ""
        try:
            self.fault(at, f"register {empty} read before it is written{flying}")
        except Fault as fault:
            raise fault from error

    def _deadlock(self) -> None:
        lines = []
        for team in self.teams:
            for f in team.fragments:
                threads = team.thread if f.mask is None else team.thread[f.mask]
                lines.append(f"  {_names(threads)}: {f.waits_for or 'blocked'} at {self.place(f.at)}")
        raise Fault(f"deadlock in block {self.index}:\n" + "\n".join(lines))


def launch(kernel: Kernel, memory: GlobalMemory, parameters: dict[str, Any], shared: int,
           grid: tuple[int, int, int], *, seed: int = 0, team_warps: int | None = None,
           **options: Any) -> dict[str, Any]:  # fmt: skip
    """Run every block of the grid, one after another in random order.

    parameters: name -> bytes, a number or a TensorMap. shared: bytes per block. seed: order of the blocks, schedule of
    the warps. team_warps: warps that run in lockstep; a warp group each where warps differ in their work, else all.
    Options:
    policy "eager" (asynchronous results at once), "lazy" (as late as allowed), "random" (the default);
    races: judge the order of accesses (default True);
    strict: a missing proxy fence after mbarrier.init is a fault, not a warning (default False);
    differing "fault" (the default) or "warn": threads of a warp that store different values to one place at once.
    Returns blocks, steps (stretches of code) and warnings (a set of sentences). Raises Fault.
    """
    warps = kernel.threads // LANES
    grouped = any(ins.op.startswith(("wgmma", "setmaxnreg")) for ins in kernel.code)
    team = team_warps or (GROUP if grouped and warps > GROUP else warps)
    program = translate(kernel, LANES * team)
    order = [(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])]
    rng = random.Random(seed)
    rng.shuffle(order)
    memory.forget()
    memory.order, memory.word = order, _word(kernel)
    options |= {name: any(ins.op.startswith(start) for ins in kernel.code) for name, start in ACTORS.items()}
    stats: dict[str, Any] = {"blocks": len(order), "steps": 0, "warnings": set()}
    for number, index in enumerate(order):
        block = Block(program, memory, parameters, shared, index, grid, number, seed=rng.randrange(2**31),
                      team_warps=team, **options)  # fmt: skip
        block.run()
        stats["warnings"] |= block.warnings
        stats["steps"] += block.steps
    return stats


def _word(kernel: Kernel) -> int:
    """Bytes of the smallest store to global memory, at most 4: accesses to words of this size are told apart."""
    sizes = [4]
    for ins in kernel.code:
        if ins.op.startswith(("st.global", "atom.global", "red.global")) and "v2" not in ins.op and "v4" not in ins.op:
            sizes.append(int(KINDS[ins.parts[-1]][1]))
    return min(sizes)


def _names(threads: np.ndarray) -> str:
    """Threads of a block in words: whole warps, or some lanes."""
    warps, counts = np.unique(threads // LANES, return_counts=True)
    text = f"warp {warps[0]}" if len(warps) == 1 else f"warps {warps[0]}-{warps[-1]}"
    if (counts == LANES).all():
        return text
    return f"{len(threads)} threads of {text}, the first lane {threads[0] % LANES}"
