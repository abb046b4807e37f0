# SPDX-License-Identifier: MIT
"""Whether the chance of a false difference is what it says, where only seeds and requests make one."""

import itertools
import math

import numpy as np
import pytest
from records import outcomes
from scipy.stats import t as student

from fm_bench.leaderboard import resampling
from fm_bench.leaderboard.groups import LEVEL, Pair, _apart
from fm_bench.leaderboard.resampling import Noise, Scores, contrast, sample

REQUESTS = 400


def row(rng, name, seeds, rate=0.5, spread=0.03):
    """Hits of a method whose seeds differ by ``spread``, on requests of which some are harder for everyone."""
    hard = np.linspace(-0.3, 0.3, REQUESTS)
    trained = rate + spread * rng.standard_normal(seeds)
    return Scores(name, tuple((rng.random(REQUESTS) < one + hard).astype(float) for one in trained))


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 300)  # as many as an error within 4 % needs


def told_apart(rows, asked):
    """The pairs of rows that a table tells apart, the better first."""
    samples = sample(dict(enumerate(rows)), f"{asked:08x}")
    noise = Noise.pooled(one.runs for one in samples.values())
    pairs = {
        (a, b): Pair(found.value, found.p)
        for a, b in itertools.combinations(samples, 2)
        for found in [contrast(samples[a], samples[b], noise)]
    }
    return _apart(pairs)


@pytest.mark.parametrize("seeds", [(3,) * 16, (1,) * 10 + (3,) * 6])
def test_equal_rows_are_seldom_told_apart(few_resamples, seeds):
    rng = np.random.default_rng(5)
    tables = 60
    wrong = sum(
        bool(told_apart([row(rng, f"r{n}", count) for n, count in enumerate(seeds)], asked)) for asked in range(tables)
    )
    assert wrong <= 2 * LEVEL * tables


def test_a_real_difference_is_found_though_seeds_differ(few_resamples):
    rng = np.random.default_rng(6)
    seeds = (3, 3, 1, 3, 3, 3, 1, 3)
    found = [
        told_apart([row(rng, f"r{n}", count, 0.4 + 0.25 * (n < 2)) for n, count in enumerate(seeds)], asked)
        for asked in range(10)
    ]
    real = {(a, b) for a in range(2) for b in range(2, len(seeds))}
    assert all(set(pairs) <= real for pairs in found)
    assert sum(len(pairs) for pairs in found) > 0.9 * len(real) * len(found)


@pytest.mark.parametrize("seeds", [(3, 3), (3, 1), (1, 1)])
def test_an_interval_misses_in_about_one_of_twenty(few_resamples, seeds):
    rng = np.random.default_rng(7)
    missed = 0
    for asked in range(300):
        compared = [row(rng, f"r{n}", count, spread=0.06) for n, count in enumerate(seeds)]
        others = [row(rng, f"o{n}", 3, spread=0.06) for n in range(3)]
        x, y, *rest = sample(dict(enumerate(compared + others)), f"{asked:08x}").values()
        found = contrast(x, y, Noise.pooled(one.runs for one in (x, y, *rest)))
        missed += not found.low <= 0 <= found.high
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert 0.01 < missed / 300 < 0.075


def test_the_variance_of_seeds_is_pooled_over_the_rows_that_have_several():
    steady, noisy, alone = np.array([0.5, 0.6]), np.array([0.2, 0.4, 0.6]), np.array([0.9])
    noise = Noise.pooled([steady, noisy, alone])
    assert noise == (pytest.approx((0.005 + 0.08) / 3), 3)
    assert noise.of(alone) == pytest.approx(noise.variance)
    assert noise.of(steady) == pytest.approx(noise.variance / 2)
    assert noise.of(noisy) == pytest.approx(0.04 / 3)  # its own, which is larger
    assert Noise.pooled([alone]) == Noise() == (0, 0)
    assert Noise.pooled([np.array([0.5, np.nan])]) == Noise()  # a ratio that one seed does not have


def test_the_interval_is_that_of_requests_and_seeds_together():
    rates = np.linspace(0.4, 0.6, 4)
    x = Scores("x", tuple(outcomes(rate).astype(float) for rate in rates))
    y = Scores("y", (outcomes(0.5).astype(float),))
    a, b = sample({0: x, 1: y}, "some").values()
    noise = Noise.pooled([a.runs])
    found = contrast(a, b, noise)
    requests = np.var(x.mean - y.mean) / len(x.mean)
    trained = np.var([seed.mean() for seed in x.seeds], ddof=1) * (1 / 4 + 1)
    df = 3 * ((requests + trained) / trained) ** 2
    half = student.ppf(0.975, df) * math.sqrt(requests + trained)
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half), rel=0.02)
    assert contrast(b, a, noise)[:3] == pytest.approx((-found.value, -found.high, -found.low))
    unknown = contrast(a, b, Noise())
    assert unknown.high - unknown.low < found.high - found.low


def test_scores_of_the_same_networks_vary_by_what_training_does_to_their_difference():
    """A method beside itself, on other requests or by another metric: a good seed is good at both."""
    hits = [outcomes(rate, 400) for rate in (0.3, 0.5, 0.7)]
    easier = [np.maximum(seed, np.arange(400) < 100) for seed in hits]
    row, other = (Scores("row", tuple(seed.astype(float) for seed in of)) for of in (easier, hits))
    for asked in ("some", "others"):
        x, y = sample({0: row}, "some")[0], sample({0: other}, asked)[0]
        assert contrast(x, y, Noise.pooled([x.runs - y.runs])).low > 0, asked
        apart = y._replace(row="another")
        found = contrast(x, apart, Noise.pooled([x.runs, apart.runs]))
        assert found.low < 0 < found.high


def test_without_any_spread_rows_are_equal_or_apart_beyond_doubt():
    sides = {name: Scores(name, (np.full(9, value),)) for name, value in (("x", 1.0), ("y", 0.0))}
    ones, zeros = sample(sides, "some").values()
    assert contrast(ones, zeros, Noise()) == (1, 1, 1, 0, 0, 0, 0)
    assert contrast(ones, ones._replace(row="y"), Noise()) == (0, 0, 0, 0, 0, 0, 1)
