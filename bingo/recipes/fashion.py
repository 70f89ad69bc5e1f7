"""The recipe `fashion`: the demo on Fashion-MNIST, photographs of clothes, in a quarter of an hour on two cores."""

from pathlib import Path

from bingo.config import DemoDataConfig
from bingo.config_parts import Augmentation, Contrast, Device, Optimiser, Runtime
from bingo.recipes.chain import Recipe
from bingo.recipes.demo import Demo, compared


def fashion(
    root: Path, *, images: Path | None = None, seeds: int = 4, epochs: int = 4, device: Device = "auto"
) -> Recipe:
    """Fashion-MNIST: 12 000 and 5 000 photographs of clothes, the four arms of `digits`, cached keys.

    bingo run fashion --images DIR

    images: folder of the four IDX files; None: where Debian's package puts them. `UserError` where they are not.
    Student passes are equal for all arms, as in `digits`. Clothes may be mirrored; they have no colours. What was tried
    is in docs/results.md.
    """
    return compared(fashion_demo(root, images, epochs, device), seeds)


def fashion_demo(root: Path, images: Path | None, epochs: int, device: Device) -> Demo:
    """The pieces of `fashion`; `UserError` where the files are not."""
    from bingo.images.idx import DEBIAN, find_idx

    source = images or DEBIAN
    find_idx(source)
    return Demo(
        root=root,
        epochs=epochs,
        images=DemoDataConfig(out=root / "images", size=28, from_idx=source),
        teacher="tiny-24",
        teacher_epochs=10 * epochs,
        student="tiny",
        runtime=Runtime(device=device, checkpoint_every=500, threads=1),
        augment=Augmentation(size=16, scale=(0.4, 1.0), hue=0.0, grey_p=0.0, blur_sigma=(0.1, 1.0)),
        contrast=Contrast(dim=64, hidden=128, queue=4096),
        optim=Optimiser(batch=128, lr=0.06, schedule="step"),
        shots=5,
        key_views=2,
    )
