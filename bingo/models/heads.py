"""Projection heads of any depth as words: which layers, how wide, and where in a state dict they lie."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from bingo.errors import UserError

LINEAR, NORM = "Ll", "Bb"
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
LAYERS = {
    "L": ("weight", "bias"), "l": ("weight",), "B": ("weight", "bias", *BUFFERS), "b": BUFFERS, "R": (), "G": (),
}  # fmt: skip
"""Letter -> names of its tensors: linear with and without bias, batch norm with and without scale, ReLU, GELU."""


@dataclass(frozen=True)
class Head:
    """form: a letter of `LAYERS` for each layer, in order; "" is no head. widths: outputs of the linear ones."""

    form: str = ""
    widths: tuple[int, ...] = ()

    def build(self, features: int) -> nn.Sequential:
        """Freshly initialised layers that take `features` channels."""
        layers: list[nn.Module] = []
        width, rest = features, list(self.widths)
        for letter in self.form:
            if letter in LINEAR:
                layers.append(nn.Linear(width, rest[0], bias=letter == "L"))
                width = rest.pop(0)
            elif letter in NORM:
                layers.append(nn.BatchNorm1d(width, affine=letter == "B"))
            else:
                layers.append(nn.ReLU(inplace=True) if letter == "R" else nn.GELU())
        return nn.Sequential(*layers)

    @property
    def valid(self) -> bool:
        """Whether there is such a head: known letters, one width of at least 1 for each linear layer."""
        linear = sum(letter in LINEAR for letter in self.form)
        return set(self.form) <= set(LAYERS) and linear == len(self.widths) and all(w >= 1 for w in self.widths)


def mlp(hidden: int, dim: int, layers: int = 2) -> Head:
    """The head of a student, of 2 to 4 linear layers.

    2: Linear-ReLU-Linear, of MoCo v2; 3: batch norm and ReLU behind all but the last, of SimCLR v2 (arXiv 2006.10029);
    4: two of Linear-BN-ReLU-Linear one behind the other, of SimReg (arXiv 2201.05131).
    """
    form = {2: "LRL", 3: "LBRLBRL", 4: "LBRLLBRL"}[layers]
    return Head(form, (hidden,) * (layers - 1) + (dim,))


def names_of(form: str) -> set[str]:
    """The tensors of a head of this form as `nn.Sequential` names them."""
    return {f"{at}.{name}" for at, letter in enumerate(form) for name in LAYERS[letter]}


def read_head(
    state: Mapping[str, torch.Tensor], forms: Iterable[str], what: str, names: Mapping[str, str] | None = None
) -> Head:
    """The head whose tensors these are, by the names of `nn.Sequential`; `UserError` if it has none of these forms.

    what: file and prefix, which begin the sentence; it names what is missing or not expected. names: place of a layer
    -> its name in the file, where that is another.
    """

    def told(name: str) -> str:
        place, _, leaf = name.partition(".")
        return f"{what}{(names or {}).get(place, place)}.{leaf}"

    found = {name for name in state if not name.endswith("num_batches_tracked")}
    wanted = {form: {name for name in names_of(form) if not name.endswith("num_batches_tracked")} for form in forms}
    form = min(wanted, key=lambda each: len(wanted[each] ^ found))
    if lacking := sorted(wanted[form] - found):
        raise UserError(f"{told(lacking[0])} is missing: such a head has the layers {_listed(wanted[form])}")
    if strange := sorted(found - wanted[form]):
        raise UserError(f"{told(strange[0])} is not expected: such a head has the layers {_listed(wanted[form])}")
    widths = []
    for at, letter in enumerate(form):
        if letter in LINEAR:
            weight = state[f"{at}.weight"]
            if weight.ndim != 2 or not weight.numel():
                raise UserError(f"{what}{at}.weight has the shape {tuple(weight.shape)}, not outputs x inputs")
            widths.append(len(weight))
    return Head(form, tuple(widths))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted({name.partition(".")[0] for name in names}, key=int))
