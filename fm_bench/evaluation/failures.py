# SPDX-License-Identifier: MIT
"""How requests fail: the old value stays in what was found, or a value that was to be kept is lost.

Of each request, the first results whose label is known are looked at, attribute by attribute:

- ``followed``: share of them that have the wanted value of an attribute that was to change;
- ``ignored``: share that still have the query's own value of it, as if nothing had been asked ("request ignored");
- ``lost``: share that have another value than the target, of an attribute that was to stay ("kept attribute lost").

What is neither followed nor ignored has a third value. Not every result that has a value wrong is a failure of the
method: the gallery may hold few images, or one, that fit. The same is true for every method that was asked the same.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.attributes import MISSING
from fm_bench.evaluation.significance import Estimate, bootstrap
from fm_bench.retrieval.distances import F64


class Failures(NamedTuple):
    """Shares of the results of each request, by attribute, ``(R, A)``; NaN where the attribute says nothing."""

    followed: F64
    ignored: F64
    lost: F64

    def rates(self) -> dict[str, Estimate]:
        """Means over requests with their 95 % intervals, of each request the mean over its attributes.

        A rate that no request has anything to say about is left out.
        """
        table = np.column_stack([_mean(part, axis=1) for part in self])
        found = dict(zip(self._fields, bootstrap(table), strict=True))
        return {name: rate for name, rate in found.items() if np.isfinite(rate.value)}

    def by_attribute(self) -> list[dict[str, float]]:
        """For each of the ``A`` attributes, the mean over the requests that it says something about."""
        columns = [_mean(part, axis=0) for part in self]
        return [
            {name: float(value) for name, value in zip(self._fields, values, strict=True) if np.isfinite(value)}
            for values in zip(*columns, strict=True)
        ]


def failures(
    found: NDArray[np.integer[Any]],
    before: NDArray[np.integer[Any]],
    target: NDArray[np.integer[Any]],
    changed: NDArray[np.bool_],
) -> Failures:
    """Looks at what was found for each request.

    Args:
        found: ``(R, k, A)`` labels of the first ``k`` results, −1 where unknown or where nothing was found.
        before: ``(R, A)`` labels of the query's own picture, −1 where unknown.
        target: ``(R, A)`` labels that are looked for, −1 where any value will do.
        changed: ``(R, A)`` which attributes the request changes.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    if before.shape != (len(found), found.shape[2]) or target.shape != before.shape or changed.shape != before.shape:
        raise ValueError(
            f"found {found.shape}, before {before.shape}, target {target.shape} and changed {changed.shape}"
        )
    known = found != MISSING
    wanted = known & (found == target[:, None])
    old = known & (found == before[:, None])
    asked = changed & (target != MISSING)
    replaced = asked & (before != MISSING) & (before != target)
    kept = ~changed & (target != MISSING)
    return Failures(_share(wanted, known, asked), _share(old, known, replaced), _share(known & ~wanted, known, kept))


def _share(is_so: NDArray[np.bool_], known: NDArray[np.bool_], counted: NDArray[np.bool_]) -> F64:
    """``(R, A)`` share of the known results ``(R, k, A)`` of which it is so; NaN where none is known or counted."""
    number = known.sum(axis=1)
    counted = counted & (number > 0)
    share: F64 = np.divide(is_so.sum(axis=1), number, out=np.full(number.shape, np.nan), where=counted)
    return share


def _mean(values: F64, axis: int) -> F64:
    """The mean of what is not NaN, NaN where all is, without numpy's warning."""
    known = np.isfinite(values)
    number = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    mean: F64 = np.divide(total, number, out=np.full(number.shape, np.nan), where=number > 0)
    return mean
