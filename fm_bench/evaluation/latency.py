# SPDX-License-Identifier: MIT
"""How long single queries take: warm, one at a time, each by itself, with percentiles."""

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
import torch

from fm_bench.evaluation.significance import Estimate, bootstrap
from fm_bench.retrieval.distances import F32, F64, blocks

T = TypeVar("T")

WARM_UP = 20
"""Queries before the first one that counts: caches, allocators and kernels are ready by then."""

PERCENTILES = (50, 95, 99)
NOISE = 0.1
"""Of copied vectors, relative to how far vectors are from each other in each dimension: no two are equal."""


def timed(
    work: Callable[[int], T], queries: int, *, device: torch.device | None = None, warm_up: int = WARM_UP
) -> tuple[list[T], F64]:
    """Calls ``work(query)`` for every query in turn, after as many warm-up calls that are not counted.

    Args:
        work: one query.
        queries: how many there are.
        device: a GPU is waited for before the clock starts and before it stops.
        warm_up: calls beforehand, with the first queries again and again if there are fewer.

    Returns:
        What ``work`` gave for each query, and ``(queries,)`` milliseconds.
    """
    for number in range(warm_up):
        work(number % queries)
    found, milliseconds = [], np.empty(queries)
    for query in range(queries):
        _wait(device)
        start = time.perf_counter()
        found.append(work(query))
        _wait(device)
        milliseconds[query] = 1000 * (time.perf_counter() - start)
    return found, milliseconds


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def estimates(times: Mapping[str, F64]) -> dict[str, Estimate]:
    """The mean of each of ``times (R,)``, and its percentiles as ``NAME_p50`` and so on, with 95 % intervals."""
    means = bootstrap(np.column_stack(list(times.values())))
    found: dict[str, Estimate] = dict(zip(times, means, strict=True))
    return found | {f"{name}_p{p}": percentile(values, p) for name, values in times.items() for p in PERCENTILES}


def percentile(values: F64, percent: float) -> Estimate:
    """The smallest of ``values (R,)`` that ``percent`` of them do not exceed, with its 95 % interval.

    The interval lies between two order statistics, whatever the distribution (David and Nagaraja, Order Statistics,
    3rd ed., section 7.1): the number of values below the true percentile is binomial.
    """
    from scipy.stats import binom  # takes a second to import, which runs without times do not wait for

    ordered, share = np.sort(values), percent / 100
    low, high = binom.ppf((0.025, 0.975), len(ordered), share).astype(int)
    place = int(np.ceil(share * len(ordered))) - 1
    at = (min(max(place, 0), len(ordered) - 1), max(low - 1, 0), min(high, len(ordered) - 1))
    return Estimate(*(float(ordered[i]) for i in at))


def enlarged(gallery: F32, size: int, seed: int = 0) -> F32:
    """``size`` vectors: the first of ``gallery (n, D)``, then noisy copies of all in turn until there are enough."""
    out = np.empty((size, gallery.shape[1]), np.float32)
    sample = gallery[:: max(1, len(gallery) // 4096)]
    spread = (NOISE * sample.std(axis=0)).astype(np.float32)
    rng = np.random.default_rng(seed)
    for part in blocks(size, 4096):
        rows = np.arange(part.start, part.stop)
        out[part] = gallery[rows % len(gallery)]
        copies = rows >= len(gallery)
        out[part][copies] += spread * rng.standard_normal((int(copies.sum()), out.shape[1]), dtype=np.float32)
    return out
