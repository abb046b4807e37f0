# SPDX-License-Identifier: MIT
"""Embeddings in, report out: search, judge every request, average with intervals."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.evaluation import metrics, sweep
from fm_bench.evaluation.designated import designated, order_of_hits, rank_of
from fm_bench.evaluation.first_hit import ranked
from fm_bench.evaluation.hits import Hits
from fm_bench.evaluation.protocol import Protocol
from fm_bench.evaluation.relevance import Codes, check_labels
from fm_bench.evaluation.significance import RESAMPLES, Estimate, bootstrap
from fm_bench.evaluation.sweep import Nested, Sweep
from fm_bench.retrieval.distances import F32, F64, I64, check_embeddings
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.ordering import Ranking
from fm_bench.retrieval.search import check_exclusions, check_k
from fm_bench.retrieval.searcher import Counter, Opener, Searcher

__all__ = ["Estimate", "Report", "View", "evaluate"]

View = tuple[NDArray[np.integer[Any]], NDArray[np.floating[Any]]]
"""Positions of requests ``(r,)``, and the gallery vectors ``(N, D)`` in which they are searched."""


@dataclass(frozen=True, eq=False)
class Report:
    """What a method scored under one protocol.

    ``chance@k`` has no uncertainty: its interval has no width.
    """

    metrics: dict[str, Estimate]
    """All requests together, e.g. ``accuracy@20``, ``chance@20``, ``success@5``, ``ndcg@20``, ``ndcg_ones@20``,
    ``mrr@1000``, ``mrr_item@1000``; of a sweep ``accuracy@20|250``, in a gallery of 250, and ``increment_ratio@20``."""
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
    sweep: Sweep | None = None
    """The curve over gallery sizes, where the protocol asks for one."""

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
        } | ({} if self.sweep is None else {"sweep": self.sweep._asdict()})


def _as_json(estimates: dict[str, Estimate]) -> dict[str, dict[str, float]]:
    """What is undefined is left out, since NaN is not JSON."""
    return {name: estimate._asdict() for name, estimate in estimates.items() if math.isfinite(estimate.value)}


def evaluate(
    gallery: NDArray[np.floating[Any]] | None,
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
    views: Iterable[View] | None = None,
    searcher: Opener = ExactIndex,
    seed: int = 0,
    infeasible: Literal["error", "miss"] = "error",
    resamples: int = RESAMPLES,
) -> Report:
    """Scores query embeddings against gallery embeddings.

    Args:
        gallery: ``(N, D)`` float32, in memory or memory-mapped; not searched, and perhaps None, where there are views.
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
        views: where the gallery's vectors depend on the request: pairs of positions ``(r,)`` of requests and the
            vectors ``(N, D)`` in which they are searched, of the gallery's images in their order. Every request stands
            in one view. They are taken one at a time, and let go before the next is taken, so that a generator needs
            memory for one.
        searcher: opens a gallery ``(N, D)`` to search, from ``keys`` and ``seed`` of the order of ties.
        seed: of the order of ties and the resamples.
        infeasible: a request without any hit in the gallery is an ``"error"``, or a ``"miss"`` that is counted.
        resamples: of the requests, for the intervals; 0 leaves the intervals out.

    Raises:
        UserError: on NaN or wrong shapes, a cut-off beyond the gallery, no request with a labelled target, missing item
            ids under instance hits, or infeasible requests where they are an error.
        ValueError: if neither gallery nor views are given, or if the views do not hold every request once.
    """
    if views is None:
        if gallery is None:
            raise ValueError("give the gallery or views of it")
        views = [(np.arange(len(queries)), gallery)]
    images = len(gallery_labels)
    check_labels(gallery_labels, "gallery labels", images if gallery is None else len(gallery))
    check_labels(targets, "targets", len(queries), gallery_labels.shape[1])
    queries = np.ascontiguousarray(check_embeddings(queries, "query"))
    if exclude is None or not protocol.exclude_query:
        exclude = np.full(len(queries), -1)
    exclude = check_exclusions(exclude, len(queries), images)
    check_k(protocol.depth, images, exclude)
    labelled = (targets >= 0).any(axis=1)
    counted = np.flatnonzero(labelled | (protocol.hit == "instance"))
    if not len(counted):
        raise UserError(f"none of {len(queries)} requests has a labelled target: give requests with labels.")
    names = np.arange(len(queries)) if query_keys is None else query_keys
    keys = np.arange(images) if gallery_keys is None else gallery_keys
    items = _items(protocol, gallery_items, query_items, images, len(queries))
    hits = Hits(
        Codes.of(targets[counted], gallery_labels, protocol.missing),
        exclude[counted],
        None if items is None else (items[0], items[1][counted]),
        max(protocol.ndcg, default=1),
    )
    hopeless = _hopeless(hits, infeasible)
    place = np.full(len(queries), -1)
    place[counted] = np.arange(len(counted))
    nested = Nested(hits, protocol.sweep, keys, names[counted], seed) if protocol.sweep else None
    item = designated(hits, order_of_hits(keys, names[counted], seed)) if protocol.mrr_item else None
    asked = _Asked(_taken(queries, counted), names[counted], place, item)
    found = _search(views, asked, hits, protocol, keys, nested, partial(searcher, keys=keys, seed=seed))
    values = _values(found, hits, protocol, nested)
    changed = None if changed is None else np.asarray(changed)[counted]
    attributes = [str(m) for m in range(targets.shape[1])] if attribute_names is None else list(attribute_names)
    total, by_attribute, by_changes = _summarize(values, changed, attributes, resamples, seed)
    if found.swept is not None:
        total[sweep.RATIO] = sweep.increment_ratio(found.swept[:, 0], found.swept[:, -1], resamples, seed)
    return Report(
        metrics=total,
        by_attribute={name: part for name, (part, _) in by_attribute.items()},
        by_changes=by_changes,
        per_request=values,
        counted=counted,
        ranking=found.ranking,
        requests=len(counted),
        gallery=images,
        tied_share=float(found.ranking.tied.mean()),
        skipped=len(queries) - len(counted),
        infeasible=hopeless,
        attribute_requests={name: size for name, (_, size) in by_attribute.items()},
        sweep=None if nested is None or found.swept is None else nested.curve(found.swept),
    )


def _hopeless(hits: Hits, infeasible: Literal["error", "miss"]) -> int:
    """How many requests have no hit in the gallery. Raises UserError if there are some and that is an error."""
    hopeless = np.flatnonzero(hits.relevant == 0)
    if len(hopeless) and infeasible == "error":
        raise UserError(
            f"{len(hopeless)} of {len(hits.relevant)} requests have no hit in the gallery of "
            f"{len(hits.codes.gallery)} images, the first is request {hopeless[0]}: leave them out, or mine the "
            "requests against this gallery."
        )
    return len(hopeless)


class _Asked(NamedTuple):
    """The counted requests."""

    queries: F32
    keys: NDArray[np.integer[Any]]
    place: I64  # (given requests,) position of each among the counted ones, or -1
    item: I64 | None  # (R,) the designated hit of each, or -1; None where nobody counts it


class _Found(NamedTuple):
    """What was found for every counted request, in order, whichever view it was found in."""

    ranking: Ranking
    rank: I64  # of the first hit; 0 where there is none within the deepest cut-off
    hits: NDArray[np.bool_]  # (R, depth)
    swept: F64 | None  # (R, sizes)
    item: I64 | None  # (R,) rank of the designated hit; 0 past the deepest cut-off


def _search(
    views: Iterable[View],
    asked: _Asked,
    hits: Hits,
    protocol: Protocol,
    keys: NDArray[np.integer[Any]],
    nested: Nested | None,
    opened: Callable[[F32], Searcher],
) -> _Found:
    """Searches every view for its own requests. Before the next view is made, nothing refers to the one before."""
    number, depth = len(asked.queries), protocol.depth
    ranking = Ranking(np.empty((number, depth), np.int64), np.empty((number, depth)), np.empty(number, bool))
    found = np.zeros((number, depth), bool)
    rank = np.zeros(number, np.int64)
    swept = None if nested is None else np.zeros((number, len(nested.sizes)))
    item = None if asked.item is None else np.zeros(number, np.int64)
    seen = np.zeros(len(asked.place), np.int64)
    for positions, gallery in views:
        _check_view(positions, gallery, seen, len(keys))
        rows = asked.place[positions]
        rows = rows[rows >= 0]
        index = opened(gallery)
        queries, ties = _taken(asked.queries, rows), index.ties(asked.keys[rows])
        part, found[rows], rank[rows] = ranked(
            index, queries, asked.keys[rows], rows, hits, depth, max(protocol.mrr, default=0)
        )
        for whole, some in zip(ranking, part, strict=True):
            whole[rows] = some
        if (swept is not None or item is not None) and not isinstance(index, Counter):
            raise UserError("galleries of many sizes and designated images need exact search: leave --index out.")
        if nested is not None and swept is not None and isinstance(index, Counter):
            swept[rows] = nested.found(index, queries, rows, ties)
        if item is not None and asked.item is not None and isinstance(index, Counter):
            some = rows[asked.item[rows] >= 0]
            place = asked.item[some], index, asked.queries[some], index.ties(asked.keys[some]), hits.exclude[some]
            item[some] = rank_of(*place, max(protocol.mrr_item))
            del place
        del gallery, index, ties  # a view may be as large as memory allows
    if (seen == 0).any():
        raise ValueError(f"no view holds request {int(np.argmin(seen))}")
    return _Found(ranking, rank, found, swept, item)


def _taken(vectors: F32, rows: I64) -> F32:
    """``vectors[rows]``, without a copy where that is all of them in order."""
    return vectors if len(rows) == len(vectors) and (rows == np.arange(len(rows))).all() else vectors[rows]


def _check_view(positions: NDArray[np.integer[Any]], gallery: NDArray[Any], seen: I64, images: int) -> None:
    """Counts the requests of a view in ``seen``. Raises ValueError if they or the gallery cannot be of this work."""
    if len(gallery) != images:
        raise ValueError(f"a view has {len(gallery)} gallery vectors, but there are {images} images")
    np.add.at(seen, positions, 1)
    if (seen > 1).any():
        raise ValueError(f"two views hold request {int(np.argmax(seen))}")


def _values(found: _Found, hits: Hits, protocol: Protocol, nested: Nested | None) -> dict[str, F64]:
    """Every metric of every request."""
    values: dict[str, F64] = {}
    needed = hits.codes.needed
    images = len(hits.codes.gallery) - (hits.exclude >= 0)
    by_chance = metrics.chance(hits.relevant, images, protocol.depth)
    for k in protocol.k:
        values[f"accuracy@{k}"] = metrics.accuracy(found.rank, k)
        values[f"chance@{k}"] = by_chance[:, k - 1]
    for k in protocol.success:
        values[f"success@{k}"] = metrics.success(found.hits, k)
    if protocol.ndcg:
        deepest = max(protocol.ndcg)
        matched = hits.codes.matched(found.ranking.ids[:, :deepest])
        gallery, ones = metrics.ndcg(matched, hits.matches.best(deepest, hits.own), needed)
        for k in protocol.ndcg:
            values[f"ndcg@{k}"] = np.where(needed > 0, gallery[:, k - 1], np.nan)
            values[f"ndcg_ones@{k}"] = np.where(needed > 0, ones[:, k - 1], np.nan)
    for k in protocol.mrr:
        values[f"mrr@{k}"] = metrics.reciprocal_rank(found.rank, k)
    if found.item is not None:
        values |= {f"mrr_item@{k}": metrics.reciprocal_rank(found.item, k) for k in protocol.mrr_item}
    if nested is not None and found.swept is not None:
        chance = nested.chance()
        for i, size in enumerate(nested.sizes.tolist()):
            values[sweep.at(size)] = found.swept[:, i]
            values[sweep.at(size, f"chance@{sweep.K}")] = chance[:, i]
    return values


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
