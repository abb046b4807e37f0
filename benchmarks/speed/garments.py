# SPDX-License-Identifier: MIT
"""How fast garments are drawn and how fast their catalogue is read, on one thread.

python benchmarks/speed/garments.py [--count 200] [--rows 100000] [--json FILE]
"""

import time
from collections.abc import Sequence

import cv2
from common import Row, best, options, publish

from fm_bench.data.garments import GarmentSource, GarmentsReader

WANTED = {64: 500, 128: 150}
"""Images per second by side in pixels."""


def drawing(count: int, street: float, side: int, rounds: int) -> float:
    """Images per second of processor time."""
    source = GarmentSource((count, 0, 0), street=street)
    names = source.names()[:count].tolist()

    def draw() -> None:
        for name in names:
            source.read(name, (side, side))

    draw()  # the first round also draws the textures
    return count / best({"draw": draw}, rounds, time.process_time)["draw"]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables, and writes them where asked."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--count", type=int, default=200, help="pictures drawn per round")
    parser.add_argument("--rows", type=int, default=100_000, help="of the catalogue")
    given = parser.parse_args(argv)
    cv2.setNumThreads(1)
    drawn: list[Row] = []
    for street, label in ((0.0, "shop"), (0.5, "half street")):
        for side, wanted in WANTED.items():
            speed = drawing(given.count, street, side, given.rounds)
            what = f"{label}, {side} px"
            drawn.append({"what": what, "images/s": speed, "wanted at least": wanted, "ratio": speed / wanted})
    reader = GarmentsReader(test=given.rows)
    seconds = best({"read": reader.read}, 1, time.process_time)["read"]
    read = [{"what": f"reading a catalogue of {given.rows:,} garments", "seconds": seconds}]
    publish("garments", {"Garments drawn on one thread": drawn, "Catalogue": read}, argv, given.json)


if __name__ == "__main__":
    main()
