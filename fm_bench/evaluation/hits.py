# SPDX-License-Identifier: MIT
"""Which gallery images are hits of which requests, for both kinds of hit."""

import itertools
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fm_bench.evaluation.relevance import Codes, Matches, join
from fm_bench.retrieval.distances import I64

_PAIRS = 1 << 20  # (request, hit) pairs looked at together


class Hits:
    """The truth about ``R`` requests and ``N`` images; it knows nothing of embeddings.

    Args:
        codes: targets and gallery labels.
        exclude: ``(R,)`` gallery position of each query's own image, which is no hit, or −1.
        items: of the gallery ``(N,)`` and of the requests ``(R,)`` where the same item is the hit; None where all
            labels of the target are.
        depth: images per target of which the best matches must be known, for NDCG.
    """

    def __init__(self, codes: Codes, exclude: I64, items: tuple[I64, I64] | None, depth: int) -> None:
        self.codes, self.exclude, self.items = codes, exclude, items
        self.matches = Matches(codes, depth + 1)

    @cached_property
    def own(self) -> I64:
        """``(R,)`` matched attributes of the query's own image, −1 where there is none."""
        matched = self.codes.matched(self.exclude[:, None])[:, 0].astype(np.int64)
        return np.where(self.exclude >= 0, matched, -1)

    @cached_property
    def relevant(self) -> I64:
        """``(R,)`` number of hits in the gallery."""
        if self.items is None:
            return np.asarray(self.matches.relevant - (self.own == self.codes.needed))
        gallery, wanted = self.items
        ordered = np.sort(gallery)
        count = np.searchsorted(ordered, wanted, side="right") - np.searchsorted(ordered, wanted)
        return np.asarray(count - ((self.exclude >= 0) & (gallery[self.exclude] == wanted)))

    def are(self, rows: I64, ids: I64) -> NDArray[np.bool_]:
        """``(r, k)`` whether images ``ids (r, k)`` are hits of requests ``rows (r,)``; −1 is no image, and no hit."""
        if self.items is not None:
            return np.asarray((ids >= 0) & (self.items[0][ids] == self.items[1][rows][:, None]))
        codes = Codes(self.codes.target[rows], self.codes.gallery, self.codes.needed[rows])
        return np.asarray((ids >= 0) & (codes.matched(ids) == codes.needed[:, None]))

    def pairs(self, rows: I64) -> Iterator[tuple[slice, I64, I64]]:
        """All pairs of requests ``rows (r,)`` with their hits, a bounded number at a time.

        Yields:
            A slice of ``rows``, and its pairs: positions in ``rows[slice]``, ascending, and images. One request alone
            may have more pairs than are looked at together.
        """
        ends = np.flatnonzero(np.diff(self.relevant[rows].cumsum() // _PAIRS)) + 1
        edges = [0, *ends.tolist(), len(rows)]
        for start, stop in itertools.pairwise(edges):
            part = slice(start, stop)
            some = rows[part]
            pair, image = self.matches.pairs(some) if self.items is None else join(self.items[1][some], self.items[0])
            keep = image != self.exclude[some[pair]]
            yield part, pair[keep], image[keep]
