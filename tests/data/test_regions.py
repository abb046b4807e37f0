# SPDX-License-Identifier: MIT
import numpy as np
import pytest
import torch

from fm_bench.catalog import Split
from fm_bench.data.garments import SCHEMA, GarmentsReader
from fm_bench.data.regions import REGIONS, Regions
from fm_bench.data.requests import mine
from fm_bench.errors import UserError

COLOUR = SCHEMA.attribute("colour")
A = SCHEMA.num_attributes


@pytest.fixture(scope="module")
def dataset():
    return GarmentsReader(train=200, val=50, test=3000).read()


@pytest.fixture(scope="module")
def extended(dataset):
    return dataset.regions.extend(dataset.catalog)


@pytest.fixture(scope="module")
def requests(dataset, extended):
    rows = extended.rows(Split.TEST)
    attributes = dataset.regions.attributes(dataset.catalog.schema)
    return mine(extended, rows, rows, changes=1, limit=500, seed=0, attributes=attributes)


def test_the_extension_adds_columns_and_changes_nothing_else(dataset, extended):
    catalog = dataset.catalog
    assert extended.schema.names == (*SCHEMA.names, "colour of sleeves", "colour of collar")
    assert extended.schema.values[A:] == (SCHEMA.values[COLOUR],) * 2
    assert np.array_equal(extended.labels[:, :A], catalog.labels)
    assert np.array_equal(extended.labels[:, A:], dataset.regions.labels)
    for column in ("image", "item", "split", "domain", "box"):
        assert np.array_equal(getattr(extended, column), getattr(catalog, column)), column


def test_a_hit_changes_the_asked_region_alone(extended, requests):
    changed = requests.target != extended.labels[requests.query]
    assert (changed.sum(axis=1) == 1).all()
    assert changed[:, :A].sum() == 0  # the colour itself, which is the torso's, stays as well
    assert 100 < changed[:, A].sum() < 400
    gallery = set(map(bytes, extended.labels[extended.rows(Split.TEST)]))
    whole = (requests.target >= 0).all(axis=1)
    assert whole.sum() > 50
    assert all(bytes(target) in gallery for target in requests.target[whole])


def test_a_part_that_a_garment_does_not_have_is_never_asked_for(extended, requests):
    assert (extended.labels[requests.query, requests.attribute[:, 0]] >= 0).all()


def test_what_a_method_is_told(dataset, requests):
    positions = np.array([5, 0, 17])
    indicator, region = dataset.regions.asked(requests, positions)
    assert indicator.shape == (3, SCHEMA.num_values)
    assert region.dtype == torch.int64
    for row, position in enumerate(positions):
        value = int(requests.value[position, 0])
        assert torch.equal(indicator[row], SCHEMA.indicator([(COLOUR, value)]))
        name = requests.schema.names[int(requests.attribute[position, 0])]
        assert name == f"colour of {REGIONS[int(region[row])]}"


def test_requests_of_the_whole_garment_name_no_region_and_the_plain_colour_is_the_torsos(dataset, extended):
    rows = extended.rows(Split.TEST)
    asked = mine(extended, rows, rows, changes=1, limit=300, seed=0)
    indicator, region = dataset.regions.asked(asked, np.arange(len(asked)))
    attribute = asked.attribute[:, 0]
    expected = np.select(
        [attribute == COLOUR, attribute == A, attribute == A + 1],
        [REGIONS.index(name) for name in ("torso", "sleeves", "collar")],
        -1,
    )
    assert np.array_equal(region.numpy(), expected)
    assert (indicator.sum(dim=1) == 1).all()
    same = mine(extended, rows, rows, changes=0, limit=20, seed=0)
    indicator, region = dataset.regions.asked(same, np.arange(20))
    assert indicator.sum() == 0
    assert (region == -1).all()


def test_two_changes_or_another_schema_are_refused(dataset, extended):
    rows = extended.rows(Split.TEST)
    two = mine(extended, rows, rows, changes=2, limit=20, seed=0)
    with pytest.raises(ValueError, match="one attribute"):
        dataset.regions.asked(two, np.arange(5))
    plain = mine(dataset.catalog, rows, rows, changes=1, limit=20, seed=0)
    with pytest.raises(ValueError, match="do not end"):
        dataset.regions.asked(plain, np.arange(5))


def test_rows_are_selected_together(dataset):
    rows = np.array([7, 3, 9])
    chosen = dataset.regions.select(rows).extend(dataset.catalog.select(rows))
    assert np.array_equal(chosen.labels[:, A:], dataset.regions.labels[rows])
    with pytest.raises(UserError, match="same rows"):
        dataset.regions.extend(dataset.catalog.select(rows))


@pytest.mark.parametrize("names", [("sleeves",), ("sleeves", "hood"), ("sleeves", "torso")])
def test_names_and_columns_are_checked(names):
    with pytest.raises(UserError, match="one column"):
        Regions("colour", names, np.zeros((4, 2), np.int16))
