# SPDX-License-Identifier: MIT
import pytest
import torch

from fm_bench.errors import UserError
from fm_bench.nn.backbones import build_backbone, build_maps


@pytest.mark.parametrize(("name", "dim", "size"), [("resnet10t", 512, 32), ("resnet18", 512, 32)])
def test_backbone_gives_one_vector_per_picture(name, dim, size):
    backbone = build_backbone(name).eval()
    assert backbone.dim == dim
    assert backbone(torch.randn(2, 3, size, size)).shape == (2, dim)


def test_alexnet_is_fc7_with_and_without_its_relu():
    with torch.device("meta"):  # 57 million numbers: only their shapes matter here
        relu, linear = build_backbone("alexnet"), build_backbone("alexnet-linear")
    assert relu.dim == linear.dim == 4096
    assert isinstance(relu.features[-1], torch.nn.ReLU)
    assert isinstance(linear.features[-1], torch.nn.Linear)
    assert linear.features[-1].out_features == 4096


def test_unknown_backbone_names_the_nearest():
    with pytest.raises(UserError, match="resnet18"):
        build_backbone("resnet-18")


def test_weights_are_loaded_without_unpickling(tmp_path):
    source = build_backbone("resnet10t")
    path = tmp_path / "weights.pt"
    torch.save(
        source.features.state_dict() | {"fc.weight": torch.zeros(3, 512)}, path
    )  # a classifier on top is left out
    loaded = build_backbone("resnet10t", str(path))
    assert torch.equal(loaded.features.conv1[0].weight, source.features.conv1[0].weight)

    torch.save({"model": print}, path)
    with pytest.raises(UserError, match="no state dict that is safe"):
        build_backbone("resnet10t", str(path))
    torch.save({"conv1.0.weight": source.features.conv1[0].weight.data}, path)
    with pytest.raises(UserError, match="lacks"):
        build_backbone("resnet10t", str(path))
    with pytest.raises(UserError, match="no weights at"):
        build_backbone("resnet10t", str(tmp_path / "absent.pt"))


def test_alexnet_may_end_at_fc6():
    with torch.device("meta"):
        backbone = build_backbone("alexnet-fc6")
    assert backbone.dim == 4096
    assert [layer.in_features for layer in backbone.features if isinstance(layer, torch.nn.Linear)] == [9216]


@pytest.mark.parametrize(
    ("name", "sizes", "cells"),
    [
        ("nin5", (512, 1024, 36_864), (13, 13)),
        ("alexnet", (256, 256, 9216), (13, 13)),
        ("resnet50", (1024, 2048, 2048), (14, 7)),
    ],
)
def test_the_last_two_maps_are_shown(name, sizes, cells):
    with torch.device("meta"):
        maps = build_maps(name)
        conv4, conv5, pooled = maps(torch.zeros(1, 3, 224, 224))
    assert (maps.conv4_width, maps.conv5_width, maps.pooled) == sizes
    assert (conv4.shape[1], conv5.shape[1], pooled.shape[1]) == sizes
    assert (conv4.shape[-1], conv5.shape[-1]) == cells


def test_maps_are_those_of_the_network(tmp_path):
    source = build_backbone("resnet10t").eval()
    path = tmp_path / "weights.pt"
    torch.save(source.features.state_dict(), path)
    maps, images = build_maps("resnet10t", str(path)).eval(), torch.randn(2, 3, 64, 64)
    assert torch.allclose(maps(images)[2], source(images), atol=1e-5)


def test_backbones_without_such_maps_are_refused():
    with pytest.raises(UserError, match="does not show its last two maps"):
        build_maps("vit_tiny_patch16_224")
    with pytest.raises(UserError, match="no public ImageNet weights of nin5"):
        build_maps("nin5", "imagenet")
    with pytest.raises(UserError, match="resnet18"):
        build_maps("resnet-18")
