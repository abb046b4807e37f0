# SPDX-License-Identifier: MIT
"""How requests fail, on cases worked out by hand."""

import numpy as np
import pytest

from fm_bench.evaluation.failures import failures

NAN = np.nan


def test_two_requests_by_hand():
    # colour, sleeve, fit. The first request: red (0) to blue (1), long sleeves (2) and slim fit (0) stay.
    before = np.array([[0, 2, 0], [3, 1, -1]])
    target = np.array([[1, 2, 0], [3, 0, -1]])
    changed = np.array([[True, False, False], [False, True, False]])
    found = np.array(
        [
            [[1, 2, 0], [0, 2, 0], [0, 2, 1], [2, -1, 0]],  # blue, red, red, a third colour; one sleeve is unknown
            [[3, 1, 0], [3, 1, 0], [-1, 1, 0], [2, 0, 0]],
        ]
    )
    result = failures(found, before, target, changed)
    np.testing.assert_allclose(result.followed, [[1 / 4, NAN, NAN], [NAN, 1 / 4, NAN]])
    np.testing.assert_allclose(result.ignored, [[2 / 4, NAN, NAN], [NAN, 3 / 4, NAN]])
    np.testing.assert_allclose(result.lost, [[NAN, 0, 1 / 4], [1 / 3, NAN, NAN]])
    rates = result.rates()
    assert {name: rate.value for name, rate in rates.items()} == pytest.approx(
        {"followed": 1 / 4, "ignored": 5 / 8, "lost": (1 / 8 + 1 / 3) / 2}
    )
    assert all(rate.low <= rate.value <= rate.high for rate in rates.values())
    assert result.by_attribute() == [
        {"followed": 1 / 4, "ignored": 1 / 2, "lost": pytest.approx(1 / 3)},
        {"followed": 1 / 4, "ignored": 3 / 4, "lost": 0.0},
        {"lost": 1 / 4},
    ]


def test_what_was_found_is_what_was_shown_and_everything_is_ignored():
    before, target = np.array([[0, 1]]), np.array([[1, 1]])
    result = failures(np.tile(before, (1, 10, 1)), before, target, before != target)
    assert {name: rate.value for name, rate in result.rates().items()} == {"followed": 0, "ignored": 1, "lost": 0}


def test_an_unknown_old_value_cannot_stay_and_a_wish_for_the_own_value_is_not_ignored():
    before, target = np.array([[-1, 0], [0, 0]]), np.array([[1, 0], [0, 0]])
    changed = np.array([[True, False], [True, False]])
    result = failures(np.zeros((2, 3, 2), int), before, target, changed)
    assert np.isnan(result.ignored).all()
    np.testing.assert_allclose(result.followed[:, 0], [0, 1])


def test_without_changes_only_loss_is_told_and_nothing_found_says_nothing():
    before = np.array([[0, 1], [1, 1]])
    found = np.array([[[0, 0], [1, 0]], [[-1, -1], [-1, -1]]])
    result = failures(found, before, before, np.zeros_like(before, bool))
    assert result.rates().keys() == {"lost"}
    assert result.rates()["lost"].value == pytest.approx(0.75)
    assert result.by_attribute() == [{"lost": 0.5}, {"lost": 1.0}]


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="found"):
        failures(np.zeros((2, 3, 4), int), np.zeros((2, 3), int), np.zeros((2, 4), int), np.zeros((2, 4), bool))


def test_against_a_loop():
    rng = np.random.default_rng(0)
    R, k, A = 40, 5, 4
    found, before = rng.integers(-1, 3, (R, k, A)), rng.integers(-1, 3, (R, A))
    changed = rng.random((R, A)) < 0.4
    target = np.where(changed, rng.integers(0, 3, (R, A)), before)
    result = failures(found, before, target, changed)
    for r in range(R):
        for a in range(A):
            labels = [x for x in found[r, :, a] if x >= 0]
            expected = {"followed": NAN, "ignored": NAN, "lost": NAN}
            if labels and changed[r, a]:
                expected["followed"] = np.mean([x == target[r, a] for x in labels])
                if before[r, a] >= 0 and before[r, a] != target[r, a]:
                    expected["ignored"] = np.mean([x == before[r, a] for x in labels])
            elif labels and target[r, a] >= 0:
                expected["lost"] = np.mean([x != target[r, a] for x in labels])
            got = {name: part[r, a] for name, part in result._asdict().items()}
            assert got == pytest.approx(expected, nan_ok=True)
