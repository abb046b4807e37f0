# SPDX-License-Identifier: MIT
"""The exact index as a service keeps it: everything that does not depend on the query is done beforehand."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.retrieval.distances import F32, blocks
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.ordering import Ranking


class ReadyIndex(ExactIndex):
    """An ``ExactIndex`` whose gallery was centred once, so that a query costs one scan and no copy.

    It searches the gallery moved to the origin, which changes no distance but for rounding to float32.

    Args:
        gallery: ``(N, D)`` float32, contiguous, in memory; it is centred in place.
        keys: see ``ExactIndex``.
        seed: see ``ExactIndex``.

    Raises:
        UserError: if the gallery is not a finite two-dimensional array of floats.
    """

    def __init__(self, gallery: F32, *, keys: NDArray[np.integer[Any]] | None = None, seed: int = 0) -> None:
        super().__init__(gallery, keys=keys, seed=seed)
        self.offset = self.centre
        for part in blocks(len(gallery), self.block_rows):
            gallery[part] -= self.offset
        self.centre = np.zeros_like(self.offset)

    def centred_rows(self, part: slice) -> F32:
        """Rows of the gallery, which are centred already."""
        return self.gallery[part]

    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        query_keys: NDArray[np.integer[Any]] | None = None,
    ) -> Ranking:
        """As ``ExactIndex.search``; queries are given where the gallery was before it was centred."""
        return super().search(self.check_queries(queries) - self.offset, k, exclude=exclude, query_keys=query_keys)
