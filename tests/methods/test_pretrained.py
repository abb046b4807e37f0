# SPDX-License-Identifier: MIT
import pytest
import torch

from fm_bench.config import configure
from fm_bench.methods.pretrained import Pretrained
from fm_bench.nn.backbones import build_backbone

ATTRIBUTES = {"colour": ["red", "blue", "green"]}


def test_given_weights_are_used_and_named(tmp_path):
    source = build_backbone("resnet10t").eval()
    path = tmp_path / "weights.pt"
    torch.save(source.features.state_dict(), path)
    method, images = Pretrained(ATTRIBUTES, "resnet10t", str(path)).eval(), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        gallery, query = method.embed_gallery(images), method.embed_query(images, torch.eye(3))
        expected = torch.nn.functional.normalize(source(images), dim=1)
    assert torch.allclose(gallery, expected, atol=1e-5)
    assert torch.equal(gallery, query)
    assert method.row_notes == [f"weights: {path}"]
    assert method.stages == ()


def test_without_weights_the_row_says_so():
    assert "random" in Pretrained(ATTRIBUTES, "resnet10t").row_notes[0]


@pytest.mark.parametrize(("spec", "backbone"), [("pretrained/cnn", "alexnet-fc6"), ("pretrained/nin", "nin5")])
def test_variants_are_the_papers_baselines(spec, backbone):
    hyper = configure(spec, "garments", "quick", "common", 0).hyper
    assert hyper["backbone"] == backbone
    with torch.device("meta"):
        method = Pretrained(ATTRIBUTES, **hyper)
        assert method.embed_gallery(torch.zeros(1, 3, 64, 64)).shape[1] == (
            hyper["width"] if backbone == "nin5" else 4096
        )
