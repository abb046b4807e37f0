# SPDX-License-Identifier: MIT
"""Shares of attributes that were read as wanted, of all requests and of those that change an attribute."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fm_bench.data.requests import Requests
from fm_bench.evaluation.significance import Estimate, bootstrap
from fm_bench.retrieval.distances import F64


def share(right: NDArray[np.bool_], counted: NDArray[np.bool_]) -> F64:
    """``(R,)`` share of the counted entries of each row ``(R, A)`` that are right; NaN where none counts."""
    number = counted.sum(axis=1)
    found: F64 = np.divide((right & counted).sum(axis=1), number, out=np.full(len(right), np.nan), where=number > 0)
    return found


def estimates(
    scores: Mapping[str, F64], requests: Requests
) -> tuple[dict[str, Estimate], dict[str, dict[str, Estimate]]]:
    """Means with intervals of all requests, and of those that change each attribute, on the same resamples.

    Args:
        scores: by metric, what each request scored, ``(R,)``; NaN does not count.
        requests: what was asked.
    """
    table, parts = np.column_stack(list(scores.values())), requests.changing
    masks = [np.ones(len(table), dtype=np.bool_), *parts.values()]
    found = iter(bootstrap(np.hstack([np.where(mask[:, None], table, np.nan) for mask in masks])))
    total, *each = [{name: next(found) for name in scores} for _ in masks]
    return total, dict(zip(parts, each, strict=True))
