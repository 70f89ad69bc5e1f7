"""All instructions that the executor knows: the families, mixed."""

from tests.softgpu.opcode_arithmetic import Arithmetic
from tests.softgpu.opcode_asynchronous import AsynchronousOpcodes
from tests.softgpu.opcode_bits import Bits
from tests.softgpu.opcode_compare import Compare
from tests.softgpu.opcode_control import Control
from tests.softgpu.opcode_convert import Convert
from tests.softgpu.opcode_functions import Functions
from tests.softgpu.opcode_matrices import MatrixOpcodes
from tests.softgpu.opcode_memory import Memory
from tests.softgpu.opcode_move import Move
from tests.softgpu.opcode_tcgen05 import TensorOpcodes
from tests.softgpu.opcode_warp import Across


class Opcodes(Arithmetic, AsynchronousOpcodes, Bits, Compare, Control, Convert, Functions, MatrixOpcodes, Memory, Move,
              TensorOpcodes, Across):  # fmt: skip
    """The families are mixed in; see `writer.Writer`."""
