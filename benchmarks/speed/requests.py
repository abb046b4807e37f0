# SPDX-License-Identifier: MIT
"""How fast requests are mined: 200,000 rows, 12 attributes, 5,000 requests; seconds and peak memory of one core.

Run ``OMP_NUM_THREADS=1 python benchmarks/speed/requests.py``. Three catalogues: clean labels, a tenth of the labels
missing (hundreds of patterns of labelled attributes), and independent labels (next to nothing is feasible, so that all
200,000 pictures are tried).
"""

import argparse
import resource
import time

import numpy as np

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog
from fm_bench.data.requests import mine
from fm_bench.errors import UserError

SIZES = (16, 19, 5, 17, 4, 14, 17, 10, 10, 8, 12, 19)  # 151 values, as Shopping100k has


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=5_000)
    parser.add_argument("--only", help="one catalogue: clean, missing or independent")
    arguments = parser.parse_args()
    kinds = {"clean": (0.0, 2_000), "missing": (0.1, 2_000), "independent": (0.0, None)}
    for kind, (missing, styles) in kinds.items():
        if arguments.only not in (None, kind):
            continue
        catalog = catalogue(arguments.rows, missing, styles)
        rows = np.arange(arguments.rows)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for changes in (0, 1, 2):
            begin = time.perf_counter()
            try:
                found = len(mine(catalog, rows, rows, changes=changes, limit=arguments.requests, seed=0))
            except UserError:
                found = 0
            seconds = time.perf_counter() - begin
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{kind:12} changes={changes}  {found:5} requests  {seconds:6.2f} s  "
                f"peak {peak:5.0f} MiB (before mining {before:.0f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
