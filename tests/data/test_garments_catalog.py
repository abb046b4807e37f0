import pickle

import numpy as np
import pytest

from fm_bench.catalog import Domain, Split, UnreadableImageError
from fm_bench.data.garments import SCHEMA, GarmentSource, GarmentsReader
from fm_bench.data.garments.vocabulary import FAVOURITES, usual
from fm_bench.errors import UserError


@pytest.fixture(scope="module")
def catalog():
    return GarmentsReader(street=0.2).read().catalog


def test_vocabulary_is_as_large_as_promised():
    assert SCHEMA.num_attributes == 12
    assert SCHEMA.num_values > 100
    for category in SCHEMA.values[0]:
        for attribute in SCHEMA.names[1:]:
            for value in usual(category, attribute):
                SCHEMA.value(attribute, value)
    assert set(FAVOURITES) == set(SCHEMA.values[0])


def test_splits_share_no_item_and_have_the_asked_sizes(catalog):
    items = [set(catalog.item[catalog.rows(split)].tolist()) for split in Split]
    assert [len(catalog.rows(split)) for split in Split] == [8000, 500, 5000]
    assert not items[0] & items[1]
    assert not items[0] & items[2]
    assert not items[1] & items[2]
    assert len(set(catalog.image.tolist())) == len(catalog)


def test_pictures_of_an_item_share_its_labels(catalog):
    order = np.argsort(catalog.item, kind="stable")
    item, labels = catalog.item[order], catalog.labels[order]
    same = item[1:] == item[:-1]
    assert (labels[1:][same] == labels[:-1][same]).all()
    assert 1.7 < len(item) / len(np.unique(item)) < 2.3


def test_growing_the_test_split_changes_no_other_picture():
    small, large = GarmentsReader(train=60, val=10, test=30).read(), GarmentsReader(train=60, val=10, test=90).read()
    assert small.source.digest == large.source.digest
    for column in ("image", "labels", "item", "split", "domain", "box"):
        assert np.array_equal(getattr(small.catalog, column), getattr(large.catalog, column)[:100]), column
    assert np.array_equal(small.source.read("test/29", (32, 32)), large.source.read("test/29", (32, 32)))


def test_another_seed_is_another_catalogue():
    one, two = GarmentsReader(train=50, val=5, test=5), GarmentsReader(train=50, val=5, test=5, seed=1)
    assert one.source.digest != two.source.digest
    assert not np.array_equal(one.read().catalog.labels, two.read().catalog.labels)


