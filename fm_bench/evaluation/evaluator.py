# SPDX-License-Identifier: MIT
"""Embeddings in, report out: search, judge every request, average with intervals."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.evaluation import metrics
from fm_bench.evaluation.protocol import Protocol
from fm_bench.evaluation.relevance import Codes, Matches, check_labels, join
from fm_bench.evaluation.significance import RESAMPLES, Estimate, bootstrap
from fm_bench.retrieval.distances import F32, F64, I64, exact
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.ordering import Ranking
from fm_bench.retrieval.scan import count_before
from fm_bench.retrieval.search import check_exclusions, check_k

__all__ = ["Estimate", "Report", "evaluate"]


@dataclass(frozen=True, eq=False)
class Report:
    """What a method scored under one protocol.

    ``chance@k`` has no uncertainty: its interval has no width.
    """

    metrics: dict[str, Estimate]
    """All requests together, e.g. ``accuracy@20``, ``chance@20``, ``ndcg@20``, ``ndcg_ones@20``, ``mrr@1000``."""
    by_attribute: dict[str, dict[str, Estimate]]
    """The requests that change an attribute; a request that changes two counts for both."""
    by_changes: dict[int, dict[str, Estimate]]
    """The requests that change 0, 1 or 2 attributes."""
    per_request: dict[str, NDArray[np.float64]]
    """``(requests,)`` each metric of each counted request, in order; NaN for the NDCG of a target without labels."""
    counted: NDArray[np.int64]
    """``(requests,)`` which of the given requests were counted."""
    ranking: Ranking
    """What the counted requests found, as deep as accuracy and NDCG look."""
    requests: int
    """Requests counted."""
    gallery: int
    """Images searched."""
    tied_share: float
    """Share of requests with a tie across the deepest cut-off, where a shuffle decided."""
    skipped: int
    """Requests left out because their target has no label."""
    infeasible: int = 0
    """Counted requests without any hit in the gallery: always a miss."""
    attribute_requests: dict[str, int] = field(default_factory=dict)
    """Requests behind each entry of ``by_attribute``."""

    def as_json(self) -> dict[str, Any]:
        """Metrics as ``{"value", "low", "high"}``, and the counts."""
        return {
            "metrics": _as_json(self.metrics),
            "by_attribute": {name: _as_json(part) for name, part in self.by_attribute.items()},
            "by_changes": {str(changes): _as_json(part) for changes, part in self.by_changes.items()},
            "requests": self.requests,
            "gallery": self.gallery,
            "tied": self.tied_share,
            "skipped": self.skipped,
            "infeasible": self.infeasible,
        }


def _as_json(estimates: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: estimate._asdict() for name, estimate in estimates.items()}


def evaluate(
    gallery: NDArray[np.floating[Any]],
    queries: NDArray[np.floating[Any]],
    *,
    protocol: Protocol,
    targets: NDArray[np.integer[Any]],
    gallery_labels: NDArray[np.integer[Any]],
    exclude: NDArray[np.int64] | None = None,
    changed: NDArray[np.integer[Any]] | None = None,
    attribute_names: tuple[str, ...] | list[str] | None = None,
    gallery_items: NDArray[np.int64] | None = None,
    query_items: NDArray[np.int64] | None = None,
    gallery_keys: NDArray[np.integer[Any]] | None = None,
    query_keys: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
    infeasible: Literal["error", "miss"] = "error",
    resamples: int = RESAMPLES,
) -> Report:
    """Scores query embeddings against gallery embeddings.

    Args:
        gallery: ``(N, D)`` float32, in memory or memory-mapped.
        queries: ``(R, D)`` float32, one per request.
        protocol: what is counted.
        targets: ``(R, A)`` labels of what is looked for, −1 = missing.
        gallery_labels: ``(N, A)``, −1 = missing.
        exclude: ``(R,)`` gallery position of each query's own image, or −1; ignored unless the protocol excludes it.
        changed: ``(R, 2)`` attributes that each request changes, padded with −1; needed for the split results.
        attribute_names: ``A`` names. Default: the positions.
        gallery_items: ``(N,)`` item of each image, for instance hits.
        query_items: ``(R,)`` item that each request looks for, for instance hits.
        gallery_keys: ``(N,)`` integers that name the images (catalogue rows, say), all different: they order ties, so
            that the gallery's order does not matter. Default: positions.
        query_keys: ``(R,)`` integers that name the requests. Default: positions.
        seed: of the order of ties and the resamples.
        infeasible: a request without any hit in the gallery is an ``"error"``, or a ``"miss"`` that is counted.
        resamples: of the requests, for the intervals; 0 leaves the intervals out.

    Raises:
        UserError: on NaN or wrong shapes, a cut-off beyond the gallery, no request with a labelled target, missing item
            ids under instance hits, or infeasible requests where they are an error.
    """
    check_labels(gallery_labels, "gallery labels", len(gallery))
    check_labels(targets, "targets", len(queries), gallery_labels.shape[1])
    index = ExactIndex(gallery, keys=gallery_keys, seed=seed)
    queries = index.check_queries(queries)
    if exclude is None or not protocol.exclude_query:
        exclude = np.full(len(queries), -1)
    exclude = check_exclusions(exclude, len(queries), len(gallery))
    check_k(protocol.depth, len(gallery), exclude)
    labelled = (targets >= 0).any(axis=1)
    counted = np.flatnonzero(labelled | (protocol.hit == "instance"))
    if not len(counted):
        raise UserError(f"none of {len(queries)} requests has a labelled target: give requests with labels.")
    keys = np.arange(len(queries)) if query_keys is None else query_keys
    items = _items(protocol, gallery_items, query_items, len(gallery), len(queries))
    asked = _Asked(
        queries[counted], exclude[counted], keys[counted], None if items is None else (items[0], items[1][counted])
    )
    codes = Codes.of(targets[counted], gallery_labels, protocol.missing)
    judged = _judge(index, asked, codes, protocol, infeasible)
    changed = None if changed is None else np.asarray(changed)[counted]
    names = [str(m) for m in range(targets.shape[1])] if attribute_names is None else list(attribute_names)
    total, by_attribute, by_changes = _summarize(judged.values, changed, names, resamples, seed)
    return Report(
        metrics=total,
        by_attribute={name: part for name, (part, _) in by_attribute.items()},
        by_changes=by_changes,
        per_request=judged.values,
        counted=counted,
        ranking=judged.ranking,
        requests=len(counted),
        gallery=len(gallery),
        tied_share=float(judged.ranking.tied.mean()),
        skipped=len(queries) - len(counted),
        infeasible=judged.infeasible,
        attribute_requests={name: size for name, (_, size) in by_attribute.items()},
    )


class _Asked(NamedTuple):
    queries: F32
    exclude: I64
    keys: NDArray[np.integer[Any]]
    items: tuple[I64, I64] | None  # of the gallery and of the requests, under instance hits


class _Judged(NamedTuple):
    values: dict[str, F64]
    ranking: Ranking
    infeasible: int


def _judge(
    index: ExactIndex, asked: _Asked, codes: Codes, protocol: Protocol, infeasible: Literal["error", "miss"]
) -> _Judged:
    """Every metric of every request."""
    depth = protocol.depth
    matches = Matches(codes, max(protocol.ndcg, default=1) + 1)
    own = np.where(asked.exclude >= 0, codes.matched(asked.exclude[:, None])[:, 0].astype(np.int64), -1)
    if asked.items is None:
        relevant = matches.relevant - (own == codes.needed)
    else:
        own_hit = (asked.exclude >= 0) & (asked.items[0][asked.exclude] == asked.items[1])
        relevant = _count_items(*asked.items) - own_hit
    hopeless = np.flatnonzero(relevant == 0)
    if len(hopeless) and infeasible == "error":
        raise UserError(
            f"{len(hopeless)} of {len(relevant)} requests have no hit in the gallery of {len(index)} images, "
            f"the first is request {hopeless[0]}: leave them out, or mine the requests against this gallery."
        )
    ranking = index.search(asked.queries, depth, exclude=asked.exclude, query_keys=asked.keys)
    matched = codes.matched(ranking.ids)
    hits = (
        matched == codes.needed[:, None]
        if asked.items is None
        else asked.items[0][ranking.ids] == asked.items[1][:, None]
    )
    rank = metrics.first_hit(hits)
    _deeper_ranks(rank, index, asked, matches, relevant, max(protocol.mrr, default=0), depth)
    values: dict[str, F64] = {}
    by_chance = metrics.chance(relevant, len(index) - (asked.exclude >= 0), depth)
    for k in protocol.k:
        values[f"accuracy@{k}"] = metrics.accuracy(rank, k)
        values[f"chance@{k}"] = by_chance[:, k - 1]
    if protocol.ndcg:
        deepest = max(protocol.ndcg)
        gallery, ones = metrics.ndcg(matched[:, :deepest], matches.best(deepest, own), codes.needed)
        for k in protocol.ndcg:
            values[f"ndcg@{k}"] = np.where(codes.needed > 0, gallery[:, k - 1], np.nan)
            values[f"ndcg_ones@{k}"] = np.where(codes.needed > 0, ones[:, k - 1], np.nan)
    for k in protocol.mrr:
        values[f"mrr@{k}"] = metrics.reciprocal_rank(rank, k)
    return _Judged(values, ranking, len(hopeless))


def _deeper_ranks(
    rank: I64, index: ExactIndex, asked: _Asked, matches: Matches, relevant: I64, limit: int, depth: int
) -> None:
    """Fills in the rank of the first hit where it lies between ``depth`` and ``limit``.

    Instead of ranking ``limit`` images for everyone, the nearest hit of those requests is looked up, and the images
    that come before it are counted.
    """
    rows = np.flatnonzero((rank == 0) & (relevant > 0))
    if limit <= depth or not len(rows):
        return
    pair, image = matches.pairs(rows) if asked.items is None else join(asked.items[1][rows], asked.items[0])
    keep = image != asked.exclude[rows[pair]]
    pair, image = pair[keep], image[keep]
    queries, ties = asked.queries[rows], index.ties(asked.keys[rows])
    distance, number = exact(queries, index.gallery, pair, image), ties(pair, image)
    order = np.lexsort((number, distance, pair))
    first = order[np.searchsorted(pair[order], np.arange(len(rows)))]
    before = count_before(index, queries, distance[first], number[first], ties, asked.exclude[rows], limit)
    rank[rows] = np.where(before < limit, before + 1, 0)


def _items(
    protocol: Protocol, gallery: NDArray[np.int64] | None, queries: NDArray[np.int64] | None, n: int, r: int
) -> tuple[I64, I64] | None:
    if protocol.hit == "attributes":
        return None
    if gallery is None or queries is None:
        raise UserError(
            f"protocol {protocol.name!r} counts the same item as a hit: give item ids of gallery and queries."
        )
    for side, items, rows in (("gallery", gallery, n), ("query", queries, r)):
        if items.shape != (rows,) or items.dtype.kind not in "iu":
            raise UserError(
                f"{side} item ids have shape {items.shape} and type {items.dtype}, but {rows} integers are needed."
            )
    return gallery.astype(np.int64), queries.astype(np.int64)


def _count_items(gallery: I64, queries: I64) -> I64:
    ordered = np.sort(gallery)
    return np.searchsorted(ordered, queries, side="right") - np.searchsorted(ordered, queries)


def _summarize(
    values: dict[str, F64], changed: NDArray[np.integer[Any]] | None, names: list[str], resamples: int, seed: int
) -> tuple[dict[str, Estimate], dict[str, tuple[dict[str, Estimate], int]], dict[int, dict[str, Estimate]]]:
    """Means with intervals over all requests, by changed attribute and by number of changes, on the same resamples."""
    table = np.column_stack(list(values.values()))
    masks = [np.ones(len(table), bool)]
    attributes: list[int] = []
    numbers: list[int] = []
    if changed is not None:
        attributes = [m for m in range(len(names)) if (changed == m).any()]
        count = (changed >= 0).sum(axis=1)
        numbers = np.unique(count).tolist()
        masks += [(changed == m).any(axis=1) for m in attributes] + [count == n for n in numbers]
    sampled = np.array([not name.startswith("chance@") for name in values])
    columns = np.hstack([np.where(mask[:, None], table[:, sampled], np.nan) for mask in masks])
    estimates = iter(bootstrap(columns, resamples=resamples, seed=seed))
    parts = []
    for mask in masks:
        means = table[mask].mean(axis=0)
        parts.append(
            {
                name: next(estimates) if draw else Estimate(*[float(mean)] * 3)
                for name, draw, mean in zip(values, sampled, means, strict=True)
            }
        )
    sizes = [int(mask.sum()) for mask in masks]
    split = 1 + len(attributes)
    by_attribute = {
        names[m]: (part, size) for m, part, size in zip(attributes, parts[1:split], sizes[1:split], strict=True)
    }
    return parts[0], by_attribute, dict(zip(numbers, parts[split:], strict=True))
