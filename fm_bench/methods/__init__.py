# SPDX-License-Identifier: MIT
"""The methods, by the name that the command line and the leaderboard use."""

from fm_bench.methods.amnet import AMNet
from fm_bench.methods.attribute_based import AttributeBased
from fm_bench.methods.attribute_network import AttributeNetwork
from fm_bench.methods.base import Context, Method, Stage
from fm_bench.methods.bounds import Identity, Oracle, Random
from fm_bench.methods.darn import DARN
from fm_bench.methods.detector import Detector
from fm_bench.methods.dsift_fisher import DSIFTFisher
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.methods.pretrained import Pretrained

METHODS: dict[str, type[Method]] = {
    "amnet": AMNet,
    "attribute-based": AttributeBased,
    "darn": DARN,
    "detector": Detector,
    "dsift-fisher": DSIFTFisher,
    "fashionsearchnet": FashionSearchNet,
    "identity": Identity,
    "oracle": Oracle,
    "pretrained": Pretrained,
    "random": Random,
}

__all__ = [
    "DARN",
    "METHODS",
    "AMNet",
    "AttributeBased",
    "AttributeNetwork",
    "Context",
    "DSIFTFisher",
    "Detector",
    "FashionSearchNet",
    "Identity",
    "Method",
    "Oracle",
    "Pretrained",
    "Random",
    "Stage",
]
