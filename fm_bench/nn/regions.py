# SPDX-License-Identifier: MIT
"""Where a garment's torso, sleeves and collar are, told by the attributes that are seen there."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.attributes import AttributeSchema
from fm_bench.data.regions import REGIONS
from fm_bench.nn.localisation import above, class_maps

CONFIDENCE = 0.1  # classes above it are heard (FashionSearchNet, Sec. 3.4)
LINKS: dict[str, frozenset[str]] = {
    "torso": frozenset({"fit", "pattern", "fastening"}),
    "sleeves": frozenset({"sleeve", "sleeve length", "sleeve shape"}),
    "collar": frozenset({"collar", "neckline"}),
}
"""Which attributes, where a schema has them, tell where a region is (the paper's table is not printed)."""

_TORSO = REGIONS.index("torso")


def linked(schema: AttributeSchema) -> NDArray[np.bool_]:
    """``(3, C)``: the values whose maps show each region."""
    told = [[name.replace("_", " ") in LINKS[region] for name in schema.names] for region in REGIONS]
    return np.repeat(np.array(told), schema.sizes, axis=1)


def region_masks(
    features: Tensor, weights: Tensor, logits: Tensor, schema: AttributeSchema, share: float
) -> tuple[Tensor, Tensor]:
    """Masks and heat ``(B, 3, h, w)`` of torso, sleeves and collar; the torso is what the others leave of it.

    The heat sums the maps of all classes with a confidence above 0.1 of the region's attributes, each times its
    confidence. A region that none of the attributes tells of has no heat and an empty mask.

    Args:
        features: ``(B, K, h, w)``.
        weights: of the classifiers, ``(C, K)``.
        logits: ``(B, C)``.
        schema: of the ``C`` values.
        share: of a heat's maximum that a region lies above.
    """
    blocks = torch.split(logits, list(schema.sizes), dim=-1)
    confidence = torch.cat([block.softmax(-1) for block in blocks], dim=-1)
    heard = confidence * (confidence > CONFIDENCE)
    heat = class_maps(features, (heard.unsqueeze(1) * torch.from_numpy(linked(schema)).to(heard.device)) @ weights)
    masks = above(heat, share)
    masks[:, _TORSO] &= ~(masks[:, :_TORSO].any(1) | masks[:, _TORSO + 1 :].any(1))
    return masks, heat
