# SPDX-License-Identifier: MIT
"""How sure a difference of two rows is: requests and seeds are resampled together, for ranks, claims and ``compare``.

Requests are resampled once for all columns, so that every difference is paired. The seeds of every row are resampled
as well, each row's by themselves: a row that won with one seed and lost with two has not won. The noise of training is
unknown where a row has one seed, and left out.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fm_bench.evaluation.significance import resampled_means
from fm_bench.evaluation.sweep import ratio
from fm_bench.files import digest

RESAMPLES = 10_000
K = TypeVar("K", bound=Hashable)


class Scores(NamedTuple):
    """A metric of one row at every request.

    Attributes:
        row: names the row, e.g. the fingerprint of its first run: scores of one row are of the same resampled seeds.
        seeds: an array ``(R,)`` for each seed; ``(R, 2)`` where the metric is a ratio of two means.
    """

    row: str
    seeds: tuple[NDArray[np.float64], ...]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Every request's mean over the seeds, ``(R,)`` or ``(R, 2)``."""
        return np.asarray(np.mean(self.seeds, axis=0))

    def of(self, mask: NDArray[np.bool_]) -> "Scores":
        """The same for the requests in ``mask (R,)``, NaN for the others."""
        return self._replace(seeds=tuple(np.where(mask, seed, np.nan) for seed in self.seeds))


class Sample(NamedTuple):
    """A metric over all requests and seeds, and its values ``means (RESAMPLES,)`` over resampled ones."""

    value: float
    means: NDArray[np.float64]

    @classmethod
    def mean_of(cls, samples: Sequence["Sample"]) -> "Sample":
        """The mean of several metrics, each of which counts alike; of the same resampled requests and seeds."""
        return cls(float(np.mean([one.value for one in samples])), np.mean([one.means for one in samples], axis=0))


class Comparison(NamedTuple):
    """Mean of X minus mean of Y, with its 95 % bootstrap interval over requests and seeds.

    ``wins``, ``ties`` and ``losses`` count the requests on which X is better, equal and worse; all are 0 where the
    comparison is not paired.
    """

    value: float
    low: float
    high: float
    wins: int = 0
    ties: int = 0
    losses: int = 0


def sample(columns: Mapping[K, Scores], request_digest: str) -> dict[K, Sample]:
    """Resamples the requests once for all ``columns``, so that any two of them can be compared pairwise.

    Args:
        columns: scores for the same requests.
        request_digest: of these requests; it seeds their draw, so that other requests are drawn independently.
    """
    if not columns:
        return {}
    stacked = np.column_stack([seed for column in columns.values() for seed in column.seeds])
    means = resampled_means(stacked, RESAMPLES, int(digest(request_digest)[:8], 16))
    result, start = {}, 0
    for key, column in columns.items():
        parts = 1 if column.seeds[0].ndim == 1 else 2
        stop = start + len(column.seeds) * parts
        drawn = over_seeds(means[:, start:stop].reshape(RESAMPLES, len(column.seeds), parts), column.row)
        value = np.mean([np.nanmean(seed, axis=0) for seed in column.seeds], axis=0)
        result[key] = Sample(float(value), drawn[:, 0]) if parts == 1 else Sample(float(ratio(*value)), ratio(*drawn.T))
        start = stop
    return result


def over_seeds(means: NDArray[np.float64], row: str) -> NDArray[np.float64]:
    """Means ``(resamples, seeds, ...)`` averaged over resampled seeds, ``(resamples, ...)``.

    Of ``n`` seeds, ``n - 1`` are drawn: with ``n``, the variance of their mean would be ``(n - 1) / n`` of what it is,
    two thirds with three seeds (Rao and Wu, JASA 83, 1988). The draw depends on the row alone: a new row does not move
    the others, and two metrics of one row are of the same trained networks, also where their requests differ.
    """
    resamples, seeds = means.shape[:2]
    if seeds == 1:
        return means[:, 0]
    drawn = np.random.default_rng(int(digest(row)[:8], 16)).integers(0, seeds, (resamples, seeds - 1))
    return np.asarray(means[np.arange(resamples)[:, None], drawn].mean(axis=1))


def contrast(x: Sample, y: Sample) -> Comparison:
    """``x`` minus ``y``: paired if both are of one ``sample``, else of independent draws of requests."""
    value = x.value - y.value
    low, high = np.nanquantile(x.means - y.means, (0.025, 0.975))
    return Comparison(value, min(float(low), value), max(float(high), value))
