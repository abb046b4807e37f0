# SPDX-License-Identifier: MIT
"""Which images can be among the first ``k`` of each query, found by a scan in bfloat16.

The ``k``-th smallest of what distances can be at most bounds the ``k``-th distance, the more closely the more of the
gallery was seen. Whatever may be nearer than this is kept, and sorted out again when the bound has become closer.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fm_bench.retrieval import reduced
from fm_bench.retrieval.distances import F32, F64, I64, blocks, slack

if TYPE_CHECKING:
    from fm_bench.retrieval.index import ExactIndex

_SAMPLE = 1024  # images, from all over the gallery, that give the first bound
_FIRST, _MOST = 2048, 8192  # images of the first block, and of the largest
_SMALLEST = 256  # a block that holds too many near images is cut in two, down to this
_QUERIES = 1024
_FRESH = 1 << 19  # pairs that wait to be sorted out; more only where there are more that stay
_KEPT = 512  # images per query beyond 8 k that are kept at most: with more, ties or near-ties, float64 is faster


class Shortlist(NamedTuple):
    """Every image that can be among the first ``k``, of every query but those that were given up."""

    row: I64  # (p,) query, ascending
    image: I64  # (p,) position in the gallery
    bound: F64  # (R,) the k-th distance is at most this
    given_up: I64  # queries with too many near images, which are not in the list


def shortlist(index: "ExactIndex", centred: F32, norms: F64, k: int) -> Shortlist:
    """Scans the rows of ``index``, of which there are at least ``k >= 1``.

    Args:
        index: the gallery.
        centred: ``(R, D)`` queries relative to its centre.
        norms: ``(R,)`` their Euclidean norms.
        k: images that each query looks for.
    """
    scan = _Scan(index, centred, norms, k)
    scan.sample()
    start, step = index.rows.start, _FIRST
    while start < index.rows.stop:
        part = slice(start, min(start + min(step, max(1, index.block_rows)), index.rows.stop))
        scan.look_at(part)
        start, step = part.stop, min(2 * step, _MOST)
    return scan.result()


class _Scan:
    """The state of a scan. The square of a distance is ``|q|² − 2 score``, all relative to the index's centre."""

    def __init__(self, index: "ExactIndex", centred: F32, norms: F64, k: int) -> None:
        self.index, self.k = index, k
        self.queries = reduced.Queries(centred, norms)
        self.norms = norms
        self.near = np.full((len(norms), k), np.inf)  # the smallest of what distances can be at most, so far
        self.bound = np.full(len(norms), np.inf)
        self.given_up = np.zeros(len(norms), bool)
        self.kept = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))  # query, image, least distance
        self.fresh: list[tuple[I64, I64, F64]] = []
        self.pairs = 0  # in `fresh`

    def sample(self) -> None:
        """The first bound, from images all over the gallery, since it may be sorted. They are looked at again later."""
        rows = self.index.rows
        some = np.unique(np.linspace(rows.start, rows.stop - 1, max(_SAMPLE, self.k)).astype(np.int64))
        block = self.queries.block(self.index.gallery[some] - self.index.centre, 0)
        if self._overflows(block):
            return
        for part in blocks(len(self.norms), _QUERIES):
            score, error = reduced.scores(self.queries, part, block)
            least = np.partition(error - score, self.k - 1, axis=1)[:, self.k - 1]
            self.bound[part] = self._most(self.norms[part], -least)

    def _overflows(self, block: reduced.Block) -> bool:
        """Whether numbers are too large for float32; then all queries are given up."""
        huge = not max(block.length, self.norms.max(initial=0)) <= reduced.HUGE
        self.given_up |= huge
        return huge

    def look_at(self, part: slice) -> None:
        """Keeps what may be near enough in ``part`` of the gallery."""
        block = self.queries.block(self.index.centred_rows(part), part.start)
        if self._overflows(block):
            return
        for some in blocks(len(self.norms), _QUERIES):
            self._compare(some, block)

    def _compare(self, some: slice, block: reduced.Block) -> None:
        scores = (np.square(self.norms[some]) - self.bound[some]) / 2
        scores -= slack(self.norms[some], self.bound[some], self.index.dim, 53)
        scores[self.given_up[some]] = reduced.NEVER
        limit = 4 * self.k * len(scores) if len(block) > _SMALLEST else None
        above = reduced.above(self.queries, some, block, scores, limit)
        if above is None:  # the first half lowers the bound
            self._compare(some, block.cut(slice(0, len(block) // 2)))
            self._compare(some, block.cut(slice(len(block) // 2, len(block))))
            return
        score = scores[above.row] + above.excess
        row = above.row + some.start
        norms = self.norms[row]
        most, least = self._most(norms, score - above.error), self._least(norms, score + above.error)
        self.fresh.append((row, above.image, least))
        self.pairs += len(row)
        self._lower(some, above.row, most)
        if self.pairs > max(_FRESH, len(self.kept[0]), self.k * len(self.norms)):
            self._sort_out()

    def _lower(self, some: slice, row: I64, most: F64) -> None:
        """Takes upper bounds of further distances into account; ``row`` is ascending, relative to ``some``."""
        size = some.stop - some.start
        start = np.searchsorted(row, np.arange(size))
        place = np.arange(len(row)) - start[row]
        table = np.full((size, self.k + int(place.max(initial=-1)) + 1), np.inf)
        table[:, : self.k] = self.near[some]
        table[row, self.k + place] = most
        self.near[some] = np.partition(table, self.k - 1, axis=1)[:, : self.k]
        self.bound[some] = np.minimum(self.bound[some], self.near[some].max(axis=1))

    def _sort_out(self) -> None:
        """Lets go of what has turned out to be too far, and gives up queries with too much that is near."""
        row, image, least = (np.concatenate(parts) for parts in zip(self.kept, *self.fresh, strict=True))
        near = least <= self.bound[row]
        row, image, least = row[near], image[near], least[near]
        many = np.bincount(row, minlength=len(self.norms)) > 8 * self.k + _KEPT
        if many.any():
            self.given_up |= many
            keep = ~many[row]
            row, image, least = row[keep], image[keep], least[keep]
        self.kept, self.fresh, self.pairs = (row, image, least), [], 0

    def result(self) -> Shortlist:
        self._sort_out()
        order = np.argsort(self.kept[0], kind="stable")
        return Shortlist(self.kept[0][order], self.kept[1][order], self.bound, np.flatnonzero(self.given_up))

    def _most(self, norms: F64, score: F64) -> F64:
        """The square of a distance is at most this where the score is at least ``score``."""
        square = np.maximum(np.square(norms) - 2 * score, 0)
        return np.asarray(square + slack(norms, square, self.index.dim, 53))

    def _least(self, norms: F64, score: F64) -> F64:
        square = np.maximum(np.square(norms) - 2 * score, 0)
        return np.asarray(square - slack(norms, square, self.index.dim, 53))
