"""Named barriers and the register pool of a block."""

import numpy as np

from tests.softgpu.state import BlockState, Fragment


class Barriers(BlockState):
    """Mixed into `block.Block`."""

    def bar(self, at: int, fragment: Fragment, number: int, count: int, warps: np.ndarray, lanes: int) -> bool:
        state = self.bars.setdefault(number, {"lanes": 0, "warps": set(), "count": count, "generation": 0})
        if not fragment.arrived:
            if state["lanes"] and state["count"] != count:
                self.fault(at, f"barrier {number} is awaited with different counts")
            state["count"] = count
            state["lanes"] += lanes
            state["warps"] |= {int(w) for w in warps}
            fragment.arrived = True
            fragment.generation = state["generation"]
            fragment.waits_for = f"barrier {number} of {count} threads"
            if state["lanes"] > count:
                self.fault(at, f"{state['lanes']} threads arrive at barrier {number} of {count}")
            if state["lanes"] == count:
                who = np.array(sorted(state["warps"]))
                clocks = self.clocks
                clocks.seen[who] = clocks.seen[who].max(0)
                clocks.fenced[who] = clocks.fenced[who].max(0)
                clocks.tick(who)
                self.bars[number] = {"lanes": 0, "warps": set(), "count": count, "generation": state["generation"] + 1}
                self.progress += 1
        return self.bars[number]["generation"] != fragment.generation

    def setmaxnreg(self, at: int, fragment: Fragment, more: bool, count: int, warps: np.ndarray) -> bool:
        have = {self.registers[int(w)] for w in warps}
        if len(have) > 1:
            raise NotImplementedError("warps of a group with different register counts")
        need = (count - have.pop()) * len(warps)
        if more and need < 0 or not more and need > 0:
            self.fault(at, "setmaxnreg in the wrong direction")
        if need > self.pool:
            fragment.waits_for = f"{need} registers per lane, of which {self.pool} are free"
            return False
        self.pool -= need
        for w in warps:
            self.registers[int(w)] = count
        return True
