# SPDX-License-Identifier: MIT
"""How well gallery images fit targets: matched attributes, counted over the whole gallery.

``matched(q, j)`` is the number of labelled entries of target ``q`` that image ``j`` has too, ``rel(q, j)`` is that
divided by the number of labelled entries, and ``rel = 1`` is a hit. A missing label of an image matches nothing. Under
``strict_equal`` every entry counts, and missing equals missing.

Targets and images with equal labels are looked at once. What remains is compared attribute by attribute on bits, in
blocks (see ``bitplanes.py``), and only counts and hits of each target leave a block, so that no (targets x gallery)
array exists.
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.errors import UserError
from fm_bench.evaluation.bitplanes import BitPlanes
from fm_bench.evaluation.protocol import Missing
from fm_bench.retrieval.distances import I64, blocks, ranges

_TARGETS = 1 << 13  # that share sums of bits
_WORDS = 1 << 8  # of 64 images
_FIRST = 1 << 2  # before anything is known to be among the best; later blocks are larger
_KEPT = 1 << 21  # pairs of different targets and images that are kept; where there are more, they are found anew


class Codes(NamedTuple):
    """Labels prepared for comparison by equality: what must not match got values that never meet."""

    target: NDArray[np.uint16]  # (R, A)
    gallery: NDArray[np.uint16]  # (N, A)
    needed: I64  # (R,) entries that a hit matches

    @classmethod
    def of(cls, targets: NDArray[np.integer[Any]], labels: NDArray[np.integer[Any]], missing: Missing) -> "Codes":
        """From ``targets (R, A)`` and ``labels (N, A)``, −1 = missing."""
        strict = missing == "strict_equal"
        target, gallery = targets.astype(np.uint16), labels.astype(np.uint16)
        for codes in (target, gallery):
            codes += np.uint16(2)  # missing, which wrapped around, becomes 1
        needed = np.full(len(targets), targets.shape[1]) if strict else (targets >= 0).sum(axis=1)
        if not strict:
            target[targets < 0] = 0
        return cls(target, gallery, needed.astype(np.int64))

    def matched(self, ids: I64) -> NDArray[np.unsignedinteger[Any]]:
        """``(R, k)`` matched attributes of images ``ids (R, k)``; 0 where the id is negative."""
        attributes = self.target.shape[1]
        count = np.zeros(ids.shape, np.min_scalar_type(attributes))
        for m in range(attributes):
            count += self.gallery[:, m].take(ids) == self.target[:, m, None]
        count[ids < 0] = 0
        return count


class Matches:
    """Matched attributes of every target with the whole gallery, as far as the metrics need them.

    Args:
        codes: targets and gallery.
        depth: images per target of which the best matches must be known.
    """

    def __init__(self, codes: Codes, depth: int) -> None:
        self.codes, self.depth = codes, depth
        code = row_codes(np.concatenate((codes.target, codes.gallery)))
        self._first, self._target, _ = _different(code[: len(codes.target)])
        image, self._group, self._by_group = _different(code[len(codes.target) :])
        self._weights = np.bincount(self._group, minlength=len(image))
        self._order = np.argsort(-self._weights, kind="stable")  # what the gallery has often tells most about the best
        self._needed = codes.needed[self._first]
        self._images = codes.gallery.T.take(image[self._order], axis=1)  # (A, U) with different labels
        attributes = codes.target.shape[1]
        # [t, c]: images that match at least c attributes; exact where c is what target t needs, and wherever fewer
        # than `depth` images match so many; otherwise only known to be `depth` or more
        self._at_least = np.zeros((len(self._first), attributes + 1), np.int64)
        self._room = _KEPT  # for pairs; below 0 once some were left out
        found = [pair for part in blocks(len(self._first), _TARGETS) for pair in self._compare(part)]
        self._hits = _grouped(found, len(self._first)) if self._room >= 0 else None

    def _compare(self, part: slice) -> list[tuple[I64, I64]]:
        """Counts levels for a block of targets; gives the (target, image) pairs that fit wholly."""
        planes, needed, at_least = self._planes(part), self._needed[part], self._at_least[part]
        hits: list[tuple[I64, I64]] = []

        def tally(targets: I64, reached: I64, row: I64, image: I64) -> None:
            at_least[targets] += reached
            if self._room >= 0:
                hits.append((part.start + targets[row], self._order[image]))
                self._room -= len(row)
            else:
                hits.clear()

        most = min(_WORDS, planes.most)
        start, step = 0, min(_FIRST, most)
        while start < planes.words:
            floor = np.minimum((at_least >= self.depth).sum(axis=1), needed)  # lower levels have all that may be asked
            planes.reaching(floor, needed, slice(start, min(start + step, planes.words)), tally)
            start, step = start + step, min(2 * step, most)
        return hits

    def _planes(self, targets: slice | I64) -> BitPlanes:
        return BitPlanes(self.codes.target[self._first[targets]], self._images, self._weights[self._order])

    @cached_property
    def relevant(self) -> I64:
        """``(R,)`` images that fit the target wholly."""
        return np.asarray(self._at_least[self._target, self._needed[self._target]])

    def best(self, depth: int, without: NDArray[np.int64]) -> NDArray[np.int64]:
        """``(R, depth)`` matched attributes of the best images, most first; 0 past the gallery's end.

        Args:
            depth: at most one less than this object was made for.
            without: ``(R,)`` matched attributes of an image that each request leaves out, or −1.
        """
        levels = np.arange(1, self._at_least.shape[1])
        at_least = self._at_least[self._target, 1:] - (without[:, None] >= levels)
        best = np.zeros((len(at_least), depth), np.int64)
        for level in range(at_least.shape[1]):
            best += at_least[:, level, None] > np.arange(depth)
        return best

    def pairs(self, requests: I64) -> tuple[I64, I64]:
        """All (position in ``requests``, image) pairs where the image fits wholly, by position."""
        target = self._target[requests]
        if self._hits is None:
            some, target = np.unique(target, return_inverse=True)
            hits = self._fitting(some)
        else:
            hits = self._hits
        request, group = hits.of(target)
        pair, image = self._members.of(group)
        return request[pair], image

    @cached_property
    def _members(self) -> "_Groups":
        """The images of each group with equal labels."""
        return _Groups(self._by_group, _starts(self._weights))

    def _fitting(self, targets: I64) -> "_Groups":
        """The groups of images that fit each of ``targets``."""
        found: list[tuple[I64, I64]] = []
        for part in blocks(len(targets), _TARGETS):
            planes, needed = self._planes(targets[part]), self._needed[targets[part]]

            def keep(some: I64, _: I64, row: I64, image: I64, start: int = part.start) -> None:
                found.append((start + some[row], self._order[image]))

            for words in blocks(planes.words, min(_WORDS, planes.most)):
                planes.reaching(needed, needed, words, keep)
        return _grouped(found, len(targets))


class _Groups(NamedTuple):
    """Lists of integers, one after the other."""

    members: I64
    start: I64  # (groups + 1,) where each begins

    def of(self, groups: I64) -> tuple[I64, I64]:
        """All (position in ``groups``, member) pairs, by position."""
        start, lengths = self.start[groups], self.start[groups + 1] - self.start[groups]
        return np.repeat(np.arange(len(groups)), lengths), self.members[ranges(start, lengths)]


def _grouped(pairs: list[tuple[I64, I64]], groups: int) -> _Groups:
    """Lists of the second integers by the first ones."""
    first = np.concatenate([np.empty(0, np.int64), *(one for one, _ in pairs)])
    second = np.concatenate([np.empty(0, np.int64), *(other for _, other in pairs)])
    return _Groups(second[np.argsort(first, kind="stable")], _starts(np.bincount(first, minlength=groups)))


def _starts(lengths: I64) -> I64:
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))


def _different(codes: I64) -> tuple[I64, I64, I64]:
    """Finds the different numbers among ``codes (N,)``.

    Returns:
        ``(n,)`` where each stands, by size; ``(N,)`` which of them each code is; ``(N,)`` the order of the codes.
    """
    order = np.argsort(codes)
    ordered = codes[order]
    begins = np.flatnonzero(np.concatenate((np.ones(min(1, len(codes)), bool), ordered[1:] != ordered[:-1])))
    which = np.empty(len(codes), np.int64)
    which[order] = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(codes)))
    return order[begins], which, order


def row_codes(rows: NDArray[np.integer[Any]]) -> I64:
    """One integer per row of ``(n, A)`` non-negative integers; equal codes mean equal rows."""
    code, span = np.zeros(len(rows), np.int64), 1
    for column in rows.T:
        size = int(column.max(initial=0)) + 1
        if span * size >= 2**63:  # renumber the rows seen so far: at most n different ones
            values, code = np.unique(code, return_inverse=True)
            span = len(values)
        code *= size
        code += column
        span *= size
    return code


def join(left: I64, right: I64) -> tuple[I64, I64]:
    """All positions (i, j) with ``left[i] == right[j]``, by i."""
    order = np.argsort(right, kind="stable")
    ordered = right[order]
    start, stop = np.searchsorted(ordered, left), np.searchsorted(ordered, left, side="right")
    return np.repeat(np.arange(len(left)), stop - start), order[ranges(start, stop - start)]


def check_labels(labels: NDArray[Any], what: str, rows: int, attributes: int | None = None) -> NDArray[np.integer[Any]]:
    """``labels``, if they are ``rows`` rows of integers from −1 up; otherwise UserError, which calls them ``what``."""
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or labels.shape[1] == 0:
        raise UserError(
            f"{what} have shape {labels.shape} and type {labels.dtype}, but (rows, attributes) integers are needed."
        )
    if len(labels) != rows:
        raise UserError(f"{what} have {len(labels)} rows, but there are {rows} embeddings: give one row each.")
    if attributes is not None and labels.shape[1] != attributes:
        raise UserError(f"{what} have {labels.shape[1]} attributes, but the gallery's labels have {attributes}.")
    if len(labels) and (int(labels.min()) < -1 or int(labels.max()) > 65_000):
        row = int(np.flatnonzero(((labels < -1) | (labels > 65_000)).any(axis=1))[0])
        raise UserError(
            f"{what} range from {labels.min()} to {labels.max()}, first out of range in row {row}, "
            "but only -1 (missing) to 65000 are labels."
        )
    return labels
