# SPDX-License-Identifier: MIT
"""Fully connected layers of many attributes, side by side in one product."""

import torch
from torch import Tensor, nn


class AttributeStacks(nn.Module):
    """Two layers per attribute, ``fc9`` and ``fc10`` of FashionSearchNet, each with ReLU and dropout.

    No attribute's numbers reach another's: the weights ``(A, in, out)`` multiply as a batch.

    Args:
        attributes: ``A``.
        inputs: numbers that come in per attribute.
        width: numbers that go out per attribute, and between the layers.
        dropout: after each layer.
    """

    def __init__(self, attributes: int, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.fc9 = nn.Parameter(torch.randn(attributes, inputs, width) * (2 / inputs) ** 0.5)
        self.fc10 = nn.Parameter(torch.randn(attributes, width, width) * (2 / width) ** 0.5)
        self.bias9 = nn.Parameter(torch.zeros(attributes, 1, width))
        self.bias10 = nn.Parameter(torch.zeros(attributes, 1, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor, attribute: int | None = None) -> Tensor:
        """``(B, N, width)`` of ``inputs (B, N, in)``.

        Args:
            inputs: one row per attribute (``N = A``).
            attribute: push all rows, of any number, through the stack of this one.
        """
        if attribute is None:
            hidden = torch.baddbmm(self.bias9, inputs.transpose(0, 1), self.fc9)
            hidden = torch.baddbmm(self.bias10, self.dropout(hidden.relu()), self.fc10)
            return self._out(hidden).transpose(0, 1)
        hidden = inputs @ self.fc9[attribute] + self.bias9[attribute]
        hidden = self.dropout(hidden.relu()) @ self.fc10[attribute] + self.bias10[attribute]
        return self._out(hidden)

    def _out(self, hidden: Tensor) -> Tensor:
        outputs: Tensor = self.dropout(hidden.relu())
        return outputs
