# SPDX-License-Identifier: MIT
"""Label vectors that differ in exactly ``n`` attributes: what request mining and triplets are both built on.

Everything here speaks of *complete* vectors, without missing entries; callers group their images by which attributes
are labelled and project to those. Two exact ways find the neighbours, and the cheaper one is taken: for few queries a
scan that counts mismatches column by column, for many a join on the code of the other attributes (a code with ``n``
wildcards), whose cost hardly depends on the number of queries.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.int16]
Positions = NDArray[np.int64]

SCAN_CELLS = 1 << 20
"""Mismatch counters held at once by a scan; about the size of a second-level cache."""

JOIN_BLOCK = 1024
"""Query vectors joined at once; bounds the pairs that are held."""

JOIN_COST = 350
"""Sorting the codes of one wildcard set costs as much as scanning this many query columns (measured)."""


class Groups(NamedTuple):
    """Vectors that agree on all attributes but the free ones, as runs of one order."""

    order: Positions  # (U,) vectors sorted by code
    start: Positions  # (U,) for each vector: where its group begins in `order`
    size: Positions  # (U,) for each vector: how many vectors its group has


def codes(vectors: NDArray[np.integer[Any]], attributes: Sequence[int]) -> Positions:
    """``(N,)`` integers that are equal exactly where rows of ``vectors (N, A)`` agree on ``attributes``.

    Works for any number of attributes and values: before 64 bits would overflow, the codes so far are renumbered
    densely. Only codes of the same call can be compared.
    """
    code = np.zeros(len(vectors), dtype=np.int64)
    if not len(vectors):
        return code
    bound = 1
    for m in attributes:
        column = vectors[:, m].astype(np.int64)
        low = int(column.min())
        size = int(column.max()) - low + 1
        if bound * size > np.iinfo(np.int64).max:
            code = np.unique(code, return_inverse=True)[1].astype(np.int64)
            bound = len(code)
        code *= size
        code += column - low
        bound *= size
    return code


def unique_vectors(vectors: Vectors) -> tuple[Vectors, Positions, Positions]:
    """Distinct rows of ``vectors (N, A)``, the distinct row of each input ``(N,)``, and how often each occurs."""
    _, first, inverse, counts = np.unique(
        codes(vectors, range(vectors.shape[1])), return_index=True, return_inverse=True, return_counts=True
    )
    return vectors[first], inverse, counts


def groups(vectors: Vectors, free: Sequence[int]) -> Groups:
    """Groups the distinct ``vectors (U, A)`` by all attributes that are not ``free``."""
    code = codes(vectors, [m for m in range(vectors.shape[1]) if m not in free])
    order = np.argsort(code, kind="stable")
    begins = np.flatnonzero(np.diff(code[order], prepend=code[order[:1]] - 1)) if len(code) else order
    sizes = np.diff(begins, append=len(code))
    start, size = np.empty_like(order), np.empty_like(order)
    start[order] = np.repeat(begins, sizes)
    size[order] = np.repeat(sizes, sizes)
    return Groups(order, start, size)


def neighbours(
    queries: Vectors, gallery: Vectors, n: int, free: Sequence[int] | None = None
) -> Iterator[tuple[Positions, Positions]]:
    """All pairs of a query vector and a gallery vector that differ in exactly ``n`` attributes.

    Args:
        queries: ``(Q, A)`` complete label vectors; they may repeat.
        gallery: ``(U, A)`` complete label vectors; one that repeats is paired as often.
        n: number of attributes in which the vectors of a pair differ.
        free: the attributes in which they may differ; None for all.

    Yields:
        Pairs in blocks: positions in ``queries`` and positions in ``gallery``, both ``(P,)``. All pairs of one query
        are in one block.
    """
    attributes = queries.shape[1]
    free = range(attributes) if free is None else free
    if n > len(free) or not len(queries) or not len(gallery):
        return
    wildcards = list(itertools.combinations(free, n))
    if len(queries) * attributes <= JOIN_COST * len(wildcards):
        fixed = np.setdiff1d(np.arange(attributes), free)
        for query, other in _scan(queries, gallery, n):
            same = (queries[query[:, None], fixed] == gallery[other[:, None], fixed]).all(axis=1)
            yield query[same], other[same]
        return
    # The joint code of queries and gallery is what can be compared; the gallery's half is sorted once per wildcard set.
    tables = [_Table(queries, gallery, free) for free in wildcards]
    for begin in range(0, len(queries), JOIN_BLOCK):
        block = np.arange(begin, min(begin + JOIN_BLOCK, len(queries)))
        pairs = [table.differing(block) for table in tables]
        yield np.concatenate([query for query, _ in pairs]), np.concatenate([other for _, other in pairs])


def _scan(queries: Vectors, gallery: Vectors, n: int) -> Iterator[tuple[Positions, Positions]]:
    columns = np.ascontiguousarray(gallery.T)
    step = max(1, SCAN_CELLS // len(gallery))
    for begin in range(0, len(queries), step):
        block = queries[begin : begin + step]
        mismatches = np.zeros((len(block), len(gallery)), np.min_scalar_type(len(columns)))
        for m, column in enumerate(columns):
            mismatches += column != block[:, m, None]
        query, other = np.divmod(np.flatnonzero(mismatches == n), len(gallery))
        yield query + begin, other


class _Table:
    """Gallery vectors sorted by the code of all but the free attributes."""

    def __init__(self, queries: Vectors, gallery: Vectors, free: Sequence[int]) -> None:
        self.queries, self.gallery, self.free = queries, gallery, free
        rest = [m for m in range(gallery.shape[1]) if m not in free]
        code = codes(np.concatenate([gallery, queries]), rest)
        self.asked = code[len(gallery) :]
        self.order = np.argsort(code[: len(gallery)]).astype(np.int32)
        self.sorted = code[self.order]

    def differing(self, block: Positions) -> tuple[Positions, Positions]:
        """Pairs of the query vectors in ``block`` with gallery vectors that differ in every free attribute."""
        asked = self.asked[block]
        start = np.searchsorted(self.sorted, asked, side="left")
        size = np.searchsorted(self.sorted, asked, side="right") - start
        query = np.repeat(block, size)
        other = self.order[expand(start, size)].astype(np.int64)
        keep = np.ones(len(query), dtype=np.bool_)
        for m in self.free:
            keep &= self.queries[query, m] != self.gallery[other, m]
        return query[keep], other[keep]


def expand(start: Positions, size: Positions) -> Positions:
    """The integers ``start[i] … start[i] + size[i] − 1`` for every i, one run after the other."""
    return np.repeat(start, size) + counting(size)


def counting(size: Positions) -> Positions:
    """``0 … size[i] − 1`` for every i, one run after the other."""
    ends = np.cumsum(size)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - size, size)
