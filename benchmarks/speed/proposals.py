# SPDX-License-Identifier: MIT
"""How fast boxes are proposed, and how often the true one is among them, on one thread.

python benchmarks/speed/proposals.py
"""

import time

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from fm_bench.catalog import Domain
from fm_bench.data.garments import GarmentsReader
from fm_bench.detection.boxes import iou
from fm_bench.detection.proposals import SelectiveSearch

SIDE, COUNT, OVERLAP = 128, 200, 0.7


def main() -> None:
    cv2.setNumThreads(1)
    dataset, search = GarmentsReader(train=5 * COUNT, val=1, test=1, street=1 / 3, views=3).read(), SelectiveSearch()
    table = Table("pictures", "ms each", "boxes each", f"true box found at IoU {OVERLAP}", "mean best IoU")
    for domain in Domain:
        rows = np.flatnonzero(dataset.catalog.domain == domain)[:COUNT]
        images = [dataset.source.read(name, (SIDE, SIDE)) for name in dataset.catalog.image[rows].tolist()]
        start = time.process_time()
        proposals = [search(image) for image in images]
        seconds = time.process_time() - start
        best = np.array(
            [iou(found, box[None]).max() for found, box in zip(proposals, dataset.catalog.box[rows], strict=True)]
        )
        table.add_row(
            f"{domain.name.lower()}, {SIDE} px",
            f"{1000 * seconds / len(rows):.0f}",
            f"{np.mean([len(found) for found in proposals]):.0f}",
            f"{np.mean(best >= OVERLAP):.3f}",
            f"{best.mean():.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
