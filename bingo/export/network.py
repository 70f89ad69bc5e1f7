"""A whole classifier that is to be exported, and the proof that a consumer computes the same with it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from bingo.errors import UserError
from bingo.models import build_classifier

USUAL_SIZE = 224
CLOSE = 1e-4
"""Largest difference of logits, as a share of the largest one."""
EXTRA = "pip install 'bingo-distill[export]'"


@dataclass(frozen=True, eq=False)
class Network:
    """Backbone and classifier as one state dict (fp32, on the CPU) of the network called `name`.

    classifier: dotted name of the last linear layer. input: see `bingo.evaluate.input`; None where nothing says it.
    """

    name: str
    classifier: str
    state: dict[str, Tensor]
    classes: int
    class_names: list[str] | None = None
    input: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """Pixels per side of what it is shown."""
        return self.input["size"] if self.input else USUAL_SIZE

    @property
    def zeros(self) -> bool:
        """Whether the classifier is one that is still to be trained."""
        return not self.state[f"{self.classifier}.weight"].any()

    @cached_property
    def module(self) -> nn.Module:
        """The network itself, in eval mode; it takes the state strictly."""
        module = build_classifier(self.name, self.classes).eval()
        module.load_state_dict(self.state, strict=True)
        return module

    @cached_property
    def probe(self) -> "Network":
        """The same with random numbers for a classifier of zeros, which would hide every difference."""
        if not self.zeros:
            return self
        draw = torch.Generator().manual_seed(0)
        parts = (f"{self.classifier}.weight", f"{self.classifier}.bias")
        drawn = {name: torch.randn(self.state[name].shape, generator=draw) for name in parts}
        return replace(self, state={**self.state, **drawn})

    @cached_property
    def images(self) -> Tensor:
        """4 x 3 x size x size float32 as after the normalisation: coarse patterns under fine noise."""
        draw = torch.Generator().manual_seed(1)
        coarse = torch.randn(4, 3, 4, 4, generator=draw)
        fine = torch.randn(4, 3, self.size, self.size, generator=draw)
        return nn.functional.interpolate(coarse, size=(self.size, self.size), mode="bilinear") + 0.3 * fine

    @cached_property
    def logits(self) -> Tensor:
        """What the network answers to `images`, 4 x classes."""
        with torch.inference_mode():
            return self.module(self.images)

    def prove(self, answer: Callable[[Tensor], Tensor], consumer: str, name: str) -> None:
        """`UserError` unless `answer`, what a consumer computes with this network's state, has its logits.

        consumer: who computes; name: the format to leave out if it does not.
        """
        with torch.inference_mode():
            difference = (answer(self.images) - self.logits).abs().max().item()
        if not difference <= CLOSE * self.logits.abs().max().item():
            raise UserError(
                f"{consumer} computes other logits with the weights of {self.name} (by up to {difference:.1e}): "
                f"leave {name} out of --format"
            )


def need(modules: Iterable[str], name: str) -> None:
    """`UserError` if a package that the format `name` needs does not import."""
    for module in modules:
        try:
            import_module(module)
        except Exception as error:  # a broken binary package raises anything from ImportError to OSError
            said = str(error).strip().partition("\n")[0]
            raise UserError(
                f"--format {name} needs the package {module}, which does not import ({said}): type `{EXTRA}`, or leave "
                f"{name} out"
            ) from error
