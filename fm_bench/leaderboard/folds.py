# SPDX-License-Identifier: MIT
"""Cross-validated runs: which records belong together, and what five numbers, one per fold, say.

The five tests do not overlap, but any two folds share most of their training images: intervals and tests over folds
take them for independent, as is usual, and so are a little too sure.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fm_bench.data.folds import FOLDS
from fm_bench.leaderboard.record import Record


class Paired(NamedTuple):
    """Mean difference of two methods over folds, its 95 % t-interval, and the two-sided p of a paired t-test."""

    value: float
    low: float
    high: float
    p: float


def fold_of(record: Record) -> int | None:
    """The fold of a cross-validated run, 0 to 4; None for a run on the data's own split."""
    fold: int | None = record.config.get("fold")
    return fold


def extent(folds: int) -> str:
    """How many folds there are, in words: ``5 folds``, or ``3 of 5 folds`` of an unfinished cross-validation."""
    return f"{folds} folds" if folds == FOLDS else f"{folds} of {FOLDS} folds"


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % t-interval of the mean of ``values``, one per fold; None for fewer than two."""
    if len(values) < 2:
        return None
    paired = paired_t(values, [0.0] * len(values))
    return paired.low, paired.high


def paired_t(x: Sequence[float], y: Sequence[float]) -> Paired:
    """``x`` minus ``y``, two or more values of each, fold by fold.

    Where the differences of all folds are the same, the interval has no width, and ``p`` is 0, or 1 if it is 0.
    """
    from scipy import stats  # takes a second to import, which pages without folds do not wait for

    differences = np.asarray(x, np.float64) - np.asarray(y, np.float64)
    value = float(differences.mean())
    if np.ptp(differences) < 1e-12:  # no more than rounding: t would be a quotient of rounding errors
        return Paired(value, value, value, float(abs(value) < 1e-12))
    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(0.95)
    return Paired(value, float(interval.low), float(interval.high), float(test.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted so that the chance of any false one stays what it says (Holm, 1979)."""
    adjusted, least = [0.0] * len(p), 0.0
    for rank, number in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - rank) * p[number]))
        adjusted[number] = least
    return adjusted
