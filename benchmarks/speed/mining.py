# SPDX-License-Identifier: MIT
"""How fast requests are mined, and in how much memory.

python benchmarks/speed/mining.py [--rows 200000] [--requests 5000] [--only clean] [--json FILE]

Three catalogues: clean labels, a tenth of the labels missing (hundreds of patterns of labelled attributes), and
independent labels (next to nothing is feasible, so that all pictures are tried).
"""

import time
from collections.abc import Sequence

import numpy as np
from common import Row, options, publish, to_first

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog
from fm_bench.data.requests import mine
from fm_bench.errors import UserError
from fm_bench.memory import peak_memory

SIZES = (16, 19, 5, 17, 4, 14, 17, 10, 10, 8, 12, 19)  # 151 values, as Shopping100k has
KINDS: dict[str, tuple[float, int | None]] = {
    "clean": (0.0, 2_000),
    "missing": (0.1, 2_000),
    "independent": (0.0, None),
}
"""Share of missing labels, and templates that labels come from."""


def catalogue(rows: int, missing: float, styles: int | None, seed: int = 0) -> Catalog:
    """Long-tailed labels: every row is one of ``styles`` templates with some attributes redrawn; None: independent."""
    rng = np.random.default_rng(seed)
    schema = AttributeSchema(
        tuple(f"a{m}" for m in range(len(SIZES))), tuple(tuple(f"v{i}" for i in range(size)) for size in SIZES)
    )
    weights = [1 / np.arange(1, size + 1) for size in SIZES]
    draw = lambda n: np.stack([rng.choice(len(w), n, p=w / w.sum()) for w in weights], axis=1)  # noqa: E731
    labels = draw(rows)
    if styles is None:
        labels = np.stack([rng.integers(size, size=rows) for size in SIZES], axis=1)
    else:
        template = draw(styles)[rng.integers(styles, size=rows)]
        labels = np.where(rng.random(labels.shape) < 0.2, labels, template)
    labels = np.where(rng.random(labels.shape) < missing, -1, labels).astype(np.int16)
    index = np.arange(rows)
    zeros = np.zeros(rows, np.int8)
    return Catalog(schema, index.astype(np.str_), labels, index, zeros + 2, zeros)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it where asked."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--only", choices=KINDS, help="one catalogue")
    given = parser.parse_args(argv)
    rows: list[Row] = []
    for kind, (missing, styles) in KINDS.items():
        if given.only in (None, kind):
            rows += mining(kind, catalogue(given.rows, missing, styles), given.requests)
    title = f"Up to {given.requests:,} requests mined from {given.rows:,} rows with {len(SIZES)} attributes"
    publish("mining", {title: to_first(rows, "seconds")}, argv, given.json)


def mining(kind: str, catalog: Catalog, limit: int) -> list[Row]:
    """Seconds and peak memory of requests that change no, one and two attributes."""
    images, rows = np.arange(len(catalog)), list[Row]()
    for changes in (0, 1, 2):
        begin = time.perf_counter()
        with peak_memory() as peak:
            try:
                found = len(mine(catalog, images, images, changes=changes, limit=limit, seed=0))
            except UserError:
                found = 0
        seconds = time.perf_counter() - begin
        memory = {"peak, MiB": peak.total_mb, "rise, MiB": peak.above_mb}
        rows.append({"labels": kind, "changes": changes, "requests": found, "seconds": seconds} | memory)
    return rows


if __name__ == "__main__":
    main()
