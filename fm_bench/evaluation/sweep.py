# SPDX-License-Identifier: MIT
"""Accuracy in galleries of growing size, nested in each other, with the same one hit in each.

A random part of a gallery loses hits as well as distractors, and accuracy could fall where the gallery shrinks. So each
request keeps one designated hit in every size; its other hits and the query's own image are left out of every size, and
only distractors come and go (Huang et al., ICCV 2015, and Zhao et al., CVPR 2017, report how much accuracy rises from
the largest gallery to the smallest, without saying what they did with the hits).

Which images a size has, and which hit is kept, follow seeded shuffles of the images' keys: neither the gallery's order
nor the embedding has a say in it.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.evaluation.designated import first_of, order_of_hits
from fm_bench.evaluation.hits import Hits
from fm_bench.evaluation.significance import Estimate, resampled_means
from fm_bench.retrieval.distances import F32, F64, I64, exact
from fm_bench.retrieval.ordering import TieOrder
from fm_bench.retrieval.searcher import Counter

K = 20
"""The cut-off of the papers' sweeps."""

RATIO = f"increment_ratio@{K}"
"""How much accuracy rises from the largest gallery to the smallest, by its value in the largest (``ratio``)."""

_IMAGES = 0x5EED_0001  # sets this shuffle apart from those of hits and of ties


class Sweep(NamedTuple):
    """The curve of a sweep: accuracy@20 of a ranking, and of a random order, in each gallery."""

    k: int
    sizes: tuple[int, ...]
    accuracy: tuple[float, ...]
    chance: tuple[float, ...]


def at(size: int, metric: str = f"accuracy@{K}") -> str:
    """The name of a metric in the gallery of ``size`` images: ``accuracy@20|250``."""
    return f"{metric}|{size}"


def swept(names: Iterable[str], metric: str = f"accuracy@{K}") -> list[tuple[int, str]]:
    """Of the ``names`` those that ``at`` gave, as (size, name), smallest gallery first."""
    parts = [(name.partition("|"), name) for name in names]
    return sorted((int(size), name) for (family, _, size), name in parts if family == metric and size.isdecimal())


class Nested:
    """Galleries in each other, and the hit that each request keeps in all of them.

    Args:
        hits: which images are hits of which requests.
        shares: ascending shares of the gallery, the last 1.
        keys: ``(N,)`` names of the images.
        query_keys: ``(R,)`` names of the requests.
        seed: of both choices.
    """

    def __init__(
        self,
        hits: Hits,
        shares: tuple[float, ...],
        keys: NDArray[np.integer[Any]],
        query_keys: NDArray[np.integer[Any]],
        seed: int,
    ) -> None:
        self.hits = hits
        self.sizes: I64 = np.unique([max(1, round(share * len(keys))) for share in shares])
        numbers = TieOrder(keys, np.zeros(1, np.int64), seed ^ _IMAGES)(np.zeros(1, np.int64), np.arange(len(keys)))
        place = np.empty(len(keys), np.int64)
        place[np.argsort(numbers)] = np.arange(len(keys))
        self.segment: I64 = np.searchsorted(self.sizes, place, side="right")
        """``(N,)`` the first size that has the image, as a position in ``sizes``."""
        self.kept: I64 = np.full(len(query_keys), -1)
        """``(R,)`` the hit that is kept; negative where there is none."""
        self.distractors: I64 = np.tile(self.sizes, (len(query_keys), 1))
        """``(R, S)`` images beside it in each size."""
        self._choose(order_of_hits(keys, query_keys, seed))

    def _choose(self, order: TieOrder) -> None:
        own = self.hits.exclude
        out = np.zeros(self.distractors.shape, np.int64)
        excluded = np.flatnonzero(own >= 0)
        np.add.at(out, (excluded, self.segment[own[excluded]]), 1)
        everyone = np.arange(len(own))
        for part, pair, image in self.hits.pairs(everyone):
            rows = everyone[part]
            np.add.at(out, (rows[pair], self.segment[image]), 1)
            requests, images = first_of(rows, pair, image, order)
            self.kept[requests] = images
        self.distractors -= out.cumsum(axis=1)

    def chance(self) -> F64:
        """``(R, S)`` probability that the kept hit is among the first 20 of a random order."""
        return np.where(self.kept[:, None] >= 0, np.minimum(1.0, K / (self.distractors + 1)), 0.0)

    def found(self, index: Counter, queries: F32, rows: I64, ties: TieOrder) -> F64:
        """Whether the kept hit is among the first 20 in each size.

        Args:
            index: the gallery.
            queries: ``(r, D)``.
            rows: ``(r,)`` which requests they are.
            ties: the order of ties of these queries.

        Returns:
            ``(r, S)`` zeros and ones.
        """
        found = np.zeros((len(rows), len(self.sizes)))
        asked = np.flatnonzero(self.kept[rows] >= 0)
        # a query without a hit is given any image, and its count is not used
        kept = np.maximum(self.kept[rows], 0)
        everyone = np.arange(len(rows))

        def distracts(i: I64, image: I64) -> NDArray[np.bool_]:
            request = rows[i]
            return np.asarray(~self.hits.are(request, image[:, None])[:, 0] & (image != self.hits.exclude[request]))

        before = index.count_by_segment(
            queries,
            exact(queries, index.gallery, everyone, kept),
            ties(everyone, kept),
            ties,
            distracts,
            K,
            self.segment,
            len(self.sizes),
        )
        found[asked] = before.cumsum(axis=1)[asked] < K
        return found

    def curve(self, found: F64) -> Sweep:
        """What ``found (R, S)`` comes to."""
        sizes = tuple(int(size) for size in self.sizes)
        return Sweep(K, sizes, tuple(found.mean(axis=0).tolist()), tuple(self.chance().mean(axis=0).tolist()))


def increment_ratio(small: F64, large: F64, resamples: int, seed: int) -> Estimate:
    """The increment ratio with its 95 % interval; NaN where nothing is found in the largest gallery.

    Args:
        small: ``(R,)`` whether each request found its hit in the smallest gallery.
        large: ``(R,)`` the same in the largest.
        resamples: of the requests; 0 gives an interval of no width.
        seed: of the resamples.
    """
    value = float(ratio(small.mean(), large.mean()))
    if resamples == 0 or np.isnan(value):
        return Estimate(value, value, value)
    means = resampled_means(np.column_stack((small, large)), resamples, seed)
    low, high = np.nanquantile(ratio(means[:, 0], means[:, 1]), (0.025, 0.975))
    return Estimate(value, min(float(low), value), max(float(high), value))


def ratio(small: F64 | np.floating, large: F64 | np.floating[Any]) -> F64:
    """``(small − large) / large``, NaN where ``large`` is 0."""
    small, large = np.asarray(small, np.float64), np.asarray(large, np.float64)
    return np.asarray(np.divide(small - large, large, out=np.full(large.shape, np.nan), where=large > 0))
