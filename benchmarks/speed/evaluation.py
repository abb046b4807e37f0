# SPDX-License-Identifier: MIT
"""A whole evaluation against FAISS's exact search alone, on the same arrays and in the same run.

python benchmarks/speed/evaluation.py [--gallery 50000] [--queries 1000] [--dim 256] [--runs DIR …] [--json FILE]

The evaluation is search, all metrics, chance levels, the split by attribute, and 10,000 resamples. The embeddings are
noisy codes of long-tailed labels, so that first hits lie at all depths, as those of a trained method do. Noise 100
means that nothing was learnt. "metrics" is the same evaluation with the gallery opened and the neighbours known
beforehand: both are the search's.

``--runs`` takes finished runs. Their galleries, and copies moved a little in the direction from one image to another
until there are enough, are searched for their requests, moved likewise: trained embeddings lie in fewer directions
than random ones.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import faiss
import numpy as np
from common import Row, best, options, publish

from fm_bench.evaluation import Protocol, evaluate
from fm_bench.retrieval import EmbeddingStore, ExactIndex, reduced

SIZES = (20, 16, 12, 12, 10, 8, 8, 8, 6, 6, 5, 4)  # values of each attribute
PROTOCOL = Protocol("speed", changes=1)
LIBRARY = "faiss.knn"
MOVED = 0.3  # how far a copy is moved from one image towards another


def problem(gallery: int, queries: int, dim: int, noise: float, seed: int = 0) -> dict[str, Any]:
    """Labels with a long tail, and unit vectors that tell them more or less."""
    rng = np.random.default_rng(seed)
    labels = np.stack([np.minimum(rng.geometric(0.3, gallery) - 1, size - 1) for size in SIZES], axis=1)
    query = rng.integers(0, gallery, queries)
    values = [rng.standard_normal((size, dim), dtype=np.float32) for size in SIZES]

    def embed(labels: Any) -> Any:
        vectors = np.float32(noise * np.sqrt(len(SIZES))) * rng.standard_normal((len(labels), dim), dtype=np.float32)
        for m, table in enumerate(values):
            vectors += table[labels[:, m]]
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

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


class Remembered(ExactIndex):
    """Answers a question that was asked before without searching."""

    answers: dict[str, Any] = {}  # noqa: RUF012 - shared by the galleries of all rounds
    busy = False  # while an answer is looked for, what is asked on the way is none of the evaluation's

    def search_counting(self, *args: Any, **kwargs: Any) -> Any:
        return self.answer("search", partial(super().search_counting, *args, **kwargs))

    def count_before(self, *args: Any, **kwargs: Any) -> Any:
        return self.answer("count", partial(super().count_before, *args, **kwargs))

    def answer(self, name: str, work: Callable[[], Any]) -> Any:
        if self.busy:
            return work()
        if name not in self.answers:
            self.busy = True
            self.answers[name] = work()
            self.busy = False
        return self.answers[name]


def compared(seconds: dict[str, float], **columns: Any) -> list[Row]:
    """Seconds, and their ratio to those of the library."""
    return [
        {**columns, "what": name, "seconds": value, f"ratio to {LIBRARY}": value / seconds[LIBRARY]}
        for name, value in seconds.items()
    ]


def whole(sizes: tuple[int, int, int], noise: float, rounds: int) -> list[Row]:
    """FAISS alone, our search, the whole evaluation, and the metrics by themselves."""
    case = problem(*sizes, noise)
    gallery, queries, depth = case["gallery"], case["queries"], PROTOCOL.depth
    asked = partial(evaluate, **case, protocol=PROTOCOL, infeasible="miss")
    Remembered.answers = {}
    accuracy = asked(searcher=Remembered, resamples=0).metrics["accuracy@20"].value
    opened = Remembered(gallery)
    known = partial(asked, searcher=lambda *_, **__: opened)
    works: dict[str, Callable[[], Any]] = {
        LIBRARY: lambda: faiss.knn(queries, gallery, depth),
        "search": lambda: ExactIndex(gallery).search(queries, depth, exclude=case["exclude"]),
        "evaluation": asked,
        "of it: metrics": partial(known, resamples=0),
        "of it: metrics and intervals": known,
    }
    return compared(best(works, rounds), noise=noise, **{"accuracy@20": accuracy})


def growth(sizes: tuple[int, int, int], rounds: int) -> list[Row]:
    """The whole evaluation of a tenth of the gallery, and of all of it."""
    gallery, queries, dim = sizes
    cases = {size: problem(size, queries, dim, 1.0) for size in (gallery // 10, gallery)}
    works = {
        f"{size:,} images": partial(evaluate, **case, protocol=PROTOCOL, infeasible="miss")
        for size, case in cases.items()
    }
    seconds = best(works, rounds)
    first = min(seconds.values())
    return [{"what": name, "seconds": value, "ratio": value / first} for name, value in seconds.items()]


def trained(run: Path, gallery: int, queries: int, rounds: int) -> list[Row]:
    """Ways of an exact search in the embeddings of a finished run."""
    rng = np.random.default_rng(0)
    stored = moved(EmbeddingStore(run / "embeddings" / "gallery").open(), gallery, rng)
    asked = moved(EmbeddingStore(run / "embeddings" / "manipulate-1").open(), queries, rng)
    index, depth = ExactIndex(stored), PROTOCOL.depth
    index.search(asked, depth)
    basis = None if index.blocks is None else index.blocks.basis

    def search(way: str) -> None:
        index = ExactIndex(stored)
        with mock.patch.object(reduced, "supported", return_value=way != "float32"):
            index.blocks = index.in_blocks(None) if way == "all dimensions" else None
            index.search(asked, depth)

    works: dict[str, Callable[[], Any]] = {
        LIBRARY: lambda: faiss.knn(asked, stored, depth),
        "FAISS proposes in float32": partial(search, "float32"),
        "scan in bfloat16": partial(search, "all dimensions"),
    }
    if basis is not None:
        works[f"scan in bfloat16, {basis.directions.shape[1]} directions"] = partial(search, "directions")
    return compared(best(works, rounds), run=run.parent.name, dimensions=stored.shape[1])


def moved(vectors: Any, count: int, rng: np.random.Generator) -> Any:
    """``count`` vectors: the given ones, and copies of them moved within the space that they span."""
    rows = np.arange(count) % len(vectors)
    one, other = rng.integers(0, len(vectors), (2, count))
    steps = np.float32(MOVED) * (vectors[one] - vectors[other])
    steps[: len(vectors)] = 0
    return vectors[rows] + steps


def main(argv: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--gallery", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 2.0, 100.0], help="100: nothing was learnt")
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="finished runs, for their embeddings")
    given = parser.parse_args(argv)
    sizes = given.gallery, given.queries, given.dim
    shape = f"{given.gallery:,} images x {given.queries:,} requests"
    tables = {
        f"{shape} x {given.dim}": [row for noise in given.noise for row in whole(sizes, noise, given.rounds)],
        f"Growth of the gallery, {given.queries:,} requests x {given.dim}": growth(sizes, given.rounds),
    }
    if given.runs:
        rows = [row for run in given.runs for row in trained(run, given.gallery, given.queries, given.rounds)]
        tables[f"Trained embeddings, {shape}"] = rows
    publish("evaluation", tables, argv, given.json)


if __name__ == "__main__":
    main()
