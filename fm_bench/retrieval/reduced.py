# SPDX-License-Identifier: MIT
"""A scan of the gallery in bfloat16 that misses nothing.

Processors and GPUs that multiply in bfloat16 do so several times as fast as in float32. What rounding does to a product
of two vectors is at most the product of the lengths of one and of what was cut off the other (Cauchy and Schwarz).
So a threshold lowered by that much lets every image through that is near enough, and few others: these are looked at
exactly by whoever asked.

A vector ``g`` is nearer to ``q`` than the distance ``d`` if its score ``q·g − |g|²/2`` is above ``(|q|² − d²)/2``, all
relative to one centre. The query's threshold and the vector's ``|g|²/2`` stand in further columns of the two matrices,
each as a sum of three bfloat16 numbers, so that one product gives the difference, and its sign the answer: rounding the
result to bfloat16 as well can change no sign. Where vectors are compared in few directions alone (``basis.py``), one
more column adds the most that the others could.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.environment import computes_in_bfloat16
from fm_bench.retrieval.basis import Basis
from fm_bench.retrieval.distances import F32, F64, I64

_TERMS = 3  # bfloat16 numbers that make up one of 24 bits
HUGE = 1e17
"""Longer vectors could overflow."""

NEVER = 1e38
"""A score that no image reaches."""

_FOUR, _JOINED = 4, 8  # bfloat16 numbers in a word, and rows whose words are looked at together
_SIGNS = np.uint64(0x8000800080008000).view(np.int64)

_INEXACT = 1 + 2.0**-10  # lengths are computed in float32
ROUNDED = 2.0**-8 * 1.01
"""A number is off by this much of what it was rounded to, at most."""


_apart_from_gpus = False


@contextmanager
def searching_apart_from_gpus(apart: bool) -> Iterator[None]:
    """Searches in this block leave GPUs alone if ``apart``, because the user wants the work elsewhere."""
    global _apart_from_gpus
    before = _apart_from_gpus
    _apart_from_gpus = before or apart
    try:
        yield
    finally:
        _apart_from_gpus = before


def may_use_gpus() -> bool:
    """Whether searches use GPUs where there are some."""
    return not _apart_from_gpus


def supported() -> bool:
    """Whether products in bfloat16 are faster than in float32 here."""
    return computes_in_bfloat16(may_use_gpus())


def device() -> torch.device:
    """Where products are computed: on this process's GPU if there is one to be used."""
    if may_use_gpus() and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


class Queries:
    """Centred queries, ready to be compared with blocks of a gallery.

    Args:
        centred: ``(R, D)`` float32, relative to the gallery's centre.
        norms: ``(R,)`` their Euclidean norms.
        where: the device of the products.
        basis: in which vectors are compared; None compares all of their dimensions.
    """

    def __init__(self, centred: F32, norms: F64, where: torch.device, basis: Basis | None = None) -> None:
        self.rounded = Rounded.of(torch.from_numpy(centred).to(where), basis)
        self.norms, self.terms = norms, self.rounded.terms(centred.shape[1])

    def __len__(self) -> int:
        return len(self.norms)

    def aim(self, rows: slice | I64, scores: F64) -> Tensor:
        """``(r, K)`` columns of queries ``rows``, whose products are the most that scores less ``scores`` can be."""
        columns = self.rounded.columns
        chosen = (
            columns[rows].clone() if isinstance(rows, slice) else columns[torch.from_numpy(rows).to(columns.device)]
        )
        chosen[:, -_TERMS:] = _terms(torch.from_numpy(-scores).to(columns.device))
        return chosen

    def error(self, rows: slice | I64, block: "Block", scores: F64) -> F64:
        """``(r,)`` how far a product of these queries with ``block`` can be off before it is rounded."""
        length, rest = self.norms[rows] * _INEXACT, self.rounded.rest[rows]
        cut = rest * block.length + (length + rest) * block.rest
        # Products of bfloat16 are exact in float32; their sum is rounded at each term, in any order, as are lengths.
        summed = np.square(length + block.length) + 1.02 * np.abs(scores)
        tiny = self.terms * 1.2e-38 * (1 + length + block.length)  # what is smaller counts as zero
        rounding = self.terms * 2.0**-24
        # The threshold is lowered by the error, which makes it larger once more.
        return np.asarray((cut + rounding * summed + tiny) / (1 - 1.1 * rounding))


