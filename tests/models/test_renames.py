"""Backbones of other names against what reads them elsewhere: timm's own conversion, the original EfficientNet."""

import pytest
import torch
from torch import nn

from bingo.errors import UserError
from bingo.models.architectures import create_timm
from bingo.models.infer import fits
from bingo.models.renames import renamed
from tests.support.checkpoints import byol_pytorch, dinov2, dinov3, efficientnet, resnet


def random(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.empty(v.shape).normal_(0, 0.05, generator=generator) if v.is_floating_point() else v
            for n, v in state.items()}  # fmt: skip


def test_dinov3_is_what_timm_makes_of_it() -> None:
    from timm.models.eva import checkpoint_filter_fn

    state = random(dinov3(depth=1))
    for name in [n for n in state if n.endswith("bias_mask")]:
        state[name] = torch.ones(3, 384).index_fill(0, torch.tensor(1), 0).flatten()
    taken = renamed(dict(state))
    model = create_timm(taken.network, num_classes=0, depth=1)
    expected = checkpoint_filter_fn(dict(state), model)
    assert taken.network == "dinov3_vits16"
    assert taken.state.keys() == expected.keys() == model.state_dict().keys()
    assert all(torch.equal(value, expected[name]) for name, value in taken.state.items())
    images = torch.randn(2, 3, 64, 64)
    model.load_state_dict(taken.state)
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(images), model.forward_features(images)[:, 0]), "the class token, as the release"
    state["blocks.0.attn.qkv.bias_mask"].fill_(1)
    with pytest.raises(UserError, match=r"blocks.0.attn.qkv.bias has a bias of the keys that is not zero"):
        renamed(state)


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_is_what_timm_makes_of_it(registers: int) -> None:
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = random({n: v for n, v in dinov2().items() if ".1" not in n})
    if registers:
        state["register_tokens"] = torch.randn(1, 4, 384)
    taken = renamed(dict(state))
    assert taken.network == f"timm:vit_small_patch14_{'reg4_' * bool(registers)}dinov2"
    model = create_timm(taken.network, num_classes=0, depth=1)
    expected = checkpoint_filter_fn(dict(state), model)
    assert taken.state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in taken.state.items())


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-lite1",
                                  "efficientnet-lite2", "efficientnet-lite4"])  # fmt: skip
def test_efficientnets_fit_those_of_timm(name: str) -> None:
    taken = renamed(dict(efficientnet(name)))
    assert taken.network == f"timm:tf_efficientnet_{name.removeprefix('efficientnet-')}"
    assert fits(taken.network, {n: v.shape for n, v in taken.state.items()})


def test_an_efficientnet_gives_what_the_original_gives() -> None:
    """Squeeze and excitation, "same" padding, and TensorFlow's batch norm."""
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(0)
    original = EfficientNet.from_name("efficientnet-b0").eval()
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    taken = renamed(dict(original.state_dict()))
    ours = create_timm(taken.network).eval()
    ours.load_state_dict(taken.state, strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), original(images), rtol=1e-4, atol=1e-4)


def test_a_resnet_as_a_list_of_its_children() -> None:
    online = byol_pytorch()["model"]
    prefix = "module.online_network.encoder."
    taken = renamed({n.removeprefix(prefix): v for n, v in online.items() if n.startswith(prefix)})
    expected = resnet("resnet50")
    assert taken.state.keys() == expected.keys()
    assert all(torch.equal(taken.state[name], value) for name, value in expected.items())


def test_blocks_of_no_efficientnet() -> None:
    state = {n: v for n, v in efficientnet().items() if not n.startswith("_blocks.15.")}
    with pytest.raises(UserError, match="its 15 blocks are those of no EfficientNet"):
        renamed(state)
