# SPDX-License-Identifier: MIT
"""The methods, by the name that the command line and the leaderboard use."""

from fm_bench.methods.amgan import AMGAN
from fm_bench.methods.amnet import AMNet
from fm_bench.methods.attribute_based import AttributeBased
from fm_bench.methods.attribute_concat import AttributeConcat
from fm_bench.methods.attribute_network import AttributeNetwork
from fm_bench.methods.base import Context, Method, Stage
from fm_bench.methods.bounds import Identity, Oracle, Random
from fm_bench.methods.cgan import CGAN
from fm_bench.methods.darn import DARN
from fm_bench.methods.detector import Detector
from fm_bench.methods.dsift_fisher import DSIFTFisher
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.methods.fcd import FCD
from fm_bench.methods.flam import FLAM
from fm_bench.methods.pretrained import Pretrained

METHODS: dict[str, type[Method]] = {
    "amgan-p": AMGAN,
    "amgan-t": AMGAN,
    "amnet": AMNet,
    "attribute-based": AttributeBased,
    "cgan-p": CGAN,
    "cgan-t": CGAN,
    "cls-concat": AttributeConcat,
    "darn": DARN,
    "detector": Detector,
    "dsift-fisher": DSIFTFisher,
    "emb-concat": AttributeConcat,
    "fashionsearchnet": FashionSearchNet,
    "fcd": FCD,
    "flam": FLAM,
    "identity": Identity,
    "oracle": Oracle,
    "pretrained": Pretrained,
    "random": Random,
}

__all__ = [
    "AMGAN",
    "CGAN",
    "DARN",
    "FCD",
    "FLAM",
    "METHODS",
    "AMNet",
    "AttributeBased",
    "AttributeConcat",
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
