# SPDX-License-Identifier: MIT
"""What one more run of a method is expected to reach, as far as recorded seeds tell.

All seeds are asked the same requests, so that the choice of requests moves none of this: what runs differ by is their
training. Two or three seeds say little of it, so the methods of one table help each other. The variance of each is
drawn towards what is usual there, the less, the more methods differ in it, which all tables tell together (Smyth, Stat.
Appl. Genet. Mol. Biol. 3, 2004); a method with one seed has what is usual. A variance pooled over all methods, as
``resampling`` has it for differences of two rows, would not do here: of tens of methods the least steady one would fail
again and again.
"""

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from scipy.optimize import brentq
from scipy.special import digamma, polygamma, stdtr, stdtrit

LEVEL = 0.025
"""Chance that one more run lies beyond its band, or, of many that are judged together, that any is called worse."""
_MANY = 1e4  # degrees of freedom above which nobody needs to know how many
_NORMAL = 1e9  # degrees of freedom with which Student's t is the normal distribution
K = TypeVar("K", bound=Hashable)


class Score(NamedTuple):
    """The headline of one protocol; ``work`` is a digest of what was asked, of what, and how it is counted."""

    metric: str
    value: float
    low: float
    high: float
    requests: int
    work: str


class Usual(NamedTuple):
    """The variance between seeds of one method that is usual in a table, and how many degrees of freedom it is worth.

    Both are 0 where no method has several seeds. It is ``common`` to all methods where these differ in it by no more
    than chance; otherwise each method's own variance counts beside it.
    """

    variance: float = 0.0
    df: float = 0.0
    common: bool = False


class Band(NamedTuple):
    """What is expected of one more run.

    Attributes:
        mean: of the recorded seeds.
        error: standard error of one more run's distance from ``mean``.
        df: degrees of freedom of that distance, which is Student's t; infinite where it is normal.
        least: what is no loss whatever the seeds say: one request, which may change with the order of a sum.
        how: where this is known from, in words.
    """

    mean: float
    error: float
    df: float
    least: float
    how: str

    @property
    def margin(self) -> float:
        """How far beyond ``mean`` a single run may lie."""
        return max(self.least, quantile(self.df) * self.error)

    def p(self, loss: float) -> float:
        """The one-sided p-value of a run that is worse than ``mean`` by ``loss``."""
        if loss <= self.least * (1 + 1e-9):
            return 1.0
        return float(stdtr(min(self.df, _NORMAL), -loss / self.error)) if self.error else 0.0


def usual(tables: Mapping[K, Sequence[Sequence[float]]]) -> dict[K, Usual]:
    """What seeds do in every table.

    Args:
        tables: of every table, the scores of every method's seeds. Methods with one seed tell nothing, nor do those
            that score the same with all seeds, which draw nothing at random.
    """
    known = {
        name: [(statistics.variance(row), len(row) - 1) for row in rows if len(row) > 1 and max(row) - min(row) > 1e-9]
        for name, rows in tables.items()
    }
    shared = _degrees([variances for variances in known.values() if len(variances) > 1])
    result = {}
    for name, variances in known.items():
        total = sum(df for _, df in variances)
        if total <= shared:
            pooled = sum(variance * df for variance, df in variances) / max(total, 1)
            result[name] = Usual(pooled, total, common=total > 0)
        else:
            logs = [math.log(variance) - _mean_log(df) for variance, df in variances]
            result[name] = Usual(math.exp(statistics.fmean(logs) + _mean_log(shared)), shared)
    return result


def _degrees(tables: Sequence[Sequence[tuple[float, int]]]) -> float:
    """How many degrees of freedom a usual variance is worth, given the variances of methods with their own.

    Infinite where methods differ in them by no more than chance, or nothing is known of it.
    """
    if not tables:
        return math.inf
    logs = [[math.log(variance) - _mean_log(df) for variance, df in table] for table in tables]
    within = sum(statistics.variance(table) * (len(table) - 1) for table in logs) / sum(
        len(table) - 1 for table in logs
    )
    differing = within - statistics.fmean(_trigamma(df / 2) for table in tables for _, df in table)
    if differing <= _trigamma(_MANY):
        return math.inf
    return 2 * float(brentq(lambda half: _trigamma(half) - differing, 1e-3, _MANY))


def _mean_log(df: float) -> float:
    """The mean logarithm of a variance that is estimated with ``df`` degrees of freedom, where the true one is 1."""
    return float(digamma(df / 2)) - math.log(df / 2)


def _trigamma(value: float) -> float:
    return float(polygamma(1, value))


def expected(scores: Sequence[Score], known: Usual, *, lower_is_better: bool) -> Band:
    """What is expected of one more run.

    Args:
        scores: of the recorded seeds of one method, all of them asked the same; one or more.
        known: what is usual in their table; without it, their own variance counts alone, and for one seed its bootstrap
            interval over requests, in which training noise is missing.
        lower_is_better: which end of that interval counts.
    """
    values = [score.value for score in scores]
    n, mean, least = len(values), statistics.fmean(values), 1 / min(score.requests for score in scores)
    df = known.df if known.common else known.df + n - 1
    if not df:
        (only,) = scores
        reach = only.high - mean if lower_is_better else mean - only.low
        return Band(mean, reach / quantile(math.inf), math.inf, least, "1 seed, bootstrap over requests")
    own = statistics.variance(values) if n > 1 else 0.0
    variance = known.variance if known.common else (known.variance * known.df + own * (n - 1)) / df
    how = f"{n} seed{'s' if n > 1 else ''}" + (" and those of other methods" if known.df else "")
    return Band(mean, math.sqrt(variance * (1 + 1 / n)), df, least, how)


def quantile(df: float) -> float:
    """The quantile of Student's t, in standard errors, that one run in forty lies beyond."""
    return float(stdtrit(min(df, _NORMAL), 1 - LEVEL))
