# SPDX-License-Identifier: MIT
"""A network as somebody else trained it, without any training here."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from fm_bench.methods.base import Context, Method
from fm_bench.nn.backbones import build_backbone

ALEXNET_SIDE = 64
"""AlexNet reads no smaller pictures, so these are enlarged for it."""


class Pretrained(Method):
    """Floor: looks for what is similar to the picture in the eyes of a network that was trained for something else.

    The pre-trained CNN and NIN of the DARN paper (Sec. 5.1): the FC1 response, normalised. Requests are ignored.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        backbone: name for ``build_backbone``, e.g. ``alexnet-fc6``, ``nin5`` or any timm model.
        weights: ``imagenet`` or a file, see ``build_backbone``; None leaves the weights random, and the row says so.
        width: length of FC1; only ``nin5`` reads it.
    """

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        backbone: str = "resnet18",
        weights: str | None = None,
        width: int = 4096,
    ) -> None:
        super().__init__(attributes)
        self.save_hyperparameters()
        self.backbone = build_backbone(backbone, weights, width)

    @property
    def row_notes(self) -> list[str]:
        """Where the weights come from."""
        weights = self.hparams["weights"]
        if weights is None:
            return ["the weights are random: none were given (--method.weights)"]
        return [f"weights: {weights}"]

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The direction of the feature, ``(B, D)``."""
        if self.hparams["backbone"].startswith("alexnet") and min(images.shape[-2:]) < ALEXNET_SIDE:
            scale = ALEXNET_SIDE / min(images.shape[-2:])
            size = [round(scale * side) for side in images.shape[-2:]]
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return F.normalize(self.backbone(images).float(), dim=-1)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The same, whatever was asked."""
        return self.embed_gallery(images, context)
