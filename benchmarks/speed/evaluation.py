# SPDX-License-Identifier: MIT
"""A whole evaluation against FAISS's exact search alone, on the same arrays and in the same run.

python benchmarks/speed/evaluation.py [--gallery 50000] [--queries 1000] [--dim 256] [--json FILE]

The evaluation is search, all metrics, chance levels, the split by attribute, and 10,000 resamples. The embeddings are
noisy codes of long-tailed labels, so that first hits lie at all depths, as those of a trained method do.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from rich.console import Console
from rich.table import Table

from fm_bench.evaluation import Protocol, bootstrap, evaluate
from fm_bench.evaluation.relevance import Codes, Matches
from fm_bench.files import write_json
from fm_bench.retrieval import search

SIZES = (20, 16, 12, 12, 10, 8, 8, 8, 6, 6, 5, 4)  # values of each attribute
PROTOCOL = Protocol("speed", changes=1)


def problem(gallery: int, queries: int, dim: int, noise: float, seed: int = 0) -> dict[str, Any]:
    """Labels with a long tail, and unit vectors that tell them more or less."""
    rng = np.random.default_rng(seed)
    labels = np.stack([np.minimum(rng.geometric(0.3, gallery) - 1, size - 1) for size in SIZES], axis=1)
    query = rng.integers(0, gallery, queries)
    values = [rng.standard_normal((size, dim), dtype=np.float32) for size in SIZES]

    def embed(labels: Any) -> Any:
        vectors = noise * np.sqrt(len(SIZES)) * rng.standard_normal((len(labels), dim), dtype=np.float32)
        for m, table in enumerate(values):
            vectors += table[labels[:, m]]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    changed = np.stack([rng.integers(0, len(SIZES), queries), np.full(queries, -1)], axis=1)
    targets = labels[rng.integers(0, gallery, queries)]
    return {
        "gallery": embed(labels),
        "queries": embed(targets),
        "targets": targets,
        "gallery_labels": labels.astype(np.int16),
        "exclude": query,
        "changed": changed,
    }


def best(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of the fastest round: other programs' load shall not count."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(case: dict[str, Any], rounds: int) -> dict[str, float]:
    """Seconds of FAISS alone, of our search, of the whole evaluation, and of two parts of it."""
    gallery, queries, depth = case["gallery"], case["queries"], PROTOCOL.depth
    columns = np.random.default_rng(0).random((len(queries), 11 * (1 + len(SIZES))))
    codes = Codes.of(case["targets"], case["gallery_labels"], PROTOCOL.missing)
    works: dict[str, Callable[[], Any]] = {
        "faiss.knn": lambda: faiss.knn(queries, gallery, depth),
        "search": lambda: search(gallery, queries, depth, exclude=case["exclude"]),
        "evaluation": lambda: evaluate(**case, protocol=PROTOCOL, infeasible="miss"),
        "of it: ideal NDCG": lambda: Matches(codes, max(PROTOCOL.ndcg) + 1),
        "of it: intervals": lambda: bootstrap(columns),
    }
    return {name: best(work, rounds) for name, work in works.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 2.0, 100.0], help="100: nothing was learnt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    title = f"{options.gallery:,} images x {options.queries:,} requests x {options.dim}"
    table = Table("noise", "accuracy@20", "what", "seconds", "ratio to faiss.knn", title=title)
    results = []
    for noise in options.noise:
        case = problem(options.gallery, options.queries, options.dim, noise)
        report = evaluate(**case, protocol=PROTOCOL, infeasible="miss", resamples=0)
        accuracy = report.metrics["accuracy@20"].value
        seconds = measure(case, options.rounds)
        for name, value in seconds.items():
            ratio = value / seconds["faiss.knn"]
            table.add_row(f"{noise:g}", f"{accuracy:.3f}", name, f"{value:.3f}", f"{ratio:.3f}")
            results.append({"noise": noise, "accuracy@20": accuracy, "what": name, "seconds": value, "ratio": ratio})
    Console().print(table)
    if options.json:
        shape = {"gallery": options.gallery, "queries": options.queries, "dim": options.dim}
        write_json(options.json, shape | {"results": results})


if __name__ == "__main__":
    main()
