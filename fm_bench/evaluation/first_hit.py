# SPDX-License-Identifier: MIT
"""The rank of each request's first hit, however deep it lies.

Nobody ranks a thousand images for that. The request's nearest hit is looked up, and what comes before it is counted:
where a request has few hits, on the way of the search itself.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.evaluation import metrics
from fm_bench.evaluation.hits import Hits
from fm_bench.retrieval.distances import F32, F64, I64, exact
from fm_bench.retrieval.ordering import U64, Ranking, TieOrder
from fm_bench.retrieval.searcher import Counter, Searcher

_FEW = 64  # hits whose distances are next to nothing beside those of a gallery; with more, one is likely to be early


def ranked(
    index: Searcher,
    queries: F32,
    keys: NDArray[np.integer[Any]],
    rows: I64,
    hits: Hits,
    depth: int,
    limit: int,
) -> tuple[Ranking, NDArray[np.bool_], I64]:
    """Searches, and finds the first hits.

    Args:
        index: the gallery.
        queries: ``(r, D)``.
        keys: ``(r,)`` integers that name them in the order of ties.
        rows: ``(r,)`` which requests they are.
        hits: of all requests.
        depth: images that are ranked.
        limit: the deepest rank that counts, where that is more than ``depth``.

    Returns:
        The ranking, ``(r, depth)`` which of its images are hits, and ``(r,)`` ranks of the first hits; 0 where there is
        none, and past the limit.
    """
    exclude = hits.exclude[rows]
    deep, relevant = limit > depth, hits.relevant[rows]
    counted = (relevant > 0) & (relevant <= _FEW) & deep & isinstance(index, Counter)
    before = np.zeros(len(rows), np.int64)
    if isinstance(index, Counter) and counted.any():
        distance, number = np.full(len(rows), -1.0), np.zeros(len(rows), np.uint64)
        few = np.flatnonzero(counted)
        distance[few], number[few] = _nearest(index, queries[few], rows[few], hits, index.ties(keys[few]))
        ranking, before = index.search_counting(
            queries, depth, distance, number, limit, exclude=exclude, query_keys=keys
        )
    else:
        ranking = index.search(queries, depth, exclude=exclude, query_keys=keys)
    found = hits.are(rows, ranking.ids)
    rank = metrics.first_hit(found)
    late = rank == 0
    rank = np.where(late & counted & (before < limit), before + 1, rank)
    rest = np.flatnonzero(late & ~counted & (relevant > 0) & deep)
    if len(rest):
        rank[rest] = _late(index, queries[rest], keys[rest], rows[rest], hits, depth, limit)
    return ranking, found, rank


def _late(
    index: Searcher, queries: F32, keys: NDArray[np.integer[Any]], rows: I64, hits: Hits, depth: int, limit: int
) -> I64:
    """``(r,)`` rank of the first hit of requests that have none among the ``depth`` ranked images; 0 past ``limit``."""
    exclude = hits.exclude[rows]
    if isinstance(index, Counter):
        ties = index.ties(keys)
        before = index.count_before(queries, *_nearest(index, queries, rows, hits, ties), ties, exclude, limit)
        return np.where(before < limit, before + 1, 0)
    rank = metrics.first_hit(hits.are(rows, index.search(queries, limit, exclude=exclude, query_keys=keys).ids))
    # A deeper search of an approximate index finds more, also near images. Those were not found to the depth that
    # accuracy is of, and so must not count there.
    return np.where(rank > 0, np.maximum(rank, depth + 1), 0)


def _nearest(index: Searcher, queries: F32, rows: I64, hits: Hits, ties: TieOrder) -> tuple[F64, U64]:
    """``(r,)`` distance and tie number of the nearest hit of requests that have one."""
    distance, number = np.empty(len(rows)), np.empty(len(rows), np.uint64)
    for part, pair, image in hits.pairs(rows):
        asking = pair + part.start
        away, order = exact(queries, index.gallery, asking, image), ties(asking, image)
        start = np.searchsorted(pair, np.arange(part.stop - part.start))  # every one of these requests has hits
        distance[part] = np.minimum.reduceat(away, start)
        order[away > distance[asking]] = np.iinfo(np.uint64).max
        number[part] = np.minimum.reduceat(order, start)
    return distance, number
