# SPDX-License-Identifier: MIT
"""Fixtures of the methods' tests: six noisy pictures, and models on a backbone of one convolution."""

from collections.abc import Callable

import darn_models
import fashionsearchnet_models
import flam_models
import pytest
import torch
import torch.nn.functional as F
from stubs import Maps

from fm_bench.methods.darn import DARN
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.methods.flam import FLAM
from fm_bench.nn.backbones import Backbone

pytest.register_assert_rewrite("amgan_models", "amgan_by_hand")  # they assert, too


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 3, 9, 7, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every backbone is one convolution."""
    monkeypatch.setattr("fm_bench.methods.attribute_network.build_backbone", lambda *_: Backbone(Maps(), 6))


@pytest.fixture
def flam(maps: None) -> Callable[..., FLAM]:
    return flam_models.build


@pytest.fixture
def features() -> torch.Tensor:
    """Twelve features of FLAM's length."""
    return F.normalize(torch.randn(12, flam_models.DIM, generator=torch.Generator().manual_seed(3)), dim=-1)


@pytest.fixture
def fashionsearchnet(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FashionSearchNet]:
    monkeypatch.setattr("fm_bench.methods.fashionsearchnet.build_trunk", fashionsearchnet_models.trunk)
    return fashionsearchnet_models.build


@pytest.fixture
def darn(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DARN]:
    monkeypatch.setattr("fm_bench.methods.darn.build_maps", darn_models.maps)
    return darn_models.build
