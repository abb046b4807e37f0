# SPDX-License-Identifier: MIT
"""Maps and boxes over pictures, and their overlap with true parts."""

import cv2
import numpy as np
import pytest
import torch

from fm_bench import activation_sheet as module
from fm_bench.activation_sheet import activation_sheet, overlay, part_iou
from fm_bench.errors import UserError
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.nn.localisation import picture_boxes

ATTRIBUTES = {"colour": ["red", "blue"], "sleeve_length": ["none", "short"], "fit": ["slim", "wide"]}


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    return FashionSearchNet(ATTRIBUTES, "resnet10t", blocks=1, maps=[8, 8, 8], dim=4, crop=2, global_dim=4)


def test_cells_cover_the_picture():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 1.0, 0.5, 1.0]])
    assert picture_boxes(boxes, (5, 4)).flatten().tolist() == pytest.approx([0, 0, 1, 1, 0.75, 0.2, 1.0, 0.6])


def test_the_sheet_shows_what_was_asked(method, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 48, 32, 3), dtype=np.uint8)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255.0
    method.train()
    path = activation_sheet(method, pictures, images, ["fit", "colour"], tmp_path / "sheet.png")
    assert method.training
    sheet = cv2.imread(str(path))
    assert sheet.shape[0] > 300
    assert sheet.shape[1] == round(1.3 * 3 * 130)
    with pytest.raises(UserError, match="fit"):
        activation_sheet(method, pictures, images, ["fits"], tmp_path / "sheet.png")
    with pytest.raises(UserError, match="nothing to draw"):
        activation_sheet(method, pictures, images, [], tmp_path / "sheet.png")


def test_heat_is_where_the_map_is():
    picture = np.full((40, 40, 3), 128, np.uint8)
    heat = np.full((4, 4), -1.0, np.float32)
    heat[3, 0] = 2.0
    red = overlay(picture, heat)[..., 0].astype(int) - overlay(picture, heat)[..., 2]
    assert red[35:, :5].min() > 40
    assert red[:20].max() < -40
    assert overlay(picture, -np.ones((4, 4), np.float32)).shape == picture.shape


def test_overlap_with_parts_is_worked_out(method, monkeypatch):
    boxes = torch.tensor([[[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1]], [[0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]]])
    monkeypatch.setattr(module, "_look", lambda method, images: (torch.zeros(2, 3, 2, 2), boxes.float(), None))
    monkeypatch.setattr(module, "_regions", lambda method, images: boxes.float())  # torso, sleeves, collar
    sleeves, torso = np.zeros((2, 8, 8), np.bool_), np.zeros((2, 8, 8), np.bool_)
    sleeves[0, :4] = True  # exactly the upper row of cells; the second picture has no sleeves
    torso[:, 2:4, 2:4] = True  # a quarter of the upper left cell
    found = part_iou(method, torch.zeros(2, 3, 8, 8), {"sleeves": sleeves, "torso": torso, "hood": torso})
    assert set(found) == {"sleeves", "torso"}
    assert found["sleeves"] == pytest.approx({"sleeve_length": 1.0, "region": 1.0, "whole picture": 0.5})
    assert found["torso"] == pytest.approx({"fit": (4 / 64 + 4 / 16) / 2, "region": 4 / 64, "whole picture": 4 / 64})
    nothing = part_iou(method, torch.zeros(2, 3, 8, 8), {"collar": np.zeros((2, 8, 8), np.bool_)})
    assert nothing == {}


def test_parts_of_real_boxes_are_shares(method):
    masks = {"torso": np.ones((2, 32, 32), np.bool_)}
    found = part_iou(method, torch.randn(2, 3, 32, 32), masks)["torso"]
    assert found["whole picture"] == pytest.approx(1.0)
    assert 0 < found["fit"] <= 1
    assert 0 < found["region"] <= 1
