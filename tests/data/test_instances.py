# SPDX-License-Identifier: MIT
"""Pictures of one instance find each other, and are numbered by how often it was photographed."""

import numpy as np
import pytest
from catalogues import catalogue, random_labels
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_bench.catalog import Catalog
from fm_bench.data.instances import InstanceSampler, instances_of


@settings(max_examples=100, deadline=None)
@given(instance=st.lists(st.integers(0, 5), min_size=1, max_size=20), pairs=st.integers(1, 50))
def test_partners_are_of_the_same_instance_and_another_picture_where_there_is_one(instance, pairs):
    instance = np.array(instance)
    sampler = InstanceSampler(instance, seed=0, pairs=pairs)
    table = sampler.table(1)
    assert table.shape == (len(sampler), 2) == (pairs, 2)
    anchor, partner = table.T
    assert np.array_equal(instance[anchor], instance[partner])
    alone = np.bincount(instance)[instance[anchor]] == 1
    assert np.array_equal(anchor == partner, alone)
    assert np.ptp(np.bincount(anchor, minlength=len(instance))) <= 1, "every picture is an anchor as often as any other"


def test_every_other_picture_of_the_instance_is_as_likely():
    table = InstanceSampler(np.array([0, 1, 0, 0, 1, 0]), seed=0, pairs=12_000).table(0)
    partners = np.bincount(table[table[:, 0] == 2, 1], minlength=6)
    assert partners[[1, 2, 4]].sum() == 0
    assert (abs(partners[[0, 3, 5]] - 2000 / 3) < 90).all()


def test_an_epoch_is_a_pure_function_of_seed_and_epoch():
    instance = np.arange(40) // 4
    first = InstanceSampler(instance, seed=1).table(3)
    assert np.array_equal(first, InstanceSampler(instance, seed=1).table(3))
    assert not np.array_equal(first, InstanceSampler(instance, seed=1).table(4))
    assert not np.array_equal(first, InstanceSampler(instance, seed=2).table(3))


@pytest.fixture
def photographed() -> Catalog:
    labels = np.array([[0, 1], [2, 0], [0, 1], [-1, -1], [2, 0], [2, 0], [-1, -1]], np.int16)
    plain = catalogue(labels, (3, 2))
    item = np.array([9, 4, 9, 9, 4, 7, 7])
    return Catalog(plain.schema, plain.image, labels, item, plain.split, plain.domain)


def test_items_are_numbered_by_their_pictures(photographed):
    assert instances_of(photographed, np.arange(7), "items").tolist() == [0, 1, 0, 0, 1, 2, 2]
    assert instances_of(photographed, np.array([1, 4, 5]), "items").tolist() == [0, 0, 1]


def test_by_labels_pictures_without_any_are_alone(photographed):
    assert instances_of(photographed, np.arange(7), "labels").tolist() == [1, 0, 1, 2, 0, 0, 3]


def test_by_views_every_picture_is_alone(photographed):
    assert instances_of(photographed, np.array([3, 5, 6]), "views").tolist() == [0, 1, 2]


def test_equal_label_vectors_are_one_instance_and_no_others():
    labels = random_labels(200, (3, 2, 4), missing=0.3, seed=0)
    found = instances_of(catalogue(labels, (3, 2, 4)), np.arange(200), "labels")
    for one, vector in zip(found, labels, strict=True):
        same = (labels == vector).all(axis=1) if (vector >= 0).any() else found == one
        assert np.array_equal(found == one, same)
    assert (np.diff(np.bincount(found)) <= 0).all()
