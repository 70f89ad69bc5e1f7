"""The libraries that `bingo bench loader` sets beside ours where they are installed, none of which the suite needs.

Each decodes an image once and makes two views of it in this very process: nothing is charged for the transport between
processes. `numerics` says whose pixels come out: those at torchvision's can stand in for ours, those at a library's own
(8-bit hue, other filters) cannot. A library that is absent is a row that says how to get it.
"""

import functools
import io
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from bingo.bench.loader import chains
from bingo.bench.loader.chains import AUGMENT
from bingo.errors import UserError
from bingo.images.image_folder import ImageFolder
from bingo.views.plan import Plan

Call = Callable[[Any], Any]


class Tools(NamedTuple):
    """The three stages of a rival: encoded bytes -> image -> crop -> finished view; as many as it has."""

    decode: Call
    crop: Call | None = None
    rest: Call | None = None


class Rival(NamedTuple):
    """A rival by name. make: imports what it needs, ImportError where that is absent."""

    make: Callable[[], Tools]
    stages: int
    """1: decode; 2: crops too; 3: the whole chain."""
    numerics: str
    """Whose pixels: torchvision's, or "its own"."""
    get: str
    """What to type where it is absent."""
    tar: bool = False
    """Images come from a tar through webdataset, not from files."""


class InProcess:
    """One rival up to one stage; images of a batch are shared out among threads where there are several."""

    def __init__(self, rival: Rival, data: ImageFolder, stage: int, batch: int, threads: int) -> None:
        self.plan, self.stage, self.tools = Plan(data.sizes, batch, AUGMENT), stage, made(rival)
        check_pixels(self.tools.decode, Path(data.file(0)).read_bytes())
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self.read: Callable[[np.ndarray], Iterator[bytes]] = functools.partial(_files, data)
        self.tar = _Tar(data) if rival.tar else None

    def burst(self, start: int, steps: int) -> None:
        for step in range(start, start + steps):
            images = self.plan.step(step).groups[0]
            encoded = self.tar.read(images) if self.tar else self.read(images)
            made = list((self.pool.map if self.pool else map)(self._views, encoded))
            if self.stage == 2:  # finished views are batched, as a training loop needs them
                [torch.stack(views) for views in zip(*made, strict=True)]

    def _views(self, encoded: bytes) -> Any:
        decode, crop, rest = self.tools
        image = decode(encoded)
        if self.stage == 0:
            return None
        assert crop is not None
        crops = [crop(image) for _ in range(2)]
        if self.stage == 1:
            return None
        assert rest is not None
        return [rest(crop) for crop in crops]

    def cpu_seconds(self) -> float:
        return time.process_time()

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown()
        if self.tar:
            self.tar.path.unlink()


def made(rival: Rival) -> Tools:
    """Its tools; `UserError` that says how to get it where it is absent."""
    try:
        return rival.make()
    except ImportError as error:
        raise UserError(f"not installed ({error}); {rival.get}") from error


def check_pixels(decode: Call, encoded: bytes) -> None:
    """`UserError` where a decoder gives other pixels than PIL by more than a level anywhere: it saves work then."""
    image = decode(encoded)
    theirs = image.permute(1, 2, 0).numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    if theirs.shape != pixels.shape or np.abs(theirs.astype(int) - pixels).max() > 1:
        raise UserError("wrong: its pixels of the first image are not PIL's")


def _files(data: ImageFolder, images: np.ndarray) -> Iterator[bytes]:
    return (Path(data.file(int(image))).read_bytes() for image in images)


class _Tar:
    """The images in a tar; webdataset reads one after the other in the tar's order, as it is meant to be used."""

    def __init__(self, data: ImageFolder) -> None:
        self.path = Path(tempfile.mkstemp(suffix=".tar")[1])
        with tarfile.open(self.path, "w") as tar:
            for number in range(len(data)):
                encoded = Path(data.file(number)).read_bytes()
                entry = tarfile.TarInfo(f"{number:06d}.jpg")
                entry.size = len(encoded)
                tar.addfile(entry, io.BytesIO(encoded))
        self.samples = self._endless()

    def _endless(self) -> Iterator[bytes]:
        webdataset = import_module("webdataset")
        while True:
            for sample in webdataset.WebDataset(str(self.path), shardshuffle=False, empty_check=False):
                yield sample["jpg"]

    def read(self, images: np.ndarray) -> Iterator[bytes]:
        return (next(self.samples) for _ in images)


