# SPDX-License-Identifier: MIT
"""Triplets by cosine distance, and the hardest ones of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """``1 - cos`` in [0, 2] between the last dimensions of two tensors, which broadcast."""
    return 1 - F.cosine_similarity(a.float(), b.float(), dim=-1)


def cosine_hinge(near: Tensor, far: Tensor, margin: float) -> Tensor:
    """FLAM Eq. 1 on distances: ``max(0, near - far + margin)``, element by element."""
    return F.relu(near - far + margin)


def masked_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the last dimension of what is counted; 0, with a gradient of 0, where nothing is."""
    return torch.where(counted, values, 0).sum(-1) / counted.sum(-1).clamp(min=1)


def batch_hard(features: Tensor, instance: Tensor, margin: float) -> Tensor:
    """Triplets of every row with its farthest partner and its nearest stranger in the batch, averaged.

    Args:
        features: ``(B, D)`` of length 1.
        instance: ``(B,)``; rows with equal numbers are partners.
        margin: in units of ``1 - cos``.

    Returns:
        Scalar; 0 where no row has both a partner and a stranger.
    """
    distance = 1 - features @ features.T
    same = instance.unsqueeze(1) == instance.unsqueeze(0)
    partner = same & ~torch.eye(len(instance), dtype=torch.bool, device=instance.device)
    near = distance.masked_fill(~partner, -torch.inf).amax(1)
    far = distance.masked_fill(same, torch.inf).amin(1)
    found = partner.any(1) & ~same.all(1)
    return masked_mean(cosine_hinge(torch.where(found, near, 0), torch.where(found, far, 0), margin), found)
