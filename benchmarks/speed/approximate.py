# SPDX-License-Identifier: MIT
"""What approximate indexes cost and miss, against exact search in the same run.

python benchmarks/speed/approximate.py [--sizes 200000 1000000 5000000] [--dim 128] [--json FILE] [--plot docs/X.png]
python benchmarks/speed/approximate.py --gallery-file gallery.npy [--query-file queries.npy]
python benchmarks/speed/approximate.py --results benchmarks/speed/results/approximate*.json --plot docs/scaling.png

Indexes are FAISS factory strings, with how they are searched after a semicolon; those that differ only there are built
once. Latency is of one query at a time, warm; throughput of all queries together; both include the ordering by exact
distances. Recall is the share of the exact first k that is among the first k found. Bytes per vector are those of the
index, in memory, and those of the float32 vectors, which stay in a mapped file: exact search reads all of them, the
others read those that they order.

Made-up vectors are noisy codes of long-tailed labels in a space of --intrinsic dimensions, turned into --dim dimensions
with a little noise and scaled to length 1: what networks learn has far fewer degrees of freedom than numbers.
They are written block by block to a file in --folder, and read from there as a memory map.
"""

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from common import Row, options, publish
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.evaluation.latency import timed
from fm_bench.evaluation.searching import recall
from fm_bench.files import replacing
from fm_bench.recipe import EXACT
from fm_bench.retrieval import approximate
from fm_bench.retrieval.approximate import ApproximateIndex
from fm_bench.retrieval.distances import blocks
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.ordering import Ranking
from fm_bench.retrieval.searcher import Searcher

if TYPE_CHECKING:
    from matplotlib.figure import Figure

F32 = NDArray[np.float32]
INDEX, MAPPED = "index, bytes per vector", "mapped, bytes per vector"
LABELS = (20, 16, 12, 12, 10, 8, 8, 8, 6, 6, 5, 4)  # values of each attribute
DEPTHS = (1, 20, 50)
FACTORIES = (
    "HNSW32,Flat;efSearch=32",
    "HNSW32,Flat;efSearch=128",
    "HNSW32,Flat;efSearch=512",
    "IVF{lists},Flat;nprobe=8",
    "IVF{lists},Flat;nprobe=32",
    "IVF{lists},Flat;nprobe=128",
    "IVF{lists},SQ8;nprobe=32",
    "IVF{lists},PQ{quarter};nprobe=32",
    "IVF{lists},PQ{quarter};nprobe=128",
    "IVF{lists},PQ{quarter};nprobe=128,candidates=400",
    "IVF{lists},PQ{eighth};nprobe=128,candidates=400",
)
"""``{lists}`` becomes about four square roots of the gallery, ``{quarter}`` and ``{eighth}`` parts of the dimension."""