def simplejpeg_decoder() -> Call:
    return functools.partial(import_module("simplejpeg").decode_jpeg, colorspace="RGB")


def torchcodec_decoder() -> Call:
    decode = import_module("torchcodec.decoders").decode_jpeg
    return lambda encoded: decode(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))


def opencv() -> Any:
    """The module, without threads of its own: images are shared out among the loader's."""
    module = import_module("cv2")
    module.setNumThreads(0)
    return module


def _on_arrays(crop: Call) -> Call:
    """A crop of torchvision's on an array (H, W, 3): channels-last memory, which its resize is fastest in."""
    return lambda image: crop(torch.from_numpy(image).permute(2, 0, 1))


def simplejpeg_torchvision() -> Tools:
    _, crop, rest = chains.v2_tools()
    return Tools(simplejpeg_decoder(), _on_arrays(crop), rest)


def torchcodec_torchvision() -> Tools:
    _, crop, _ = chains.v2_tools()
    return Tools(torchcodec_decoder(), crop)


def webdataset_torchvision() -> Tools:
    import_module("webdataset")
    return simplejpeg_torchvision()


def pil_torchvision() -> Tools:
    """The release-style transform without worker processes."""
    _, crop, rest = chains.pil_tools()
    return Tools(lambda encoded: Image.open(io.BytesIO(encoded)).convert("RGB"), crop, rest)


def opencv_alone() -> Tools:
    cv2 = opencv()

    def decode(encoded: bytes) -> Any:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)

    return Tools(decode, opencv_crop(cv2), opencv_colours(cv2))


def simplejpeg_opencv() -> Tools:
    return opencv_alone()._replace(decode=simplejpeg_decoder())


def opencv_crop(cv2: Any) -> Call:
    """A random resized crop by INTER_AREA, which is opencv's filter for making images smaller."""
    size = (AUGMENT.size, AUGMENT.size)

    def crop(image: np.ndarray) -> np.ndarray:
        top, left, height, width = random_box(*image.shape[:2])
        return cv2.resize(image[top : top + height, left : left + width], size, interpolation=cv2.INTER_AREA)

    return crop


