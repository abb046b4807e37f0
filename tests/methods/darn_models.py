# SPDX-License-Identifier: MIT
"""What the tests of DARN share: a tiny model, and batches of five pictures."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from fm_bench.data.batches import CrossDomainBatch
from fm_bench.methods import Context
from fm_bench.methods.darn import DARN
from fm_bench.nn.backbones import LastMaps

SIZES = {"colour": 3, "sleeve": 2, "fit": 4}
ATTRIBUTES_OF = {name: [f"{name}-{v}" for v in range(size)] for name, size in SIZES.items()}
LABELS = torch.tensor([[2, 0, 1], [0, 1, 3], [1, 0, 0], [0, 0, 2], [2, 1, 1]])


def maps(name, weights=None) -> LastMaps:
    """In the place of ``build_maps``: one convolution each for conv4 and conv5."""
    conv4 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    conv5 = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU())
    return LastMaps(conv4, conv5, nn.AdaptiveAvgPool2d(1), (4, 5, 5))


def build(**options) -> DARN:
    torch.manual_seed(0)
    return DARN(ATTRIBUTES_OF, **{"width": 6, "branch": 7, "dropout": 0.0, "pca": None} | options).eval()


def pictures() -> Tensor:
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def batch_of(images, labels=LABELS, street=1) -> CrossDomainBatch:
    return CrossDomainBatch(
        images,
        images.roll(1, 0),
        images.roll(2, 0),
        labels,
        labels,
        labels.roll(2, 0),
        torch.full((5,), street),
        torch.arange(5),
    )


def total(losses) -> Tensor:
    return sum(weight * value for weight, value in losses.values())


def context(domain) -> Context:
    return Context(None, torch.tensor(domain), torch.arange(len(domain)), None)


def trainer(**more) -> SimpleNamespace:
    return SimpleNamespace(world_size=1, estimated_stepping_batches=10, **more)