class Source:
    """Where made-up vectors come from: the same directions for gallery and queries."""

    def __init__(self, dim: int, intrinsic: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._values = [rng.standard_normal((size, intrinsic), dtype=np.float32) for size in LABELS]
        basis = np.linalg.qr(rng.standard_normal((dim, dim)))[0][:intrinsic]
        self._basis = basis.astype(np.float32)

    def draw(self, count: int, seed: Sequence[int]) -> F32:
        """``(count, D)`` vectors."""
        rng = np.random.default_rng(seed)
        intrinsic, dim = self._basis.shape
        latent = np.sqrt(len(LABELS), dtype=np.float32) * rng.standard_normal((count, intrinsic), dtype=np.float32)
        for table in self._values:
            latent += table[np.minimum(rng.geometric(0.3, count) - 1, len(table) - 1)]
        vectors = latent @ self._basis + np.float32(0.2) * rng.standard_normal((count, dim), dtype=np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def made_up(path: Path, size: int, source: Source, dim: int) -> F32:
    """``(size, dim)`` vectors in a file, as a memory map."""
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(size, dim))
    for number, part in enumerate(blocks(size, 1 << 16)):
        vectors[part] = source.draw(part.stop - part.start, (1, number))
    vectors.flush()
    del vectors
    loaded: F32 = np.load(path, mmap_mode="r")
    return loaded


def resolved(factory: str, images: int, dim: int) -> str:
    """A factory string with its placeholders filled in."""
    lists = 1 << round(np.log2(4 * np.sqrt(images)))
    return factory.format(lists=lists, quarter=max(1, dim // 4), eighth=max(1, dim // 8))


def measure(index: Searcher, queries: F32, truth: Ranking, timings: int) -> dict[str, float]:
    """Latency, throughput and recall of an index that is ready."""
    depth = truth.ids.shape[1]
    one = timed(lambda number: index.search(queries[number : number + 1], depth), min(timings, len(queries)))[1]
    start = time.perf_counter()
    found = index.search(queries, depth)
    seconds = time.perf_counter() - start
    row = {"ms per query": float(one.mean()), "queries/s": len(queries) / seconds}
    for k in (k for k in DEPTHS if k <= depth):
        row[f"recall@{k}"] = recall(first(found, k), first(truth, k))
    return row


def first(ranking: Ranking, k: int) -> Ranking:
    """The first ``k`` columns."""
    return Ranking(ranking.ids[:, :k], ranking.distances[:, :k], ranking.tied)


def rows_of(gallery: F32, queries: F32, factories: Sequence[str], timings: int, threads: int | None) -> Iterator[Row]:
    """Exact search, then every index."""
    same = {"images": len(gallery)}
    mapped = {MAPPED: 4.0 * gallery.shape[1]}
    exact = ExactIndex(gallery)
    truth = exact.search(queries, min(max(DEPTHS), len(gallery)))
    yield same | {"index": EXACT, INDEX: 0} | mapped | {"build s": 0.0} | measure(exact, queries, truth, timings)
    del exact  # with what it has kept of the gallery
    built, index, cost = "", None, {}
    for text in (resolved(factory, *gallery.shape) for factory in factories):
        chosen = approximate.parse(text)
        if index is None or chosen.string != built:
            index = None  # let go of before the next is built
            start = time.perf_counter()
            index, built = ApproximateIndex(gallery, factory=chosen.string, threads=threads), chosen.string
            seconds = time.perf_counter() - start
            cost = {INDEX: index.size() / len(gallery)} | mapped | {"build s": seconds}
        index.tune(chosen)
        yield same | {"index": text} | cost | measure(index, queries, truth, timings)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Writes ``figure_of(rows)`` to a PNG or SVG file."""
    from matplotlib import pyplot as plt

    figure = figure_of(rows)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def figure_of(rows: Sequence[Row]) -> "Figure":
    """Recall@50 against latency and against memory: a colour for each size of gallery, a marker for each kind of index.

    Points of one index that is searched in several ways are joined.
    """
    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, axes = plt.subplots(1, 2, figsize=(12, 5.5), sharey=True, layout="constrained")
    colours = {size: f"C{number}" for number, size in enumerate(sorted({row["images"] for row in rows}))}
    kinds = dict(zip(dict.fromkeys(kind(row["index"]) for row in rows), "ovs^DPX*<>" * len(rows), strict=False))
    lines: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        lines.setdefault((row["images"], row["index"].partition(";")[0]), []).append(row)
    for (size, index), points in lines.items():
        points.sort(key=lambda row: (row["ms per query"], row["recall@50"]))
        recalls = [row["recall@50"] for row in points]
        look = {"marker": kinds[kind(index)], "color": colours[size], "markersize": 8, "alpha": 0.8, "linewidth": 1}
        axes[0].plot([row["ms per query"] for row in points], recalls, **look)
        axes[1].plot([row[INDEX] or row[MAPPED] for row in points], recalls, **look)
    for axis, label in zip(
        axes,
        ("milliseconds per query, one at a time", "bytes per vector of the index; exact: of the mapped vectors"),
        strict=True,
    ):
        axis.set(xscale="log", xlabel=label)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.grid(visible=True, alpha=0.3)
    axes[0].set_ylabel("recall@50")
    for size, colour in colours.items():
        axes[0].plot([], [], "s", color=colour, label=f"{size:,} images")
    for name, marker in kinds.items():
        axes[0].plot([], [], marker, color="grey", label=name)
    figure.legend(loc="outside lower center", ncols=-(-(len(colours) + len(kinds)) // 2))  # in two lines
    return figure


def measured(paths: Sequence[Path]) -> list[Row]:
    """The rows of earlier measurements, by size of gallery. Raises UserError if a file holds no such measurement."""
    rows: list[Row] = []
    needed = {"images", "index", "ms per query", "recall@50", INDEX, MAPPED}
    for path in paths:
        try:
            found = [row for table in json.loads(path.read_text(encoding="utf-8"))["tables"] for row in table["rows"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} holds no results of a benchmark ({error!r}): give others.") from error
        if not found or not all(needed <= row.keys() for row in found):
            raise UserError(f"{path} holds no results of approximate.py, or older ones: measure again.")
        rows += found
    return sorted(rows, key=lambda row: row["images"])


def kind(index: str) -> str:
    """``IVF,PQ`` for ``IVF4096,PQ64;nprobe=8``."""
    return "".join(letter for letter in index.partition(";")[0].replace("SQ8", "SQ") if not letter.isdigit())


def galleries(given: Any) -> Iterator[tuple[F32, F32]]:
    """Every gallery, with its queries."""
    if given.gallery_file:
        gallery = np.load(given.gallery_file, mmap_mode="r")
        chosen = np.random.default_rng(0).choice(len(gallery), min(given.queries, len(gallery)), replace=False)
        yield gallery, np.asarray(np.load(given.query_file)[: given.queries] if given.query_file else gallery[chosen])
        return
    source = Source(given.dim, min(given.intrinsic, given.dim))
    for size in given.sizes:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            gallery = made_up(Path(folder) / "gallery.npy", size, source, given.dim)
            yield gallery, source.draw(given.queries, (2,))


def main(argv: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[200_000], help="images of the galleries")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--intrinsic", type=int, default=32, help="dimensions in which made-up vectors really differ")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--timings", type=int, default=200, help="queries that are timed one by one")
    parser.add_argument("--factories", nargs="+", default=FACTORIES, help="see the top of this script")
    parser.add_argument("--threads", type=int, help="that build; graphs are reproducible with one (default), not more")
    parser.add_argument("--gallery-file", type=Path, help=".npy of (N, D) float32 instead of made-up vectors")
    parser.add_argument("--query-file", type=Path, help=".npy of (R, D) float32; default: some of the gallery")
    parser.add_argument("--folder", type=Path, help="where made-up vectors lie meanwhile (default: the system's)")
    parser.add_argument("--plot", type=Path, help="PNG or SVG to write")
    parser.add_argument("--results", type=Path, nargs="+", metavar="FILE", help="only draw what these JSON files hold")
    given = parser.parse_args(argv)
    if given.results:
        if given.plot is None:
            parser.error("--results are drawn: say where with --plot")
        plot(measured(given.results), given.plot)
        return
    rows = []
    for gallery, queries in galleries(given):
        for row in rows_of(gallery, queries, given.factories, given.timings, given.threads):
            rows.append(row)
            print({name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()})
        if given.plot:
            plot(rows, given.plot)
        title = f"{given.dim if not given.gallery_file else gallery.shape[1]} dimensions, {len(queries):,} queries"
        publish("approximate", {title: rows}, argv, given.json)


if __name__ == "__main__":
    main()
