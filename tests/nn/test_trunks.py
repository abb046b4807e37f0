# SPDX-License-Identifier: MIT
import pytest
import torch

from fm_bench.errors import UserError
from fm_bench.nn.trunks import build_trunk


def test_trunks_have_the_grid_that_the_paper_needs():
    torch.manual_seed(0)
    alexnet = build_trunk("alexnet").eval()
    with torch.no_grad():
        assert alexnet(torch.zeros(1, 3, 227, 227)).shape == (1, 256, 13, 13)
        assert alexnet(torch.zeros(1, 3, 224, 224)).shape == (1, 256, 13, 13)
        for blocks, width in ((2, 128), (3, 256)):
            trunk = build_trunk("resnet10t", blocks=blocks).eval()
            assert trunk.width == width
            assert trunk(torch.zeros(1, 3, 80, 64)).shape == (1, width, 10, 8)
    with pytest.raises(UserError, match="grid"):
        build_trunk("vit_tiny_patch16_224")
    with pytest.raises(UserError, match="backbone"):
        build_trunk("resnet10x")
