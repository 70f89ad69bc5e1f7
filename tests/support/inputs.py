"""Small inputs of a distillation: the digits as image folders and packed, a teacher with random weights, kNN bags."""

from pathlib import Path


def make_digits(root: Path) -> None:
    """The demo data as image folders (images/train, images/val) and packed (train, val)."""
    from bingo.images.demo_data import write_digits
    from bingo.images.pack import pack_folder

    write_digits(root / "images")
    for split in ("train", "val"):
        pack_folder(root / "images" / split, root / split)


def make_teacher(path: Path) -> None:
    """A model file with random weights: tiny-8 with 16-d keys."""
    from bingo.models import save_encoder, seeded_encoder

    save_encoder(path, seeded_encoder("tiny-8", dim=16, hidden=32, seed=5))


def make_features(out: Path, data: Path, teacher: Path, *, size: int = 16) -> Path:
    """Features of images under `teacher`, through the real stage; the folder."""
    from bingo.config import FeaturesConfig
    from bingo.config_parts import Augmentation
    from bingo.stages import Stage, run_stage

    config = FeaturesConfig(data=data, model=teacher, out=out, augment=Augmentation(size=size))
    run_stage(Stage("features", "features", config))
    return out


def make_bags(root: Path, digits: Path, teacher: Path) -> Path:
    """Features and kNN bags of the training digits under `teacher`, through the real stages; the bags' folder."""
    from bingo.config import BagsConfig
    from bingo.stages import Stage, run_stage

    features = make_features(root / "features", digits / "train", teacher)
    run_stage(Stage("bags", "bags", BagsConfig(data=digits / "train", features=features, out=root / "bags")))
    return root / "bags"