def test_every_value_occurs_and_the_tail_is_long(catalog):
    train = catalog.labels[catalog.rows(Split.TRAIN)]
    for m, name in enumerate(SCHEMA.names):
        counts = np.sort(np.bincount(train[:, m], minlength=SCHEMA.sizes[m]))[::-1]
        assert counts[-1] >= 20, name
        assert counts[0] > 2.2 * counts[len(counts) // 2], name
        assert counts[0] > 5 * counts[-1], name


def test_labels_depend_on_each_other(catalog):
    dresses = catalog.labels[:, 0] == SCHEMA.value("category", "dress")
    kangaroo = catalog.labels[:, 11] == SCHEMA.value("pocket", "kangaroo")
    assert kangaroo[dresses].mean() < 0.2 * kangaroo[~dresses].mean()


def _request_counts(labels, changes):
    """Feasible requests of exactly ``changes`` attributes, at most four per picture, and the mean number of hits."""
    codes, first, count = np.unique(SCHEMA.codes(labels), return_index=True, return_counts=True)
    rows = labels[first]
    distance = np.zeros((len(codes), len(codes)), np.int8)
    for m in range(labels.shape[1]):
        distance += rows[:, m][:, None] != rows[:, m][None]
    targets = distance == changes
    per_row = targets.sum(1)
    hits = (targets * count).sum(1)[per_row > 0] / per_row[per_row > 0]
    return int((np.minimum(per_row, 4) * count).sum()), float(np.average(hits, weights=count[per_row > 0]))


@pytest.mark.parametrize(("changes", "wanted"), [(1, 2000), (2, 1500)])
def test_enough_requests_are_feasible_and_chance_is_low(catalog, changes, wanted):
    labels = catalog.labels[catalog.rows(Split.TEST)]
    requests, hits = _request_counts(labels, changes)
    assert requests >= wanted
    assert 1 - (1 - hits / len(labels)) ** 20 < 0.1


def test_missing_and_wrong_labels_come_at_the_set_rate_and_leave_the_truth():
    clean, noisy = GarmentsReader(test=2000), GarmentsReader(test=2000, missing=0.2, wrong=0.1)
    catalog, truth = noisy.read().catalog, noisy.source.true_labels
    assert np.array_equal(truth, clean.read().catalog.labels)
    missing = catalog.labels == -1
    assert missing.mean() == pytest.approx(0.2, abs=0.01)
    assert ((catalog.labels != truth) & ~missing).mean() == pytest.approx(0.1, abs=0.01)
    assert (catalog.labels.max(0) < np.array(SCHEMA.sizes)).all()
    assert np.array_equal(noisy.read().catalog.labels, catalog.labels)
    assert noisy.source.digest == clean.source.digest  # labels change no pixel


def test_street_pictures_come_at_the_set_rate_and_every_item_has_a_shop_picture(catalog):
    street = catalog.domain == Domain.STREET
    assert street.mean() == pytest.approx(0.2, abs=0.02)
    assert set(catalog.item[street].tolist()) <= set(catalog.item[~street].tolist())


def test_reading_200_000_rows_is_quick():
    import time

    start = time.process_time()
    catalog = GarmentsReader(train=1, val=1, test=200_000).read().catalog
    assert len(catalog) == 200_002
    assert time.process_time() - start < 20  # about 3 s on an idle core


def test_source_survives_pickling_and_names_are_checked():
    source = GarmentSource((20, 5, 5))
    again = pickle.loads(pickle.dumps(source))
    assert again.digest == source.digest
    assert np.array_equal(again.read("val/4", (32, 32)), source.read("val/4", (32, 32)))
    for bad in ("val/5", "nowhere/1", "train", "train/x", ""):
        with pytest.raises(UnreadableImageError, match="no garment"):
            source.read(bad, (32, 32))


@pytest.mark.parametrize(
    "options",
    [
        {"missing": 0.8, "wrong": 0.4},
        {"missing": -0.1},
        {"street": 0.9},
        {"train": -1},
        {"views": 0},
        {"views": 1, "street": 0.1},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError):
        GarmentsReader(**options)


def test_colours_of_parts_agree_with_what_is_drawn():
    from fm_bench.data.garments import render

    source = GarmentsReader(train=0, val=0, test=400, street=0.2).source
    names = list(SCHEMA.values[SCHEMA.attribute("colour")])
    labels = source.region_colours()
    for row in range(len(source)):
        tones = render.colours(source._subject(row))
        colours = source.part_colours(row)
        assert (colours["sleeves"], colours["collar"]) == (tones.sleeves_name, tones.collar_name)
        sleeveless = SCHEMA.values[6][source.true_labels[row, 6]] == "sleeveless"
        collarless = SCHEMA.values[9][source.true_labels[row, 9]] == "none"
        assert labels[row, 0] == (-1 if sleeveless else names.index(colours["sleeves"]))
        assert labels[row, 1] == (-1 if collarless else names.index(colours["collar"]))


def test_regions_belong_to_the_item_and_often_differ_from_the_torso():
    dataset = GarmentsReader().read()
    labels, item = dataset.regions.labels, dataset.catalog.item
    same = item[1:] == item[:-1]
    assert np.array_equal(labels[1:][same], labels[:-1][same])
    differs = labels != dataset.catalog.labels[:, 1:2]
    assert [differs[labels[:, r] >= 0, r].mean() for r in (0, 1)] == pytest.approx([0.16, 0.35], abs=0.02)


def test_regions_of_200_000_rows_are_quick():
    import time

    source = GarmentSource((1, 1, 200_000))
    start = time.process_time()
    assert source.region_colours().shape == (200_002, 2)
    assert time.process_time() - start < 3  # about 0.2 s on an idle core
