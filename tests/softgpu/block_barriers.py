"""Named barriers and the register pool of a block."""

import numpy as np

from tests.softgpu.clocks import LANES
from tests.softgpu.state import BlockState, Fragment


class Barriers(BlockState):
    """Mixed into `block.Block`."""

    def bar(self, at: int, fragment: Fragment, number: int, count: int, threads: np.ndarray) -> bool:
        """Whether `count` threads have come to barrier `number`; the fragment's `threads` come on its first call."""
        if not 0 <= number < 16 or not 0 < count <= self.threads or count % LANES:
            self.fault(at, f"there is no barrier {number} of {count} threads in a block of {self.threads}")
        state = self.bars.setdefault(number, {"threads": [], "count": count, "generation": 0})
        if not fragment.arrived:
            here = sum(map(len, state["threads"])) + len(threads)
            if state["threads"] and state["count"] != count:
                self.fault(at, f"barrier {number} is awaited with different counts, {state['count']} and {count}")
            if here > count:
                self.fault(at, f"{here} threads arrive at barrier {number} of {count}")
            state["count"] = count
            state["threads"].append(threads)
            fragment.arrived, fragment.generation = True, state["generation"]
            fragment.waits_for = f"barrier {number} of {count} threads"
            if here == count:
                if self.races:
                    self.clocks.join(np.sort(np.concatenate(state["threads"])))
                self.bars[number] = {"threads": [], "count": count, "generation": state["generation"] + 1}
                self.progress += 1
        return self.bars[number]["generation"] != fragment.generation

    def setmaxnreg(self, at: int, fragment: Fragment, more: bool, count: int, warps: np.ndarray) -> bool:
        """Give registers back to the pool, or take some as soon as it has them.

        warps: who asks. Warps of a group may ask at different places, as Triton's partitions do.
        """
        if not 24 <= count <= 256 or count % 8:
            self.fault(at, f"{count} registers are not a multiple of 8 from 24 to 256")
        have = [self.registers[int(w)] for w in warps]
        if not all(have):
            self.fault(at, "setmaxnreg in a kernel without .maxnreg")
        if any(count < n if more else count > n for n in have):
            self.fault(at, "setmaxnreg in the wrong direction")
        need = count * len(have) - sum(have)
        if need > self.pool:
            fragment.waits_for = f"{need} registers per lane, of which {self.pool} are free"
            return False
        self.pool -= need
        self.registers |= dict.fromkeys(warps.tolist(), count)
        return True
