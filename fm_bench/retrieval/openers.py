# SPDX-License-Identifier: MIT
"""What a gallery is searched with, by name: ``exact``, a FAISS factory string, or a place of Milvus.

===============================  =====================================================================================
``exact``                        every image is compared with; over all processes of the run
``HNSW32,Flat``                  a FAISS index, see ``approximate.py``
``IVF4096,PQ64;nprobe=32``       the same, and how it is searched
``milvus:gallery.db``            Milvus embedded in this process, with its files in ``gallery.db``, see ``milvus.py``
``milvus:http://localhost:19530``  a Milvus cluster; its token is in ``MILVUS_TOKEN``
``milvus/FLAT:gallery.db``       another of Milvus's index types
===============================  =====================================================================================

An approximate index lives on the process that writes; the others are told what it finds.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.processes import agreed, gather, is_rank_zero, world
from fm_bench.recipe import EXACT, milvus_place
from fm_bench.retrieval.distances import F32
from fm_bench.retrieval.distributed import DistributedIndex
from fm_bench.retrieval.gallery import Gallery
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.milvus import MilvusIndex, check_place
from fm_bench.retrieval.ordering import Ranking
from fm_bench.retrieval.reranked import Reranked
from fm_bench.retrieval.searcher import Opener

T = TypeVar("T")


def opener(index: str) -> Opener:
    """What opens a gallery with ``index``. Raises UserError as opening does, for what can be seen from the name."""
    if index == EXACT:
        return DistributedIndex if world()[1] > 1 else ExactIndex
    return partial(AtRankZero, opened=approximate(index))


def approximate(index: str) -> Callable[..., Reranked]:
    """The class that ``index`` names, with its arguments but for ``gallery``, ``keys`` and ``seed``."""
    if place := milvus_place(index):
        return partial(MilvusIndex, uri=place.uri, kind=place.kind)
    return partial(_faiss().ApproximateIndex, factory=index)


def check_index(index: str, dim: int, images: int) -> None:
    """Raises UserError if a gallery of ``images`` vectors of ``dim`` numbers cannot be searched with ``index``."""
    if place := milvus_place(index):
        check_place(place.uri, place.kind)
    elif index != EXACT:
        _faiss().check_factory(index, dim, images)


def _faiss() -> Any:
    """The module that needs FAISS. Raises UserError where there is none."""
    try:
        from fm_bench.retrieval import approximate as module
    except ImportError as error:
        raise UserError(
            f"an approximate index needs FAISS ({error}): install faiss-cpu, or leave --index out."
        ) from error
    return module


class AtRankZero(Gallery):
    """A ``Searcher`` that all processes of a run open and ask together, and that one of them has.

    Args:
        gallery: ``(N, D)`` float32.
        keys: ``(N,)`` integers that name the images.
        seed: of the order of equal distances.
        opened: opens the gallery on the process that has it.

    Raises:
        UserError: on every process, if the index cannot be built.
    """

    def __init__(
        self, gallery: F32, *, keys: NDArray[np.integer[Any]], seed: int, opened: Callable[..., Reranked]
    ) -> None:
        super().__init__(np.asarray(gallery, np.float32), keys=keys, seed=seed)
        with agreed("building the index"):
            self.own = opened(gallery, keys=keys, seed=seed) if is_rank_zero() else None

    def search(
        self,
        queries: NDArray[np.floating[Any]],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        query_keys: NDArray[np.integer[Any]] | None = None,
    ) -> Ranking:
        """The ``k`` nearest images that the index finds; see ``Searcher.search``."""
        with agreed("searching the gallery"):
            found = None if self.own is None else self.own.search(queries, k, exclude=exclude, query_keys=query_keys)
        return _told(found)


def _told(found: T | None) -> T:
    """What the first process found."""
    first = gather(found)[0]
    assert first is not None, "the first process has the index"
    return first
