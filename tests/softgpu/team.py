"""A team of warps with one register file: all of its parts."""

from tests.softgpu.team_accesses import Accesses
from tests.softgpu.team_arrivals import Arrivals
from tests.softgpu.team_copies import Copies
from tests.softgpu.team_matrices import Matrices
from tests.softgpu.team_tcgen05 import Tcgen05
from tests.softgpu.team_warp import Warp
from tests.softgpu.team_wgmma import Wgmma


class Team(Warp, Accesses, Matrices, Copies, Wgmma, Tcgen05, Arrivals):
    """The parts are mixed in; see `state.TeamState`."""
