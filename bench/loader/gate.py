"""The accuracy gate of `bingo bench loader`: our crops and colours against torchvision's."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bingo.bench.loader.chains import AUGMENT
from bingo.bench.loader.record import Gate
from bingo.distributed import World
from bingo.images.dataset import Dataset
from bingo.kernels.view_params import ViewParams
from bingo.views.loader import Batch, augmenter, training_batches
from bingo.views.plan import Plan

CROP_LEVELS = 1.0  # mean difference of the worst crop, of 255; the two filters see other pixels beyond a crop's edge
SAME_SHARE = 0.999  # of the values of the finished views, within 1e-4


def gate(data: Dataset, batch: int, threads: int, device: torch.device) -> Gate:
    """What was found, the bounds, and whether they hold; on the plan's first batch."""
    plan = Plan(data.sizes, batch, AUGMENT)
    made = next(training_batches(data, plan, World(0, 1, device, threads), start=0, stop=1))
    worst, same = _crop_error(data, made), _same_share(made)
    return {
        "crops": {"ok": worst <= CROP_LEVELS, "worst_mean_levels": worst, "bound": CROP_LEVELS},
        "colours": {"ok": same >= SAME_SHARE, "share_equal": same, "bound": SAME_SHARE},
    }


def _crop_error(data: Dataset, made: Batch) -> float:
    """Mean difference in levels of the worst crop from torchvision's antialiased resize of PIL's pixels."""
    from torchvision.transforms.v2 import functional as TF

    worst = 0.0
    for row, image in enumerate(made.plan.groups[0]):
        pixels = np.array(Image.open(io.BytesIO(bytes(data.encoded(int(image))))).convert("RGB"))
        for view, crops in zip(made.plan.views[0], made.crops[0], strict=True):
            (y0, x0), (y1, x1) = view.start[row].astype(int), view.end[row].astype(int)
            box = torch.from_numpy(pixels[y0:y1, x0:x1]).permute(2, 0, 1)
            theirs = TF.resize(box, [AUGMENT.size, AUGMENT.size], antialias=True).permute(1, 2, 0)
            worst = max(worst, (crops[row].cpu().float() - theirs.float()).abs().mean().item())
    return worst


def _same_share(made: Batch, images: int = 8) -> float:
    """Share of equal values between our chain and torchvision's operations with the same parameters."""
    apply, equal = augmenter(AUGMENT, torch.float32), []
    for view, crops in enumerate(made.crops[0]):
        params = made.params(0, view)
        some = params[slice(images)]
        ours = apply(crops[:images], some).cpu()
        theirs = torch.stack([_torchvision(crop.cpu(), some, i) for i, crop in enumerate(crops[:images])])
        equal.append(((ours - theirs).abs() <= 1e-4).float().mean().item())
    return min(equal)


def _torchvision(crop: Tensor, params: ViewParams, i: int) -> Tensor:
    from torchvision.transforms.v2 import functional as TF

    jitter = (
        (TF.adjust_brightness, params.brightness), (TF.adjust_contrast, params.contrast),
        (TF.adjust_saturation, params.saturation), (TF.adjust_hue, params.hue),
    )  # fmt: skip
    image = crop.permute(2, 0, 1)
    for which in params.order[i] if params.jitter[i] else ():
        adjust, factor = jitter[which]
        image = adjust(image, float(factor[i]))
    image = TF.rgb_to_grayscale(image, num_output_channels=3) if params.grey[i] else image
    sigma, kernel = float(params.blur_sigma[i]), AUGMENT.blur_kernel
    image = TF.gaussian_blur(image, [kernel, kernel], [sigma, sigma]) if sigma > 0 else image
    image = TF.horizontal_flip(image) if params.flip[i] else image
    return TF.normalize(TF.to_dtype(image, torch.float32, scale=True), list(AUGMENT.mean), list(AUGMENT.std))
