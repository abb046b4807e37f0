# SPDX-License-Identifier: MIT
"""Backbones by name: a picture in, one feature vector out, or the last two maps."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from fm_bench.errors import UserError, unknown
from fm_bench.nn.nin import NIN5


class Backbone(nn.Module):
    """A network ``(B, 3, H, W) -> (B, dim)``.

    Args:
        features: the network; its output is flattened.
        dim: length of its output.
        least: the shortest side of a picture that it can read; smaller pictures are enlarged to it.
    """

    def __init__(self, features: nn.Module, dim: int, least: int = 1) -> None:
        super().__init__()
        self.features = features
        self.dim = dim
        self.least = least

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, dim)`` of normalised images ``(B, 3, H, W)``."""
        features: Tensor = self.features(self._readable(images))
        return features.flatten(1)

    def maps(self, images: Tensor) -> Tensor:
        """The last map ``(B, dim, h, w)`` of a convolutional network of timm, which others do not have."""
        maps: Tensor = self.features.forward_features(self._readable(images))  # type: ignore[operator]  # timm's own
        return maps

    def _readable(self, images: Tensor) -> Tensor:
        """Pictures no smaller than ``least``, in their own proportions."""
        height, width = images.shape[-2:]
        short = min(height, width)
        if short >= self.least:
            return images
        size = [round(side * self.least / short) for side in (height, width)]
        return F.interpolate(images, size, mode="bilinear")


