# SPDX-License-Identifier: MIT
"""The few directions in which the embeddings of a gallery differ.

Trained embeddings fill few of their dimensions. What lies outside of a few directions ``W (D, d)`` enters a product of
two vectors by at most the product of two lengths: ``|q·g − (qW)·(gW)| <= ρ(q) ρ(g)`` with ``ρ(v)² = |v|² − |vW|²``, by
Cauchy and Schwarz, since ``I − WWᵀ`` has no negative eigenvalue.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.retrieval.distances import F32, F64, true_float32

_LEFT = 0.01  # the most that ρ(q) ρ(g) may be of |q| |g|: with more, too many images have to be looked at exactly
_SHARE = 4  # there are at most D / 4 directions, so that reduced vectors are small beside the gallery
_FIT, _TRY = 1024, 512  # images from which directions are found, and on which they are tried
_TURNING = 8  # multiplying in float32 to turn a vector costs so many times what it saves in bfloat16
_WORTH = 1 << 27  # comparisons below which finding directions takes longer than they save (measured)
_COLUMNS = 512  # summed in float32 at a time


class Basis:
    """Directions of a space.

    Args:
        directions: ``(D, d)`` orthonormal columns.
        device: where vectors lie.
    """

    def __init__(self, directions: F64, device: torch.device) -> None:
        rounded = directions.astype(np.float32).astype(np.float64)
        off = np.linalg.norm(rounded.T @ rounded - np.eye(rounded.shape[1]))  # singular values are at most √(1 + off)
        rounded *= (1 - 2.0**-24 * (8 + 2 * np.sqrt(rounded.shape[1]))) / np.sqrt(1 + off)
        self.directions = torch.from_numpy(rounded.astype(np.float32)).to(device)

    def coordinates(self, vectors: Tensor) -> Tensor:
        """``(n, d)`` float32 of ``vectors (n, D)``."""
        found = torch.zeros(len(vectors), self.directions.shape[1], device=vectors.device)
        with true_float32():
            for start in range(0, vectors.shape[1], _COLUMNS):
                found += vectors[:, start : start + _COLUMNS] @ self.directions[start : start + _COLUMNS]
        return found

    @property
    def error(self) -> float:
        """How far coordinates can be off by rounding, as a share of the vector's length."""
        dim, size = self.directions.shape
        return float((min(dim, _COLUMNS) + dim // _COLUMNS + 32) * 2.0**-24 * np.sqrt(size))


def find_basis(gallery: F32, centre: F32, queries: F32, device: torch.device) -> Basis | None:
    """Directions that nearly hold the gallery and the queries, if there are few and they save time.

    Args:
        gallery: ``(N, D)``, searched rows.
        centre: ``(D,)``.
        queries: ``(R, D)``, relative to the centre.
        device: where vectors will lie.
    """
    dim = gallery.shape[1]
    if len(gallery) < 2 * _FIT or dim < 2 * _SHARE or len(queries) * len(gallery) < _WORTH:
        return None
    tried = _spread(gallery, _TRY, 1) - centre, _spread(queries, _TRY, 0)
    sizes = 2 ** np.arange(3, 16)
    sizes = sizes[(sizes <= min(dim // _SHARE, _FIT // 2)) & (_TURNING * dim * sizes < len(queries) * (dim - sizes))]
    if not len(sizes):
        return None
    directions = _principal(_spread(gallery, _FIT, 0) - centre, int(sizes[-1]))
    one, other = (_outside(vectors, directions)[sizes - 1] for vectors in tried)
    enough = sizes[one * other <= _LEFT**2]
    return Basis(directions[:, : enough[0]], device) if len(enough) else None


def _spread(vectors: F32, count: int, offset: int) -> F32:
    """About ``count`` rows from all over ``vectors``."""
    return vectors[offset :: max(1, len(vectors) // count)][: 2 * count]


def _principal(vectors: F32, count: int) -> F64:
    """``(D, count)`` orthonormal columns along which ``vectors (n, D)`` are longest."""
    exact = vectors.astype(np.float64)
    if exact.shape[1] <= len(exact):
        found: NDArray[np.float64] = np.linalg.eigh(exact.T @ exact)[1][:, : -count - 1 : -1]
    else:
        found = exact.T @ np.linalg.eigh(exact @ exact.T)[1][:, : -count - 1 : -1]
    return np.linalg.qr(found)[0]


def _outside(vectors: F32, directions: F64) -> F64:
    """``(d,)`` share of the squared lengths outside of the first 1, 2, … directions."""
    inside = np.square(vectors @ directions).sum(axis=0)
    whole = np.square(vectors, dtype=np.float64).sum()
    return np.asarray(np.maximum(1 - np.cumsum(inside) / max(whole, np.finfo(np.float64).tiny), 0))
