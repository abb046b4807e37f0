# SPDX-License-Identifier: MIT
"""Network in Network with five stacked convolutions, as DARN uses it."""

from torch import Tensor, nn


class NIN5(nn.Module):
    """Five convolutions, each followed by MLPConv layers (1 x 1 convolutions), Conv4 by two (DARN, Sec. 3.2).

    The paper prints no channels or kernels. Its feature lengths say that Conv4 and Conv5 have 1,536 channels together;
    the first two layers are AlexNet's.

    At 224 or 227 pixels the maps are 27, 13, 13, 13 and 13 cells wide and ``pool5`` gives 6 x 6, as a window of 3 with
    stride 2 would; smaller pictures, down to 32 pixels, give smaller maps and the same 6 x 6.
    """

    conv4_width = 512
    conv5_width = 1024
    pooled = 1024 * 6 * 6

    def __init__(self) -> None:
        super().__init__()
        self.conv1_to_3 = nn.Sequential(
            *_stack(3, 96, 11, mlps=1, stride=4, padding=2),
            nn.MaxPool2d(3, 2),
            *_stack(96, 256, 5, mlps=1, padding=2),
            nn.MaxPool2d(3, 2),
            *_stack(256, 384, 3, mlps=1, padding=1),
        )
        self.conv4 = nn.Sequential(*_stack(384, self.conv4_width, 3, mlps=2, padding=1))
        self.conv5 = nn.Sequential(*_stack(self.conv4_width, self.conv5_width, 3, mlps=1, padding=1))
        self.pool5 = nn.AdaptiveMaxPool2d(6)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Conv4 ``(B, 512, h, w)``, Conv5 ``(B, 1024, h, w)`` and pool5 ``(B, 36864)`` of normalised images."""
        conv4: Tensor = self.conv4(self.conv1_to_3(images))
        conv5: Tensor = self.conv5(conv4)
        return conv4, conv5, self.pool5(conv5).flatten(1)


def _stack(inputs: int, width: int, kernel: int, *, mlps: int, stride: int = 1, padding: int) -> list[nn.Module]:
    """A convolution and ``mlps`` MLPConv layers, each with its ReLU; He's start, since nothing is normalised."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, width, kernel, stride, padding), nn.ReLU()]
    for _ in range(mlps):
        layers += [nn.Conv2d(width, width, 1), nn.ReLU()]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # these have one
    return layers
