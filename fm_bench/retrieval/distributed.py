# SPDX-License-Identifier: MIT
"""One gallery searched by all processes of a run, each its own share of the images.

Every process maps the whole gallery and asks the same; what it gets is bit for bit what one process would find, since
distances are exact and ties follow the images' keys.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.processes import agreed, gather_arrays, total, world
from fm_bench.retrieval.distances import F32, F64, I64
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.ordering import U64, Ranking, TieOrder, merge


class DistributedIndex:
    """A ``Counter`` that all processes of a run open and ask together, with the same arguments.

    Args:
        gallery: ``(N, D)`` float32, in memory or memory-mapped, the same on every process. Each looks at its own
            consecutive rows alone, but for the few that it is asked for.
        keys: ``(N,)`` integers that name the images, all different; see ``ExactIndex``.
        seed: of the order of equal distances.

    Raises:
        UserError: on every process, if any part of the gallery is not finite.
    """

    def __init__(self, gallery: F32, *, keys: NDArray[np.integer[Any]], seed: int) -> None:
        rank, size = world()
        rows = slice(len(gallery) * rank // size, len(gallery) * (rank + 1) // size)
        self.keys, self.seed = keys, seed
        with agreed("opening the gallery"):
            self._own = ExactIndex(gallery, keys=keys, seed=seed, rows=rows)
            self.gallery = self._own.gallery

    def ties(self, query_keys: NDArray[np.integer[Any]]) -> TieOrder:
        """The order of equal distances for these queries."""
        return self._own.ties(query_keys)

    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        query_keys: NDArray[np.integer[Any]] | None = None,
    ) -> Ranking:
        """The ``k`` nearest images of each query in the whole gallery; see ``ExactIndex.search``.

        Raises:
            UserError: on every process, if the search failed on any.
        """
        with agreed("searching the gallery"):
            own = self._own.search(queries, k, exclude=exclude, query_keys=query_keys)
        return self._merged(own, query_keys)

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
        """``search`` and ``count_before`` in one; see ``Counter.search_counting``.

        Raises:
            UserError: on every process, if the search failed on any.
        """
        place = distances, numbers, limit
        with agreed("searching the gallery"):
            own, count = self._own.search_counting(queries, k, *place, exclude=exclude, query_keys=query_keys)
        return self._merged(own, query_keys), total(count)

    def _merged(self, own: Ranking, query_keys: NDArray[np.integer[Any]] | None) -> Ranking:
        """The ranking of the whole gallery, from what every process found in its ``own`` share."""
        columns = [gather_arrays(column) for column in own]
        shards = [Ranking(*shard) for shard in zip(*columns, strict=True)]
        return merge(shards, keys=self.keys, query_keys=query_keys, seed=self.seed)

    def count_before(self, queries: F32, distances: F64, numbers: U64, ties: TieOrder, exclude: I64, limit: int) -> I64:
        """How many images come before a given place in each query's ranking; see ``Counter``."""
        with agreed("counting nearer images"):
            own = self._own.count_before(queries, distances, numbers, ties, exclude, limit)
        return total(own)  # where it is up to the limit each share was, and so was counted to its end

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
        """As ``count_before``, apart for each segment of the gallery; see ``Counter``."""
        with agreed("counting nearer images"):
            own = self._own.count_by_segment(queries, distances, numbers, ties, counts, limit, segment, segments)
        return total(own)