class Rounded(NamedTuple):
    """Vectors in bfloat16, and what they lack."""

    columns: Tensor  # (n, K) bfloat16: coordinates, what lies outside of them, and six ones
    lengths: Tensor  # (n,) float32, Euclidean norms, but for rounding
    rest: F64  # (n,) at least the norms of what rounding changed of the coordinates
    outside: F64  # (n,) at least the lengths outside of the basis

    @classmethod
    def of(cls, vectors: Tensor, basis: Basis | None) -> "Rounded":
        """From float32 ``(n, D)``."""
        coordinates = vectors if basis is None else basis.coordinates(vectors)
        size = coordinates.shape[1]
        columns = torch.ones(len(vectors), size + 1 + 2 * _TERMS, dtype=torch.bfloat16, device=vectors.device)
        columns[:, :size] = coordinates
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        rest = _float64(torch.linalg.vector_norm(coordinates - columns[:, :size], dim=1)) * _INEXACT
        if basis is None:
            columns[:, size] = 0
            return cls(columns, lengths, rest, np.zeros(len(vectors)))
        # |v|² − |vW|², and what both can be off; one bfloat16 number further up
        off = 2.0**-24 * (vectors.shape[1] + 32) + 2 * basis.error
        square = lengths.double().square() * (1 + off) - coordinates.double().square().sum(1)
        columns[:, size] = square.clamp(min=0).sqrt() * (1 + 2.0**-7)
        return cls(columns, lengths, rest + basis.error * _float64(lengths) * _INEXACT, _float64(columns[:, size]))

    def terms(self, dim: int) -> int:
        """How many roundings of a sum of float32 numbers, at most, lie behind a product or a length."""
        return 2 * self.columns.shape[1] + dim + 64


class Block:
    """Some of the gallery's vectors, ready to be compared.

    Args:
        centred: ``(n, D)`` float32, relative to the gallery's centre.
        start: position of the first in the gallery.
        where: the device of the products.
        basis: see ``Queries``.
    """

    def __init__(self, centred: F32, start: int, where: torch.device, basis: Basis | None = None) -> None:
        rounded = Rounded.of(torch.from_numpy(centred).to(where), basis)
        self.columns, self.outside, self.start = rounded.columns, rounded.outside, start
        self.columns[:, -2 * _TERMS : -_TERMS] = _terms(-rounded.lengths.double().square() / 2)
        self.length, self.rest = float(rounded.lengths.max()) * _INEXACT, float(rounded.rest.max())

    def __len__(self) -> int:
        return len(self.columns)

    def cut(self, part: slice) -> "Block":
        """A part of the block, with the bounds of the whole."""
        found = copy(self)
        found.columns, found.outside = self.columns[part], self.outside[part]
        found.start = self.start + part.start
        return found


class Above(NamedTuple):
    """Pairs of a query and an image whose score may be above the query's threshold."""

    row: I64  # (p,) which of the queries, ascending
    image: I64  # (p,) position in the gallery
    least: F64  # (p,) score less threshold is at least this
    most: F64  # (p,) and at most this


def above(queries: Queries, rows: slice | I64, block: Block, scores: F64, limit: int | None = None) -> Above | None:
    """All pairs of queries ``rows`` and images of ``block`` whose score may be above ``scores (r,)``.

    None if there are more than ``limit``.
    """
    error = queries.error(rows, block, scores)
    products = _products(queries.aim(rows, scores - error), block.columns)
    if products.device.type == "cpu":
        places = _not_negative(products, limit)
        if places is None:
            return None
        row, column = places
    else:
        found = (products >= 0).nonzero()
        if limit is not None and len(found) > limit:
            return None
        row, column = found.T.cpu().numpy()
    value = _float64(products[torch.from_numpy(row), torch.from_numpy(column)])
    most = value + np.abs(value) * ROUNDED  # the products were raised by the error
    either = 2 * (error[row] + np.abs(value) * ROUNDED + queries.rounded.outside[rows][row] * block.outside[column])
    return Above(row, column + block.start, most - either, most)


