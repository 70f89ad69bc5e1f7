"""One thread block: the scheduler and all of the parts, and the launch of a grid."""

import random
import traceback
from typing import Any

import numpy as np

from tests.softgpu.block_barriers import Barriers
from tests.softgpu.block_flights import Flights
from tests.softgpu.block_mbarriers import Mbarriers
from tests.softgpu.block_races import Races
from tests.softgpu.block_tensor_memory import TensorMemory
from tests.softgpu.memory import GlobalMemory
from tests.softgpu.numbers import HELPERS
from tests.softgpu.parse import Kernel
from tests.softgpu.state import Fault
from tests.softgpu.team import Team
from tests.softgpu.translate import Program


class Block(Races, Mbarriers, Flights, TensorMemory, Barriers):
    """The parts are mixed in; see `state.BlockState`."""

    def __init__(self, program: Program, *arguments: Any) -> None:
        super().__init__(program, *arguments)
        self.teams = [Team(self, first, self.team_warps) for first in range(0, self.threads // 32, self.team_warps)]

    def run(self) -> None:
        """Until every thread has returned."""
        with np.errstate(all="ignore"):
            while True:
                ready = [team for team in self.teams if any(f.tried != self.progress for f in team.fragments)]
                if not ready:
                    if not any(team.fragments for team in self.teams):
                        break
                    if not self._land():
                        self._deadlock()
                    continue
                if self.flights and self.policy == "random" and self.random.random() < 0.3:
                    self._land()
                team = ready[0] if len(ready) == 1 else self.random.choice(ready)
                self._step(team)
        leftovers = [m for m in self.mbarriers.values() if m.bytes]
        if self.flights or leftovers:
            raise Fault(f"block {self.index} ended with {len(self.flights)} copies in flight")

    def _step(self, team: Team) -> None:
        if len(team.fragments) > 1:
            team.join()
        fragment = next(f for f in team.fragments if f.tried != self.progress)
        for _ in range(self.random.randint(1, 6)):
            at = fragment.at
            function = self.program.function(at, fragment.mask is not None)
            try:
                after = function(team, team.R, fragment.mask, fragment)
            except (TypeError, AttributeError) as error:
                self._explain(error, team)
            self.steps += 1
            if after is None:
                fragment.tried = self.progress
                return
            self.progress += 1
            if after < 0:
                team.fragments.remove(fragment)
                return
            fragment.at, fragment.arrived, fragment.waits_for = after, False, ""
            if len(team.fragments) > 1:
                return

    def _explain(self, error: Exception, team: Team) -> None:
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename.startswith("<ptx_"):
                at = self.program.sources[frame.filename][frame.lineno - 2]
                if "None" in str(error):
                    flying = {self.program.kernel.code[i].line for i in team.pending_registers.values()}
                    names = [o for o in self.program.kernel.code[at].operands for o in o.strip("{}[] ").split(",")]
                    broken = [
                        n.strip()
                        for n in names
                        if n.strip() in self.program.number and team.R[self.program.number[n.strip()]] is None
                    ]
                    what = f"register {broken} read before it is written" + (
                        f" or while a wgmma of PTX lines {sorted(flying)} is in flight" if flying else ""
                    )
                    try:
                        self.fault(at, what)
                    except Fault as fault:
                        raise fault from error
        raise error

    def _deadlock(self) -> None:
        lines = []
        for team in self.teams:
            for f in team.fragments:
                lanes = team.lane if f.mask is None else np.flatnonzero(f.mask)
                warps = sorted({int(w) for w in team.warp[lanes]})
                lines.append(f"  warps {warps[0]}-{warps[-1]}: {f.waits_for or 'blocked'} at {self.place(f.at)}")
        raise Fault(f"deadlock in block {self.index}:\n" + "\n".join(lines))


def launch(kernel: Kernel, memory: GlobalMemory, parameters: dict[str, Any], shared: int, grid: tuple, *, seed: int = 0,
           policy: str = "random", races: bool = True, team_warps: int | None = None, programs: dict | None = None,
           strict: bool = False) -> dict:  # fmt: skip
    """Run every block of the grid, one after another in random order."""
    warps = kernel.threads // 32
    grouped = any(ins.op.startswith(("wgmma", "setmaxnreg")) for ins in kernel.code)
    team = team_warps or (4 if grouped and warps > 4 else warps)
    cache = programs if programs is not None else {}
    key = (id(kernel), team)
    if key not in cache:
        cache[key] = Program(kernel, 32 * team, HELPERS)
    order = [(x, y, z) for z in range(grid[2]) for y in range(grid[1]) for x in range(grid[0])]
    rng = random.Random(seed)
    rng.shuffle(order)
    stats: dict[str, Any] = {"blocks": len(order), "steps": 0, "warnings": set()}
    for number, index in enumerate(order):
        block = Block(
            cache[key],
            memory,
            parameters,
            shared,
            index,
            grid,
            rng.randrange(2**31),
            team,
            policy,
            races,
            number,
            strict,
        )
        block.run()
        stats["warnings"] |= block.warnings
        stats["steps"] += block.steps
    for allocation in memory.allocations:
        allocation.writers, allocation.atomics = None, False
    return stats
