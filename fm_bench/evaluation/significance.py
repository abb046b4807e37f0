# SPDX-License-Identifier: MIT
"""How sure a mean over requests is: percentile bootstrap, and the paired bootstrap of a difference.

The requests are resampled with replacement; all metrics and all subsets are averaged over the same resamples, which is
one matrix product of resampling counts with values.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.retrieval.distances import F64, I64, blocks, in_threads

RESAMPLES = 10_000
_BLOCK = 250  # resamples that share a random stream, so that threads do not matter
_DRAWN = 1 << 21  # requests drawn at a time, in all resamples together


class Estimate(NamedTuple):
    """A mean over requests, and its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(
    values: NDArray[np.floating[Any]], *, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> list[Estimate]:
    """The mean of each column with its percentile interval.

    Args:
        values: ``(R, M)``: one row per request; NaN where a request does not belong to a column's subset.
        resamples: of the requests, with replacement; 0 gives intervals of no width.
        seed: the same seed gives the same interval.
        level: of the interval.
    """
    means = _mean(values)
    if resamples == 0 or len(values) < 2:
        return [Estimate(float(mean), float(mean), float(mean)) for mean in means]
    tail = (1 - level) / 2
    low, high = _quantiles(resampled_means(values, resamples, seed), (tail, 1 - tail))
    # Rounding in float32 must not push the mean out of an interval that has no width.
    return [Estimate(float(m), float(min(a, m)), float(max(b, m))) for m, a, b in zip(means, low, high, strict=True)]


class Difference(NamedTuple):
    """Mean difference of two methods on the same requests, its 95 % interval, and the two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def paired_difference(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]], *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Paired bootstrap of ``mean(first) − mean(second)`` over shared requests.

    Args:
        first: ``(R,)`` one metric of each request by one method.
        second: ``(R,)`` the same by another method.
        resamples: of the requests.
        seed: the same seed gives the same numbers.

    Returns:
        The difference; ``p`` is twice the share of resamples on the other side of zero (Efron and Tibshirani, An
        Introduction to the Bootstrap, 1993, chapter 15), at least ``2 / (resamples + 1)`` and at most 1.

    Raises:
        ValueError: if the methods were not asked the same number of requests, or none.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"paired values need the same requests, but have shapes {first.shape} and {second.shape}")
    values = (np.asarray(first, np.float64) - np.asarray(second, np.float64))[:, None]
    (estimate,) = bootstrap(values, resamples=resamples, seed=seed)
    means = resampled_means(values, resamples, seed)[:, 0]
    side = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Difference(*estimate, min(1.0, 2 * (side + 1) / (resamples + 1)))


def resampled_means(values: NDArray[np.floating[Any]], resamples: int, seed: int) -> F64:
    """``(resamples, M)`` column means over resampled requests, NaN where none of a column's subset was drawn."""
    inside = np.isfinite(values)
    filled = np.where(inside, values, 0).astype(np.float32)
    # Columns that share a subset share its size as well.
    subsets, subset = np.unique(inside.astype(np.float32), axis=1, return_inverse=True)
    table = np.hstack((filled, subsets))
    out = np.empty((resamples, values.shape[1]))

    def work(part: slice) -> None:
        rng = np.random.default_rng([seed, part.start])
        for some in blocks(part.stop - part.start, max(1, _DRAWN // max(1, len(values)))):
            sums = _counts(rng, some.stop - some.start, len(values)) @ table
            sizes = sums[:, values.shape[1] :][:, subset.ravel()]
            with np.errstate(invalid="ignore", divide="ignore"):
                out[part.start + some.start : part.start + some.stop] = sums[:, : values.shape[1]] / sizes

    in_threads(work, resamples, _BLOCK)
    return out


def _counts(rng: np.random.Generator, resamples: int, requests: int) -> NDArray[np.float32]:
    """``(resamples, requests)`` how often each request is drawn in each of the next resamples."""
    drawn = rng.integers(0, requests, (resamples, requests), dtype=np.uint32)
    drawn += (np.arange(resamples, dtype=np.uint32) * np.uint32(requests))[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * requests).reshape(resamples, requests).astype(np.float32)


def _mean(values: NDArray[np.floating[Any]]) -> F64:
    inside = np.isfinite(values)
    size: I64 = inside.sum(axis=0)
    total = np.where(inside, values, 0).sum(axis=0, dtype=np.float64)
    return np.asarray(np.divide(total, size, out=np.full(len(size), np.nan), where=size > 0))


def _quantiles(means: F64, levels: tuple[float, float]) -> F64:
    full = np.asarray(np.isfinite(means).all(axis=0))
    out = np.full((2, means.shape[1]), np.nan)
    for columns in blocks(means.shape[1], 64):
        whole = np.flatnonzero(full[columns]) + columns.start
        out[:, whole] = np.quantile(means[:, whole], levels, axis=0)
    for column in np.flatnonzero(~full):  # tiny subsets, absent from some resamples
        drawn = means[np.isfinite(means[:, column]), column]
        if len(drawn):
            out[:, column] = np.quantile(drawn, levels)
    return out
