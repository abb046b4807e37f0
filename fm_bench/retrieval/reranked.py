# SPDX-License-Identifier: MIT
"""Search by something fast that may miss images: it proposes a few, and exact distances put them in order.

So what is found is in the same order, ties included, as an exact search gives, and has the same distances. What is not
proposed is not found.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.retrieval.distances import F32, I64, blocks, check_embeddings, exact
from fm_bench.retrieval.gallery import Gallery
from fm_bench.retrieval.ordering import Ranking, first_k

EXTRA = 16
"""Images that are ranked by exact distance beyond twice as many as are wanted."""
_QUERIES = 1 << 10  # queries asked at a time


class Reranked(Gallery, ABC):
    """A ``Searcher`` of which subclasses propose images.

    Args:
        gallery: ``(N, D)`` float32, in memory or memory-mapped; never copied as a whole.
        keys: ``(N,)`` integers that name the images, all different; they order equal distances. Default: positions.
        seed: of the order of equal distances.
        candidates: images that are asked for beyond twice as many as are wanted.

    Raises:
        UserError: if the gallery is not a finite two-dimensional array of floats, or has no images.
    """

    def __init__(
        self, gallery: F32, *, keys: NDArray[np.integer[Any]] | None = None, seed: int = 0, candidates: int = EXTRA
    ) -> None:
        super().__init__(check_embeddings(gallery, "gallery"), keys=keys, seed=seed)
        if not len(gallery):
            raise UserError("the gallery has no images: give at least one.")
        self.candidates = candidates

    @abstractmethod
    def propose(self, queries: F32, count: int) -> I64:
        """``(R, count)`` gallery positions, each at most once for a query; −1 where fewer are found."""

    @abstractmethod
    def size(self) -> int | None:
        """Bytes that the index takes, None where nobody tells."""

    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        query_keys: NDArray[np.integer[Any]] | None = None,
    ) -> Ranking:
        """The ``k`` nearest of the images that the index proposes to each query; see ``Searcher.search``."""
        queries, exclude, ties = self.asked(queries, exclude, query_keys)
        out = Ranking(np.full((len(queries), k), -1), np.full((len(queries), k), np.inf), np.zeros(len(queries), bool))
        wanted = min(k, len(self))
        count = min(len(self), 2 * wanted + self.candidates)
        for part in blocks(len(queries), _QUERIES):
            ids = self.propose(queries[part], count)
            rows = np.broadcast_to(np.arange(part.start, part.stop)[:, None], ids.shape)
            real = np.maximum(ids, 0)
            distances = exact(queries, self.gallery, rows.ravel(), real.ravel()).reshape(ids.shape)
            distances[(ids < 0) | (ids == exclude[part, None])] = np.inf
            found = first_k(real, distances, ties(rows, real), wanted)
            out.ids[part, :wanted] = np.where(np.isfinite(found.distances), found.ids, -1)
            out.distances[part, :wanted] = found.distances
            out.tied[part] = found.tied
        return out
