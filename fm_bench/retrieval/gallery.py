# SPDX-License-Identifier: MIT
"""What every searcher does alike: the gallery and its images' names, the order of ties, and checking what is asked."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.retrieval.distances import F32, I64, check_embeddings
from fm_bench.retrieval.ordering import TieOrder


class Gallery:
    """Embeddings that queries are put to.

    Args:
        embeddings: ``(N, D)`` finite float32, in memory or memory-mapped; never copied as a whole.
        keys: ``(N,)`` integers that name the images, all different; equal distances are ordered by a shuffle of these,
            so that the gallery's order does not matter. Default: the positions.
        seed: of that shuffle.
    """

    def __init__(self, embeddings: F32, *, keys: NDArray[np.integer[Any]] | None = None, seed: int = 0) -> None:
        if keys is not None and keys.shape != (len(embeddings),):
            raise ValueError(f"{len(embeddings)} gallery embeddings came with keys of shape {keys.shape}")
        self.gallery = embeddings
        self.keys = np.arange(len(embeddings)) if keys is None else keys
        self.seed = seed

    def __len__(self) -> int:
        return len(self.gallery)

    @property
    def dim(self) -> int:
        """``D``."""
        return int(self.gallery.shape[1])

    def ties(self, query_keys: NDArray[np.integer[Any]]) -> TieOrder:
        """The order of equal distances for these queries."""
        return TieOrder(self.keys, query_keys, self.seed)

    def check_queries(self, queries: NDArray[np.floating[Any]]) -> F32:
        """The queries as float32. Raises UserError if they are not finite or not of the gallery's dimension."""
        queries = np.ascontiguousarray(check_embeddings(queries, "query"))
        if queries.shape[1] != self.dim:
            raise UserError(
                f"the query embeddings have {queries.shape[1]} dimensions, but the gallery's have {self.dim}."
            )
        return queries

    def asked(
        self,
        queries: NDArray[np.floating[Any]],
        exclude: NDArray[np.int64] | None,
        query_keys: NDArray[np.integer[Any]] | None,
    ) -> tuple[F32, I64, TieOrder]:
        """The arguments of ``Searcher.search`` with their defaults. Raises UserError as ``check_queries``."""
        queries = self.check_queries(queries)
        none = np.full(len(queries), -1)
        ties = self.ties(np.arange(len(queries)) if query_keys is None else query_keys)
        return queries, none if exclude is None else np.asarray(exclude, np.int64), ties
