# SPDX-License-Identifier: MIT
"""The smallest method that learns: a request moves the picture's vector by what was learned for its values."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from fm_bench.data.batches import TripletBatch
from fm_bench.methods import Context, Method, Stage
from fm_bench.nn.backbones import build_backbone
from fm_bench.nn.losses import triplet_margin


class Shift(Method):
    """A vector per attribute value, added to the picture's feature where the value is asked for.

    Follows: no paper; it is an example.

    Args:
        attributes: the schema, ``{attribute: [value, …]}``.
        backbone: name for ``build_backbone``.
        margin: of the triplet loss, in distance between unit vectors.
        lr: peak learning rate.
    """

    stages = (Stage("shift", TripletBatch, monitor="val/accuracy@20"),)

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        backbone: str = "resnet18",
        margin: float = 0.5,
        lr: float = 0.02,
    ) -> None:
        super().__init__(attributes)
        self.save_hyperparameters()  # plain values: checkpoints load with weights_only=True
        self.backbone = build_backbone(backbone)
        self.shift = nn.Parameter(torch.zeros(self.schema.num_values, self.backbone.dim))

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """The direction of the feature, ``(B, 3, H, W)`` to ``(B, D)``."""
        return F.normalize(self.backbone(images), dim=-1)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """The same, moved towards the wanted values: ``indicator (B, C)`` has ones at them."""
        return F.normalize(self.backbone(images) + indicator @ self.shift, dim=-1)

    def shift_step(self, batch: TripletBatch) -> dict[str, tuple[float, Tensor]]:
        """``{"loss name": (weight, value)}``; each value is logged as ``train/<name>``."""
        query = self.embed_query(batch.reference, batch.indicator)
        positive, negative = self.embed_gallery(batch.positive), self.embed_gallery(batch.negative)
        return {"rank": (1.0, triplet_margin(query, positive, negative, self.hparams["margin"]))}

    def shift_optimizer(self) -> Any:
        """SGD with a warm-up and a cosine schedule over the stage."""
        return self.scheduled(SGD(self.parameters(), self.hparams["lr"], momentum=0.9))
