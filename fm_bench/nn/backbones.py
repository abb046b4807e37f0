# SPDX-License-Identifier: MIT
"""Backbones by name: a picture in, one feature vector out."""

from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor, nn

from fm_bench.errors import UserError, unknown


class Backbone(nn.Module):
    """A network ``(B, 3, H, W) -> (B, dim)``.

    Args:
        features: the network; its output is flattened.
        dim: length of its output.
    """

    def __init__(self, features: nn.Module, dim: int) -> None:
        super().__init__()
        self.features = features
        self.dim = dim

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, dim)`` of normalised images ``(B, 3, H, W)``."""
        features: Tensor = self.features(images)
        return features.flatten(1)


def build_backbone(name: str, weights: str | None = None) -> Backbone:
    """Builds a backbone.

    Args:
        name: ``alexnet`` (fc7 after its ReLU, 4,096 numbers, pictures of at least 63 pixels), ``alexnet-linear``
            (fc7 before the ReLU), or any timm model (features after global pooling).
        weights: None trains from scratch; a path loads a state dict (``.safetensors``, or ``.pt``/``.pth`` read with
            ``weights_only``); ``imagenet`` asks timm or torchvision for theirs, which needs a network.

    Raises:
        UserError: if the name is unknown, or the weights are missing, unsafe to read or of another network.
    """
    pretrained = weights == "imagenet"
    if name in ("alexnet", "alexnet-linear"):
        backbone = _alexnet(relu=name == "alexnet", pretrained=pretrained)
    elif timm.is_model(name):
        model = timm.create_model(name, pretrained=pretrained, num_classes=0)
        backbone = Backbone(model, int(model.num_features))  # type: ignore[arg-type]  # timm models have it, Module does not
    else:
        raise unknown("backbone", name, ["alexnet", "alexnet-linear", *timm.list_models()])
    if weights and not pretrained:
        _load_weights(backbone.features, Path(weights))
    # convolutions are faster so, on CPUs and GPUs; torch's stubs do not know the argument
    return backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _alexnet(*, relu: bool, pretrained: bool) -> Backbone:
    """AlexNet up to fc7, the representation of AMNet and of FashionSearchNet's global branch."""
    model = torchvision.models.alexnet(weights=torchvision.models.AlexNet_Weights.IMAGENET1K_V1 if pretrained else None)
    head = list(model.classifier[: 6 if relu else 5])  # dropout, fc6, ReLU, dropout, fc7(, ReLU)
    return Backbone(nn.Sequential(model.features, model.avgpool, nn.Flatten(), *head), 4096)


def _load_weights(model: nn.Module, path: Path) -> None:
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
    missing, _ = model.load_state_dict({k: v for k, v in state.items() if k in model.state_dict()}, strict=False)
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} of the backbone's tensors (first {missing[0]}): give weights of this network."
        )
