# SPDX-License-Identifier: MIT
"""The metrics of one request, for all requests at once; and the same as a torchmetrics ``Metric``.

Definitions, for the ranking of request ``q`` (rank 1 is nearest; the query's own image takes no rank):

* ``accuracy@k``: 1 if one of the first ``k`` images is a hit. Papers call it top-k accuracy, or recall@k.
* ``success@k``: the share of hits among the first ``k`` images. FashionSearchNet counts what users picked of what they
  were shown; here a hit is picked.
* ``mrr@k``: 1 / rank of the first hit, 0 if that rank is beyond ``k``; ``k`` may exceed the gallery.
* ``mrr_item@k``: the same of one designated image among the hits (``designated.py``), as AMGAN's paper says.
* ``ndcg@k``: ``Σ_{j<=k} (2^rel(q,j) − 1) / log2(1 + j)``, divided by the same sum for the ``k`` images of the whole
  gallery that fit best; 1 means that no ranking of this gallery could be better.
* ``ndcg_ones@k``: the same sum divided by that of ``k`` perfect images, whether or not the gallery has them.
* ``chance@k``: what ``accuracy@k`` is for a random order, ``1 − C(N − m, k) / C(N, k)`` with ``m`` hits among ``N``.

``rel`` is the share of the target's labelled attributes that an image has too (``relevance.py``).
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from fm_bench.evaluation.protocol import Protocol
from fm_bench.retrieval.distances import F64, I64

if TYPE_CHECKING:
    from fm_bench.evaluation.evaluator import Report


def gains(matched: NDArray[np.integer[Any]], needed: I64) -> F64:
    """``2^rel − 1`` of ``matched (R, k)`` attributes out of ``needed (R,)``; 0 where nothing is needed."""
    count = np.arange(int(needed.max(initial=0)) + 1)
    table = np.exp2(count / np.maximum(count, 1)[:, None]) - 1  # (needed, matched): few different values
    return np.asarray(table[needed[:, None], matched])


def dcg(gain: F64) -> F64:
    """``(R, k)`` discounted sums of the first 1, 2, … ``k`` gains."""
    return np.asarray(np.cumsum(gain / np.log2(np.arange(2, gain.shape[1] + 2)), axis=1))


def ndcg(matched: NDArray[np.integer[Any]], best: NDArray[np.integer[Any]], needed: I64) -> tuple[F64, F64]:
    """NDCG at every cut-off up to ``k``, with both normalisers.

    Args:
        matched: ``(R, k)`` attributes matched by the ranked images.
        best: ``(R, k)`` attributes matched by the best images of the searched gallery, most first.
        needed: ``(R,)`` labelled attributes of the target.

    Returns:
        ``ndcg`` and ``ndcg_ones``, each ``(R, k)``. Where no image matches anything, the first is 0.
    """
    found, ideal = dcg(gains(matched, needed)), dcg(gains(best, needed))
    ones = dcg(np.ones((1, matched.shape[1])))
    return np.divide(found, ideal, out=np.zeros_like(found), where=ideal > 0), found / ones


def first_hit(hits: NDArray[np.bool_]) -> I64:
    """``(R,)`` rank of the first hit in ``hits (R, k)``, from 1; 0 where there is none."""
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0)


def accuracy(rank: I64, k: int) -> F64:
    """``accuracy@k`` of each request from the rank of its first hit (0: none)."""
    return ((rank > 0) & (rank <= k)).astype(np.float64)


def success(hits: NDArray[np.bool_], k: int) -> F64:
    """``success@k`` of each request from ``hits (R, depth)``."""
    return np.asarray(hits[:, :k].mean(axis=1))


def reciprocal_rank(rank: I64, k: int) -> F64:
    """``mrr@k`` of each request from the rank of its first hit (0: none)."""
    return np.where((rank > 0) & (rank <= k), 1 / np.maximum(rank, 1), 0.0)


def chance(relevant: I64, gallery: I64, k: int) -> F64:
    """``(R, k)`` probability of a hit among the first 1, 2, … ``k`` images of a random order.

    Args:
        relevant: ``(R,)`` hits in the gallery, ``m``.
        gallery: ``(R,)`` images in the gallery, ``N``.
        k: cut-off, at most ``N``.
    """
    drawn = np.arange(k)
    left = np.maximum(gallery[:, None] - drawn, 1)
    with np.errstate(divide="ignore"):
        # C(N−m, k) / C(N, k) is the product of (N − m − i) / (N − i) for i < k: every draw misses.
        miss = np.log1p(-np.minimum(relevant[:, None] / left, 1.0))
    return np.asarray(-np.expm1(np.cumsum(miss, axis=1)))


class RetrievalMetric(Metric):
    """Gathers embeddings over batches and processes, and evaluates them as one gallery.

    Samples that a distributed sampler repeats to fill up the last batch count once. ``compute`` gives the same on every
    process, and the same as one process would get.

    Args:
        protocol: what is counted; cut-offs beyond the gallery are lowered to its size.
        targets: ``(R, A)`` target labels of all requests, −1 = missing.
        gallery_labels: ``(N, A)``.
        exclude: ``(R,)`` gallery position of each query's own image, or −1.
        gallery_items: ``(N,)``, for instance hits.
        query_items: ``(R,)``, for instance hits.
        views: from the gallery's embeddings and the numbers of the requests, which gallery each group of requests
            searches, as ``evaluate`` takes it; None for one gallery.
        seed: of the order of ties.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    query: list[Tensor] | Tensor
    query_index: list[Tensor] | Tensor
    gallery: list[Tensor] | Tensor
    gallery_index: list[Tensor] | Tensor

    def __init__(
        self,
        protocol: Protocol,
        targets: NDArray[np.integer[Any]],
        gallery_labels: NDArray[np.integer[Any]],
        *,
        exclude: NDArray[np.int64] | None = None,
        gallery_items: NDArray[np.int64] | None = None,
        query_items: NDArray[np.int64] | None = None,
        views: Callable[[NDArray[np.float32], I64], Iterator[tuple[I64, NDArray[np.float32]]] | None] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.protocol, self.seed = protocol, seed
        self.targets, self.gallery_labels = targets, gallery_labels
        self.exclude = np.full(len(targets), -1) if exclude is None else exclude
        self.gallery_items, self.query_items, self.views = gallery_items, query_items, views
        for name in ("query", "query_index", "gallery", "gallery_index"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, embedding: Tensor, index: Tensor, side: str = "query") -> None:
        """Takes ``embedding (B, D)`` of the samples at positions ``index (B,)`` of the ``query`` or ``gallery`` side.

        Raises:
            ValueError: on another side, or another number of positions than embeddings.
        """
        if side not in ("query", "gallery") or len(embedding) != len(index):
            raise ValueError(f"side {side!r} with {len(embedding)} embeddings and {len(index)} positions")
        getattr(self, side).append(embedding.detach().float())
        getattr(self, f"{side}_index").append(index.detach().long())

    def compute(self) -> dict[str, Tensor]:
        """Every metric by name, e.g. ``accuracy@20``; empty while one side has no embedding."""
        report = self.report(resamples=0)
        return {} if report is None else {name: torch.tensor(value.value) for name, value in report.metrics.items()}

    def report(self, resamples: int) -> "Report | None":
        """The whole report on what was gathered, which may be a part of the requests and of the gallery."""
        from fm_bench.evaluation.evaluator import evaluate  # the evaluator is built from the functions above

        queries, rows = _gathered(self.query, self.query_index)
        gallery, ids = _gathered(self.gallery, self.gallery_index)
        if not len(rows) or len(ids) < 2:
            return None
        place = np.full(len(self.gallery_labels) + 1, -1)  # the last entry serves exclude = −1
        place[ids] = np.arange(len(ids))
        exclude = place[self.exclude[rows]]
        return evaluate(
            gallery,
            queries,
            protocol=self.protocol.within(len(ids) - int((exclude >= 0).any())),
            targets=self.targets[rows],
            gallery_labels=self.gallery_labels[ids],
            exclude=exclude,
            gallery_items=None if self.gallery_items is None else self.gallery_items[ids],
            query_items=None if self.query_items is None else self.query_items[rows],
            gallery_keys=ids,
            query_keys=rows,
            views=None if self.views is None else self.views(gallery, rows),
            seed=self.seed,
            infeasible="miss",
            resamples=resamples,
        )


def _gathered(embeddings: list[Tensor] | Tensor, index: list[Tensor] | Tensor) -> tuple[NDArray[np.float32], I64]:
    """One vector per position, by position. After a sync over processes torchmetrics holds tensors, before it lists."""
    vectors = torch.cat(embeddings) if isinstance(embeddings, list) and embeddings else embeddings
    positions = torch.cat(index) if isinstance(index, list) and index else index
    if isinstance(vectors, list) or isinstance(positions, list):
        return np.empty((0, 1), np.float32), np.empty(0, np.int64)
    unique, first = np.unique(positions.cpu().numpy(), return_index=True)
    return np.ascontiguousarray(vectors.cpu().numpy()[first]), unique
