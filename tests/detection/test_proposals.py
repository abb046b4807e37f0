# SPDX-License-Identifier: MIT
"""Selective search on pictures whose regions are known."""

import numpy as np
import pytest

from fm_bench.data.garments import GarmentsReader
from fm_bench.detection.boxes import iou
from fm_bench.detection.proposals import SelectiveSearch, _colour, _texture, describe, merge


def picture(box=(30, 20, 90, 100), seed=0):
    noise = np.random.default_rng(seed).normal(0, 3, (128, 128, 3))
    image = np.full((128, 128, 3), 200.0)
    left, top, right, bottom = box
    image[top:bottom, left:right] = (40, 60, 160)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("box", [(30, 20, 90, 100), (0, 0, 70, 60), (60, 64, 127, 128)])
def test_an_obvious_rectangle_is_found(box):
    found = SelectiveSearch()(picture(box))
    assert iou(found, np.array([box], np.float32) / 128).max() > 0.9


def test_a_rectangle_of_two_colours_is_found_whole_and_in_parts():
    image = picture((30, 20, 90, 60))
    image[60:100, 30:90] = picture((0, 0, 128, 128))[60:100, 30:90][..., ::-1]
    found = SelectiveSearch()(image)
    for box in ((30, 20, 90, 60), (30, 60, 90, 100), (30, 20, 90, 100)):
        assert iou(found, np.array([box], np.float32) / 128).max() > 0.85


def test_the_same_picture_gives_the_same_boxes():
    assert np.array_equal(SelectiveSearch()(picture()), SelectiveSearch()(picture()))


def test_proposals_are_of_the_wanted_size_and_shape_and_all_different():
    dataset = GarmentsReader(train=6, val=1, test=1, street=1 / 3, views=3).read()
    search = SelectiveSearch(limit=25)
    for name in dataset.catalog.image[:6]:
        found = search(dataset.source.read(str(name), (128, 128)))
        width, height = (found[:, 2:] - found[:, :2]).T
        assert 1 <= len(found) <= 25
        assert (width * height).min() >= 0.09 - 1e-6
        assert (width * height).max() <= 0.95 + 1e-6
        assert np.maximum(width / height, height / width).max() <= 3 + 1e-5
        overlap = iou(found, found) - np.eye(len(found))
        assert overlap.max() <= 0.9 + 1e-6


def test_a_picture_of_nothing_gives_itself():
    assert SelectiveSearch()(np.full((64, 64, 3), 128, np.uint8)).tolist() == [[0, 0, 1, 1]]


def test_alike_neighbours_merge_first_and_others_never_before_they_touch():
    segments = np.repeat(np.array([[0, 1, 2]]), 30, axis=0).repeat(10, axis=1)
    image = np.zeros((30, 30, 3), np.uint8)
    image[:, :20] = (200, 30, 30)
    image[:, 20:] = (30, 30, 200)
    regions = describe(segments, _colour(image), _texture(image))
    assert regions.touches.tolist() == [[False, True, False], [True, False, True], [False, True, False]]
    assert regions.size.tolist() == [300, 300, 300]
    assert regions.colour.sum(axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    boxes = merge(regions, "ctsf")
    assert boxes.tolist() == [[0, 0, 10, 30], [10, 0, 20, 30], [20, 0, 30, 30], [0, 0, 20, 30], [0, 0, 30, 30]]


def test_most_true_boxes_are_among_the_proposals():
    dataset = GarmentsReader(train=60, val=1, test=1, street=1 / 3, views=3).read()
    search, reached = SelectiveSearch(), []
    for row in range(40):
        found = search(dataset.source.read(str(dataset.catalog.image[row]), (128, 128)))
        reached.append(iou(found, dataset.catalog.box[row : row + 1]).max() >= 0.7)
    assert np.mean(reached) >= 0.85