def bounds(queries: Queries, rows: slice, block: Block) -> tuple[F64, F64]:
    """``(r, n)`` what scores of queries ``rows`` in ``block`` are at least, and at most."""
    zero = np.zeros(rows.stop - rows.start)
    value, error = (
        _float64(_products(queries.aim(rows, zero), block.columns)),
        queries.error(rows, block, zero)[:, None],
    )
    outside = queries.rounded.outside[rows, None] * block.outside
    error = error + np.abs(value) * ROUNDED
    return value - error - 2 * outside, value + error


class Blocks:
    """The searched rows of a gallery in blocks. In a basis they are small, and kept.

    Args:
        rows: their positions in the gallery.
        vectors: gives the rows of a slice, relative to the centre.
        size: rows of a block.
        basis: see ``Queries``.
    """

    def __init__(self, rows: slice, vectors: Callable[[slice], F32], size: int, basis: Basis | None = None) -> None:
        self.rows, self.vectors, self.size, self.basis = rows, vectors, size, basis
        self.where = device()
        self._kept: dict[int, Block] = {}

    def queries(self, centred: F32, norms: F64) -> Queries:
        """``centred (R, D)``, ready to be compared with these blocks."""
        return Queries(centred, norms, self.where, self.basis)

    def block(self, vectors: F32, start: int = 0) -> Block:
        """Other vectors ``(n, D)``, ready to be compared with the same queries."""
        return Block(vectors, start, self.where, self.basis)

    def growing(self, first: int) -> Iterator[Block]:
        """All blocks, the first in parts of ``first`` rows and then twice as many each time."""
        for start in range(self.rows.start, self.rows.stop, self.size):
            block = self._at(start)
            done, step = 0, first if start == self.rows.start else len(block)
            while done < len(block):
                yield block.cut(slice(done, min(done + step, len(block))))
                done, step = done + step, 2 * step

    def _at(self, start: int) -> Block:
        if start in self._kept:
            return self._kept[start]
        block = self.block(self.vectors(slice(start, min(start + self.size, self.rows.stop))), start)
        if self.basis is not None:
            self._kept[start] = block
        return block


def _products(rows: Tensor, columns: Tensor) -> Tensor:
    """``rows (r, K)`` times ``columns (n, K)``: summed in float32, rounded to bfloat16 at the end alone."""
    if rows.device.type == "cpu":
        return rows @ columns.T
    settings = torch.backends.cuda.matmul
    before = settings.allow_bf16_reduced_precision_reduction
    settings.allow_bf16_reduced_precision_reduction = False
    try:
        return rows @ columns.T
    finally:
        settings.allow_bf16_reduced_precision_reduction = before


def _terms(values: Tensor) -> Tensor:
    """``(n, 3)`` bfloat16 numbers whose sums are ``values (n,)`` but for 2⁻²⁴ of them."""
    parts, left = [], values.double()
    for _ in range(_TERMS):
        parts.append(left.to(torch.bfloat16))
        left = left - parts[-1].double()
    return torch.stack(parts, dim=1)


def _not_negative(products: Tensor, limit: int | None) -> tuple[I64, I64] | None:
    """Row and column, by row, of the few entries of bfloat16 ``(r, n)`` that are not negative; None beyond ``limit``.

    That is the sign bit, of which each word holds four. The words of several rows are joined first, since few rows have
    an entry in any of them.
    """
    rows, columns = products.shape
    odd = -columns % _FOUR, -rows % _JOINED
    if any(odd):
        products = torch.nn.functional.pad(products, (0, odd[0], 0, odd[1]), value=-1.0)
    words = products.view(torch.int64).numpy().reshape(-1, _JOINED, products.shape[1] // _FOUR)
    negative = np.bitwise_and.reduce(words, axis=1) & _SIGNS
    group, word = np.divmod(np.flatnonzero(negative != _SIGNS), words.shape[2])
    if limit is not None and len(group) > limit:
        return None
    found = np.flatnonzero(words[group, :, word].view(np.int16) >= 0)
    if limit is not None and len(found) > limit:
        return None
    at, inside = np.divmod(found, _FOUR * _JOINED)
    row, column = group[at] * _JOINED + inside // _FOUR, word[at] * _FOUR + inside % _FOUR
    order = np.argsort(row.astype(np.min_scalar_type(rows)), kind="stable")
    return row[order], column[order]


def _float64(values: Tensor) -> NDArray[np.float64]:
    return np.asarray(values.cpu().double().numpy())
