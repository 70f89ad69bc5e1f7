"""A trial of a network that was loaded: one that gives NaN, zeros or always the same is refused before its work."""

from pathlib import Path

import torch

from bingo.errors import UserError
from bingo.files import first_line
from bingo.models.encoder import Encoder
from bingo.models.strict import BROKEN

SAME = 1e-6  # of the largest value: a few roundings of fp32


@torch.no_grad()
def check_alive(encoder: Encoder, path: Path, size: int, *, head: bool) -> None:
    """`UserError` if the network from `path` gives NaN, zeros or always the same, which nothing can be learned from.

    It is shown six images of size x size pixels: plain dark and light ones, and noise. head: the keys are judged too,
    not only the features. Costs one small forward pass; leaves the mode and all random numbers as they were.
    """
    device = next(encoder.parameters()).device
    noise = torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(0))
    strength, level = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.3, 0.3]), torch.tensor([-2.0, 2.0, 0.0, 0.0, -1.0, 1.0])
    images = noise * strength.view(6, 1, 1, 1) + level.view(6, 1, 1, 1)
    training = encoder.training
    encoder.eval()
    try:
        features = encoder.features(images.to(device))
        answers = {"features": features, "keys": encoder.head(features).float()} if head else {"features": features}
    except (AssertionError, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and "size" not in str(error):
            raise  # of the device, not of the image
        raise UserError(
            f"{encoder.name} of {path} cannot take images of {size} x {size} pixels ({first_line(error)}); "
            "set --augment.size to what it was trained with"
        ) from error
    finally:
        encoder.train(training)
    for what, rows in answers.items():
        rows = rows.cpu()
        if not rows.isfinite().all():
            problem = "are not finite (NaN or infinity)"
        elif not rows.any():
            problem = "are all zeros"
        elif (rows - rows[0]).abs().max() <= SAME * rows.abs().max():
            problem = "are the same whatever the image"
        else:
            continue
        raise UserError(f"the {what} of the network in {path} {problem}: {BROKEN}")
