# SPDX-License-Identifier: MIT
"""A scan of the gallery in bfloat16 that misses nothing.

Processors and GPUs that multiply in bfloat16 do so several times as fast as in float32. What rounding does to a product
of two vectors is at most the product of the lengths of one and of what was cut off the other (Cauchy and Schwarz).
So a threshold lowered by that much lets every image through that is near enough, and few others: these are looked at
exactly by whoever asked.

A vector ``g`` is nearer to ``q`` than the distance ``d`` if its score ``q·g − |g|²/2`` is above ``(|q|² − d²)/2``, all
relative to one centre. The query's threshold and the vector's ``|g|²/2`` stand in further columns of the two matrices,
each as a sum of three bfloat16 numbers, so that one product gives the difference, and its sign the answer: rounding the
result to bfloat16 as well can change no sign.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.retrieval.distances import F32, F64, I64

_TERMS = 3  # bfloat16 numbers that make up one of 24 bits
HUGE = 1e17
"""Longer vectors could overflow."""

NEVER = 1e38
"""A score that no image reaches."""

_INEXACT = 1 + 2.0**-10  # lengths are computed in float32
_ROUNDED = 2.0**-8 * 1.01  # a number is off by this much of what it was rounded to, at most


def supported() -> bool:
    """Whether products in bfloat16 are faster than in float32 here."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def device() -> torch.device:
    """Where products are computed: on this process's GPU if there is one."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


class Queries:
    """Centred queries, ready to be compared with blocks of a gallery.

    Args:
        centred: ``(R, D)`` float32, relative to the gallery's centre.
        norms: ``(R,)`` their Euclidean norms.
    """

    def __init__(self, centred: F32, norms: F64) -> None:
        self.device = device()
        vectors = torch.from_numpy(centred).to(self.device)
        self.columns = _columns(vectors)
        self.norms, self.rest = norms, _rest(vectors, self.columns)
        self.dim = centred.shape[1]

    def __len__(self) -> int:
        return len(self.norms)

    def block(self, centred: F32, start: int) -> "Block":
        """Vectors ``(n, D)`` of the gallery, of which the first is at position ``start``, on the same device."""
        return Block(centred, start, self.device)

    def aim(self, rows: slice | I64, scores: F64) -> Tensor:
        """``(r, D + 6)`` columns of queries ``rows``, whose products are scores less ``scores (r,)``."""
        columns = self.columns[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device)]
        columns = columns.clone() if isinstance(rows, slice) else columns
        columns[:, -_TERMS:] = _terms(torch.from_numpy(-scores).to(self.device))
        return columns

    def error(self, rows: slice | I64, block: "Block", scores: F64) -> F64:
        """``(r,)`` how far a score of these queries in ``block``, less ``scores``, can be off before it is rounded."""
        length = self.norms[rows] * _INEXACT
        cut = self.rest[rows] * block.length + (length + self.rest[rows]) * block.rest
        # Products of bfloat16 are exact in float32; their sum is rounded at each term, in any order, as are lengths.
        terms = 3 * (self.dim + 2 * _TERMS) + 64
        summed = np.square(length + block.length) + 1.02 * np.abs(scores)
        tiny = terms * 1.2e-38 * (1 + length + block.length)  # what is smaller counts as zero
        return np.asarray(1.01 * (cut + terms * 2.0**-24 * summed + tiny))  # the threshold is lowered by this as well


class Block:
    """Some of the gallery's vectors, ready to be compared.

    Args:
        centred: ``(n, D)`` float32, relative to the gallery's centre.
        start: position of the first in the gallery.
        where: the device of the products.
    """

    def __init__(self, centred: F32, start: int, where: torch.device) -> None:
        vectors = torch.from_numpy(centred).to(where)
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        self.columns, self.start = _columns(vectors), start
        self.columns[:, -2 * _TERMS : -_TERMS] = _terms(-lengths.double().square() / 2)
        self.length = float(lengths.max()) * _INEXACT
        self.rest = float(_rest(vectors, self.columns).max())

    def __len__(self) -> int:
        return len(self.columns)

    def cut(self, part: slice) -> "Block":
        """A part of the block, with the bounds of the whole."""
        found = object.__new__(Block)
        found.columns, found.start = self.columns[part], self.start + part.start
        found.length, found.rest = self.length, self.rest
        return found


class Above(NamedTuple):
    """Pairs of a query and an image whose score may be above the query's threshold."""

    row: I64  # (p,) which of the queries, ascending
    image: I64  # (p,) position in the gallery
    excess: F64  # (p,) score less threshold, as computed
    error: F64  # (p,) how far that can be off


