# SPDX-License-Identifier: MIT
"""Resident memory of a whole evaluation, at its worst moment, against that of the embeddings.

python benchmarks/speed/memory.py [--gallery 20000] [--queries 5000] [--dim 512] [--cases learnt ties] [--json FILE]

Embeddings are read from memory-mapped stores by a fresh process for each case, which evaluates them with intervals.
What that process held before (the libraries) is taken off. Pages of the stores count as soon as they are read. The
bound is the size of the embeddings + 15 % + 300 MiB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Row, options, publish
from numpy.typing import NDArray

from fm_bench.evaluation import Protocol, evaluate
from fm_bench.memory import peak_memory
from fm_bench.retrieval import EmbeddingStore

MIB = 2**20
SIZES = (20, 16, 12, 12, 10, 8, 8, 8, 6, 6, 5, 4)  # values of each attribute
SHARES = (0.05, 0.125, 0.25, 0.5, 1.0)


class Case(NamedTuple):
    """What a case does to the embeddings, the labels and the protocol."""

    noise: float = 1.0
    ties: int = 1
    """Images with the same vector; 0 for all of them."""
    sizes: tuple[int, ...] = SIZES
    labelled: int = len(SIZES)
    """Attributes of a target that have a label."""
    sweep: tuple[float, ...] = ()


CASES = {
    "learnt": Case(),
    "nothing learnt": Case(noise=100.0),
    "ties": Case(ties=50),
    "constant": Case(ties=0),
    "sweep": Case(sweep=SHARES),
    "sweep, constant": Case(ties=0, sweep=SHARES),
    "few values": Case(noise=100.0, sizes=(2,) * 8),
    "few labels, constant": Case(ties=0, sizes=(4,) * 12, labelled=3),
    "many attributes": Case(sizes=SIZES * 4, labelled=4 * len(SIZES)),
}


def write_case(folder: Path, case: Case, gallery: int, queries: int, dim: int, seed: int = 0) -> None:
    """Two stores, and the labels in a file, without ever holding the gallery."""
    rng = np.random.default_rng(seed)
    labels = np.stack([np.minimum(rng.geometric(0.3, gallery) - 1, size - 1) for size in case.sizes], axis=1)
    if case.labelled < len(case.sizes):  # then all images are different, as far as may be
        labels = rng.integers(0, case.sizes[0], labels.shape)
    targets = labels[rng.integers(0, gallery, queries)]
    hidden = rng.random(targets.shape).argsort(axis=1)[:, case.labelled :]
    np.put_along_axis(targets, hidden, -1, axis=1)
    values = [rng.standard_normal((size, dim), dtype=np.float32) for size in case.sizes]
    tied = np.arange(gallery) if case.ties == 1 else np.arange(gallery) // case.ties if case.ties else 0 * labels[:, 0]
    for name, codes, number in (("gallery", labels, tied), ("queries", targets, None)):
        writer = EmbeddingStore(folder / name).create(len(codes), dim, "key")
        for start in range(0, len(codes), 2048):
            part = np.arange(start, min(start + 2048, len(codes)))
            shown = part if number is None else np.searchsorted(number, number[part])  # the first with that vector
            writer.write(part, _vectors(codes[shown], values, case.noise, shown))
        writer.finish()
    np.savez(
        folder / "labels.npz",
        gallery_labels=labels.astype(np.int16),
        targets=targets.astype(np.int16),
        exclude=rng.integers(0, gallery, queries),
        changed=np.stack([rng.integers(0, len(case.sizes), queries), np.full(queries, -1)], axis=1),
    )


def _vectors(
    codes: NDArray[np.int64], values: list[NDArray[np.float32]], noise: float, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Unit vectors that tell the labels more or less; the same row gets the same noise."""
    width = values[0].shape[1]
    vectors = np.zeros((len(codes), width), np.float32)
    for row in np.unique(rows):
        vectors[rows == row] = np.random.default_rng([1, row]).standard_normal(width, dtype=np.float32)
    vectors *= noise * np.sqrt(len(values))
    for m, table in enumerate(values):
        vectors += table[codes[:, m]]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measure(folder: Path, case: Case) -> dict[str, Any]:
    """Evaluates the stores in ``folder``, in this process."""
    with np.load(folder / "labels.npz") as arrays:
        truth = {name: arrays[name] for name in arrays.files}
    protocol = Protocol("memory", changes=1, sweep=case.sweep)
    begun = time.perf_counter()
    with peak_memory() as peak:
        gallery, queries = EmbeddingStore(folder / "gallery").open(), EmbeddingStore(folder / "queries").open()
        report = evaluate(gallery, queries, **truth, protocol=protocol, infeasible="miss")
    embeddings = (gallery.nbytes + queries.nbytes) / MIB
    return {
        "accuracy@20": report.metrics["accuracy@20"].value,
        "seconds": time.perf_counter() - begun,
        "embeddings_mb": embeddings,
        "peak_mb": peak.above_mb,
        "bound_mb": 1.15 * embeddings + 300,
    }


def measure_apart(case: str, gallery: int, queries: int, dim: int, folder: Path | None) -> dict[str, Any]:
    """The same in a process of its own, on stores in a temporary folder (below ``folder``)."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        write_case(Path(place), CASES[case], gallery, queries, dim)
        command = [sys.executable, __file__, "--measure", place, "--cases", case]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"case": case, **json.loads(found.stdout)}


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it where asked."""
    parser = options(__doc__)
    parser.add_argument("--gallery", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=5_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--folder", type=Path, help="where the stores are kept meanwhile (default: the system's)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.measure:
        print(json.dumps(measure(given.measure, CASES[given.cases[0]])))
        return
    rows: list[Row] = []
    for case in given.cases:
        found = measure_apart(case, given.gallery, given.queries, given.dim, folder=given.folder)
        if found["peak_mb"] is None:
            raise SystemExit("this system does not tell how much memory a process takes")
        rows.append(
            {
                "case": case,
                "accuracy@20": found["accuracy@20"],
                "seconds": found["seconds"],
                "embeddings, MiB": found["embeddings_mb"],
                "peak, MiB": found["peak_mb"],
                "bound, MiB": found["bound_mb"],
                "ratio to the bound": found["peak_mb"] / found["bound_mb"],
            }
        )
    title = f"{given.gallery:,} images x {given.queries:,} requests x {given.dim}"
    publish("memory", {title: rows}, argv, given.json)


if __name__ == "__main__":
    main()
