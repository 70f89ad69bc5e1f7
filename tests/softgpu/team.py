"""A team of warps with one register file: all of its parts."""

from tests.softgpu.team_accesses import Accesses
from tests.softgpu.team_arrivals import Arrivals
from tests.softgpu.team_control import Control
from tests.softgpu.team_copies import Copies
from tests.softgpu.team_tcgen05 import Tcgen05
from tests.softgpu.team_warp import Warp
from tests.softgpu.team_wgmma import Wgmma


class Team(Control, Warp, Accesses, Copies, Wgmma, Tcgen05, Arrivals):
    """The parts are mixed in; see `state.TeamState`."""
