# SPDX-License-Identifier: MIT
"""How fast garments are drawn and how fast their catalogue is read, on one thread.

python benchmarks/speed/garments.py
"""

import time

import cv2
from rich.console import Console
from rich.table import Table

from fm_bench.data.garments import GarmentSource, GarmentsReader

WANTED = {64: 500, 128: 150}
COUNT, ROUNDS = 400, 5


def images_per_second(source: GarmentSource, side: int) -> float:
    """Processor time, best of some rounds: other programs' load shall not count."""
    names = source.names()[:COUNT].tolist()
    best = float("inf")
    for _ in range(ROUNDS + 1):  # the first round also draws the textures
        start = time.process_time()
        for name in names:
            source.read(name, (side, side))
        best = min(best, time.process_time() - start)
    return COUNT / best


def main() -> None:
    cv2.setNumThreads(1)
    table = Table("what", "measured", "wanted", title="garments, one thread")
    for street, label in ((0.0, "shop"), (0.5, "half street")):
        source = GarmentSource((COUNT, 0, 0), street=street)
        for side, wanted in WANTED.items():
            table.add_row(
                f"{label}, {side} px", f"{images_per_second(source, side):,.0f} images/s", f"{wanted} images/s"
            )
    start = time.process_time()
    dataset = GarmentsReader(test=200_000).read()
    table.add_row(f"reading {len(dataset.catalog):,} rows", f"{time.process_time() - start:.1f} s", "a few seconds")
    Console().print(table)


if __name__ == "__main__":
    main()
