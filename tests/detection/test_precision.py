# SPDX-License-Identifier: MIT
"""Average precision against numbers computed by hand."""

import numpy as np
import pytest

from fm_bench.detection.precision import Detections, average_precision, correct, precision_interval

TRUE = [0.1, 0.1, 0.6, 0.6]
CLOSE = [0.1, 0.1, 0.6, 0.55]  # IoU 0.9
AWAY = [0.5, 0.5, 1.0, 1.0]


def found(*rows):
    """Rows of (picture, box, score)."""
    picture, box, score = zip(*rows, strict=True)
    return Detections(np.array(picture), np.array(box, np.float32), np.array(score, np.float32))


def truth(n):
    return np.tile(np.array(TRUE, np.float32), (n, 1))


def precision(detections, n):
    return float(average_precision(detections, correct(detections, truth(n), 0.7), np.ones((1, n)))[0])


def test_perfect_and_hopeless():
    assert precision(found((0, TRUE, 0.1), (1, CLOSE, 0.9)), 2) == pytest.approx(1)
    assert precision(found((0, AWAY, 0.1), (1, AWAY, 0.9)), 2) == 0


def test_right_wrong_right():
    # precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: area 1/2 x 1 + 1/2 x 2/3
    assert precision(found((0, TRUE, 0.9), (1, AWAY, 0.8), (1, TRUE, 0.7)), 2) == pytest.approx(5 / 6)


def test_wrong_first():
    assert precision(found((1, AWAY, 0.9), (0, TRUE, 0.8)), 2) == pytest.approx(1 / 4)


def test_the_envelope_takes_the_best_precision_from_a_recall_on():
    # right at ranks 2 and 3 of three pictures: precisions 0, 1/2, 2/3 -> 2/3 up to recall 2/3
    rows = found((0, AWAY, 0.9), (1, TRUE, 0.8), (2, TRUE, 0.7))
    assert precision(rows, 3) == pytest.approx(2 / 3 * 2 / 3)


def test_a_duplicate_is_wrong():
    rows = found((0, TRUE, 0.9), (0, CLOSE, 0.8), (1, TRUE, 0.7))
    assert correct(rows, truth(2), 0.7).tolist() == [True, False, True]
    assert precision(rows, 2) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_of_two_matches_the_higher_score_is_right():
    rows = found((0, TRUE, 0.5), (0, CLOSE, 0.8))
    assert correct(rows, truth(1), 0.7).tolist() == [False, True]
    tied = found((0, TRUE, 0.5), (0, CLOSE, 0.5))
    assert correct(tied, truth(1), 0.7).tolist() == [True, False]


def test_missed_garments_cost_recall():
    assert precision(found((0, TRUE, 0.9)), 4) == pytest.approx(1 / 4)


def test_equal_scores_enter_together_whatever_their_order():
    one = found((0, TRUE, 0.5), (1, AWAY, 0.5))
    other = found((1, AWAY, 0.5), (0, TRUE, 0.5))
    assert precision(one, 2) == precision(other, 2) == pytest.approx(1 / 2 * 1 / 2)


def test_the_threshold_itself_counts():
    rows = found((0, [0.1, 0.1, 0.6, 0.45], 0.9))  # IoU 0.7
    assert correct(rows, truth(1), 0.69).all()
    assert not correct(rows, truth(1), 0.71).any()


def test_nothing_found_at_all():
    empty = Detections(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    assert precision(empty, 3) == 0
    assert empty.best(2).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_weights_repeat_pictures():
    rows = found((0, TRUE, 0.9), (1, AWAY, 0.8), (1, TRUE, 0.7), (2, AWAY, 0.6))
    right = correct(rows, truth(3), 0.7)
    doubled = found(
        (0, TRUE, 0.9), (1, AWAY, 0.8), (1, TRUE, 0.7), (2, AWAY, 0.6), (3, AWAY, 0.8), (3, TRUE, 0.7)
    )  # fmt: skip
    weighted = average_precision(rows, right, np.array([[1.0, 2.0, 1.0]]))[0]
    assert weighted == pytest.approx(precision(doubled, 4))


def test_the_interval_holds_the_value_and_the_pictures_numbers_average_to_it():
    rng = np.random.default_rng(0)
    rows = found(*[(i, TRUE if rng.random() < 0.6 else AWAY, rng.random()) for i in range(60)])
    estimate, each = precision_interval(rows, truth(60), 0.7, resamples=200)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == pytest.approx(precision(rows, 60))
    assert each.mean() == pytest.approx(estimate.value)
    spread = 1.96 * each.std() / np.sqrt(60)  # the jackknife and the bootstrap agree
    assert (estimate.high - estimate.low) / 2 == pytest.approx(spread, rel=0.3)
    assert precision_interval(rows, truth(60), 0.7, resamples=200)[0] == estimate


def test_best_takes_the_first_of_each_picture():
    rows = found((0, CLOSE, 0.9), (0, AWAY, 0.8), (2, TRUE, 0.1))
    assert rows.best(3) == pytest.approx(np.array([CLOSE, [0, 0, 1, 1], TRUE]))
