# SPDX-License-Identifier: MIT
"""Embeddings on disk, and exact search in them."""

from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.ordering import Ranking, merge
from fm_bench.retrieval.search import search
from fm_bench.retrieval.store import EmbeddingStore, StoreWriter

__all__ = ["EmbeddingStore", "ExactIndex", "Ranking", "StoreWriter", "merge", "search"]
