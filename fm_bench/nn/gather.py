# SPDX-License-Identifier: MIT
"""Rows from all processes of a run."""

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
