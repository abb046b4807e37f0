# SPDX-License-Identifier: MIT
"""Rows from all processes of a run."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def gathered(trainer: Any, share: Tensor) -> Tensor:
    """Every process's rows after each other; the shares ``(n, …)`` may differ in length.

    Args:
        trainer: Lightning's; every process must call.
        share: this process's rows.
    """
    if trainer.world_size == 1:
        return share
    gather = trainer.strategy.all_gather
    counts = gather(torch.tensor(len(share), device=share.device))
    padded = share.new_zeros(int(counts.max()), *share.shape[1:])
    padded[: len(share)] = share
    return torch.cat([part[:count] for part, count in zip(gather(padded), counts.tolist(), strict=True)])


def features_in_order(trainer: Any, pictures: Iterable[tuple[Tensor, Tensor]], empty: Tensor) -> Tensor:
    """Features of all training images, one row each, in the order of the catalogue, on every process.

    Args:
        trainer: Lightning's; every process must call.
        pictures: this process's share of the batches: catalogue rows ``(B,)`` and features ``(B, …)``.
        empty: ``(0, …)`` on the device; a process may have no batch at all.
    """
    rows, features = [torch.zeros(0, dtype=torch.long, device=empty.device)], [empty]
    for row, feature in pictures:
        rows.append(row)
        features.append(feature)
    order = gathered(trainer, torch.cat(rows)).argsort()
    return gathered(trainer, torch.cat(features))[order]
