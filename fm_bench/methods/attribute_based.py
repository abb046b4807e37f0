# SPDX-License-Identifier: MIT
"""Attribute-based retrieval: predict the query's attributes, overwrite the requested ones, look those up."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fm_bench.attributes import AttributeSchema
from fm_bench.methods.attribute_network import AttributeNetwork, predict_labels
from fm_bench.methods.base import Context

# Squared distances between directions are at most 4 and a mismatch adds 2 x 2.5 = 5: agreement outweighs looks.
MATCH_SCALE = 2.5**0.5


class AttributeBased(AttributeNetwork):
    """The attribute-based baseline of the AMNet paper (Sec. 5.1).

    Gallery images are ranked by how many predicted attributes agree with the query's edited ones, then by feature
    distance. Both criteria live in one Euclidean space: scaled one-hot codes beside the L2-normalised feature.

    Differs: the paper does not say whose gallery attributes it uses; predicted ones are the default, since a search
    engine has no labels.

    Args:
        gallery_attributes: ``predicted``, or ``labels`` to look the true ones up.
        others: see ``AttributeNetwork``.
    """

    def __init__(
        self,
        attributes: Mapping[str, Sequence[str]],
        backbone: str = "resnet18",
        weights: str | None = None,
        images_per_value: int | None = None,
        attributes_lr: float = 0.05,
        attributes_head_lr: float = 0.05,
        weight_decay: float = 5e-4,
        gallery_attributes: Literal["predicted", "labels"] = "predicted",
    ) -> None:
        super().__init__(
            attributes, backbone, weights, images_per_value, attributes_lr, attributes_head_lr, weight_decay
        )
        self.save_hyperparameters()
        self.needs_labels = gallery_attributes == "labels"

    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """``[one-hot of the attributes; feature]``."""
        features = self.backbone(images)
        if self.needs_labels and context is not None and context.labels is not None:
            return self._code(context.labels, features)
        return self._code(predict_labels(self.logits(features)), features)

    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """``[one-hot of the edited prediction; feature]``; the true labels of a query are never read."""
        features = self.backbone(images)
        return self._code(self.schema.edit(predict_labels(self.logits(features)), indicator), features)

    def _code(self, labels: Tensor, features: Tensor) -> Tensor:
        return matching_code(self.schema, labels, features)


def matching_code(schema: AttributeSchema, labels: Tensor, features: Tensor) -> Tensor:
    """Vectors ``(B, C + D)`` that are close when ``labels (B, A)`` agree, and among equals when ``features`` do."""
    return torch.cat([MATCH_SCALE * schema.one_hot(labels), F.normalize(features.float(), dim=-1)], dim=-1)
