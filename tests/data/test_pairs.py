# SPDX-License-Identifier: MIT
"""Pairs show one item, the third picture another one, and epochs are seeded."""

import time
from typing import Any

import numpy as np
import pytest
from catalogues import random_labels

from fm_bench.data.neighbours import neighbours
from fm_bench.data.pairs import CrossDomainSampler
from fm_bench.errors import UserError


def two_domains(rows: int, items: int, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    return (
        random_labels(rows, (3, 2), 0.1, seed),
        rng.permutation(rng.integers(items, size=rows) * 7 - 5),
        (rng.random(rows) < 0.3).astype(np.int8),
    )


def test_invariant_11_the_third_picture_is_never_of_the_same_item() -> None:
    labels, item, domain = two_domains(300, 40)
    sampler = CrossDomainSampler(labels, item, domain, seed=0, pairs=10_000)
    street, shop, other = sampler.table(0).T
    assert len(street) == 10_000
    assert (domain[street] == 1).all()
    assert (domain[shop] == 0).all()
    assert (domain[other] == 0).all()
    assert (item[street] == item[shop]).all()
    assert (item[street] != item[other]).all()
    usable = {i for i in np.flatnonzero(domain == 1) if (item[domain == 0] == item[i]).any()}
    assert set(street.tolist()) == usable
    again = sampler.table(1)
    same = sampler.table(0)[np.argsort(street, kind="stable"), 2] == again[np.argsort(again[:, 0], kind="stable"), 2]
    assert same.mean() < 0.05  # re-drawn every epoch


def test_an_epoch_is_a_pure_function_of_seed_and_epoch() -> None:
    one, two = (CrossDomainSampler(*two_domains(300, 40), seed=3, pairs=500) for _ in range(2))
    two.table(0)
    assert np.array_equal(one.table(5), two.table(5))
    assert not np.array_equal(one.table(5), one.table(6))
    assert not np.array_equal(one.table(5), CrossDomainSampler(*two_domains(300, 40), seed=4, pairs=500).table(5))


def test_draws_are_even() -> None:
    item = np.array([0, 0, 0, 1, 1, 2])
    sampler = CrossDomainSampler(np.zeros((6, 1), np.int16), item, np.array([1, 0, 0, 0, 0, 0], np.int8), seed=0)
    assert len(sampler) == 1
    table = np.concatenate([sampler.table(epoch) for epoch in range(6000)])
    assert set(table[:, 0].tolist()) == {0}
    assert abs(np.bincount(table[:, 1], minlength=6) - [0, 3000, 3000, 0, 0, 0]).max() < 200
    assert abs(np.bincount(table[:, 2], minlength=6) - [0, 0, 0, 2000, 2000, 2000]).max() < 200


@pytest.mark.parametrize("street", [0, 1])
def test_one_domain_pairs_different_pictures_of_an_item(street: int) -> None:
    item = np.array([4, 4, 9, 9, 9, 2])
    domain = np.full(6, street, np.int8)
    table = CrossDomainSampler(np.zeros((6, 1), np.int16), item, domain, seed=0, pairs=2000).table(0)
    a, b, c = table.T
    assert (a != b).all()
    assert (item[a] == item[b]).all()
    assert (item[a] != item[c]).all()
    assert {(i, j) for i, j in zip(a.tolist(), b.tolist(), strict=True)} == {
        (i, j) for i in range(5) for j in range(5) if i != j and item[i] == item[j]
    }
    assert set(c.tolist()) == set(range(6))


def test_street_pictures_without_their_item_in_the_shop_are_not_paired() -> None:
    item, domain = np.array([0, 0, 1, 2]), np.array([0, 0, 0, 1], np.int8)
    sampler = CrossDomainSampler(np.zeros((4, 1), np.int16), item, domain, seed=0, pairs=50)
    assert set(sampler.table(0)[:, 0].tolist()) == {0, 1}  # shop pictures among themselves
    assert not sampler.across


def test_one_photo_per_item_pairs_equal_label_vectors() -> None:
    labels = np.array([[0, 1], [0, 1], [1, 1], [1, 1], [2, 0], [-1, -1], [-1, -1]], np.int16)
    sampler = CrossDomainSampler(labels, np.arange(7), np.zeros(7, np.int8), seed=0, pairs=1000)
    a, b, c = sampler.table(0).T
    assert (a != b).all()
    assert (labels[a] == labels[b]).all()
    assert (labels[a] != labels[c]).any(axis=1).all()
    assert set(a.tolist()) == {0, 1, 2, 3}
    assert set(c.tolist()) == {0, 1, 2, 3, 4}  # what nobody labelled is neither the same nor another item


def test_a_few_files_listed_twice_do_not_make_items_of_several_photos() -> None:
    labels = np.array([[0, 1]] * 4 + [[1, 1]] * 4, np.int16)
    item = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    sampler = CrossDomainSampler(labels, item, np.zeros(8, np.int8), seed=0)
    assert sampler.paired_by == "labels"
    assert len(sampler) == 8, "every picture has a partner with its labels"
    item = np.array([0, 0, 1, 1, 2, 2, 3, 4])
    assert CrossDomainSampler(labels, item, np.zeros(8, np.int8), seed=0).paired_by == "items"


def test_nothing_to_pair_is_one_sentence() -> None:
    labels = np.array([[0, 1], [1, 0]], np.int16)
    with pytest.raises(UserError, match="none of the 2 training images shares its item or its full label vector"):
        CrossDomainSampler(labels, np.arange(2), np.zeros(2, np.int8), seed=0)
    with pytest.raises(UserError, match=r"all 2 training images .* show one item"):
        CrossDomainSampler(labels, np.zeros(2, np.int64), np.zeros(2, np.int8), seed=0)


def test_a_large_split_is_drawn_fast() -> None:
    begin = time.process_time()
    sampler = CrossDomainSampler(*two_domains(300_000, 60_000), seed=0)
    sampler.table(0)
    assert time.process_time() - begin < 4


def test_vectors_that_differ_in_all_of_many_attributes_are_no_neighbours():
    """257 differences are not one, which is what a byte would count."""
    alike, other = np.zeros((1, 257), np.int16), np.ones((1, 257), np.int16)
    almost = alike.copy()
    almost[0, 5] = 1
    found = list(neighbours(alike, np.concatenate((other, almost)), 1))
    assert [(query.tolist(), image.tolist()) for query, image in found] == [([0], [1])]