class LastMaps(nn.Module):
    """A network ``(B, 3, H, W) -> (B, C4, h, w), (B, C5, h', w'), (B, P)``: its last two maps, and the second pooled.

    Args:
        conv4: from the picture to the first map.
        conv5: from there to the second.
        pool: what fully connected layers see of the second; its output is flattened.
        sizes: ``C4``, ``C5`` and ``P``.
    """

    def __init__(self, conv4: nn.Module, conv5: nn.Module, pool: nn.Module, sizes: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv4, self.conv5, self.pool = conv4, conv5, pool
        self.conv4_width, self.conv5_width, self.pooled = sizes

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both maps and the pooled vector of normalised images."""
        conv4: Tensor = self.conv4(images)
        conv5: Tensor = self.conv5(conv4)
        return conv4, conv5, self.pool(conv5).flatten(1)


def build_maps(name: str, weights: str | None = None) -> LastMaps:
    """Builds a network that shows its last two maps.

    Args:
        name: ``nin5`` (Conv4 and Conv5 of DARN's Network in Network), ``alexnet`` (conv4 and conv5 after their ReLUs,
            pictures of at least 63 pixels), or a timm ResNet (the outputs of layer3 and layer4, globally pooled).
        weights: as in ``build_backbone``.

    Raises:
        UserError: if the name is unknown or not of these kinds, or the weights cannot be used.
    """
    if name == "nin5":
        nin = _nin5(weights)
        first, sizes = nn.Sequential(nin.conv1_to_3, nin.conv4), (nin.conv4_width, nin.conv5_width, nin.pooled)
        maps = LastMaps(first, nin.conv5, nin.pool5, sizes)
    elif name == "alexnet":
        layers = build_backbone(name, weights).features[0]  # type: ignore[index]  # a Sequential of Sequentials
        pool = nn.Sequential(layers[12], nn.AdaptiveAvgPool2d(6))  # 6 x 6 as it is at 224 pixels
        maps = LastMaps(layers[:10], layers[10:12], pool, (256, 256, 256 * 36))
    else:
        network = build_backbone(name, weights).features
        parts = [getattr(network, part, None) for part in ("conv1", "bn1", "act1", "maxpool", *_BLOCKS)]
        if None in parts:
            raise UserError(
                f"backbone {name!r} does not show its last two maps: give nin5, alexnet or a ResNet of timm."
            )
        widths = [int(info["num_chs"]) for info in network.feature_info[-2:]]  # type: ignore[index]
        sizes = (widths[0], widths[1], widths[1])
        maps = LastMaps(nn.Sequential(*parts[:-1]), parts[-1], nn.AdaptiveAvgPool2d(1), sizes)  # type: ignore[arg-type]
    return maps.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


_BLOCKS = ("layer1", "layer2", "layer3", "layer4")


def _nin5(weights: str | None) -> NIN5:
    network = NIN5()
    if weights == "imagenet":
        raise UserError(_NO_NIN)
    if weights:
        load_weights(network, Path(weights))
    return network


def _nin5_fc1(width: int, *, pretrained: bool) -> Backbone:
    if pretrained:
        raise UserError(_NO_NIN)
    network = NIN5()
    network.add_module("flatten", nn.Flatten())
    network.add_module("fc1", nn.Linear(network.pooled, width))
    network.add_module("relu", nn.ReLU())
    return Backbone(nn.Sequential(OrderedDict(network.named_children())), width)  # its names are those of weights


_NO_NIN = "there are no public ImageNet weights of nin5: give the path of weights, or another backbone."


def build_backbone(name: str, weights: str | None = None, width: int = 4096) -> Backbone:
    """Builds a backbone.

    Args:
        name: ``alexnet`` (fc7 after its ReLU, 4,096 numbers, pictures of at least 63 pixels), ``alexnet-linear``
            (fc7 before the ReLU), ``alexnet-fc6`` (fc6 after its ReLU), ``nin5`` (the FC1 of DARN's Network in
            Network, after its ReLU), or any timm model (features after global pooling).
        weights: None trains from scratch; a path loads a state dict (``.safetensors``, or ``.pt``/``.pth`` read with
            ``weights_only``); ``imagenet`` asks timm or torchvision for theirs, which needs a network.
        width: length of FC1; only ``nin5`` reads it.

    Raises:
        UserError: if the name is unknown, or the weights are missing, unsafe to read or of another network.
    """
    import timm  # half a second to import, which starting a run does not wait for

    pretrained = weights == "imagenet"
    if name in _ALEXNET:
        backbone = _alexnet(_ALEXNET[name], pretrained=pretrained)
    elif name == "nin5":
        backbone = _nin5_fc1(width, pretrained=pretrained)
    elif timm.is_model(name):
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
        backbone = Backbone(model, int(model.num_features), _LEAST.get(name, 1))  # type: ignore[arg-type]  # timm's
    else:
        raise unknown("backbone", name, [*_ALEXNET, "nin5", *timm.list_models()])
    if weights and not pretrained:
        load_weights(backbone.features, Path(weights))
    # convolutions are faster so, on CPUs and GPUs; torch's stubs do not know the argument
    return backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


_LEAST = {"inception_resnet_v2": 75}
"""The shortest side that networks read whose first layers, without padding, leave nothing of smaller pictures."""
_ALEXNET = {"alexnet": 6, "alexnet-linear": 5, "alexnet-fc6": 3}
"""How many layers of the classifier are kept: dropout, fc6, ReLU, dropout, fc7, ReLU."""


def _alexnet(layers: int, *, pretrained: bool) -> Backbone:
    """AlexNet up to fc7, the representation of AMNet and of FashionSearchNet's global branch, or up to fc6."""
    model = torchvision.models.alexnet(weights=torchvision.models.AlexNet_Weights.IMAGENET1K_V1 if pretrained else None)
    head = list(model.classifier[:layers])
    return Backbone(nn.Sequential(model.features, model.avgpool, nn.Flatten(), *head), 4096)


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads the feature part of a state dict; a classifier on top of it is left out."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {path}: give the path of a .safetensors or .pth file.") from error
    except Exception as error:  # unpicklable, truncated or not a state dict: every reader fails in its own way
        raise UserError(
            f"{path} holds no state dict that is safe to read: save the weights as .safetensors."
        ) from error
    own = model.state_dict()
    if not isinstance(state, Mapping):
        raise UserError(f"{path} holds {type(state).__name__}, not a state dict: save the network's state_dict().")
    for name, value in own.items():
        if name in state and tuple(state[name].shape) != tuple(value.shape):
            raise UserError(
                f"{path} has {name} of shape {tuple(state[name].shape)}, but the backbone needs {tuple(value.shape)}: "
                "give weights of this network."
            )
    missing, _ = model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of the backbone's tensors (first {missing[0]}): give weights of this network."
        )
