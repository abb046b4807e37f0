# SPDX-License-Identifier: MIT
"""How sure a difference of two rows is, for ranks, claims and ``compare``: other requests, and other seeds.

Requests are resampled once for all columns, so that every difference is paired. What another seed would have scored is
not known of a row with one, and hardly of a row with three: the variance between seeds is pooled over the rows that
have several, as in a one-way analysis of variance, and taken for every row; for a row whose own seeds vary more, its
own variance is. Of rows X and Y with n and m seeds, s² apart,

    Var(X - Y) = Var of the mean over requests + s² (1 / n + 1 / m),

and Student's t with as many degrees of freedom as Satterthwaite gives the sum (Biometrics Bulletin 2, 1946). What a
request does otherwise with another seed is in both terms, which makes intervals a little too wide rather than too
narrow. Where no row has several seeds, the noise of training is unknown, and left out.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from fm_bench.errors import UserError
from fm_bench.evaluation.significance import resampled_means
from fm_bench.evaluation.sweep import ratio
from fm_bench.files import digest

RESAMPLES = 10_000
_NORMAL = 1e9  # degrees of freedom with which Student's t is the normal distribution
K = TypeVar("K", bound=Hashable)


class Scores(NamedTuple):
    """A metric of one row at every request.

    Attributes:
        row: names the row, e.g. the fingerprint of its first run: scores of one row are of the same trained networks.
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
    """A metric over all requests and seeds.

    Attributes:
        value: the metric.
        means: ``(RESAMPLES,)``: the same over resampled requests.
        runs: ``(S,)``: that of every seed over all requests.
        row: as in ``Scores``.
    """

    value: float
    means: NDArray[np.float64]
    runs: NDArray[np.float64]
    row: str

    @classmethod
    def mean_of(cls, samples: Sequence["Sample"]) -> "Sample":
        """The mean of several metrics of one row, each of which counts alike; of the same resampled requests."""
        means, runs = (np.mean(of, axis=0) for of in ([one.means for one in samples], [one.runs for one in samples]))
        return cls(float(np.mean([one.value for one in samples])), means, runs, samples[0].row)


class Noise(NamedTuple):
    """What training adds to a score: the variance between seeds of one row, and its degrees of freedom.

    Both are 0 where it is unknown, because no row has several seeds.
    """

    variance: float = 0.0
    df: int = 0

    @classmethod
    def pooled(cls, rows: Iterable[NDArray[np.float64]]) -> "Noise":
        """Of the scores ``(S,)`` of every row's seeds; rows with one seed, or with one that has no score, tell none."""
        several = [runs for runs in rows if len(runs) > 1 and np.isfinite(runs).all()]
        df = sum(len(runs) - 1 for runs in several)
        return cls(sum(float(np.var(runs)) * len(runs) for runs in several) / df, df) if df else cls()

    def of(self, runs: NDArray[np.float64]) -> float:
        """The variance of the mean of ``runs (S,)``: of the pooled variance, or of their own if that is larger."""
        own = float(np.var(runs, ddof=1)) if self.df and len(runs) > 1 else 0.0
        return max(self.variance, own) / len(runs)


class Comparison(NamedTuple):
    """Mean of X minus mean of Y, with its 95 % interval over requests and seeds.

    ``wins``, ``ties`` and ``losses`` count the requests on which X is better, equal and worse; all are 0 where the
    comparison is not paired. ``p`` is the two-sided p-value: below 0.05 where the interval leaves out 0.
    """

    value: float
    low: float
    high: float
    wins: int = 0
    ties: int = 0
    losses: int = 0
    p: float = math.nan


def sample(columns: Mapping[K, Scores], request_digest: str) -> dict[K, Sample]:
    """Resamples the requests once for all ``columns``, so that any two of them can be compared pairwise.

    Args:
        columns: scores for the same requests.
        request_digest: of these requests; it seeds their draw, so that other requests are drawn independently.

    Raises:
        UserError: if they are not scores for the same requests, since there are more of them in one column.
    """
    if not columns:
        return {}
    counts = sorted({len(seed) for column in columns.values() for seed in column.seeds})
    if len(counts) > 1:
        raise UserError(
            f"the requests {request_digest[:12]} are {' and '.join(map(str, counts))} of different runs, so that one "
            "of their records is wrong: run the older ones again."
        )
    stacked = np.column_stack([seed for column in columns.values() for seed in column.seeds])
    means = resampled_means(stacked, RESAMPLES, int(digest(request_digest)[:8], 16))
    result, start = {}, 0
    for key, column in columns.items():
        of_ratio = column.seeds[0].ndim == 2
        shape = len(column.seeds), 1 + of_ratio
        stop = start + math.prod(shape)
        drawn = means[:, start:stop].reshape(RESAMPLES, *shape).mean(axis=1)
        runs = np.reshape([np.nanmean(seed, axis=0) for seed in column.seeds], shape)
        whole, resampled, each = (ratio(*of.T) if of_ratio else of[..., 0] for of in (runs.mean(axis=0), drawn, runs))
        result[key] = Sample(float(whole), resampled, each, column.row)
        start = stop
    return result


def paired(x: Sample, y: Sample) -> bool:
    """Whether both are of the same trained networks: what their seeds do to both of them falls out of a difference."""
    return x.row == y.row and len(x.runs) == len(y.runs)


def contrast(x: Sample, y: Sample, noise: Noise) -> Comparison:
    """``x`` minus ``y``.

    Args:
        x: paired with ``y`` by request if both are of one ``sample``, else of independent draws of requests.
        y: see there.
        noise: of training, in such scores; in their differences where the two are ``paired``.
    """
    value = x.value - y.value
    requests = float(np.nanvar(x.means - y.means, ddof=1))
    training = noise.of(x.runs - y.runs) if paired(x, y) else noise.of(x.runs) + noise.of(y.runs)
    error = math.sqrt(requests + training)
    if error < 1e-12:  # nothing varies
        return Comparison(value, value, value, p=float(abs(value) < 1e-12))
    df = min(noise.df * ((requests + training) / training) ** 2 if training > 0 else math.inf, _NORMAL)
    margin = float(stdtrit(df, 0.975)) * error
    return Comparison(value, value - margin, value + margin, p=2 * float(stdtr(df, -abs(value) / error)))
