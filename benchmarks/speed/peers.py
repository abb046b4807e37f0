# SPDX-License-Identifier: MIT
"""Our whole evaluation against what other libraries need for a part of it, on the same arrays and in the same run.

python benchmarks/speed/peers.py [--gallery 20000] [--queries 1000] [--dim 128] [--json FILE]

``pip install 'fm-bench[peers]'`` installs the libraries; those that are not there are left out. A hit is an image with
all labels of the target. What each of them computes:

* ``fm_bench.evaluation.evaluate``: exact search with a tie rule, accuracy@1 … 50, MRR@50 and @1000, NDCG@10 and @20
  with the gallery's own ideal and with ones, chance levels, splits by changed attribute, intervals of 10,000 resamples;
* a Python loop over the queries of ``faiss.knn``, as research code has it: accuracy@k, MRR@50, NDCG with ones;
* torchmetrics on the neighbours of ``faiss.knn``: hit rates, MRR@50, NDCG whose ideal is sorted from the 50 retrieved
  images with linear gains (another quantity than ours);
* ranx on the same neighbours: hit rates, MRR@50, NDCG as torchmetrics; building its dictionaries is part of it;
* pytorch-metric-learning's ``AccuracyCalculator`` with its own FAISS search: accuracy@1 and MRR@50;
* open-metric-learning with its own search in PyTorch: CMC@k, which is accuracy@k.

Where definitions agree the values must; the table shows the largest difference.
"""

import importlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import torch
from common import Row, best, options, publish
from evaluation import problem

from fm_bench.evaluation import Protocol, evaluate

K, NDCG, DEPTH = (1, 5, 10, 20, 30, 50), (10, 20), 50
PROTOCOL = Protocol("speed", changes=1, k=K, ndcg=NDCG, mrr=(DEPTH, 1000))
Values = dict[str, float]


@dataclass(frozen=True)
class Arrays:
    """One problem.

    Args:
        gallery: ``(N, D)`` float32.
        queries: ``(R, D)`` float32.
        labels: ``(N, A)`` of the gallery.
        targets: ``(R, A)``; every target is carried by some image.
        changed: ``(R, 2)`` attributes, for our splits.
    """

    gallery: Any
    queries: Any
    labels: Any
    targets: Any
    changed: Any

    @classmethod
    def of(cls, gallery: int, queries: int, dim: int, noise: float) -> "Arrays":
        case = problem(gallery, queries, dim, noise)
        return cls(case["gallery"], case["queries"], case["gallery_labels"], case["targets"], case["changed"])

    def knn(self) -> Any:
        """``(R, 50)`` neighbours."""
        return faiss.knn(self.queries, self.gallery, DEPTH)[1]

    def matched(self, ids: Any) -> Any:
        """``(R, 50)`` labels that neighbours share with the target; all of them make a hit."""
        return (self.labels[ids] == self.targets[:, None]).sum(-1)

    def classes(self) -> tuple[Any, Any]:
        """One number per label vector, of the gallery and of the targets."""
        both = np.unique(np.concatenate([self.labels, self.targets]), axis=0, return_inverse=True)[1].ravel()
        numbers = torch.from_numpy(both)
        return numbers[: len(self.labels)], numbers[len(self.labels) :]


def ours(arrays: Arrays, ids: Any) -> Values:
    report = evaluate(
        arrays.gallery,
        arrays.queries,
        protocol=PROTOCOL,
        targets=arrays.targets,
        gallery_labels=arrays.labels,
        changed=arrays.changed,
    )
    return {name: estimate.value for name, estimate in report.metrics.items()}


