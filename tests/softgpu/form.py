"""The modifiers and operands of one instruction: what nobody asks for is refused by name."""

from typing import NoReturn

from tests.softgpu.parse import Instruction, Unsupported


class Form:
    """Modifiers in the order in which they are written. Whoever translates the instruction takes them one by one."""

    def __init__(self, ins: Instruction) -> None:
        self.ins = ins
        self.left = ins.parts[1:]

    @property
    def last(self) -> str:
        """The last modifier, which is the type of most instructions. It is not taken."""
        return self.left[-1] if self.left else ""

    def take(self, *choices: str) -> str | None:
        """The next modifier if it is one of the choices."""
        return self.left.pop(0) if self.left and self.left[0] in choices else None

    def need(self, *choices: str) -> str:
        """The next modifier, which must be one of the choices."""
        found = self.take(*choices)
        if found is None:
            self.refuse(f"has .{self.left[0] if self.left else ''} where one of {choices} is known")
        return found

    def flag(self, name: str) -> bool:
        return self.take(name) is not None

    def type(self, *allowed: str) -> str:
        """The last modifier, which must be one of the allowed types."""
        if self.last not in allowed:
            self.refuse(f"type .{self.last} is not known here")
        return self.left.pop()

    def operands(self, least: int, most: int | None = None) -> list[str]:
        """All operands; their number must be between the two."""
        found = self.ins.operands
        if not least <= len(found) <= (least if most is None else most):
            self.refuse(f"has {len(found)} operands")
        return found

    def rest(self) -> list[str]:
        """All modifiers that are left; the caller judges them itself."""
        found, self.left = self.left, []
        return found

    def refuse(self, why: str) -> NoReturn:
        raise Unsupported(f"PTX line {self.ins.line}: {self.ins.op}: {why}")

    def finish(self) -> None:
        """Refuse the instruction if a modifier is left."""
        if self.left:
            self.refuse(f"modifier .{self.left[0]} is not known")
