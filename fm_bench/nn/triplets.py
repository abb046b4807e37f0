# SPDX-License-Identifier: MIT
"""Soft triplets, and where a batch finds them."""

import torch
from torch import Tensor

from fm_bench.nn.losses import euclidean


def soft_triplet(anchor: Tensor, positive: Tensor, negative: Tensor, *, squared: bool = False) -> Tensor:
    """``d+ = exp(D+) / (exp(D+) + exp(D-)) = sigmoid(D+ - D-)`` per triplet (FashionSearchNet Eqs. 4-6), or its square.

    Args:
        anchor: ``(n, D)``.
        positive: ``(n, D)``.
        negative: ``(n, D)``.
        squared: the square that Hoffer and Ailon minimise; half of what the text in front of Eq. 6 equates with d+.

    Returns:
        ``(n,)`` in (0, 1); 0.5, or 0.25 squared, where both distances are equal.
    """
    share = torch.sigmoid(euclidean(anchor, positive) - euclidean(anchor, negative))
    return share.square() if squared else share


def partners(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For every image and attribute another image of the batch with the same value, and one with another value.

    Drawn at random, for each attribute on its own; without a label there is no partner.

    Args:
        labels: ``(B, A)``, −1 = missing.

    Returns:
        Positions ``(B, A)`` of positives and negatives, and where both were found ``(B, A)``.
    """
    one, other = labels.unsqueeze(1), labels.unsqueeze(0)  # (B, B, A): anchor, candidate, attribute
    known = (one >= 0) & (other >= 0)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device).unsqueeze(-1)
    chance = torch.rand(known.shape, device=labels.device)
    same = chance.masked_fill(~(known & (one == other) & ~itself), -1).max(1)
    differs = chance.masked_fill(~(known & (one != other)), -1).max(1)
    return same.indices, differs.indices, (same.values >= 0) & (differs.values >= 0)
