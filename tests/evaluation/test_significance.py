# SPDX-License-Identifier: MIT
"""Intervals cover, repeat, and follow the textbook."""

import numpy as np
import pytest

from fm_bench.evaluation import significance
from fm_bench.evaluation.significance import bootstrap, paired_difference, resampled_means


def test_interval_of_a_proportion_is_the_binomial_one():
    values = (np.arange(400) < 120).astype(float)[:, None]
    (estimate,) = bootstrap(values, seed=1)
    error = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert estimate.value == pytest.approx(0.3)
    assert estimate.low == pytest.approx(0.3 - error, abs=0.005)
    assert estimate.high == pytest.approx(0.3 + error, abs=0.005)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.exponential(1.0, (60, 300))
    estimates = bootstrap(samples, resamples=2000)
    covered = np.mean([low <= 1 <= high for _, low, high in estimates])
    assert 0.90 <= covered <= 0.99


def test_one_seed_one_interval_whatever_the_threads(monkeypatch):
    values = np.random.default_rng(0).random((200, 3))
    first = bootstrap(values, seed=4)
    assert bootstrap(values, seed=4) == first
    assert bootstrap(values, seed=5) != first
    monkeypatch.setattr("fm_bench.retrieval.distances.threads", lambda: 1)
    assert bootstrap(values, seed=4) == first


def test_each_resample_draws_as_many_requests_as_there_are():
    counts = significance._counts(np.random.default_rng(0), 50, 80)
    np.testing.assert_array_equal(counts.sum(axis=1), 80)
    assert counts.std() == pytest.approx(np.sqrt(1 - 1 / 80), abs=0.1)


def test_resamples_drawn_few_at_a_time_are_the_same(monkeypatch):
    values = np.random.default_rng(0).integers(0, 2, (300, 3)).astype(float)  # sums of these are exact in any order
    together = significance.resampled_means(values, 600, seed=4)
    for drawn in (7 * 300, 1):
        monkeypatch.setattr(significance, "_DRAWN", drawn)
        np.testing.assert_array_equal(significance.resampled_means(values, 600, seed=4), together)


def test_subsets_are_averaged_over_their_own_requests():
    values = np.random.default_rng(0).random((300, 2))
    values[::2, 1] = np.nan
    whole, half = bootstrap(values)
    alone = bootstrap(values[1::2, 1:])[0]
    assert half.value == pytest.approx(alone.value)
    assert half.high - half.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert whole.value == pytest.approx(values[:, 0].mean())


def test_tiny_subset_is_missing_from_some_resamples():
    values = np.full((50, 1), np.nan)
    values[7] = 0.25
    assert np.isnan(resampled_means(values, 500, 0)).mean() == pytest.approx((1 - 1 / 50) ** 50, abs=0.06)
    assert bootstrap(values, resamples=500)[0] == (0.25, 0.25, 0.25)


def test_constant_column_has_no_width():
    assert bootstrap(np.full((10, 1), 0.1))[0] == pytest.approx((0.1, 0.1, 0.1), abs=1e-7)
    assert bootstrap(np.random.default_rng(0).random((10, 1)), resamples=0)[0].low > 0


def test_paired_difference_sees_what_unpaired_intervals_hide():
    rng = np.random.default_rng(0)
    second = (rng.random(500) < 0.5).astype(float)
    first = second.copy()
    first[np.flatnonzero(second == 0)[:20]] = 1  # better on 20 requests, worse on none
    difference = paired_difference(first, second)
    assert difference.value == pytest.approx(0.04)
    assert 0 < difference.low < 0.04 < difference.high
    assert difference.p < 0.01
    one, other = bootstrap(first[:, None])[0], bootstrap(second[:, None])[0]
    assert one.low < other.high  # apart, they overlap
    assert paired_difference(second, first).high == pytest.approx(-difference.low, abs=1e-6)


def test_no_difference():
    values = np.random.default_rng(0).random(100)
    assert paired_difference(values, values) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="same requests"):
        paired_difference(values, values[1:])
