# SPDX-License-Identifier: MIT
"""Numbers of shared attributes, counted on bits, against comparing label by label."""

import numpy as np
import pytest

from fm_bench.evaluation.bitplanes import WORD, BitPlanes, at_least, numbers, places


def labels(attributes: int, targets: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets ``(T, A)``, images ``(A, U)``, and what they share, ``(T, U)``."""
    rng = np.random.default_rng(seed)
    of_targets = rng.integers(0, 4, (targets, attributes))  # 0 stands for missing, and no image has it
    of_images = rng.integers(1, 4, (attributes, images))
    return of_targets, of_images, (of_targets[:, :, None] == of_images).sum(axis=1)


@pytest.mark.parametrize("attributes", [1, 2, 3, 4, 5, 6, 7, 9, 12, 15, 16, 31, 64])
def test_counts_are_those_of_comparing_labels(attributes: int) -> None:
    targets, images, truth = labels(attributes, 5, 200, attributes)
    planes = BitPlanes(targets, images)
    digits = planes.shared(slice(0, 5), slice(0, planes.words))
    assert len(digits) == attributes.bit_length()
    assert planes.words == 4
    everywhere = np.arange(5 * 4 * WORD)
    found = numbers(digits, everywhere).reshape(5, -1)
    np.testing.assert_array_equal(found[:, :200], truth)
    assert not found[:, 200:].any(), "no image stands behind the last bits"


def test_some_targets_and_some_words_are_the_rows_and_columns_of_all() -> None:
    targets, images, truth = labels(12, 9, 640, 0)
    digits = BitPlanes(targets, images).shared(np.array([7, 2]), slice(3, 5))
    found = numbers(digits, np.arange(2 * 2 * WORD)).reshape(2, -1)
    np.testing.assert_array_equal(found, truth[[7, 2], 3 * WORD : 5 * WORD])


@pytest.mark.parametrize("attributes", [1, 3, 7, 12, 16])
def test_a_floor_of_each_target_keeps_what_reaches_it(attributes: int) -> None:
    targets, images, truth = labels(attributes, 40, 2 * WORD, 1)
    floor = np.arange(40) % (attributes + 1)
    digits = BitPlanes(targets, images).shared(slice(0, 40), slice(0, 2))
    found = places(at_least(digits, floor))
    np.testing.assert_array_equal(found, np.flatnonzero(truth >= floor[:, None]))
    np.testing.assert_array_equal(numbers(digits, found), truth[truth >= floor[:, None]])
    assert 0 < len(found) < truth.size


def test_places_finds_every_bit_in_order() -> None:
    mask = np.zeros((2, 3), np.uint64)
    assert len(places(mask)) == 0
    expected = np.array([0, 7, 8, 63, 64, 130, 191, 192, 383])
    bits = np.zeros(2 * 3 * WORD, np.uint8)
    bits[expected] = 1
    mask = np.packbits(bits, bitorder="little").view(np.uint64).reshape(2, 3)
    np.testing.assert_array_equal(places(mask), expected)
    np.testing.assert_array_equal(places(~np.zeros((1, 2), np.uint64)), np.arange(2 * WORD))
