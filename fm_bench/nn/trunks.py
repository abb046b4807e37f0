# SPDX-License-Identifier: MIT
"""Convolutional trunks by name: a picture in, a grid of features out."""

from pathlib import Path

import torch
from torch import Tensor, nn

from fm_bench.errors import UserError
from fm_bench.nn.backbones import build_backbone, load_weights

STRIDE = 8
"""A ResNet's grid has one cell per this many pixels: 8 x 8 at 64 pixels, 16 x 16 at 128."""


class Trunk(nn.Module):
    """A network ``(B, 3, H, W) -> (B, width, h, w)``.

    Args:
        layers: the network.
        width: channels of its output.
    """

    def __init__(self, layers: nn.Sequential, width: int) -> None:
        super().__init__()
        self.layers = layers
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, width, h, w)`` of normalised images."""
        features: Tensor = self.layers(images)
        return features


def build_trunk(name: str, weights: str | None = None, blocks: int = 3) -> Trunk:
    """Builds a trunk without any fully connected layer.

    Args:
        name: ``alexnet`` (conv1 to conv4 with their ReLUs: 256 channels, 13 x 13 at 224 or 227 pixels), or a ResNet of
            timm, whose later blocks keep the grid of 8 pixels per cell (dilated, as timm's ``output_stride`` does).
        weights: as in ``build_backbone``.
        blocks: residual blocks of a ResNet that are kept, 1 to 4.

    Raises:
        UserError: if the name is unknown or no ResNet's, or the weights cannot be used.
    """
    import timm  # half a second to import, which starting a run does not wait for

    if name == "alexnet":
        whole = build_backbone("alexnet", weights)
        first: nn.Sequential = whole.features[0][:10]  # type: ignore[index]  # a Sequential; up to conv4's ReLU
        return Trunk(first, 256)
    if not timm.is_model(name):
        build_backbone(name)  # names the nearest
    try:
        model = timm.create_model(name, pretrained=weights == "imagenet", num_classes=0, output_stride=STRIDE)
        parts = [getattr(model, part) for part in ("conv1", "bn1", "act1", "maxpool")]
        parts += [getattr(model, f"layer{block}") for block in range(1, blocks + 1)]
    except (TypeError, AttributeError, NotImplementedError, AssertionError) as error:
        raise UserError(
            f"backbone {name!r} has no grid of features that can be used: give alexnet or a ResNet of timm."
        ) from error
    if weights and weights != "imagenet":
        load_weights(model, Path(weights))
    with torch.no_grad():
        layers = nn.Sequential(*parts).eval()
        width = int(layers(torch.zeros(1, 3, 32, 32)).shape[1])
    return Trunk(layers.train().to(memory_format=torch.channels_last), width)  # type: ignore[call-overload]


def convolution(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    """A 3 x 3 convolution that keeps the grid, normalised or with a bias, and its ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm)]
    layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
    if batch_norm:
        nn.init.kaiming_normal_(layers[0].weight, nonlinearity="relu")  # type: ignore[arg-type]  # a convolution's
    else:  # as AlexNet's were: larger ones diverge at its rate
        nn.init.normal_(layers[0].weight, std=0.01)  # type: ignore[arg-type]
    module = nn.Sequential(*layers, nn.ReLU())
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
