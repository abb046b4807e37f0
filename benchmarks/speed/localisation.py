# SPDX-License-Identifier: MIT
"""Boxes of all attributes of a batch against the forward pass that they belong to, in the same run.

python benchmarks/speed/localisation.py [--batch 256] [--size 64] [--attributes 12] [--backbone resnet10t] [--json FILE]
"""

import argparse
from collections.abc import Sequence

import torch
from common import Row, best, options, publish

from fm_bench import recipe
from fm_bench.methods import FashionSearchNet
from fm_bench.nn.localisation import above, component_boxes


def measure(given: argparse.Namespace) -> dict[str, float]:
    """Seconds per batch of each part."""
    torch.manual_seed(0)
    attributes = {f"a{m}": [f"v{v}" for v in range(12)] for m in range(given.attributes)}
    hyper = recipe.load("methods", "fashionsearchnet")["method"]
    model = FashionSearchNet(attributes, given.backbone, **hyper).eval()
    images = torch.randn(given.batch, 3, given.size, given.size)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        conv5, conv7 = model.convolve(images)
        logits = model.classify(conv7)
        maps = model.activation_maps(conv7, logits)
        boxes = model.boxes(maps)
        works = {
            "convolutions": lambda: model.convolve(images),
            "activation maps": lambda: model.activation_maps(conv7, logits),
            "boxes": lambda: component_boxes(above(maps, 0.2), maps),
            "crops and stacks": lambda: model.represent(conv5, boxes),
            "whole forward pass": lambda: model.slots(images),
        }
        return best(works, given.rounds)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it where asked."""
    parser = options(__doc__, rounds=10)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--attributes", type=int, default=12)
    parser.add_argument("--backbone", default="resnet10t")
    given = parser.parse_args(argv)
    seconds = measure(given)
    whole = seconds["whole forward pass"]
    rows: list[Row] = [
        {"part": name, "ms per batch": 1000 * value, "ratio to the forward pass": value / whole}
        for name, value in seconds.items()
    ]
    title = f"FashionSearchNet, {given.backbone}, a batch of {given.batch} at {given.size} px"
    publish("localisation", {title: rows}, argv, given.json)


if __name__ == "__main__":
    main()