def python_loop(arrays: Arrays, ids: Any) -> Values:
    """As research code has it: one query at a time, in NumPy."""
    sums: dict[str, float] = {}
    width = arrays.targets.shape[1]
    discount = 1 / np.log2(np.arange(2, DEPTH + 2))
    for neighbours, target in zip(ids, arrays.targets, strict=True):
        matched = (arrays.labels[neighbours] == target).sum(axis=1)
        hits = np.flatnonzero(matched == width)
        rank = int(hits[0]) + 1 if len(hits) else 0
        gains = np.exp2(matched / width) - 1
        found = {f"accuracy@{k}": float(0 < rank <= k) for k in K} | {f"mrr@{DEPTH}": 1 / rank if rank else 0.0}
        found |= {f"ndcg_ones@{k}": (gains[:k] * discount[:k]).sum() / discount[:k].sum() for k in NDCG}
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value
    return {name: value / len(ids) for name, value in sums.items()}


def with_torchmetrics(arrays: Arrays, ids: Any) -> Values:
    from torchmetrics import retrieval

    matched = torch.from_numpy(arrays.matched(ids))
    hits = (matched == arrays.targets.shape[1]).ravel()
    query = torch.arange(len(ids)).repeat_interleave(DEPTH)
    order = (DEPTH - torch.arange(DEPTH, dtype=torch.float32)).repeat(len(ids))  # only what is positive counts
    metrics = {f"accuracy@{k}": retrieval.RetrievalHitRate(top_k=k) for k in K}
    metrics[f"mrr@{DEPTH}"] = retrieval.RetrievalMRR()
    found = {name: float(metric(order, hits, query)) for name, metric in metrics.items()}
    for k in NDCG:
        found[f"its own ndcg@{k}"] = float(retrieval.RetrievalNormalizedDCG(top_k=k)(order, matched.ravel(), query))
    return found


def with_ranx(arrays: Arrays, ids: Any) -> Values:
    from ranx import Qrels, Run
    from ranx import evaluate as judge

    matched, level = arrays.matched(ids).tolist(), arrays.targets.shape[1]
    names = [[f"{image:09}" for image in row] for row in ids.tolist()]  # it compiles anew for every length
    scores = [float(DEPTH - rank) for rank in range(DEPTH)]
    qrels = Qrels({str(q): dict(zip(names[q], matched[q], strict=True)) for q in range(len(ids))})
    run = Run({str(q): dict(zip(names[q], scores, strict=True)) for q in range(len(ids))})
    asked = {f"hit_rate@{k}-l{level}": f"accuracy@{k}" for k in K}
    asked |= {f"mrr@{DEPTH}-l{level}": f"mrr@{DEPTH}"} | {f"ndcg@{k}": f"its own ndcg@{k}" for k in NDCG}
    found = judge(qrels, run, list(asked), make_comparable=False)
    return {name: float(found[its]) for its, name in asked.items()}


def with_pytorch_metric_learning(arrays: Arrays, ids: Any) -> Values:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import FaissKNN

    index = FaissKNN(index_init_fn=faiss.IndexFlatL2)
    its = ("precision_at_1", "mean_reciprocal_rank")
    calculator = AccuracyCalculator(include=its, k=DEPTH, knn_func=index, device=torch.device("cpu"))
    gallery, targets = arrays.classes()
    query, reference = torch.from_numpy(arrays.queries), torch.from_numpy(arrays.gallery)
    found = calculator.get_accuracy(query, targets, reference, gallery, ref_includes_query=False)
    return {"accuracy@1": found["precision_at_1"], f"mrr@{DEPTH}": found["mean_reciprocal_rank"]}


def with_open_metric_learning(arrays: Arrays, ids: Any) -> Values:
    from oml.functional.knn import batched_knn_qg
    from oml.functional.metrics import calc_retrieval_metrics

    gallery, targets = arrays.classes()
    query, reference = torch.from_numpy(arrays.queries), torch.from_numpy(arrays.gallery)
    # Blocks of 500 queries: its own default of 5,000 takes gigabytes where the gallery has 200,000 images.
    _, retrieved, relevant = batched_knn_qg(query, reference, DEPTH, targets, gallery, bs=500)
    found = calc_retrieval_metrics(retrieved, relevant, cmc_top_k=K, precision_top_k=(), map_top_k=(), verbose=False)
    return {f"accuracy@{k}": float(found["cmc"][k]) for k in K}


