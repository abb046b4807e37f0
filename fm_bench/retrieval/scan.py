# SPDX-License-Identifier: MIT
"""Walks over the whole gallery for what a list of nearest neighbours cannot tell.

* ``replace_rows`` ranks, in float64, the queries for which float32 could not prove its list: ties and near-ties.
* ``count_by_segment`` counts how many images come before a given one, which is that image's rank, however deep it lies.
* ``Watch`` counts them on the way of a search.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fm_bench.retrieval import reduced
from fm_bench.retrieval.distances import F32, F64, I64, blocks, exact, in_threads, ranges, slack, threshold
from fm_bench.retrieval.ordering import U64, Ranking, TieOrder, first_k_of_pairs

if TYPE_CHECKING:
    from fm_bench.retrieval.index import ExactIndex

_QUERIES = 512  # queries and gallery rows of one block: 8 MB of float32 products
_FIRST, _ROWS = 512, 4096
_FEW = 16  # queries that are not parted further, however many pairs they make
_PAIRS = 1 << 16  # from so many undecided pairs on, and so many of one query, equal gallery rows are looked at once
_EACH = 1024
_WAITING = 1 << 20  # undecided pairs that may wait: 17 MB, and fewer are looked at the longer they wait


def replace_rows(
    index: "ExactIndex", ranking: Ranking, rows: I64, queries: F32, exclude: I64, ties: TieOrder
) -> Ranking:
    """``ranking`` with the given rows searched again, in float64 and over all different gallery vectors.

    The distance of a row's ``k``-th image bounds what can come before it: FAISS's candidates are real images, so the
    true ``k``-th is at most as far.
    """
    ids, distances, tied = ranking.ids.copy(), ranking.distances.copy(), ranking.tied.copy()
    for part in blocks(len(rows), _QUERIES):
        found = _Nearest(index, queries, rows[part], exclude, ties, distances[rows[part]])
        ids[rows[part]], distances[rows[part]], tied[rows[part]] = found.ranking()
    return Ranking(ids, distances, tied)


class _Nearest:
    """The nearest images of a block of queries, gathered over blocks of gallery vectors."""

    def __init__(self, index: "ExactIndex", queries: F32, rows: I64, exclude: I64, ties: TieOrder, known: F64) -> None:
        self.index, self.queries, self.rows, self.exclude, self.ties = index, queries, rows, exclude, ties
        self.k = known.shape[1]
        self.limit = known[:, -1]  # (r,) nothing farther can be among the first k
        self.row, self.id = np.empty(0, np.int64), np.empty(0, np.int64)
        self.distance = np.empty(0)

    def ranking(self) -> Ranking:
        index = self.index
        groups = index.duplicates
        centre = index.centre.astype(np.float64)
        centred = self.queries[self.rows].astype(np.float64) - centre
        squares = np.einsum("rd,rd->r", centred, centred)
        norms = np.sqrt(squares)
        for part in blocks(len(groups.first), max(1, min(_ROWS, index.block_rows // 4))):
            vectors = index.gallery[groups.first[part]].astype(np.float64) - centre
            computed = squares[:, None] + np.einsum("nd,nd->n", vectors, vectors) - 2 * centred @ vectors.T
            reach = self.limit + slack(norms, self.limit, index.dim, 53)
            with np.errstate(invalid="ignore"):
                row, group = np.nonzero(~(computed > reach[:, None]))  # so that NaN, from overflow, is looked at
            self._add(row, group + part.start)
        ties = self.ties(self.rows[self.row], self.id)
        return first_k_of_pairs(len(self.rows), self.row, self.id, self.distance, ties, self.k)

    def _add(self, row: I64, group: I64) -> None:
        groups = self.index.duplicates
        distance = exact(self.queries, self.index.gallery, self.rows[row], groups.first[group])
        near = distance <= self.limit[row]
        pair, id_ = self._members(row[near], group[near])
        distance, row = distance[near][pair], row[near][pair]
        keep = id_ != self.exclude[self.rows[row]]
        self.row, self.id = np.append(self.row, row[keep]), np.append(self.id, id_[keep])
        self.distance = np.append(self.distance, distance[keep])
        if len(self.row) > 4 * (self.k + 1) * len(self.rows) + _PAIRS:
            self._shorten()

    def _members(self, row: I64, group: I64) -> tuple[I64, I64]:
        """Images of each (query, group) pair as (pair, image): all, or the first few in the query's order of ties."""
        groups, window = self.index.duplicates, self.k + 2  # one more for the excluded, one to see a tie across rank k
        sizes = groups.sizes[group]
        small = np.flatnonzero(sizes <= window)
        parts = [(np.repeat(small, sizes[small]), groups.members[ranges(groups.start[group[small]], sizes[small])])]
        for large in np.unique(group[sizes > window]):
            pairs = np.flatnonzero(group == large)
            members = groups.members[groups.start[large] : groups.start[large + 1]]
            chosen = np.empty((len(pairs), window), np.int64)

            def choose(
                part: slice, pairs: I64 = pairs, members: I64 = members, chosen: NDArray[np.int64] = chosen
            ) -> None:
                numbers = self.ties(self.rows[row[pairs[part], None]], members)
                chosen[part] = members[np.argpartition(numbers, window - 1, axis=1)[:, :window]]

            in_threads(choose, len(pairs), max(1, (1 << 18) // len(members)))
            parts.append((np.repeat(pairs, window), chosen.ravel()))
        return np.concatenate([pair for pair, _ in parts]), np.concatenate([image for _, image in parts])

    def _shorten(self) -> None:
        """Keeps k + 1 images of each query."""
        order = np.lexsort((self.ties(self.rows[self.row], self.id), self.distance, self.row))
        row = self.row[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        order = order[rank <= self.k]
        self.row, self.id, self.distance = self.row[order], self.id[order], self.distance[order]
        rank = rank[rank <= self.k]
        last = rank == self.k - 1
        self.limit[self.row[last]] = np.minimum(self.limit[self.row[last]], self.distance[last])


def count_by_segment(
    index: "ExactIndex",
    queries: F32,
    distances: F64,
    numbers: U64,
    ties: TieOrder,
    counts: Callable[[I64, I64], NDArray[np.bool_]],
    limit: int,
    segment: I64,
    segments: int,
) -> I64:
    """What ``Counter.count_by_segment`` promises, of the rows that ``index`` searches."""
    counter = _Counter(index, queries, (distances, numbers), ties, counts, limit, segment, segments)
    for near in _comparisons(index, queries, distances):
        active = np.flatnonzero(counter.open)
        if not len(active):
            break
        for some in blocks(len(active), _QUERIES):
            counter.take(near, active[some])
        counter.settle()
    return counter.count


class Watch:
    """Counts what is nearer than a place of each query on the way of a search in bfloat16, which compares the same.

    Args:
        index: the gallery.
        queries: ``(R, D)``.
        distances: ``(R,)`` exact squared distances of the places; negative where nothing is to be counted.
        numbers: ``(R,)`` their tie numbers.
        ties: the order of ties of these queries.
        exclude: ``(R,)`` gallery position that is not counted, or −1.
        limit: a count that has passed this is not continued.
    """

    def __init__(
        self, index: "ExactIndex", queries: F32, distances: F64, numbers: U64, ties: TieOrder, exclude: I64, limit: int
    ) -> None:
        place, everywhere = (distances, numbers), np.zeros(len(index.gallery), np.int64)
        counts = partial(others, exclude)
        self._counter = _Counter(index, queries, place, ties, counts, limit, everywhere, 1)
        asked, norms = distances >= 0, index.centred(queries)[1]
        scores, self._margin = threshold(norms, distances.clip(0), index.dim)
        self.left = distances > reduced.HUGE**2  # too far for bfloat16
        """``(R,)`` queries that are not counted here, or no longer: their counts are of no use."""
        self.scores = np.where(asked & ~self.left, scores, reduced.NEVER)
        """``(R,)`` what must be seen: images whose scores are above."""

    def leave(self, some: slice, which: NDArray[np.bool_] | bool = True) -> None:
        """Lets go of those queries of ``some`` that are not counted yet to their end, where ``which (r,)`` says so."""
        which = (self.scores[some] != reduced.NEVER) & which
        self.left[some] |= which
        self.scores[some][which] = reduced.NEVER

    def take(self, some: slice, found: reduced.Above, scores: F64) -> None:
        """Counts what was found above ``scores (r,)`` of queries ``some``, all of them at most ``self.scores``."""
        lower = (scores - self.scores[some])[found.row]
        near = lower + found.most >= 0
        row = found.row[near] + some.start
        sure = (lower + found.least)[near] > 2 * self._margin[row]
        self._counter.add(row, found.image[near], sure)
        self.scores[some][~self._counter.open[some]] = reduced.NEVER

    def counted(self) -> I64:
        """``(R,)`` as ``Counter.count_before`` gives it, but for queries that were left."""
        self._counter.settle()
        return self._counter.count[:, 0]


class _Counter:
    """Counts of what is nearer than a place, and the pairs that wait for their exact distances."""

    def __init__(
        self,
        index: "ExactIndex",
        queries: F32,
        place: tuple[F64, U64],
        ties: TieOrder,
        counts: Callable[[I64, I64], NDArray[np.bool_]],
        limit: int,
        segment: I64,
        segments: int,
    ) -> None:
        self.index, self.queries, self.place, self.ties = index, queries, place, ties
        self.counts, self.limit, self.segment = counts, limit, segment
        self.count = np.zeros((len(queries), segments), np.int64)
        self.undecided: list[tuple[I64, I64]] = []
        self.waiting = 0

    @property
    def open(self) -> NDArray[np.bool_]:
        """``(R,)`` which counts have not passed the limit."""
        return np.asarray(self.count[:, 0] <= self.limit)

    def take(self, near: "Near", rows: I64) -> None:
        """Counts what is nearer for sure."""
        found = near(rows, None if len(rows) <= _FEW else 4 * _PAIRS)
        if found is None:
            self.take(near, rows[: len(rows) // 2])
            self.take(near, rows[len(rows) // 2 :])
            return
        self.add(rows[found[0]], found[1], found[2])

    def add(self, row: I64, image: I64, sure: NDArray[np.bool_]) -> None:
        """Counts pairs that are nearer for ``sure``; the others are looked at more closely later."""
        wanted = self.counts(row, image)
        row, image, sure = row[wanted], image[wanted], sure[wanted]
        self._add(row[sure], image[sure])
        self.undecided.append((row[~sure], image[~sure]))
        self.waiting += len(row) - int(sure.sum())
        if self.waiting > _WAITING:
            self.settle()

    def settle(self) -> None:
        """Decides about the pairs that wait."""
        if self.waiting:
            row, image = (np.concatenate(parts) for parts in zip(*self.undecided, strict=True))
            matters = self.open[row]
            row, image = row[matters], image[matters]
            order = np.argsort(row, kind="stable")  # so that equal images of one query are looked at together
            row, image = row[order], image[order]
            for few in blocks(len(row), 4 * _PAIRS):
                closer = _before(self.index, self.queries, row[few], image[few], *self.place, self.ties)
                self._add(row[few][closer], image[few][closer])
        self.undecided, self.waiting = [], 0

    def _add(self, row: I64, image: I64) -> None:
        cells = np.bincount(row * self.count.shape[1] + self.segment[image], minlength=self.count.size)
        self.count += cells.reshape(self.count.shape)


Pairs = tuple[I64, I64, NDArray[np.bool_]]
Near = Callable[[I64, int | None], Pairs | None]
"""From queries ``(r,)`` the pairs that may be nearer than asked, as positions among the queries and in the gallery, and
whether they are for sure; None if there are more than a limit."""


def _comparisons(index: "ExactIndex", queries: F32, distances: F64) -> Iterator[Near]:
    """Compares the gallery with the queries' ``distances (R,)``, part by part, in the fastest way of this machine.

    The first parts are short: what they tell spares hopeless queries the rest.
    """
    centred, norms = index.centred(queries)
    far = max(norms.max(initial=0), np.sqrt(distances.max(initial=0)))
    if reduced.supported() and far <= reduced.HUGE:
        scanned = index.blocks or index.in_blocks(None)
        asked, (scores, margin) = scanned.queries(centred, norms), threshold(norms, distances, index.dim)
        for block in scanned.growing(_FIRST):
            if block.length <= reduced.HUGE:
                yield partial(_in_bfloat16, asked, block, scores, 2 * margin)
            else:
                part = slice(block.start, block.start + len(block))
                yield _in_float32(index, centred, norms, distances)(part)
        return
    compare = _in_float32(index, centred, norms, distances)
    for part in index.parts(min(_ROWS, index.block_rows)):
        yield compare(part)


def _in_bfloat16(
    queries: reduced.Queries, block: reduced.Block, scores: F64, margin: F64, rows: I64, limit: int | None
) -> Pairs | None:
    found = reduced.above(queries, rows, block, scores[rows], limit)
    return None if found is None else (found.row, found.image, found.least > margin[rows][found.row])


def _in_float32(index: "ExactIndex", centred: F32, norms: F64, distances: F64) -> Callable[[slice], Near]:
    """What compares parts of the gallery, slower and with a narrower bound."""
    error = slack(norms, distances, index.dim + 1, 24)
    half = (np.square(norms) - distances) / 2
    with np.errstate(over="ignore"):
        possibly, surely = (half - error).astype(np.float32), (half + error).astype(np.float32)
    augmented = np.hstack((centred, np.full((len(centred), 1), -0.5, np.float32)))

    def compare(part: slice) -> Near:
        vectors = index.centred_rows(part)
        block = np.hstack((vectors, np.einsum("nd,nd->n", vectors, vectors)[:, None]))

        def near(rows: I64, limit: int | None) -> Pairs | None:
            with np.errstate(over="ignore", invalid="ignore"):
                products = augmented[rows] @ block.T
            products[np.isinf(products)] = np.nan  # what overflows is undecided, and looked at exactly
            close = ~(products < possibly[rows, None])
            if limit is not None and np.count_nonzero(close) > limit:
                return None
            i, j = np.divmod(np.flatnonzero(close), len(block))
            return i, j + part.start, products[i, j] > surely[rows[i]]

        return near

    return compare


def others(exclude: I64, rows: I64, ids: I64) -> NDArray[np.bool_]:
    """Whether images ``ids[i]`` are not those that queries ``rows[i]`` leave out."""
    return np.asarray(ids != exclude[rows])


def _before(
    index: "ExactIndex", queries: F32, rows: I64, ids: I64, distances: F64, numbers: U64, ties: TieOrder
) -> NDArray[np.bool_]:
    """Whether image ``ids[i]`` comes before the place of query ``rows[i]``."""
    if len(rows) > _PAIRS and np.bincount(rows).max() > _EACH:
        group = index.duplicates.group[ids - index.rows.start]
        pair, inverse = np.unique(rows * len(index) + group, return_inverse=True)
        row, group = np.divmod(pair, len(index))
        distance = exact(queries, index.gallery, row, index.duplicates.first[group])[inverse]
    else:
        distance = exact(queries, index.gallery, rows, ids)
    equal = distance == distances[rows]
    before: NDArray[np.bool_] = (distance < distances[rows]) | (equal & (ties(rows, ids) < numbers[rows]))
    return before
