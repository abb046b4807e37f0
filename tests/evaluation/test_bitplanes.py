# SPDX-License-Identifier: MIT
"""Numbers of shared attributes, counted on bits, against comparing label by label."""

import numpy as np
import pytest
import torch

from fm_bench.evaluation import bitplanes
from fm_bench.evaluation.bitplanes import WORD, BitPlanes, at_least, places


def labels(attributes: int, targets: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets ``(T, A)``, images ``(A, U)``, and what they share, ``(T, U)``."""
    rng = np.random.default_rng(seed)
    of_targets = rng.integers(0, 4, (targets, attributes))  # 0 stands for missing, and no image has it
    of_images = rng.integers(1, 4, (attributes, images))
    return of_targets, of_images, (of_targets[:, :, None] == of_images).sum(axis=1)


def digits_of(planes: BitPlanes, targets: list[int], words: slice) -> list[torch.Tensor]:
    """Binary digits of what these targets share with the images of these words."""
    free = torch.empty((64, len(targets), words.stop - words.start), dtype=torch.int64)
    return planes.sums(words).of(np.array(targets), list(free))


def numbers(digits: list[torch.Tensor]) -> np.ndarray:
    """``(t, 64 w)`` numbers with the binary ``digits (t, w)``, lowest first."""
    bits = [np.unpackbits(digit.numpy().view(np.uint8), axis=1, bitorder="little").astype(int) for digit in digits]
    return np.asarray(sum(bit << place for place, bit in enumerate(bits)))


@pytest.mark.parametrize("attributes", [1, 2, 3, 4, 5, 6, 7, 9, 12, 15, 16, 31, 64])
def test_counts_are_those_of_comparing_labels(attributes: int) -> None:
    targets, images, truth = labels(attributes, 5, 200, attributes)
    planes = BitPlanes(targets, images)
    digits = digits_of(planes, [*range(5)], slice(0, planes.words))
    assert len(digits) == attributes.bit_length()
    assert planes.words == 4
    found = numbers(digits)
    np.testing.assert_array_equal(found[:, :200], truth)
    assert not found[:, 200:].any(), "no image stands behind the last bits"


def test_some_targets_and_some_words_are_the_rows_and_columns_of_all() -> None:
    targets, images, truth = labels(12, 9, 640, 0)
    digits = digits_of(BitPlanes(targets, images), [7, 2], slice(3, 5))
    np.testing.assert_array_equal(numbers(digits), truth[[7, 2], 3 * WORD : 5 * WORD])


@pytest.mark.parametrize("attributes", [1, 3, 7, 12, 16])
def test_a_floor_keeps_what_reaches_it(attributes: int) -> None:
    targets, images, truth = labels(attributes, 40, 2 * WORD, 1)
    digits = digits_of(BitPlanes(targets, images), [*range(40)], slice(0, 2))
    for floor in range(attributes + 1):
        mask = at_least(digits, floor)
        np.testing.assert_array_equal(numbers([mask]), truth >= floor)
        np.testing.assert_array_equal(places(mask.numpy().view(np.uint64).ravel()), np.flatnonzero(truth >= floor))
    np.testing.assert_array_equal(numbers(digits), truth, "the digits themselves are not written to")


@pytest.mark.parametrize("room", [1, 100, 1 << 20])
@pytest.mark.parametrize("most", [1, 2, 300])
def test_every_target_has_a_floor_and_a_wanted_number_of_its_own(
    monkeypatch: pytest.MonkeyPatch, room: int, most: int
) -> None:
    monkeypatch.setattr(bitplanes, "_ROOM", room)
    targets, images, truth = labels(12, 300, 3 * WORD - 5, 2)
    copies = np.random.default_rng(0).integers(1, most + 1, 3 * WORD - 5)
    wanted = truth.max(axis=1) + np.arange(300) % 2
    floor = np.minimum(np.arange(300) % 13, wanted)
    reached, found = told(BitPlanes(targets, images, copies), floor, wanted, slice(1, 3))
    levels = np.arange(13)
    at_least_so_many = ((truth[:, WORD:, None] >= levels) * copies[WORD:, None]).sum(axis=1)
    np.testing.assert_array_equal(reached, np.where(levels >= floor[:, None], at_least_so_many, 0))
    expected = truth == wanted[:, None]
    expected[:, :WORD] = False
    assert 0 < expected.sum() < 300
    assert found == list(zip(*np.nonzero(expected), strict=True))


def test_where_nothing_is_shared_all_images_are_counted_and_no_bit_beyond_them() -> None:
    targets, images = np.zeros((2, 3), int), np.ones((3, WORD + 1), int)
    reached, found = told(BitPlanes(targets, images), np.zeros(2, int), np.array([0, 3]), slice(0, 2))
    np.testing.assert_array_equal(reached, [[WORD + 1, 0, 0, 0]] * 2)
    assert found == [(0, image) for image in range(WORD + 1)]


def told(
    planes: BitPlanes, floor: np.ndarray, wanted: np.ndarray, words: slice
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """What ``reaching`` tells of all targets, each of them once, by target."""
    reached: dict[int, np.ndarray] = {}
    found: list[tuple[int, int]] = []

    def take(some: np.ndarray, counted: np.ndarray, row: np.ndarray, image: np.ndarray) -> None:
        assert not reached.keys() & set(some.tolist()), "told twice"
        reached.update(zip(some.tolist(), counted, strict=True))
        pairs = list(zip(row.tolist(), image.tolist(), strict=True))
        assert pairs == sorted(pairs)
        found.extend(zip(some[row].tolist(), image.tolist(), strict=True))

    planes.reaching(floor, wanted, words, take)
    return np.stack([reached[target] for target in range(len(floor))]), sorted(found)


def test_places_finds_every_bit_in_order() -> None:
    mask = np.zeros(6, np.uint64)
    assert len(places(mask)) == 0
    expected = np.array([0, 7, 8, 63, 64, 130, 191, 192, 383])
    bits = np.zeros(6 * WORD, np.uint8)
    bits[expected] = 1
    mask = np.packbits(bits, bitorder="little").view(np.uint64)
    np.testing.assert_array_equal(places(mask), expected)
    np.testing.assert_array_equal(places(~np.zeros(2, np.uint64)), np.arange(2 * WORD))
