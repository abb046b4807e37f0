# SPDX-License-Identifier: MIT
"""One designated hit of every request, drawn from its hits: the image that a sweep keeps, and that ``mrr_item`` ranks.

Which one it is follows a seeded shuffle of the images' keys: neither the gallery's order nor the embedding has a say.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.evaluation.hits import Hits
from fm_bench.retrieval.distances import F32, I64, exact
from fm_bench.retrieval.ordering import TieOrder
from fm_bench.retrieval.searcher import Counter

_KEPT = 0x5EED_0002  # sets this shuffle apart from that of ties


def order_of_hits(keys: NDArray[np.integer[Any]], query_keys: NDArray[np.integer[Any]], seed: int) -> TieOrder:
    """The shuffle by which hits are designated, see ``first_of``."""
    return TieOrder(keys, query_keys, seed ^ _KEPT)


def first_of(rows: I64, pair: I64, image: I64, order: TieOrder) -> tuple[I64, I64]:
    """The first hit of each request in ``order``.

    Args:
        rows: ``(r,)`` requests.
        pair: ``(P,)`` positions in ``rows``.
        image: ``(P,)`` a hit of each.
        order: of the hits.

    Returns:
        The requests that have a hit, and its image.
    """
    ranked = np.lexsort((order(rows[pair], image), pair))
    first, position = np.unique(pair[ranked], return_index=True)
    return rows[first], image[ranked][position]


def designated(hits: Hits, order: TieOrder) -> I64:
    """``(R,)`` the designated hit of every request, −1 where it has none."""
    chosen = np.full(len(hits.relevant), -1)
    everyone = np.arange(len(chosen))
    for part, pair, image in hits.pairs(everyone):
        rows, images = first_of(everyone[part], pair, image, order)
        chosen[rows] = images
    return chosen


def rank_of(image: I64, index: Counter, queries: F32, ties: TieOrder, exclude: I64, limit: int) -> I64:
    """``(r,)`` rank of one image of each query, from 1; 0 past ``limit``.

    Args:
        image: ``(r,)`` gallery positions.
        index: the gallery.
        queries: ``(r, D)``.
        ties: the order of ties of these queries.
        exclude: ``(r,)`` an image of each query that takes no rank, −1 for none.
        limit: the deepest rank that counts.
    """
    everyone = np.arange(len(image))
    distance = exact(queries, index.gallery, everyone, image)
    before = index.count_before(queries, distance, ties(everyone, image), ties, exclude, limit)
    return np.where(before < limit, before + 1, 0)
