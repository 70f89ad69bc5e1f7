"""ResNet-50 whose every layer is two, four or five times as wide, as SwAV and VICReg train them.

torchvision's `wide_resnet50_2` is another network: it widens only the middle convolution of each block.
"""

import torch
from torch import nn

BLOCKS = (3, 4, 6, 3)


class WideResNet(nn.Module):
    """torchvision's ResNet-50 with all channels times `widen`: B x 3 x H x W -> B x num_classes.

    Parameters have torchvision's names. The original pads the image by one pixel and the first convolution by two,
    which is the padding of three used here.
    """

    def __init__(self, widen: int, num_classes: int = 1000) -> None:
        super().__init__()
        self.inplanes = 64 * widen
        self.conv1 = nn.Conv2d(3, self.inplanes, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for at, blocks in enumerate(BLOCKS):
            setattr(self, f"layer{at + 1}", self._stage(64 * widen * 2**at, blocks, stride=1 + (at > 0)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.inplanes, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, planes: int, blocks: int, stride: int) -> nn.Sequential:
        from torchvision.models.resnet import Bottleneck

        downsample = nn.Sequential(
            nn.Conv2d(self.inplanes, 4 * planes, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * planes)
        )
        first = Bottleneck(self.inplanes, planes, stride, downsample)
        self.inplanes = 4 * planes
        return nn.Sequential(first, *(Bottleneck(4 * planes, planes) for _ in range(1, blocks)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for at in range(len(BLOCKS)):
            x = self.get_submodule(f"layer{at + 1}")(x)
        return self.fc(self.avgpool(x).flatten(1))
