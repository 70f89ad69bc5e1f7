"""What every rank reads by itself and all must read alike: images and networks."""

from pathlib import Path

import numpy as np
import torch

from bingo.config_parts import Loader, Runtime
from bingo.distributed import World
from bingo.errors import UserError
from bingo.files import hash_bytes
from bingo.images.dataset import Dataset
from bingo.images.open import open_dataset, open_images
from bingo.inputs import kind_of
from bingo.models import Encoder, check_alive, frozen_engine, load_encoder, state_hash
from bingo.models.arithmetic import precision_of
from bingo.paths import quoted


def open_same(path: Path, settings: Loader | None, world: World) -> Dataset:
    """As `open_images`, or `open_dataset` without settings; `TransientError` where ranks do not see the same images."""

    def load() -> Dataset:
        return open_images(path, settings, tell=world.main) if settings else open_dataset(path)

    return world.together(
        load, lambda found: {f"the images of {path}": found.hash, f"the sizes of the images of {path}": _sizes(found)}
    )


def _sizes(dataset: Dataset) -> str:
    """Hash of the images' sizes in pixels: views are drawn from them, and `Dataset.hash` says nothing of them."""
    return hash_bytes(np.ascontiguousarray(dataset.sizes).data)


def load_same(path: Path, size: int, world: World, *, head: bool, arch: str = "") -> tuple[Encoder, str]:
    """As `load_encoder`, on every rank's device, and tried there on images of size x size pixels (`check_alive`).

    head: keys are wanted, and a network without a head is refused, unless `bingo teacher` made it so: then its features
    are the keys. `TransientError` where ranks do not see the same network.
    """

    def load() -> tuple[Encoder, str]:
        encoder, content = load_encoder(path, arch)
        if head and not encoder.form.form and kind_of(path) != "teacher":
            raise UserError(
                f"{path} has no projection head to give keys: make a teacher of it with `bingo teacher --model "
                f"{quoted(path)} --head pca --features DIR --out DIR`, or with --head orthogonal or none"
            )
        check_alive(encoder.to(world.device), path, size, head=head)
        return encoder, content

    return world.together(
        load,
        # The content hash of a teacher with another head is that of the network it was made of.
        lambda found: {
            f"the weights of {path}": found[1],
            f"the head of {path}": state_hash(found[0].head.state_dict()),
        },
    )


def engine_same(
    encoder: Encoder, runtime: Runtime, world: World, *, rows: int, size: int, dtype: torch.dtype = torch.float32
) -> Encoder:
    """As `frozen_engine`, on every rank's device; `TransientError` where ranks do not get the same engine."""
    return world.together(
        lambda: frozen_engine(encoder, runtime, world.device, rows=rows, size=size, dtype=dtype),
        lambda engine: {
            f"how {encoder.name} runs": engine.engine,
            "the precision": precision_of(runtime, world.device),
        },
    )


def rounded_by(encoder: Encoder, runtime: Runtime, world: World) -> dict[str, str | None]:
    """For a stage's record: precision and engine that it ran with; None for those of a CPU by default."""
    precision, engine = precision_of(runtime, world.device), encoder.engine
    return {"precision": None if precision == "fp32" else precision, "engine": None if engine == "plain" else engine}


def key_of_blocks(key: str, encoder: Encoder, runtime: Runtime, world: World) -> str:
    """The stage's key, and what `auto` is here where that is not what the key takes it for.

    So blocks that another device began are not mixed with those of this one.
    """
    runs = (precision_of(runtime, world.device), encoder.engine)
    told = ("fp32" if runtime.precision == "auto" else runtime.precision, runtime.engine.replace("auto", "plain"))
    return key if runs == told else f"{key}-{'-'.join(runs)}"
