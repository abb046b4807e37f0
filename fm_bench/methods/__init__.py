# SPDX-License-Identifier: MIT
"""The methods, by the name that the command line and the leaderboard use."""

from fm_bench.methods.amnet import AMNet
from fm_bench.methods.attribute_based import AttributeBased
from fm_bench.methods.attribute_network import AttributeNetwork
from fm_bench.methods.base import Context, Method, Stage
from fm_bench.methods.bounds import Identity, Oracle, Random
from fm_bench.methods.dsift_fisher import DSIFTFisher
from fm_bench.methods.dsift_fisher import DSIFTFisher
from fm_bench.methods.fashionsearchnet import FashionSearchNet

METHODS: dict[str, type[Method]] = {
    "amnet": AMNet,
    "attribute-based": AttributeBased,
    "dsift-fisher": DSIFTFisher,
    "fashionsearchnet": FashionSearchNet,
    "dsift-fisher": DSIFTFisher,
    "identity": Identity,
    "oracle": Oracle,
    "random": Random,
}

__all__ = [
    "METHODS",
    "AMNet",
    "AttributeBased",
    "AttributeNetwork",
    "Context",
    "DSIFTFisher",
    "DSIFTFisher",
    "FashionSearchNet",
    "Identity",
    "Method",
    "Oracle",
    "Random",
    "Stage",
]