def random_box(height: int, width: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) as RandomResizedCrop draws it; the whole image where ten draws do not fit."""
    for _ in range(10):
        area, log_ratio = height * width * random.uniform(*AUGMENT.scale), random.uniform(-1, 1) * np.log(4 / 3)
        w, h = round((area * np.exp(log_ratio)) ** 0.5), round((area / np.exp(log_ratio)) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, height - h), random.randint(0, width - w), h, w
    return 0, 0, height, width


def opencv_colours(cv2: Any) -> Call:
    """MoCo-v2's distortions by opencv on 8-bit images: tables, its 8-bit HSV, its blur."""
    levels = np.arange(256, dtype=np.float32)
    finish = ((levels[:, None] / 255 - AUGMENT.mean) / AUGMENT.std).astype(np.float32)[None]

    def table(image: np.ndarray, values: np.ndarray) -> np.ndarray:
        return cv2.LUT(image, values.clip(0, 255).astype(np.uint8))

    def brightness(image: np.ndarray) -> np.ndarray:
        return table(image, levels * random.uniform(1 - AUGMENT.brightness, 1 + AUGMENT.brightness))

    def contrast(image: np.ndarray) -> np.ndarray:
        factor = random.uniform(1 - AUGMENT.contrast, 1 + AUGMENT.contrast)
        return table(image, levels * factor + cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] * (1 - factor))

    def grey(image: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)

    def saturation(image: np.ndarray) -> np.ndarray:
        factor = random.uniform(1 - AUGMENT.saturation, 1 + AUGMENT.saturation)
        return cv2.addWeighted(image, factor, grey(image), 1 - factor, 0)

    def hue(image: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # hue in 180 steps
        turned = ((levels + 180 * random.uniform(-AUGMENT.hue, AUGMENT.hue)) % 180).astype(np.uint8)
        cv2.insertChannel(cv2.LUT(cv2.extractChannel(hsv, 0), turned), hsv, 0)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    def rest(image: np.ndarray) -> torch.Tensor:
        operations = [brightness, contrast, saturation, hue]
        random.shuffle(operations)
        for operation in operations if random.random() < AUGMENT.jitter_p else ():
            image = operation(image)
        image = grey(image) if random.random() < AUGMENT.grey_p else image
        if random.random() < AUGMENT.blur_p:
            image = cv2.GaussianBlur(image, (AUGMENT.blur_kernel,) * 2, random.uniform(*AUGMENT.blur_sigma))
        image = cv2.flip(image, 1) if random.random() < AUGMENT.flip_p else image
        return torch.from_numpy(cv2.LUT(image, finish)).permute(2, 0, 1)

    return rest


def albumentations() -> Tools:
    A, area = import_module("albumentations"), opencv().INTER_AREA
    crop = A.RandomResizedCrop((AUGMENT.size, AUGMENT.size), scale=AUGMENT.scale, interpolation=area)
    ranges = [(1 - x, 1 + x) for x in (AUGMENT.brightness, AUGMENT.contrast, AUGMENT.saturation)]
    jitter = A.ColorJitter(*ranges, (-AUGMENT.hue, AUGMENT.hue), p=AUGMENT.jitter_p)
    blur = A.GaussianBlur(blur_range=(AUGMENT.blur_kernel,) * 2, sigma_range=AUGMENT.blur_sigma, p=AUGMENT.blur_p)
    steps = [jitter, A.ToGray(p=AUGMENT.grey_p), blur, A.HorizontalFlip(p=AUGMENT.flip_p)]
    chain, cut = A.Compose([*steps, A.Normalize(AUGMENT.mean, AUGMENT.std)]), A.Compose([crop])
    return Tools(
        simplejpeg_decoder(),
        lambda image: cut(image=image)["image"],
        lambda image: torch.from_numpy(chain(image=image)["image"]).permute(2, 0, 1),
    )


def pyvips() -> Tools:
    vips, size = import_module("pyvips"), AUGMENT.size

    def decode(encoded: bytes) -> np.ndarray:
        return vips.Image.new_from_buffer(encoded, "").numpy()

    def crop(image: np.ndarray) -> np.ndarray:
        top, left, height, width = random_box(*image.shape[:2])
        box = vips.Image.new_from_array(np.ascontiguousarray(image[top : top + height, left : left + width]))
        return box.resize(size / width, vscale=size / height, kernel="linear").numpy()

    return Tools(decode, crop)


TORCHVISION, OWN = "torchvision's", "its own"
RIVALS = {
    "torchvision + PIL in process": Rival(pil_torchvision, 3, TORCHVISION, "pip install torchvision"),
    "simplejpeg + torchvision v2": Rival(simplejpeg_torchvision, 3, TORCHVISION, "pip install simplejpeg"),
    "torchcodec + torchvision v2": Rival(torchcodec_torchvision, 2, TORCHVISION, "pip install torchcodec"),
    "webdataset + simplejpeg + torchvision v2": Rival(
        webdataset_torchvision, 3, TORCHVISION, "pip install webdataset simplejpeg", tar=True
    ),
    "opencv": Rival(opencv_alone, 3, OWN, "pip install opencv-python-headless"),
    "simplejpeg + opencv": Rival(simplejpeg_opencv, 3, OWN, "pip install simplejpeg opencv-python-headless"),
    "simplejpeg + albumentationsx": Rival(albumentations, 3, OWN, "pip install simplejpeg albumentationsx"),
    "pyvips": Rival(pyvips, 2, OWN, "pip install pyvips[binary]"),
}
"""Name -> rival."""
