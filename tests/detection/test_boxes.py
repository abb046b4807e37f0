# SPDX-License-Identifier: MIT
"""Overlap, refinement, suppression and cropping of boxes."""

import numpy as np
import pytest

from fm_bench.detection.boxes import aligned_iou, crop, iou, mirror, offsets, refine, suppress, with_context


def boxes(*rows):
    return np.array(rows, np.float32)


def random_boxes(n, seed):
    corners = np.random.default_rng(seed).uniform(0.05, 0.95, (n, 2, 2))
    low, high = corners.min(axis=1), corners.max(axis=1) + 0.02
    return np.hstack([low, high]).astype(np.float32).clip(0, 1)


def test_overlap_by_hand():
    one = boxes([0, 0, 0.5, 0.5])
    others = boxes([0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5], [0.5, 0.5, 1, 1], [0, 0, 1, 1], [0.2, 0.2, 0.2, 0.2])
    assert iou(one, others)[0] == pytest.approx([1, 1 / 3, 0, 1 / 4, 0])
    assert aligned_iou(np.repeat(one, 5, axis=0), others) == pytest.approx([1, 1 / 3, 0, 1 / 4, 0])
    nothing = boxes([0.2, 0.2, 0.2, 0.2])
    assert iou(nothing, nothing) == 0 == aligned_iou(nothing, nothing)


def test_refinement_inverts_its_parametrisation():
    first, second = random_boxes(200, 0), random_boxes(200, 1)
    ratio = (second[:, 2:] - second[:, :2]) / (first[:, 2:] - first[:, :2])
    mild = ((ratio < 4) & (ratio > 0.25)).all(axis=1)
    moved = refine(first[mild], offsets(first[mild], second[mild]))
    assert moved == pytest.approx(second[mild], abs=1e-5)
    assert refine(first, np.zeros((200, 4))) == pytest.approx(first, abs=1e-6)


def test_offsets_by_hand():
    moved = offsets(boxes([0.2, 0.2, 0.4, 0.6]), boxes([0.3, 0.2, 0.5, 1.0]))
    assert moved[0] == pytest.approx([0.5, 0.5, 0, np.log(2)], abs=1e-6)


def test_a_wild_refinement_stays_inside_the_picture():
    moved = refine(boxes([0.4, 0.4, 0.6, 0.6]), np.array([[5.0, -5.0, 50.0, 50.0]]))
    assert (moved >= 0).all()
    assert (moved <= 1).all()


def test_suppression_keeps_the_best_and_what_lies_apart():
    given = boxes([0, 0, 0.5, 0.5], [0.02, 0, 0.52, 0.5], [0.5, 0.5, 1, 1], [0, 0, 0.5, 0.4])
    kept = suppress(given, np.array([0.8, 0.9, 0.1, 0.85], np.float32), 0.3)
    assert kept.tolist() == [1, 2]


def test_suppression_of_equal_scores_keeps_the_earlier():
    given = boxes([0, 0, 0.5, 0.5], [0.02, 0, 0.52, 0.5])
    assert suppress(given, np.zeros(2, np.float32), 0.3).tolist() == [0]
    assert suppress(given[::-1], np.zeros(2, np.float32), 0.3).tolist() == [0]


def test_mirroring_a_box_is_mirroring_the_picture():
    image = np.zeros((1, 20, 20, 3), np.uint8)
    image[0, 4:10, 2:8] = 255
    box = boxes([0.1, 0.2, 0.4, 0.5])
    assert crop(image, box, (4, 4)).min() == 255
    assert crop(image[:, :, ::-1], mirror(box), (4, 4)).min() == 255
    assert mirror(mirror(box)) == pytest.approx(box)


def test_crops_of_any_shape_and_picture():
    images = np.stack([np.full((10, 20, 3), value, np.uint8) for value in (10, 200)])
    cut = crop(images, boxes([0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 1, 1]), (8, 6), np.array([1, 0, 1]))
    assert cut.shape == (3, 8, 6, 3)
    assert [part.min() for part in cut] == [200, 10, 200] == [part.max() for part in cut]


def test_context_shows_what_lies_around():
    image = np.zeros((1, 100, 100, 3), np.uint8)
    image[0, 25:75, 25:75] = 255
    rimmed, grown = with_context(image, boxes([0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]), 2.0)
    inner = crop(rimmed, grown, (100, 100), np.zeros(2, np.int64))[0] > 127
    assert inner[25:75, 25:75].all()
    assert inner.sum() == 50 * 50 * 3
    assert grown[1] == pytest.approx([0, 0, 1, 1])  # the whole picture reaches to the rim's edge
    unchanged, same = with_context(image, boxes([0.4, 0.4, 0.6, 0.6]), 1.0)
    assert unchanged.shape == image.shape
    assert same == pytest.approx(boxes([0.4, 0.4, 0.6, 0.6]))
