# SPDX-License-Identifier: MIT
"""Walks over the whole gallery for what a list of nearest neighbours cannot tell.

* ``replace_rows`` ranks, in float64, the queries for which float32 could not prove its list: ties and near-ties.
* ``count_before`` counts how many images come before a given one, which is that image's rank, however deep it lies;
  ``count_by_segment`` does so in parts of the gallery.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fm_bench.retrieval import reduced
from fm_bench.retrieval.distances import F32, F64, I64, blocks, exact, in_threads, ranges, slack
from fm_bench.retrieval.ordering import U64, Ranking, TieOrder, first_k_of_pairs

if TYPE_CHECKING:
    from fm_bench.retrieval.index import ExactIndex

_QUERIES = 512  # queries and gallery rows of one block: 8 MB of float32 products
_FIRST, _ROWS = 512, 4096
_PAIRS = 1 << 16  # from so many undecided pairs on, equal gallery rows are looked at once


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


def count_before(
    index: "ExactIndex", queries: F32, distances: F64, numbers: U64, ties: TieOrder, exclude: I64, limit: int
) -> I64:
    """How many images come before the place ``(distance, tie number)`` in each query's ranking.

    Args:
        index: the gallery.
        queries: ``(R, D)``.
        distances: ``(R,)`` exact squared distances.
        numbers: ``(R,)`` tie numbers.
        ties: the order of ties of these queries.
        exclude: ``(R,)`` gallery position that is not counted, or −1.
        limit: a count that has passed this is not continued: it means "more than ``limit``".

    Returns:
        ``(R,)`` counts, exact up to ``limit``.
    """
    everywhere = np.zeros(len(index.gallery), np.int64)

    def counts(rows: I64, ids: I64) -> NDArray[np.bool_]:
        return np.asarray(ids != exclude[rows])

    return count_by_segment(index, queries, distances, numbers, ties, counts, limit, everywhere, 1)[:, 0]


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
    """As ``count_before``, apart for each segment of the gallery, and only what ``counts``.

    Args:
        index: the gallery.
        queries: ``(R, D)``.
        distances: ``(R,)`` exact squared distances.
        numbers: ``(R,)`` tie numbers.
        ties: the order of ties of these queries.
        counts: whether image ``ids[i]`` counts for query ``rows[i]``.
        limit: a query of which the first segment's count has passed this is not continued.
        segment: ``(N,)`` which segment each image is in.
        segments: how many there are.

    Returns:
        ``(R, segments)`` counts, exact for queries whose first count is up to ``limit``.
    """
    count = np.zeros((len(queries), segments), np.int64)
    if not len(queries):
        return count

    everyone = np.arange(len(queries))

    def add(rows: I64, i: I64, j: I64) -> None:
        cells = np.bincount(i * segments + segment[j], minlength=len(rows) * segments)
        count[rows] += cells.reshape(len(rows), segments)

    for near in _comparisons(index, queries, distances):
        active, undecided = np.flatnonzero(count[:, 0] <= limit), []
        if not len(active):
            break
        for some in blocks(len(active), _QUERIES):
            rows = active[some]
            i, j, sure = near(rows)
            wanted = counts(rows[i], j)
            i, j, sure = i[wanted], j[wanted], sure[wanted]
            add(rows, i[sure], j[sure])
            undecided.append((rows[i[~sure]], j[~sure]))
        rows, j = (np.concatenate(parts) for parts in zip(*undecided, strict=True))
        for few in blocks(len(rows), 4 * _PAIRS):
            closer = _before(index, queries, rows[few], j[few], distances, numbers, ties)
            add(everyone, rows[few][closer], j[few][closer])
    return count


Near = Callable[[I64], tuple[I64, I64, NDArray[np.bool_]]]
"""From queries ``(r,)`` the pairs that may be nearer than asked, as positions among the queries and in the gallery, and
whether they are for sure."""


def _comparisons(index: "ExactIndex", queries: F32, distances: F64) -> Iterator[Near]:
    """Compares the gallery with the queries' ``distances (R,)``, part by part, in the fastest way of this machine.

    The first parts are short: what they tell spares hopeless queries the rest.
    """
    centred, norms = index.centred(queries)
    scores = (np.square(norms) - distances) / 2  # nearer than `distances` means q·g − |g|²/2 above this
    error = slack(norms, distances, index.dim + 1, 24)
    with np.errstate(over="ignore"):
        limits = (scores - error).astype(np.float32), (scores + error).astype(np.float32)
    augmented = np.hstack((centred, np.full((len(centred), 1), -0.5, np.float32)))
    if reduced.supported() and float(norms.max()) <= reduced.HUGE:
        scanned = index.blocks or index.in_blocks(None)
        asked, margin = scanned.queries(centred, norms), slack(norms, distances, index.dim, 53)
        for block in scanned.growing(_FIRST):
            if block.length <= reduced.HUGE:
                yield partial(_in_bfloat16, asked, block, scores - margin, 2 * margin)
            else:
                part = slice(block.start, block.start + len(block))
                yield partial(_in_float32, augmented, _augmented(index.centred_rows(part)), part.start, limits)
        return
    for part in index.parts(min(_ROWS, index.block_rows)):
        yield partial(_in_float32, augmented, _augmented(index.centred_rows(part)), part.start, limits)


def _in_bfloat16(
    queries: reduced.Queries, block: reduced.Block, scores: F64, margin: F64, rows: I64
) -> tuple[I64, I64, NDArray[np.bool_]]:
    found = reduced.above(queries, rows, block, scores[rows])
    assert found is not None
    return found.row, found.image, found.least > margin[rows][found.row]


def _augmented(vectors: F32) -> F32:
    """``(n, D + 1)`` vectors and their squared norms."""
    return np.hstack((vectors, np.einsum("nd,nd->n", vectors, vectors)[:, None]))


def _in_float32(
    augmented: F32, block: F32, start: int, limits: tuple[F32, F32], rows: I64
) -> tuple[I64, I64, NDArray[np.bool_]]:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is undecided, and looked at exactly
        products = augmented[rows] @ block.T
    place = np.flatnonzero(~(products < limits[0][rows, None]))  # few, unless a request is hopeless anyway
    i, j = np.divmod(place, len(block))
    return i, j + start, products.ravel()[place] > limits[1][rows[i]]


def _before(
    index: "ExactIndex", queries: F32, rows: I64, ids: I64, distances: F64, numbers: U64, ties: TieOrder
) -> NDArray[np.bool_]:
    """Whether image ``ids[i]`` comes before the place of query ``rows[i]``."""
    if len(rows) > _PAIRS:
        group = index.duplicates.group[ids - index.rows.start]
        pair, inverse = np.unique(rows * len(index) + group, return_inverse=True)
        row, group = np.divmod(pair, len(index))
        distance = exact(queries, index.gallery, row, index.duplicates.first[group])[inverse]
    else:
        distance = exact(queries, index.gallery, rows, ids)
    equal = distance == distances[rows]
    before: NDArray[np.bool_] = (distance < distances[rows]) | (equal & (ties(rows, ids) < numbers[rows]))
    return before
