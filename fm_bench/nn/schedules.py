# SPDX-License-Identifier: MIT
"""Learning-rate schedules."""

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, steps: int, warmup: float = 0.1) -> LambdaLR:
    """Rises linearly over the first ``warmup`` share of ``steps``, then falls to zero along a half cosine.

    Args:
        optimizer: its groups keep their own peak rates.
        steps: optimiser steps of the whole stage; step the schedule once after each.
        warmup: share of the steps in [0, 1).
    """
    return LambdaLR(optimizer, partial(_factor, steps=max(1, steps), warmup=max(1, round(warmup * steps))))


def _factor(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))
