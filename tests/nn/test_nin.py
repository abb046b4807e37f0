# SPDX-License-Identifier: MIT
"""The table of layers that DARN's feature lengths imply."""

import pytest
import torch
from torch import nn

from fm_bench.nn.nin import NIN5


@pytest.mark.parametrize("size", [224, 227])
def test_maps_have_the_sizes_of_the_table(size):
    with torch.device("meta"):
        network, seen = NIN5(), []
        for layer in network.conv1_to_3:
            if isinstance(layer, nn.MaxPool2d):
                layer.register_forward_hook(lambda _, inputs, output: seen.append(tuple(output.shape[1:])))
        conv4, conv5, pooled = network(torch.zeros(1, 3, size, size))
    assert seen == [(96, 27, 27), (256, 13, 13)]
    assert conv4.shape[1:] == (512, 13, 13)
    assert conv5.shape[1:] == (1024, 13, 13)
    assert pooled.shape[1] == NIN5.pooled == 36_864


def test_conv4_is_followed_by_two_mlpconv_layers_and_the_others_by_one():
    with torch.device("meta"):
        network = NIN5()
    kernels = [
        [layer.kernel_size[0] for layer in part if isinstance(layer, nn.Conv2d)]
        for part in (network.conv1_to_3, network.conv4, network.conv5)
    ]
    assert kernels == [[11, 1, 5, 1, 3, 1], [3, 1, 1], [3, 1]]
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(9.8e6, rel=0.01)


def test_pool5_is_a_window_of_3_with_stride_2_on_the_papers_maps():
    maps = torch.randn(2, 4, 13, 13)
    assert torch.equal(nn.AdaptiveMaxPool2d(6)(maps), nn.functional.max_pool2d(maps, 3, 2))


def test_small_pictures_pass():
    network = NIN5().eval()
    with torch.no_grad():
        conv4, conv5, pooled = network(torch.randn(2, 3, 32, 32))
    assert pooled.shape == (2, 36_864)
    assert conv4.isfinite().all()
    assert 0.01 < conv5.std() < 100  # the signal neither dies nor explodes on the way
