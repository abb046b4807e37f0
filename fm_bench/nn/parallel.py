# SPDX-License-Identifier: MIT
"""Networks of one shape without shared weights, side by side in one product."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ParallelLinear(nn.Module):
    """``N`` linear layers.

    Args:
        networks: ``N``.
        inputs: numbers that come in.
        outputs: numbers that go out.
    """

    def __init__(self, networks: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5  # as nn.Linear starts
        self.weight = nn.Parameter(torch.empty(networks, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(networks, 1, outputs).uniform_(-bound, bound))

    def forward(self, inputs: Tensor, at: int | None = None) -> Tensor:
        """``(N, B, in) -> (N, B, out)``; with ``at``, ``(B, in) -> (B, out)`` of that network alone."""
        if at is None:
            return torch.baddbmm(self.bias, inputs, self.weight)
        return inputs @ self.weight[at] + self.bias[at]


class ParallelNorm(nn.Module):
    """``N`` layer normalisations, each with its own gain and shift."""

    def __init__(self, networks: int, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(networks, 1, width))
        self.shift = nn.Parameter(torch.zeros(networks, 1, width))

    def forward(self, inputs: Tensor, at: int | None = None) -> Tensor:
        """Keeps the shape of ``inputs``, which is that of ``ParallelLinear``."""
        normed = F.layer_norm(inputs, inputs.shape[-1:])
        return normed * self.gain + self.shift if at is None else normed * self.gain[at] + self.shift[at]


class ParallelMLP(nn.Module):
    """``N`` stacks of linear layers with leaky ReLUs between them.

    Args:
        networks: ``N``.
        widths: of the input, every hidden layer and the output.
        slope: of the ReLUs below zero; 0 is a plain ReLU.
        norm: normalise the hidden layers. Never over a batch: it would mix what is real with what is made.
        last: whether a ReLU follows the last layer, too.
    """

    def __init__(
        self, networks: int, widths: Sequence[int], *, slope: float = 0.0, norm: bool = False, last: bool = False
    ) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.slope, self.hidden = slope, len(pairs) if last else len(pairs) - 1
        self.layers = nn.ModuleList(ParallelLinear(networks, inputs, outputs) for inputs, outputs in pairs)
        self.norms = nn.ModuleList(ParallelNorm(networks, w) for _, w in pairs[: self.hidden]) if norm else None

    def forward(self, inputs: Tensor, at: int | None = None) -> Tensor:
        """``(N, B, in) -> (N, B, out)``; with ``at``, ``(B, in) -> (B, out)`` of that network alone."""
        values = inputs
        for i, layer in enumerate(self.layers):
            values = layer(values, at)
            if i < self.hidden:
                values = self.norms[i](values, at) if self.norms is not None else values
                values = F.leaky_relu(values, self.slope)
        return values
