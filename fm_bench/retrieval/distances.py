# SPDX-License-Identifier: MIT
"""Exact squared distances, how far a fast float32 distance can be off, and rows that occur more than once."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fm_bench.errors import UserError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_CHUNK = 1 << 20  # elements of a working block that stays in the processor's cache


def threads() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[slice], None], length: int, step: int) -> None:
    """Calls ``work(slice)`` for slices that cover ``range(length)``; NumPy lets go of the lock, so threads help."""
    parts = blocks(length, step)
    if length <= step or threads() < 2:
        for part in parts:
            work(part)
        return

    def some() -> None:
        for part in waiting:
            work(part)

    waiting = iter(list(parts))  # whichever thread is free takes the next
    with ThreadPoolExecutor(threads()) as pool:
        for done in [pool.submit(some) for _ in range(threads())]:
            done.result()


@contextmanager
def true_float32() -> Iterator[None]:
    """Lets torch multiply float32 as such: the bounds on errors are not those of the shorter formats that GPUs know."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


def blocks(length: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at most ``step`` that cover ``range(length)``."""
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def check_embeddings(embeddings: NDArray[Any], side: str, block_rows: int = 1 << 14, rows: slice | None = None) -> F32:
    """The embeddings, if they are a finite ``(n, D)`` array of floats; what is float32 already is not copied.

    Args:
        embeddings: an array or memory map.
        side: what to call them in a message, e.g. ``"gallery"``.
        block_rows: rows looked at at a time.
        rows: the part that is looked at. Default: all of it.

    Raises:
        UserError: on another shape or type, or NaN or infinity: how many rows, and the first of them.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise UserError(f"the {side} embeddings have shape {embeddings.shape}, but (rows, dimension) is needed.")
    if embeddings.dtype.kind != "f":
        raise UserError(f"the {side} embeddings have type {embeddings.dtype}, but float32 is needed.")
    if embeddings.dtype != np.float32:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            embeddings = embeddings.astype(np.float32)
    start, stop, _ = (rows or slice(None)).indices(len(embeddings))
    searched = embeddings[start:stop]
    bad = [bad_rows(searched[part]) + part.start + start for part in blocks(len(searched), block_rows)]
    wrong = np.concatenate([np.empty(0, np.int64), *bad])
    if len(wrong):
        raise UserError(
            f"{len(wrong)} of {len(searched)} {side} embeddings hold NaN or infinity, the first in row {wrong[0]}: "
            "look for a diverged training or a division by a zero norm."
        )
    return embeddings


def bad_rows(embeddings: F32) -> I64:
    """Rows with NaN or infinity."""
    finite = np.isfinite(embeddings)
    return np.empty(0, np.int64) if finite.all() else np.flatnonzero(~finite.all(axis=1)).astype(np.int64)


def exact(queries: F32, gallery: F32, rows: I64, ids: I64) -> F64:
    """Squared Euclidean distances of the pairs ``(queries[rows[i]], gallery[ids[i]])``, in float64.

    Every pair is computed by itself and in the same way, whatever else is asked: equal vectors give equal distances.
    """
    out = np.empty(len(ids))

    def work(part: slice) -> None:
        difference = queries[rows[part]].astype(np.float64)
        difference -= gallery[ids[part]]
        np.multiply(difference, difference, out=difference)
        np.add.reduce(difference, axis=1, out=out[part])

    in_threads(work, len(ids), max(1, _CHUNK // 8 // queries.shape[1]))
    return out


def slack(query_norms: F64, distances: F64, dim: int, bits: int) -> F64:
    """How far a distance computed as ``|q|² + |g|² − 2 q·g`` can be from the true ``distances``.

    The worst case of a sum of ``dim`` rounded products, for any order of summation (Higham, Accuracy and Stability of
    Numerical Algorithms, 2nd ed., Eq. 3.5), with ``|g| <= |q| + distance``. Monotone in ``distances``, so that it
    also bounds from which computed value on no image can be nearer than a given distance.

    Args:
        query_norms: ``(R,)`` Euclidean norms.
        distances: ``(R,)`` squared distances.
        dim: dimension.
        bits: of the significand, 24 for float32 and 53 for float64.
    """
    gamma = (dim + 32) * 2.0**-bits  # 32: the three additions, and vectors that were centred and rounded before
    underflow = dim * (1e-37 if bits == 24 else 0.0)
    return gamma * np.square(2 * query_norms + np.sqrt(distances)) + underflow


def threshold(query_norms: F64, distances: F64, dim: int) -> tuple[F64, F64]:
    """Scores ``q·g − |g|²/2``, as float64 computes them, that every vector nearer than ``distances`` is above.

    Args:
        query_norms: ``(R,)`` Euclidean norms.
        distances: ``(R,)`` squared distances.
        dim: dimension.

    Returns:
        ``(R,)`` the scores, and ``(R,)`` by how much they were lowered for what is rounded.
    """
    margin = slack(query_norms, distances, dim, 53)
    return (np.square(query_norms) - distances) / 2 - margin, margin


def ranges(starts: I64, lengths: I64) -> I64:
    """``starts[0], starts[0] + 1, …`` (``lengths[0]`` of them), then the same for the next, as one array."""
    return np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))


class Duplicates(NamedTuple):
    """Gallery rows grouped by equal vectors: ``U`` different ones."""

    group: I64  # (N,) group of each row
    first: I64  # (U,) one row of each group
    members: I64  # (N,) rows, group by group
    start: I64  # (U + 1,) where each group begins in `members`

    @property
    def sizes(self) -> I64:
        """``(U,)`` rows in each group."""
        return np.diff(self.start)


def duplicates(gallery: F32, block_rows: int) -> Duplicates:
    """Groups equal rows of ``gallery (N, D)``, comparing 64-bit checksums first and then the vectors themselves."""
    weights = np.random.default_rng(0).integers(0, 2**63, gallery.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(
        1
    )
    checksum = np.empty(len(gallery), np.uint64)
    for part in blocks(len(gallery), max(1, min(block_rows, _CHUNK // gallery.shape[1]))):
        rows = np.ascontiguousarray(gallery[part]) + np.float32(0)  # −0 and 0 are equal
        checksum[part] = (rows.view(np.uint32).astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    _, first, group = np.unique(checksum, return_index=True, return_inverse=True)
    for part in blocks(len(gallery), block_rows):
        if not np.array_equal(gallery[part], gallery[first[group[part]]]):
            # Two different vectors share a checksum: give up grouping, which is only a matter of speed.
            first = group = np.arange(len(gallery))
            break
    members = np.argsort(group, kind="stable")
    start = np.searchsorted(group[members], np.arange(len(first) + 1))
    return Duplicates(group.astype(np.int64), first.astype(np.int64), members.astype(np.int64), start.astype(np.int64))
