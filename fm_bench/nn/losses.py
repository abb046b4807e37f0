# SPDX-License-Identifier: MIT
"""Losses that more than one paper uses."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fm_bench.attributes import MISSING


def attribute_cross_entropy(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Softmax cross-entropy summed over attributes, averaged over images (AMNet Eq. 4; DARN and FSN alike).

    An attribute that an image has no label for adds nothing to that image's sum.

    Args:
        logits: one ``(B, C_m)`` block per attribute.
        labels: ``(B, A)``, −1 = missing.

    Returns:
        Scalar; ``sum_m log C_m`` at uniform logits without missing labels.
    """
    total = logits[0].new_zeros(())
    for m, block in enumerate(logits):
        total = total + F.cross_entropy(block.float(), labels[:, m].long(), ignore_index=MISSING, reduction="sum")
    return total / labels.shape[0]


def triplet_margin(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean hinge ``max(0, |a − p| − |a − n| + margin)`` on Euclidean distances (AMNet Eq. 5).

    Args:
        anchor: ``(B, D)``.
        positive: ``(B, D)``.
        negative: ``(B, D)``.
        margin: in distance units: at most 2 between unit vectors.

    Returns:
        Scalar, 0 when every triplet holds the margin.
    """
    return F.relu(euclidean(anchor, positive) - euclidean(anchor, negative) + margin).mean()


def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """Distances ``(B,)`` between the rows of two ``(B, D)`` tensors, with a finite gradient where they coincide."""
    return torch.sqrt((a - b).square().sum(-1).clamp(min=1e-12))
