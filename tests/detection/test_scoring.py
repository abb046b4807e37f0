# SPDX-License-Identifier: MIT
"""Scorers and box regression on features of which the answer is known."""

import numpy as np
import pytest

from fm_bench.detection.boxes import aligned_iou, offsets, refine
from fm_bench.detection.regions import training_regions, with_mirrored
from fm_bench.detection.scoring import discretise, learn_offsets, learn_scorer
from fm_bench.errors import UserError


def synthetic(n=1500, seed=0):
    """Features ``(n, 20)`` that tell the overlap in five of their columns, with noise."""
    rng = np.random.default_rng(seed)
    overlap = rng.uniform(0, 1, n).astype(np.float32)
    overlap[:100] = 1
    features = rng.normal(size=(n, 20))
    features[:, :5] += 4 * overlap[:, None] * np.array([1, -1, 1, -1, 1])
    return (3 * features + 7).astype(np.float16), overlap


def test_targets_are_levels():
    given = np.array([0, 0.04, 0.05, 0.149, 0.5, 0.949, 0.95, 1], np.float32)
    assert discretise(given, 10) == pytest.approx([0, 0, 0.1, 0.1, 0.5, 0.9, 1, 1])
    assert discretise(np.array([0.3, 0.7], np.float32), 1).tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["svr", "svm"])
def test_scores_order_regions_by_overlap(kind):
    features, overlap = synthetic()
    scorer = learn_scorer(kind, features, overlap, penalty=1e-2).scorer
    fresh, known = synthetic(seed=1)
    scores = scorer(fresh)[:, 0]
    assert np.corrcoef(scores, known)[0, 1] > 0.8
    if kind == "svr":
        assert np.abs(scores - known).mean() < 0.15


def test_mining_adds_wrong_regions_that_score_high_and_only_these():
    features, overlap = synthetic()
    features[-200:, :5] = features[:200, :5]  # wrong regions that look right
    overlap[-200:] = 0.2
    mined = learn_scorer("svr", features, overlap, penalty=1e-2, first=50, hard=60, rounds=3)
    plain = learn_scorer("svr", features, overlap, penalty=1e-2, first=50, rounds=0)
    assert plain.added == []
    assert mined.added
    assert max(mined.added) <= 60
    new = mined.used & ~plain.used
    assert new.sum() == sum(mined.added)
    assert (overlap[new] < 0.5).all()
    assert (plain.used <= mined.used).all()
    hard = np.zeros(len(overlap), bool)
    hard[-200:] = True
    assert new[hard].mean() > 3 * new[~hard & (overlap < 0.5)].mean()
    assert mined.scorer(features[hard]).mean() < plain.scorer(features[hard]).mean()


def test_the_same_seed_gives_the_same_scorer():
    features, overlap = synthetic()
    one, two = (learn_scorer("svm", features, overlap, first=100, seed=3).scorer for _ in range(2))
    assert np.array_equal(one.weight, two.weight)
    assert np.array_equal(one.bias, two.bias)


def test_nothing_to_tell_apart_is_an_error():
    features, _ = synthetic(50)
    with pytest.raises(UserError, match="needs both"):
        learn_scorer("svr", features, np.zeros(50, np.float32))


def test_box_regression_learns_a_linear_move():
    rng = np.random.default_rng(0)
    truth = np.tile(np.array([0.3, 0.3, 0.7, 0.7], np.float32), (400, 1))
    boxes = refine(truth, rng.uniform(-0.15, 0.15, (400, 4)))
    features = np.hstack([offsets(boxes, truth), rng.normal(size=(400, 4))]).astype(np.float32)
    overlap = aligned_iou(boxes, truth)
    moved = refine(boxes, learn_offsets(features, boxes, truth, overlap, penalty=1.0)(features))
    assert aligned_iou(moved, truth).mean() > 0.97 > overlap.mean()


def test_training_regions_hold_truth_jitter_proposals_and_mirrored_copies():
    truth = np.array([[0.2, 0.2, 0.6, 0.6], [0.4, 0.1, 0.9, 0.8]], np.float32)
    proposals = [np.array([[0, 0, 1, 1], [0.2, 0.2, 0.6, 0.55]], np.float32), np.array([[0, 0.8, 0.3, 1]], np.float32)]
    regions = training_regions(proposals, truth, jitter=5, seed=1)
    again = training_regions(proposals, truth, jitter=5, seed=1)
    assert all(np.array_equal(one, two) for one, two in zip(regions, again, strict=True))
    assert np.bincount(regions.picture)[:2].tolist() == [1 + 5 + 2, 1 + 5 + 1]
    assert (regions.overlap == 1).sum() == 4  # each true box, and its mirror image
    assert aligned_iou(regions.box, regions.truth) == pytest.approx(regions.overlap, abs=1e-5)
    mirrored = regions.picture >= 2
    assert (regions.overlap[mirrored] >= 0.5).all()
    assert mirrored.sum() == (regions.overlap[~mirrored] >= 0.5).sum()
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    assert np.array_equal(with_mirrored(images)[3], images[1, :, ::-1])
