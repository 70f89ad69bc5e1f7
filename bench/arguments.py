"""What the flags of several measurements share: errors in one sentence, lists of sizes, the device."""

import argparse
from typing import TYPE_CHECKING, NoReturn

from bingo.errors import UserError

if TYPE_CHECKING:
    import torch


class Parser(argparse.ArgumentParser):
    """Wrong flags are a `UserError` (one sentence, exit status 2) and not a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; type `{self.prog} --help`")


def size(text: str) -> int:
    """A whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def sizes(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(size(part) for part in text.split(","))


def pick_device(name: str) -> "torch.device":
    """`auto` is the GPU if torch sees one; `UserError` for a GPU that is not there."""
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("torch sees no GPU; add --device cpu for a small run on the CPU, or see `bingo doctor`")
    return torch.device("cuda", 0) if available and name != "cpu" else torch.device("cpu")
