# SPDX-License-Identifier: MIT
"""The one order in which gallery images are ranked: by exact distance, equal distances by a seeded shuffle.

Libraries break ties by position, which leaks the order of the files: a collapsed embedding would be scored by what
happens to come first. Here every query shuffles the images for itself, by hashing their *keys* (not their positions),
and equal distances follow that shuffle. So each image is equally likely to come first, whatever the gallery's order,
and a collapsed embedding scores at chance. One shuffle for all queries would be fair as well, but only on average over
seeds: all queries would see the same few images.
"""

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]


class Ranking(NamedTuple):
    """The first ``k`` gallery images of each of ``R`` queries, nearest first."""

    ids: NDArray[np.int64]
    """``(R, k)`` gallery positions; -1 past the end of a shard that is shorter than ``k``."""
    distances: NDArray[np.float64]
    """``(R, k)`` squared Euclidean distances, computed in float64 from the float32 vectors; inf where ``ids`` is -1."""
    tied: NDArray[np.bool_]
    """``(R,)`` whether images ``k`` and ``k + 1`` are equally far, so that the shuffle decided who is in."""


class TieOrder:
    """The shuffle of each query: of two images at the same distance, the one with the smaller number comes first.

    Args:
        gallery_keys: ``(N,)`` integers that name the images, all different; they decide ties in place of positions.
        query_keys: ``(R,)`` integers that name the queries.
        seed: another seed, other shuffles.
    """

    def __init__(self, gallery_keys: NDArray[np.integer[Any]], query_keys: NDArray[np.integer[Any]], seed: int) -> None:
        self._gallery = _words(gallery_keys)
        self._salts = _mix(_words(query_keys) ^ _mix(np.array([seed % 2**64], np.uint64)))

    def part(self, queries: slice | NDArray[np.int64]) -> "TieOrder":
        """The order of some of the queries, which are numbered from 0."""
        found = copy(self)
        found._salts = self._salts[queries]
        return found

    def __call__(self, query: NDArray[np.int64], gallery: NDArray[np.int64]) -> U64:
        """Numbers of (query position, gallery position) pairs, which are broadcast against each other.

        Within a query they all differ, since the hash is a bijection.
        """
        return _mix(self._gallery[gallery] ^ self._salts[query])


def _words(keys: NDArray[np.integer[Any]]) -> U64:
    return np.asarray(keys).astype(np.int64).view(np.uint64)


def _mix(x: U64) -> U64:
    # The finaliser of splitmix64: Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def first_k(ids: NDArray[np.int64], distances: NDArray[np.float64], ties: U64, k: int) -> Ranking:
    """The ``k`` first of ``(R, n)`` candidates in the order of this module, ``n >= k``.

    ``tied`` is about the given candidates only; candidates at distance inf never tie.
    """
    order = np.argsort(distances, axis=1, kind="stable")
    near = np.take_along_axis(distances, order, axis=1)
    equal = np.flatnonzero(((near[:, 1:] == near[:, :-1]) & np.isfinite(near[:, 1:])).any(axis=1))
    order[equal] = np.lexsort((ties[equal], distances[equal]), axis=1)
    tied = near[:, k - 1] == near[:, k] if near.shape[1] > k else np.zeros(len(ids), bool)
    near = near[:, :k].copy()
    return Ranking(np.take_along_axis(ids, order[:, :k], axis=1), near, tied & np.isfinite(near[:, -1]))


def first_k_of_pairs(
    rows: int, row: NDArray[np.int64], ids: NDArray[np.int64], distances: NDArray[np.float64], ties: U64, k: int
) -> Ranking:
    """As ``first_k`` of ``rows`` queries, from (query, image) pairs in any order, as many as there are of each query.

    Missing images have id 0 and distance inf.
    """
    order = np.lexsort((ties, distances, row))
    row = row[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    order, row, rank = (part[rank <= k] for part in (order, row, rank))
    near_ids, near = np.zeros((rows, k + 1), np.int64), np.full((rows, k + 1), np.inf)
    near_ids[row, rank], near[row, rank] = ids[order], distances[order]
    tied = (near[:, k - 1] == near[:, k]) & np.isfinite(near[:, k])
    return Ranking(near_ids[:, :k].copy(), near[:, :k].copy(), tied)


def merge(
    rankings: Sequence[Ranking],
    *,
    keys: NDArray[np.integer[Any]] | None = None,
    query_keys: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Ranking:
    """The ranking of a whole gallery from the rankings of its shards, bit for bit what one search gives.

    Args:
        rankings: one per shard, as ``search(…, shard_start=…)`` gives them: same ``k``, positions in the whole gallery.
        keys: of the whole gallery, as they were given to ``search``.
        query_keys: as they were given to ``search``.
        seed: as it was given to ``search``.

    Raises:
        ValueError: if the shards have different numbers of queries or ``k``.
    """
    shapes = {ranking.ids.shape for ranking in rankings}
    if len(shapes) != 1:
        raise ValueError(f"shards must have the same queries and k, but have shapes {sorted(shapes)}")
    ((rows, k),) = shapes
    ids = np.concatenate([ranking.ids for ranking in rankings], axis=1)
    distances = np.concatenate([ranking.distances for ranking in rankings], axis=1)
    if keys is None:
        keys = np.arange(int(ids.max(initial=0)) + 1)
    order = TieOrder(keys, np.arange(rows) if query_keys is None else query_keys, seed)
    merged = first_k(ids, distances, order(np.arange(rows)[:, None], np.maximum(ids, 0)), k)
    # An image that a shard left out can only be tied with the last of the merged list if it was tied with its shard's.
    last = merged.distances[:, -1]
    tied = merged.tied.copy()
    for ranking in rankings:
        tied |= ranking.tied & (ranking.distances[:, -1] == last)
    return merged._replace(tied=tied)
