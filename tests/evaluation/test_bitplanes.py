# SPDX-License-Identifier: MIT
"""Numbers of shared attributes, counted on bits, against comparing label by label."""

import numpy as np
import pytest

from fm_bench.evaluation.bitplanes import WORD, BitPlanes, at_least, numbers, places
from fm_bench.retrieval import distances


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
    digits = planes.sums(slice(0, planes.words)).of(np.arange(5))
    assert len(digits) == attributes.bit_length()
    assert planes.words == 4
    everywhere = np.arange(5 * 4 * WORD)
    found = numbers(digits, everywhere).reshape(5, -1)
    np.testing.assert_array_equal(found[:, :200], truth)
    assert not found[:, 200:].any(), "no image stands behind the last bits"


def test_some_targets_and_some_words_are_the_rows_and_columns_of_all() -> None:
    targets, images, truth = labels(12, 9, 640, 0)
    digits = BitPlanes(targets, images).sums(slice(3, 5)).of(np.array([7, 2]))
    found = numbers(digits, np.arange(2 * 2 * WORD)).reshape(2, -1)
    np.testing.assert_array_equal(found, truth[[7, 2], 3 * WORD : 5 * WORD])


@pytest.mark.parametrize("attributes", [1, 3, 7, 12, 16])
def test_a_floor_keeps_what_reaches_it(attributes: int) -> None:
    targets, images, truth = labels(attributes, 40, 2 * WORD, 1)
    digits = BitPlanes(targets, images).sums(slice(0, 2)).of(np.arange(40))
    for floor in range(attributes + 1):
        found = places(at_least(digits, floor))
        np.testing.assert_array_equal(found, np.flatnonzero(truth >= floor))
        np.testing.assert_array_equal(numbers(digits, found), truth[truth >= floor])


@pytest.mark.parametrize("threads", [1, 3])
def test_every_target_has_a_floor_of_its_own(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(distances, "threads", lambda: threads)
    targets, images, truth = labels(12, 700, 3 * WORD - 5, 2)
    floor = np.arange(700) % 13
    found = reached(BitPlanes(targets, images), floor, slice(1, 3), None)
    expected = truth[:, WORD:] >= floor[:, None]
    assert 0 < expected.sum() < expected.size
    assert found == {(t, i + WORD): truth[t, i + WORD] for t, i in zip(*np.nonzero(expected), strict=True)}


def test_enough_images_of_a_block_raise_its_floor() -> None:
    targets, images, truth = labels(7, 50, 4 * WORD - 9, 3)
    floor, depth = np.arange(50) % 3, 20
    seen = np.arange(8)[None] < 5  # at these levels some images were found before
    lacks = depth - 6 * np.repeat(seen, 50, axis=0)
    lacks[:, 7] = np.iinfo(np.int64).max  # whatever is found, the floor may not go so high
    found = reached(BitPlanes(targets, images), floor, slice(0, 4), lacks)
    level = np.arange(8)
    enough = ((truth[:, :, None] >= level).sum(axis=1) >= lacks) & (level > floor[:, None])
    risen = np.where(enough, level, floor[:, None]).max(axis=1)
    assert (risen > floor + 1).any()
    assert found == {(t, i): truth[t, i] for t, i in zip(*np.nonzero(truth >= risen[:, None]), strict=True)}


def reached(planes: BitPlanes, floor: np.ndarray, words: slice, lacks: np.ndarray | None) -> dict[tuple[int, int], int]:
    """What ``reaching`` tells: the number of each (target, image)."""
    found: dict[tuple[int, int], int] = {}

    def take(some: np.ndarray, row: np.ndarray, image: np.ndarray, number: np.ndarray) -> None:
        assert not found.keys() & set(zip(some[row].tolist(), image.tolist(), strict=True)), "told twice"
        found.update(zip(zip(some[row].tolist(), image.tolist(), strict=True), number.tolist(), strict=True))

    planes.reaching(floor, words, take, lacks)
    return found


def test_places_finds_every_bit_in_order() -> None:
    mask = np.zeros((2, 3), np.uint64)
    assert len(places(mask)) == 0
    expected = np.array([0, 7, 8, 63, 64, 130, 191, 192, 383])
    bits = np.zeros(2 * 3 * WORD, np.uint8)
    bits[expected] = 1
    mask = np.packbits(bits, bitorder="little").view(np.uint64).reshape(2, 3)
    np.testing.assert_array_equal(places(mask), expected)
    np.testing.assert_array_equal(places(~np.zeros((1, 2), np.uint64)), np.arange(2 * WORD))
