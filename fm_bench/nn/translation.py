# SPDX-License-Identifier: MIT
"""Generators and discriminators of features: one pair per target attribute, or one pair for all (FLAM Sec. 3.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_bench.nn.parallel import ParallelMLP

SLOPE = 0.2


class Generators(nn.Module):
    """``G_a(x, e) -> x~`` for each of ``T`` target attributes.

    Features have length 1, so that their numbers are tiny: inside, they are scaled to length ``sqrt(d)``.

    Args:
        targets: ``T``.
        dim: ``d``.
        code: length ``k`` of ``e``.
        hidden: width of both hidden layers.
        residual: add ``x`` to what the network says.
        shared: one network for all targets, which is told the target by a one-hot code.
    """

    def __init__(self, targets: int, dim: int, code: int, hidden: int, *, residual: bool, shared: bool) -> None:
        super().__init__()
        self.targets, self.residual, self.shared = targets, residual, shared
        widths = (dim + code + (targets if shared else 0), hidden, hidden, dim)
        self.network = ParallelMLP(1 if shared else targets, widths, slope=SLOPE, norm=True)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """``x~ (T, B, d)`` of length 1 from ``x (T, B, d)`` and ``e (T, B, k)``."""
        if not self.shared:
            return self._finished(features, self.network(self._input(features, code)))
        told = torch.eye(self.targets, device=features.device).unsqueeze(1).expand(-1, features.shape[1], -1)
        inputs = torch.cat([self._input(features, code), told], dim=-1)
        return self._finished(features, self.network(inputs.reshape(1, -1, inputs.shape[-1])).view_as(features))

    def one(self, target: int, features: Tensor, code: Tensor) -> Tensor:
        """``G_a`` of one target: ``x (B, d)`` and ``e (B, k)`` to ``x~ (B, d)``."""
        inputs = self._input(features, code)
        if self.shared:
            told = torch.eye(self.targets, device=features.device)[target].expand(len(features), -1)
            inputs = torch.cat([inputs, told], dim=-1)
        return self._finished(features, self.network(inputs, 0 if self.shared else target))

    @staticmethod
    def _input(features: Tensor, code: Tensor) -> Tensor:
        return torch.cat([spread(features), spread(code)], dim=-1)

    def _finished(self, features: Tensor, output: Tensor) -> Tensor:
        return F.normalize(output.float() + (spread(features) if self.residual else 0), dim=-1)


class Discriminators(nn.Module):
    """``D_a(x) -> (real or fake, f)`` for each target attribute: two branches on one body.

    Args:
        networks: ``T``, or 1 for all targets.
        dim: ``d``.
        matched: length of ``f``.
        hidden: widths of the body.
    """

    def __init__(self, networks: int, dim: int, matched: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.networks = networks
        self.body = ParallelMLP(networks, (dim, *hidden), slope=SLOPE, norm=True, last=True)
        self.judge = ParallelMLP(networks, (hidden[-1], 1))
        self.match = ParallelMLP(networks, (hidden[-1], matched))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The logit of "real" ``(T, B)`` and ``f (T, B, matched)`` of features ``(T, B, d)``."""
        seen = self.body(spread(features).reshape(self.networks, -1, features.shape[-1]))
        logit, matched = self.judge(seen).float(), self.match(seen).float()
        return logit.reshape(features.shape[:-1]), matched.reshape(*features.shape[:-1], -1)


def spread(unit: Tensor) -> Tensor:
    """Vectors of length 1, scaled so that their numbers are about 1."""
    scaled: Tensor = unit * unit.shape[-1] ** 0.5
    return scaled
