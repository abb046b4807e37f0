# SPDX-License-Identifier: MIT
"""What answers the evaluator's questions about one gallery, whether exact or not, on one process or many."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fm_bench.retrieval.distances import F32, F64, I64
from fm_bench.retrieval.ordering import U64, Ranking, TieOrder


class Opener(Protocol):
    """Makes a ``Searcher`` of a gallery: ``ExactIndex`` is one."""

    def __call__(self, gallery: F32, *, keys: NDArray[np.integer[Any]], seed: int) -> "Searcher":
        """A gallery ``(N, D)`` to search; ``keys (N,)`` and ``seed`` give the order of equal distances."""
        ...


class Searcher(Protocol):
    """A gallery that can be searched, if not without missing images.

    On many processes all of them ask the same, and get the same.
    """

    gallery: F32
    """``(N, D)``, in memory or memory-mapped."""

    def ties(self, query_keys: NDArray[np.integer[Any]]) -> TieOrder:
        """The order of equal distances for these queries."""
        ...

    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        query_keys: NDArray[np.integer[Any]] | None = None,
    ) -> Ranking:
        """The ``k`` nearest images of each query that this searcher finds.

        Args:
            queries: ``(R, D)``.
            k: at least 1; the ranking has exactly ``k`` columns, padded with −1 where fewer are found.
            exclude: ``(R,)`` gallery position that the query must not find, or −1; it takes no rank.
            query_keys: ``(R,)`` integers that name the queries in the order of ties. Default: positions.
        """
        ...


@runtime_checkable
class Counter(Searcher, Protocol):
    """A ``Searcher`` that misses nothing, so that the images before a place can be counted without ranking them."""

    def count_before(self, queries: F32, distances: F64, numbers: U64, ties: TieOrder, exclude: I64, limit: int) -> I64:
        """How many images come before the place ``(distance, tie number)`` in each query's ranking.

        Args:
            queries: ``(R, D)``.
            distances: ``(R,)`` exact squared distances.
            numbers: ``(R,)`` tie numbers.
            ties: the order of ties of these queries.
            exclude: ``(R,)`` gallery position that is not counted, or −1.
            limit: a count that has passed this is not continued: it means "more than ``limit``".

        Returns:
            ``(R,)`` counts, exact up to ``limit``.
        """
        ...

    def search_counting(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        distances: F64,
        numbers: U64,
        limit: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        query_keys: NDArray[np.integer[Any]] | None = None,
    ) -> tuple[Ranking, I64]:
        """What ``search`` and ``count_before`` give, often in hardly more than the time of the search.

        Args:
            queries: as in ``search``, like ``k``, ``exclude`` and ``query_keys``.
            k: at least 1.
            distances: as in ``count_before``, like ``numbers`` and ``limit``; negative where nothing is to be counted.
            numbers: ``(R,)``.
            limit: where counts may end.
            exclude: ``(R,)``.
            query_keys: ``(R,)``.

        Returns:
            The ranking, and ``(R,)`` counts; 0 where nothing was to be counted.
        """
        ...

    def count_by_segment(
        self,
        queries: F32,
        distances: F64,
        numbers: U64,
        ties: TieOrder,
        counts: Callable[[I64, I64], NDArray[np.bool_]],
        limit: int,
        segment: I64,
        segments: int,
    ) -> I64:
        """As ``count_before``, apart for each segment of the gallery, and only what ``counts``.

        Args:
            queries: ``(R, D)``.
            distances: ``(R,)`` exact squared distances.
            numbers: ``(R,)`` tie numbers.
            ties: the order of ties of these queries.
            counts: whether image ``ids[i]`` counts for query ``rows[i]``.
            limit: a query of which the first segment's count has passed this is not continued.
            segment: ``(N,)`` which segment each image is in.
            segments: how many there are.

        Returns:
            ``(R, segments)`` counts, exact for queries whose first count is up to ``limit``.
        """
        ...
