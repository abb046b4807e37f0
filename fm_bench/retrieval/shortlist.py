# SPDX-License-Identifier: MIT
"""Which images can be among the first ``k`` of each query, found by a scan in bfloat16.

The ``k``-th smallest of what distances can be at most bounds the ``k``-th distance, the more closely the more of the
gallery was seen. Whatever may be nearer than this is kept, and sorted out again when the bound has become closer.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fm_bench.retrieval import reduced
from fm_bench.retrieval.distances import F32, F64, I64, blocks, slack, threshold

if TYPE_CHECKING:
    from fm_bench.retrieval.scan import Watch

_SAMPLE = 1024  # images, from all over the gallery, that give the first bound
_FIRST = 2048  # images of the first block
_SMALLEST = 256  # a block that holds too many near images is cut in two, down to this
_QUERIES = 1024
_FRESH = 1 << 19  # pairs that wait to be sorted out; more only where there are more that stay
_ROOM = 1 << 21  # pairs that are kept at most, unless every query needs more: 50 MB
_KEPT = 512  # images per query beyond 8 k that are kept at most: with more, ties or near-ties, float64 is faster


class Shortlist(NamedTuple):
    """Every image that can be among the first ``k``, of every query but those that were given up."""

    row: I64  # (p,) query, ascending
    image: I64  # (p,) position in the gallery
    bound: F64  # (R,) the k-th distance is at most this
    given_up: I64  # queries with too many near images, which are not in the list
    crowded: bool  # whether fewer queries at a time would have had more room, so that fewer were given up


def shortlist(
    gallery: reduced.Blocks, sample: F32, centred: F32, norms: F64, k: int, watch: "Watch | None" = None
) -> Shortlist:
    """Scans ``gallery``, of at least ``k >= 1`` images.

    Args:
        gallery: in blocks.
        sample: ``(n, D)`` vectors from all over it, ``n >= k``: it may be sorted, and these give the first bound.
        centred: ``(R, D)`` queries relative to the gallery's centre.
        norms: ``(R,)`` their Euclidean norms.
        k: images that each query looks for.
        watch: counts for the same queries.
    """
    scan = _Scan(gallery.queries(centred, norms), centred.shape[1], k, watch)
    scan.begin(gallery.block(sample))
    for block in gallery.growing(_FIRST):
        scan.look_at(block)
    return scan.result()


def sampled(rows: slice, k: int) -> I64:
    """Positions of the images that make the first bound."""
    return np.unique(np.linspace(rows.start, rows.stop - 1, max(_SAMPLE, k)).astype(np.int64))


class _Scan:
    """The state of a scan. A squared distance is ``|q|² − 2 score``, all relative to the gallery's centre."""

    def __init__(self, queries: reduced.Queries, dim: int, k: int, watch: "Watch | None") -> None:
        self.queries, self.norms, self.dim, self.k, self.watch = queries, queries.norms, dim, k, watch
        self.near = np.full((len(queries), k), np.inf)  # the smallest of what distances can be at most, so far
        self.bound = np.full(len(queries), np.inf)
        self.given_up = np.zeros(len(queries), bool)
        self.kept = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))  # query, image, least distance
        self.fresh: list[tuple[I64, I64, F64]] = []
        self.pairs = 0  # in `fresh`
        self.crowded = False

    def begin(self, sample: reduced.Block) -> None:
        """The first bound. The images of the sample are looked at again later."""
        if self._overflows(sample):
            return
        for part in blocks(len(self.norms), _QUERIES):
            least, _ = reduced.bounds(self.queries, part, sample)
            kth = -np.partition(-least, self.k - 1, axis=1)[:, self.k - 1]
            self.bound[part] = self._distance(self.norms[part], kth, 1)

    def look_at(self, block: reduced.Block) -> None:
        """Keeps what may be near enough in ``block``."""
        if not self._overflows(block):
            for some in blocks(len(self.norms), _QUERIES):
                self._compare(some, block)
        elif self.watch is not None:
            self.watch.leave(slice(None))

    def _overflows(self, block: reduced.Block) -> bool:
        """Whether numbers are too large for float32; then all queries are given up."""
        huge = not max(block.length, self.norms.max(initial=0)) <= reduced.HUGE
        self.given_up |= huge
        return huge

    def _compare(self, some: slice, block: reduced.Block) -> None:
        scores, _ = threshold(self.norms[some], self.bound[some], self.dim)
        scores[self.given_up[some]] = reduced.NEVER
        limit = 4 * self.k * len(scores) if len(block) > _SMALLEST else None
        above = self._above(some, block, scores, limit)
        if above is None:  # the first half lowers the bound
            self._compare(some, block.cut(slice(0, len(block) // 2)))
            self._compare(some, block.cut(slice(len(block) // 2, len(block))))
            return
        row, score = above.row + some.start, scores[above.row]
        norms = self.norms[row]
        self.fresh.append((row, above.image, self._distance(norms, score + above.most, -1)))
        self.pairs += len(row)
        self._lower(some, above.row, self._distance(norms, score + above.least, 1))
        if self.pairs > max(_FRESH, len(self.kept[0]), self.k * len(self.norms)):
            self._sort_out()

    def _above(self, some: slice, block: reduced.Block, scores: F64, limit: int | None) -> reduced.Above | None:
        """What ``reduced.above`` finds, after what is counted has been taken from it.

        One product answers both questions, the more roughly the farther apart the two thresholds are: queries whose
        place is so far that this would show are left to a count of their own.
        """
        if self.watch is None:
            return reduced.above(self.queries, some, block, scores, limit)
        apart = (scores - self.watch.scores[some]) * reduced.ROUNDED
        self.watch.leave(some, (apart > self.queries.error(some, block, scores)) & ~self.given_up[some])
        lowest = np.minimum(scores, self.watch.scores[some])
        above = reduced.above(self.queries, some, block, lowest, limit)
        if above is None:
            return None
        self.watch.take(some, above, lowest)
        rise = (scores - lowest)[above.row]
        near = above.most >= rise
        least, most = above.least - rise, above.most - rise
        return reduced.Above(above.row[near], above.image[near], least[near], most[near])

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
        crowded = len(row) > _ROOM
        self.crowded |= crowded
        many = np.bincount(row, minlength=len(self.norms)) > (4 * self.k + 64 if crowded else 8 * self.k + _KEPT)
        if many.any():
            self.given_up |= many
            keep = ~many[row]
            row, image, least = row[keep], image[keep], least[keep]
        self.kept, self.fresh, self.pairs = (row, image, least), [], 0

    def result(self) -> Shortlist:
        self._sort_out()
        order = np.argsort(self.kept[0], kind="stable")
        return Shortlist(
            self.kept[0][order], self.kept[1][order], self.bound, np.flatnonzero(self.given_up), self.crowded
        )

    def _distance(self, norms: F64, score: F64, sign: int) -> F64:
        """Squared distances of scores: what they are at most for ``sign`` 1, and at least for −1."""
        square = np.maximum(np.square(norms) - 2 * score, 0)
        return np.asarray(square + sign * slack(norms, square, self.dim, 53))