@dataclass(frozen=True)
class Peer:
    """Somebody's way to judge.

    Args:
        name: as the table shows it.
        judge: from arrays, and the neighbours found by FAISS for those that do not search.
        module: that must be there.
        searches: whether it searches, too.
    """

    name: str
    judge: Callable[[Arrays, Any], Values]
    module: str = "numpy"
    searches: bool = False


OURS = Peer("fm_bench.evaluation.evaluate", ours, "fm_bench", searches=True)
PEERS = (
    OURS,
    Peer("faiss.knn + Python loop", python_loop),
    Peer("faiss.knn + torchmetrics", with_torchmetrics, "torchmetrics"),
    Peer("faiss.knn + ranx", with_ranx, "ranx"),
    Peer("pytorch-metric-learning", with_pytorch_metric_learning, "pytorch_metric_learning", searches=True),
    Peer("open-metric-learning", with_open_metric_learning, "oml", searches=True),
)


def installed(peer: Peer) -> bool:
    """Whether its library can be imported; says so if not."""
    try:
        importlib.import_module(peer.module)
    except ImportError as error:
        print(f"{peer.name} is left out: {error}")
        return False
    return True


def compare(arrays: Arrays, peers: Sequence[Peer], rounds: int) -> list[Row]:
    """Everyone in turn on the same arrays; search that FAISS does for a peer counts as that peer's."""
    found: dict[str, Values] = {}
    neighbours: list[Any] = [arrays.knn()]

    def work(peer: Peer) -> None:
        found[peer.name] = peer.judge(arrays, neighbours[0])

    works: dict[str, Callable[[], Any]] = {"faiss.knn": arrays.knn}
    works |= {peer.name: lambda peer=peer: work(peer) for peer in peers}  # type: ignore[misc]
    seconds = best(works, rounds)
    search, truth = seconds["faiss.knn"], found[OURS.name]
    rows = [{"what": "faiss.knn alone", "metrics, s": None, "search and metrics, s": search}]
    for peer in peers:
        own = seconds[peer.name]
        rows.append(
            {
                "what": peer.name,
                "metrics, s": None if peer.searches else own,
                "search and metrics, s": own if peer.searches else search + own,
                "numbers": len(found[peer.name]),
                "largest difference": difference(found[peer.name], truth),
            }
        )
    mine = next(row["search and metrics, s"] for row in rows if row["what"] == OURS.name)
    return [{**row, "ratio to ours": row["search and metrics, s"] / mine} for row in rows]


def difference(values: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """The largest between equal names."""
    return max(abs(value - truth[name]) for name, value in values.items() if name in truth)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes it where asked."""
    parser = options(__doc__, rounds=2)
    parser.add_argument("--gallery", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--noise", type=float, default=2.0, help="how badly the embeddings tell the labels")
    parser.add_argument("--only", nargs="+", help="modules of the peers that are wanted, such as ranx")
    given = parser.parse_args(argv)
    os.environ.setdefault("NUMBA_NUM_THREADS", str(torch.get_num_threads()))
    wanted = [peer for peer in PEERS if peer is OURS or given.only is None or peer.module in given.only]
    peers = [peer for peer in wanted if installed(peer)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny = Arrays.of(200, 8, 8, 1.0)
        for peer in peers:  # imports, and compilers at their first call
            peer.judge(tiny, tiny.knn())
        rows = compare(Arrays.of(given.gallery, given.queries, given.dim, given.noise), peers, given.rounds)
    title = f"{given.gallery:,} images x {given.queries:,} requests x {given.dim}, first {DEPTH}"
    publish("peers", {title: rows}, argv, given.json)


if __name__ == "__main__":
    main()
