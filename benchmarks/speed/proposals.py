# SPDX-License-Identifier: MIT
"""How fast boxes are proposed, and how often the true one is among them, on one thread.

python benchmarks/speed/proposals.py [--count 100] [--side 128] [--json FILE]
"""

import time
from collections.abc import Sequence

import cv2
import numpy as np
from common import Row, options, publish, to_first

from fm_bench.catalog import Domain
from fm_bench.data.garments import GarmentsReader
from fm_bench.detection.boxes import iou
from fm_bench.detection.proposals import SelectiveSearch

OVERLAP = 0.7


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it where asked."""
    parser = options(__doc__)
    parser.add_argument("--count", type=int, default=100, help="pictures of each kind")
    parser.add_argument("--side", type=int, default=128, help="of the pictures in pixels")
    given = parser.parse_args(argv)
    cv2.setNumThreads(1)
    dataset = GarmentsReader(train=5 * given.count, val=1, test=1, street=1 / 3, views=3).read()
    search, size, rows = SelectiveSearch(), (given.side, given.side), list[Row]()
    for domain in Domain:
        chosen = np.flatnonzero(dataset.catalog.domain == domain)[: given.count]
        images = [dataset.source.read(name, size) for name in dataset.catalog.image[chosen].tolist()]
        start = time.process_time()
        proposals = [search(image) for image in images]
        seconds = time.process_time() - start
        boxes = dataset.catalog.box
        assert boxes is not None, "garments come with boxes"
        overlap = np.array([iou(found, box[None]).max() for found, box in zip(proposals, boxes[chosen], strict=True)])
        rows.append(
            {
                "pictures": f"{domain.name.lower()}, {given.side} px",
                "ms each": 1000 * seconds / len(chosen),
                "boxes each": float(np.mean([len(found) for found in proposals])),
                f"true box found at IoU {OVERLAP}": float(np.mean(overlap >= OVERLAP)),
                "mean best IoU": float(overlap.mean()),
            }
        )
    publish("proposals", {"Proposals on one thread": to_first(rows, "ms each")}, argv, given.json)


if __name__ == "__main__":
    main()
