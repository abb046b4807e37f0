# SPDX-License-Identifier: MIT
"""Maps, masks, boxes and crops: FashionSearchNet's invariants 5 to 9, and the boxes of a slow reference."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.measure import label

from fm_bench.nn.localisation import above, class_maps, component_boxes, crop_and_resize, whole

WHOLE = [0.0, 0.0, 1.0, 1.0]


def boxes(maps, **options):
    return component_boxes(above(maps, 0.2, **options), maps)


def example():
    sheet = torch.zeros(5, 5)
    for row, column, value in ((1, 1, 10.0), (1, 2, 6.0), (2, 1, 3.0), (2, 2, 1.9), (4, 4, 5.0)):
        sheet[row, column] = value
    return sheet


def test_5_maps_sum_to_the_logit():
    torch.manual_seed(0)
    features, weights = torch.randn(2, 512, 13, 13).relu(), torch.randn(2, 3, 512)
    maps = class_maps(features, weights)
    assert maps.shape == (2, 3, 13, 13)
    for reduce in (torch.sum, torch.mean):
        pooled = torch.stack([F.linear(reduce(features[i], (1, 2)), weights[i]) for i in range(2)])
        scale = 1.0 if reduce is torch.mean else 169.0
        assert torch.allclose(reduce(maps, (2, 3)), pooled, atol=5e-4 * scale / 10)


def test_6_a_positive_factor_leaves_the_box_unchanged():
    torch.manual_seed(0)
    features, weights = torch.randn(4, 16, 9, 7), torch.randn(4, 3, 16)
    found = boxes(class_maps(features, weights))
    assert torch.equal(boxes(class_maps(features, 37.0 * weights)), found)
    assert not torch.equal(boxes(class_maps(features, -weights)), found)


def test_7_worked_example():
    mask = above(example(), 0.2)
    assert mask.nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [4, 4]]
    assert boxes(example()[None, None])[0, 0].tolist() == [0.25, 0.25, 0.5, 0.5]


@pytest.mark.parametrize("sheet", [torch.zeros(5, 7), -torch.rand(5, 7) - 0.1, torch.full((5, 7), 3.0)])
def test_8_nothing_and_everything_give_the_whole_map(sheet):
    assert boxes(torch.stack([sheet, F.pad(example(), (0, 2))])[None])[0, 0].tolist() == WHOLE


def test_equal_sizes_are_told_apart_by_activation():
    sheet = torch.zeros(6, 6)
    sheet[0, 0:2] = torch.tensor([5.0, 5.0])
    sheet[5, 4:6] = torch.tensor([5.0, 5.1])
    assert boxes(sheet[None, None])[0, 0].tolist() == pytest.approx([1.0, 0.8, 1.0, 1.0])
    assert boxes(sheet.flip(0)[None, None])[0, 0].tolist() == pytest.approx([0.0, 0.8, 0.0, 1.0])


def test_corners_connect_and_maps_do_not():
    diagonal = torch.eye(4)
    assert boxes(diagonal[None, None])[0, 0].tolist() == WHOLE
    lower, upper = torch.zeros(4, 4), torch.zeros(4, 4)
    lower[3, 3], upper[0, 0] = 1.0, 1.0  # neighbours in memory, and in a stack
    found = boxes(torch.stack([lower, lower, upper])[None])[0]
    assert found.tolist() == [[1.0] * 4, [1.0] * 4, [0.0] * 4]


def test_boxes_of_a_batch_are_those_of_a_loop():
    generator = np.random.default_rng(0)
    maps = generator.normal(size=(6, 5, 7, 9)).astype(np.float32)
    found = boxes(torch.from_numpy(maps)).numpy()
    for image in range(6):
        for attribute in range(5):
            sheet = maps[image, attribute]
            parts = label(sheet > 0.2 * sheet.max(), connectivity=2)
            keys = [((parts == part).sum(), sheet[parts == part].sum()) for part in range(1, parts.max() + 1)]
            rows, columns = np.nonzero(parts == 1 + max(range(len(keys)), key=lambda part: keys[part]))
            expected = np.array([rows.min() / 6, columns.min() / 8, rows.max() / 6, columns.max() / 8])
            assert np.allclose(found[image, attribute], expected)


def test_minmax_measures_from_the_minimum():
    sheet = torch.full((4, 4), -3.0)
    sheet[1, 2] = -1.0
    assert boxes(sheet[None, None])[0, 0].tolist() == WHOLE
    third = 1 / 3
    assert boxes(sheet[None, None], minmax=True)[0, 0].tolist() == pytest.approx([third, 2 * third, third, 2 * third])


def test_9_the_whole_map_in_its_own_size_is_the_map():
    torch.manual_seed(0)
    features = torch.randn(2, 4, 13, 13)
    crops = crop_and_resize(features, whole(torch.zeros(2, 3, 13, 13)), 13)
    assert crops.shape == (2, 3, 4, 13, 13)
    for attribute in range(3):
        assert torch.allclose(crops[:, attribute], features, atol=2e-5)


def test_crops_sample_where_tensorflow_does():
    """A plane is its own bilinear interpolation: the crop's values are the sampled coordinates."""
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    features = torch.stack([rows, columns])[None]
    y1, x1, y2, x2 = 0.25, 0.5, 0.5, 1.0
    crop = crop_and_resize(features, torch.tensor([[[y1, x1, y2, x2]]]), 3)[0, 0]
    for i in range(3):
        assert torch.allclose(crop[0, i], torch.tensor(y1 * 4 + i * (y2 - y1) * 4 / 2))
        assert torch.allclose(crop[1, :, i], torch.tensor(x1 * 6 + i * (x2 - x1) * 6 / 2))


def test_one_cell_is_constant_and_one_sample_is_the_middle():
    features = torch.randn(1, 2, 5, 5)
    crop = crop_and_resize(features, torch.tensor([[[0.25, 0.5, 0.25, 0.5]]]), 4)[0, 0]
    assert torch.allclose(crop, features[0, :, 1, 2][:, None, None].expand(2, 4, 4), atol=1e-6)
    middle = crop_and_resize(features, torch.tensor([[WHOLE]]), 1)[0, 0]
    assert torch.allclose(middle[:, 0, 0], features[0, :, 2, 2], atol=1e-6)


def test_14_boxes_carry_no_gradient():
    maps = torch.randn(1, 2, 5, 5, requires_grad=True)
    assert not boxes(maps).requires_grad
    places = torch.rand(1, 2, 4, requires_grad=True)
    features = torch.randn(1, 3, 5, 5, requires_grad=True)
    crop_and_resize(features, places, 3).square().sum().backward()
    assert features.grad.abs().sum() > 0
    assert places.grad is None
