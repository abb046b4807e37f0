# SPDX-License-Identifier: MIT
"""Boxes of all attributes of a batch against the forward pass that they belong to, in the same run.

python benchmarks/speed/localisation.py [--batch 256] [--size 64] [--attributes 12] [--backbone resnet10t] [--json FILE]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fm_bench import recipe
from fm_bench.files import write_json
from fm_bench.methods import FashionSearchNet
from fm_bench.nn.localisation import above, component_boxes


def best(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest round: other programs' load shall not count."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds per batch of each part."""
    torch.manual_seed(0)
    attributes = {f"a{m}": [f"v{v}" for v in range(12)] for m in range(arguments.attributes)}
    options = recipe.load("methods", "fashionsearchnet")["method"]
    model = FashionSearchNet(attributes, arguments.backbone, **options).eval()
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        conv5, conv7 = model.convolve(images)
        logits = model.classify(conv7)
        maps = model.activation_maps(conv7, logits)
        boxes = model.boxes(maps)
        return {
            "convolutions": best(lambda: model.convolve(images), arguments.rounds),
            "activation maps": best(lambda: model.activation_maps(conv7, logits), arguments.rounds),
            "boxes": best(lambda: component_boxes(above(maps, 0.2), maps), arguments.rounds),
            "crops and stacks": best(lambda: model.represent(conv5, boxes), arguments.rounds),
            "whole forward pass": best(lambda: model.slots(images), arguments.rounds),
        }


def main() -> None:
    """Prints the table, and writes the numbers where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=64, help="side of the pictures in pixels")
    parser.add_argument("--attributes", type=int, default=12)
    parser.add_argument("--backbone", default="resnet10t")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seconds = measure(arguments)
    whole = seconds["whole forward pass"]
    table = Table("part", "ms per batch", "share of the forward pass", title=f"batch of {arguments.batch}")
    for name, value in seconds.items():
        table.add_row(name, f"{1000 * value:.1f}", f"{value / whole:.3f}")
    Console().print(table)
    if arguments.json:
        write_json(arguments.json, seconds | {"boxes / forward": seconds["boxes"] / whole})


if __name__ == "__main__":
    main()