def above(queries: Queries, rows: slice | I64, block: Block, scores: F64, most: int | None = None) -> Above | None:
    """All pairs of queries ``rows`` and images of ``block`` whose score may be above ``scores (r,)``.

    ``excess`` is relative to ``scores``, and negative for some of the pairs. None if there are more than ``most``.
    """
    error = queries.error(rows, block, scores)
    products = _products(queries.aim(rows, scores - error), block.columns)
    if products.device.type == "cpu":
        near = _not_negative(products)
        if most is not None and np.count_nonzero(near) > most:
            return None
        row, column = _places(near, products.shape[1])
    else:
        places = (products >= 0).nonzero()
        if most is not None and len(places) > most:
            return None
        row, column = places.T.cpu().numpy()
    value = _float64(products[torch.from_numpy(row), torch.from_numpy(column)])
    return Above(row, column + block.start, value - error[row], error[row] + np.abs(value) * _ROUNDED)


def scores(queries: Queries, rows: slice, block: Block) -> tuple[F64, F64]:
    """All scores ``(r, n)`` of queries ``rows`` in ``block``, and how far each can be off."""
    zero = np.zeros(rows.stop - rows.start)
    value = _float64(_products(queries.aim(rows, zero), block.columns))
    return value, queries.error(rows, block, zero)[:, None] + np.abs(value) * _ROUNDED


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


def _columns(vectors: Tensor) -> Tensor:
    """``(n, D + 6)`` bfloat16: ``vectors (n, D)``, and ones."""
    dim = vectors.shape[1]
    columns = torch.empty(len(vectors), dim + 2 * _TERMS, dtype=torch.bfloat16, device=vectors.device)
    columns[:, :dim] = vectors
    columns[:, dim:] = 1
    return columns


def _rest(vectors: Tensor, columns: Tensor) -> F64:
    """``(n,)`` at least the norms of what rounding ``vectors`` cut off."""
    return _float64(torch.linalg.vector_norm(vectors - columns[:, : vectors.shape[1]], dim=1)) * _INEXACT


def _terms(values: Tensor) -> Tensor:
    """``(n, 3)`` bfloat16 numbers whose sums are ``values (n,)`` but for 2⁻²⁴ of them."""
    parts, left = [], values.double()
    for _ in range(_TERMS):
        parts.append(left.to(torch.bfloat16))
        left = left - parts[-1].double()
    return torch.stack(parts, dim=1)


def _not_negative(products: Tensor) -> NDArray[np.bool_]:
    """Which entries of bfloat16 ``(r, n)`` are not negative, in a row, padded with False to a multiple of eight.

    That is the sign bit, and as integers it is compared much faster.
    """
    bits = products.view(-1).view(torch.int16).numpy()
    near = np.zeros(len(bits) + -len(bits) % 8, bool)
    np.greater_equal(bits, 0, out=near[: len(bits)])
    return near


def _places(near: NDArray[np.bool_], columns: int) -> tuple[I64, I64]:
    """Row and column of the few true entries, by row."""
    words = np.flatnonzero(near.view(np.uint64))  # eight at a time
    word, inside = np.nonzero(near.reshape(-1, 8)[words])
    row, column = np.divmod(words[word] * 8 + inside, columns)
    return row, column


def _float64(values: Tensor) -> NDArray[np.float64]:
    return np.asarray(values.cpu().double().numpy())
