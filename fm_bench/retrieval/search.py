# SPDX-License-Identifier: MIT
"""Exact search: the ``k`` nearest gallery images of each query, in one well-defined order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.ordering import Ranking


def search(
    gallery: NDArray[np.floating[Any]],
    queries: NDArray[np.floating[Any]],
    k: int,
    *,
    exclude: NDArray[np.int64] | None = None,
    keys: NDArray[np.integer[Any]] | None = None,
    query_keys: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
    shard_start: int | None = None,
    block_bytes: int = 64 << 20,
) -> Ranking:
    """The ``k`` nearest gallery images of each query by squared Euclidean distance.

    The order is that of distances computed in float64 from the float32 vectors; equal distances are ordered by a seeded
    shuffle that follows ``keys``. It does not depend on the gallery's order, the block size or the number of shards.
    Memory is the embeddings, a few blocks, and ``(R, k)`` results.

    Args:
        gallery: ``(N, D)`` float32, in memory or memory-mapped.
        queries: ``(R, D)`` float32.
        k: images per query.
        exclude: ``(R,)`` gallery position that the query must not find (its own picture), or −1; it takes no rank.
        keys: ``(N,)`` integers that name the gallery's images, all different (catalogue rows, say). Default: positions.
        query_keys: ``(R,)`` integers that name the queries. Default: positions.
        seed: of the shuffle that orders equal distances.
        shard_start: given when ``gallery`` is one shard: the position of its first row in the whole gallery, to which
            ``exclude`` and the result then refer. Short shards are padded with −1; ``merge`` joins them.
        block_bytes: of the gallery at a time.

    Raises:
        UserError: if ``k`` is below 1 or above what the gallery holds, an exclusion is out of range, the dimensions
            differ, or an embedding is NaN or infinite.
    """
    if k < 1:
        raise UserError(f"k is {k}, but must be at least 1.")
    start = shard_start or 0
    if keys is None:
        keys = np.arange(start, start + len(gallery))
    index = ExactIndex(gallery, keys=keys, seed=seed, block_bytes=block_bytes)
    if exclude is not None:
        exclude = check_exclusions(exclude, len(queries), None if shard_start is not None else len(gallery))
        exclude = np.where((exclude >= start) & (exclude < start + len(gallery)), exclude - start, -1)
    if shard_start is None:
        check_k(k, len(gallery), exclude)
    ranking = index.search(queries, k, exclude=exclude, query_keys=query_keys)
    return ranking._replace(ids=np.where(ranking.ids >= 0, ranking.ids + start, -1)) if start else ranking


def check_k(k: int, gallery: int, exclude: NDArray[np.int64] | None = None) -> None:
    """Raises UserError if ``k`` images cannot be found in ``gallery`` images, less the query's own."""
    excluded = int(exclude is not None and bool((exclude >= 0).any()))
    if k > gallery - excluded:
        less = ", one of which is left out as the query's own" if excluded else ""
        raise UserError(
            f"k is {k}, but the gallery has {gallery} images{less}: choose a smaller k or a larger gallery."
        )


def check_exclusions(exclude: NDArray[Any], queries: int, gallery: int | None) -> NDArray[np.int64]:
    """``exclude`` as int64. Raises UserError unless it is one gallery position, or −1, per query."""
    if exclude.shape != (queries,) or exclude.dtype.kind not in "iu":
        raise UserError(
            f"exclude has shape {exclude.shape} and type {exclude.dtype}, but {queries} integers are needed."
        )
    exclude = exclude.astype(np.int64)
    wrong = np.flatnonzero((exclude < -1) | (exclude >= (np.iinfo(np.int64).max if gallery is None else gallery)))
    if len(wrong):
        raise UserError(
            f"exclude names gallery row {exclude[wrong[0]]} for query {wrong[0]}, but only "
            f"0 to {(gallery or 0) - 1} exist (-1 leaves out none)."
        )
    return exclude
