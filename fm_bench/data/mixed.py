# SPDX-License-Identifier: MIT
"""Requests of one change and of two in one list, one of every picture, as AMGAN is asked (SIGIR 2020)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fm_bench.catalog import Catalog
from fm_bench.data.requests import Requests, join, mine
from fm_bench.data.streams import keys
from fm_bench.errors import UserError


def mixed(
    catalog: Catalog,
    queries: NDArray[np.int64],
    gallery: NDArray[np.int64],
    *,
    one_change: float,
    limit: int | None,
    seed: int,
    attributes: Sequence[int] | None = None,
) -> Requests:
    """One feasible request of every picture that has any, in shuffled order.

    Args:
        catalog: the catalogue.
        queries: rows of the pictures that may be asked about.
        gallery: rows of the images that are searched.
        one_change: share of the requests that change one attribute; the others change two. It is kept as closely as
            pictures that allow only one of both let it.
        limit: at most this many requests, a smaller number being the beginning of a larger one; None for all.
        seed: of the draw.
        attributes: positions of the attributes that may be changed; None for all.

    Raises:
        UserError: if no request is feasible.
    """
    parts, problems = [], []
    for changes in (1, 2):
        try:
            parts.append(
                mine(catalog, queries, gallery, changes=changes, limit=None, cap=1, seed=seed, attributes=attributes)
            )
        except UserError as error:
            problems.append(error)
    if not parts:
        raise problems[0]
    both = join(parts)
    pictures, times = np.unique(both.query, return_counts=True)
    single = both.changes == 1
    either = pictures[times > 1]
    one = np.isin(pictures, both.query[single])
    wanted = round(one_change * len(pictures)) - int((one & (times == 1)).sum())
    drawn = either[np.argsort(keys(seed, "one change", either), kind="stable")]
    ones, twos = np.split(drawn, [min(max(wanted, 0), len(drawn))])
    kept = np.flatnonzero(~np.isin(both.query, twos) & single | ~np.isin(both.query, ones) & ~single)
    order = np.argsort(keys(seed, "mixed", both.query[kept]), kind="stable")
    return both.select(kept[order][:limit])
