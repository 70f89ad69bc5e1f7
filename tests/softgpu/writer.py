"""What the families of instructions have in common: the modifiers and operands of the current one."""

from typing import Any

from tests.softgpu.form import Form


class Writer:
    """The base of the parts of `translate.Writer`."""

    form: Form
    program: Any
    kernel: Any
    emit: Any
    use: Any
    put: Any
    mask: Any
    address: Any
    group: Any

    def integer(self, token: str) -> int:
        return int(token, 0)

    def register(self, token: str, kind: str) -> int:
        if self.program.canon[token] != kind:
            self.form.refuse(f"{token} is needed as {kind} and kept as {self.program.canon[token]}")
        return self.program.number[token]
