# SPDX-License-Identifier: MIT
"""Pictures cut to the boxes of their garments."""

import numpy as np
import pytest

from fm_bench.data.crops import crop, cropped
from fm_bench.data.garments import GarmentsReader
from fm_bench.errors import UserError
from tests.data.catalogues import dataset


def test_a_crop_is_what_lies_inside_the_box():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[10:30, 20:60] = [200, 100, 50]
    inside = crop(picture, np.array([0.25, 0.25, 0.75, 0.75]), (16, 16))
    assert inside.shape == (16, 16, 3)
    assert (inside == [200, 100, 50]).all()
    half = crop(picture, np.array([0.0, 0.25, 0.5, 0.75]), (16, 16))
    assert (half[:, 10:] == [200, 100, 50]).all()
    assert not half[:, :6].any()


@pytest.mark.parametrize("box", [(0.5, 0.5, 0.5, 0.5), (1, 1, 1, 1), (-0.2, -0.1, 1.2, 1.3), (0, 0, 1, 1)])
def test_no_box_is_too_small_or_too_large(box):
    picture = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    assert crop(picture, np.array(box, np.float32), (8, 12)).shape == (8, 12, 3)


def test_garments_fill_their_crops():
    whole = GarmentsReader(train=12, val=0, test=0, street=0.3).read()
    cut = cropped(whole)
    assert cut.source.digest != whole.source.digest
    assert np.array_equal(cut.catalog.labels, whole.catalog.labels)
    for name in whole.catalog.image[:12]:
        parts = whole.source.parts(str(name), (64, 64))
        rows, columns = np.nonzero(np.any(list(parts.values()), axis=0))
        picture = whole.source.read(str(name), (128, 128))
        expected = picture[2 * rows.min() : 2 * rows.max() + 2, 2 * columns.min() : 2 * columns.max() + 2]
        found = cut.source.read(str(name), (64, 64))
        assert np.abs(found.mean((0, 1)) - expected.mean((0, 1))).max() < 16


def test_data_without_boxes_are_refused():
    with pytest.raises(UserError, match="come without boxes"):
        cropped(dataset())
