# SPDX-License-Identifier: MIT
"""Tiny FashionSearchNets, and what they are asked and shown."""

import torch
from stubs import Trainer
from torch import nn

from fm_bench.data.batches import TripletPositionsBatch
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.nn.trunks import Trunk

ATTRIBUTES = {
    "colour": ["red", "blue", "green"],
    "sleeve length": ["none", "short"],
    "fit": ["slim", "wide", "loose", "long"],
    "collar": ["none", "shirt"],
}
A, C, DIM, WIDE = 4, 11, 6, 8
LABELS = torch.tensor([[2, 0, 1, 0], [0, 1, 3, 1], [1, 0, 0, 0], [0, 0, 2, 1], [2, 1, 1, 0], [1, 1, 3, 1]])


def trunk(name, weights=None, blocks=3) -> Trunk:
    """One convolution."""
    return Trunk(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), 4)


def build(attributes=ATTRIBUTES, **options) -> FashionSearchNet:
    torch.manual_seed(1)
    small = {"maps": [5, 6, 7], "dim": DIM, "crop": 3, "dropout": 0.0, "global_dim": WIDE}
    model = FashionSearchNet(attributes, **(small | options))
    model._trainer = Trainer()
    model.prototypes.normal_()
    if options.get("global_representation", True):
        model.importance.data.uniform_(0.5, 1.5)
        model.projection.data.normal_()
    return model.eval()


def indicators(model, *changes, count=6):
    """The same request for every picture."""
    return model.schema.indicator(changes).expand(count, -1)


def triplets(indicator):
    n = len(indicator)
    rows = torch.arange(n)
    return TripletPositionsBatch(rows, rows.roll(1), rows.roll(2), indicator, LABELS[:n], LABELS[:n], rows)
