# SPDX-License-Identifier: MIT
import pytest
import torch

from fm_bench.errors import UserError
from fm_bench.nn.backbones import build_backbone


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
