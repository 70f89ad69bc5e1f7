"""Looks through a kernel before it runs: in which kind each register is best kept, and what is not known."""

from collections import Counter

from tests.softgpu.opcodes import Opcodes
from tests.softgpu.parse import Instruction, Kernel, Unsupported

PLAIN = {"p": "p", "h": "u2", "r": "u4", "d": "u8"}  # by the class letter of a register


class Survey(Opcodes):
    """Translates every instruction once and notes as what its registers are used.

    Bits may be seen as any kind of their size, so the choice changes speed alone: a register that is mostly used as a
    float is kept as an array of floats. Moves, loads and stores do not say what they carry (kind n: neutral); registers
    that a move connects are kept alike.
    """

    def look(self) -> list[str]:
        """Translate everything; what is not known, a sentence each."""
        self.votes: dict[str, Counter[str]] = {}
        self.demands: dict[str, str] = {}
        self.parent: dict[str, str] = {}
        self.written: set[str] = set()
        problems = []
        for at, ins in enumerate(self.kernel.code):
            try:
                self.instruction(at, ins)
            except Unsupported as error:
                problems.append(str(error))
        return problems

    def kinds(self) -> dict[str, str]:
        """The kind in which each register is kept."""
        votes: dict[str, Counter[str]] = {}
        for name, counted in self.votes.items():
            votes.setdefault(self._root(name), Counter()).update(counted)
        demands = {self._root(name): kind for name, kind in self.demands.items()}
        return {
            name: self._kind(letter, self._root(name), votes, demands) for name, letter in self.kernel.registers.items()
        }

    @staticmethod
    def _kind(letter: str, root: str, votes: dict[str, Counter[str]], demands: dict[str, str]) -> str:
        plain = PLAIN[letter]
        best = votes[root].most_common(1)[0][0] if root in votes else "u"
        return demands.get(root, f"f{plain[1]}" if best == "f" and letter in "rd" else plain)

    def _root(self, name: str) -> str:
        while name in self.parent:
            name = self.parent[name]
        return name

    # What the families of instructions ask for

    def use(self, token: str, kind: str) -> str:
        return super().use(token, self._vote(token, kind))

    def put(self, at: int, ins: Instruction, token: str, text: str, kind: str, mask: str | None = None) -> None:
        self.written.add(token)
        super().put(at, ins, token, text, self._vote(token, kind), mask)

    def same(self, *tokens: str) -> str:
        plain = PLAIN[self.kernel.registers[tokens[0]]]
        for token in tokens[1:]:
            if plain != "p" and PLAIN.get(self.kernel.registers.get(token, "")) == plain:
                root, other = self._root(tokens[0]), self._root(token)
                if root != other:
                    self.parent[other] = root
        return plain if plain == "p" else f"n{plain[1]}"

    def bits(self, size: int) -> str:
        return f"n{size}"

    def register(self, token: str, kind: str) -> int:
        self.written.add(token)
        self.demands[token] = kind
        return self.program.number[token]

    def _vote(self, token: str, kind: str) -> str:
        if kind[0] == "n":
            return f"u{kind[1]}"
        if kind != "p":
            self.votes.setdefault(token, Counter())["f" if kind[0] == "f" else "u"] += 1
        return kind


def undefined(kernel: Kernel, written: set[str]) -> list[str]:
    """Registers that nothing writes: LLVM names one where a value does not matter."""
    return [name for name in kernel.registers if name not in written]
