"""The old names of `program` and `writer`."""

from tests.softgpu.parse import Unsupported
from tests.softgpu.program import Program
from tests.softgpu.writer import SMEM_BASE

__all__ = ["SMEM_BASE", "Program", "Unsupported"]
