# SPDX-License-Identifier: MIT
"""The pictures of a paper's protocol: exactly so many, the same for everyone, nothing held out that is trained on."""

from dataclasses import replace

import numpy as np
import pytest
from catalogues import Noise, catalogue, dataset, random_labels

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Dataset, Domain, Split, gallery_of
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.folds import folded
from fm_bench.data.requests import mine
from fm_bench.data.sample import Room, Sample, most_frequent, role, sampled, select
from fm_bench.errors import UserError
from fm_bench.questions import ask_all
from fm_bench.recipe import EvaluationConfig

DRAWN = Sample(("x",), split="drawn", gallery=60, queries=20)


def take(data: Dataset, sample: Sample, room: Room | None = None) -> Dataset:
    return sampled(data, sample, "paper", "x", room)


def with_items(data: Dataset, pictures: int) -> Dataset:
    """``pictures`` neighbouring rows show one item."""
    item = np.arange(len(data.catalog)) // pictures
    return data._replace(catalog=replace(data.catalog, item=item))


def names(data: Dataset, rows: np.ndarray) -> set[str]:
    return set(data.catalog.image[rows].tolist())


def test_a_drawn_sample_has_exactly_its_sizes_and_trains_on_nothing_of_them():
    data = take(with_items(dataset((150, 20, 30)), 3), DRAWN)
    catalog, searched, asking = data.catalog, data.searched, data.queries
    assert (len(searched), len(asking), len(np.intersect1d(searched, asking))) == (60, 20, 0)
    assert np.isin(catalog.item[asking], catalog.item[searched]).mean() > 0.5  # drawn among all, not item by item
    held_out = np.concatenate((searched, asking))
    assert (catalog.split[held_out] == Split.TEST).all()
    trained = catalog.item[catalog.split != Split.TEST]
    assert not np.isin(catalog.item[held_out], trained).any()
    rest = (catalog.split != Split.TEST).sum()
    assert 0 < (catalog.split == Split.VAL).sum() <= 0.05 * rest
    assert np.array_equal(gallery_of(data), searched)
    assert not data.notes


def test_the_draw_is_one_of_names_and_not_of_rows():
    data = with_items(dataset((150, 20, 30)), 3)
    order = np.random.default_rng(1).permutation(len(data.catalog))
    turned = data._replace(catalog=data.catalog.select(order))
    one, other = take(data, DRAWN), take(turned, DRAWN)
    assert names(one, one.searched) == names(other, other.searched)
    assert names(one, one.queries) == names(other, other.queries)
    for split in Split:
        assert names(one, one.catalog.rows(split)) == names(other, other.catalog.rows(split))


def test_too_few_pictures_are_refused_and_shrink_only_where_they_may():
    data = dataset((40, 20, 19))
    with pytest.raises(UserError, match=r"paper needs 60 images searched, 20 others ask, but x holds 79 .* smoke"):
        take(data, DRAWN)
    with pytest.raises(UserError, match="nothing is left to train on"):
        take(dataset((40, 20, 20)), DRAWN)
    shrunk = take(data, DRAWN, Room(300, 120))
    assert len(shrunk.searched) + len(shrunk.queries) <= 40
    assert len(shrunk.queries) == pytest.approx(len(shrunk.searched) / 3, abs=1)
    assert (shrunk.catalog.split == Split.VAL).any()
    assert shrunk.notes[-1].startswith("shrunk: 29 images and 9 queries instead of 60 images searched")
    assert len(take(dataset((300, 0, 0)), DRAWN, Room(10, 5)).searched) == 10


def test_only_labelled_pictures_are_drawn_where_it_says_so():
    sample = replace(DRAWN, queries=None, gallery=40, labelled=True)
    data = take(dataset((150, 20, 30), missing=0.2), sample)
    assert (data.catalog.labels[data.searched] >= 0).all()
    assert data.queries is None
    with pytest.raises(UserError, match=r"40 images searched, each of them asks, but x holds \d+ such images"):
        take(dataset((150, 20, 30), missing=0.7), sample)


def street(items: int, seed: int = 0) -> Dataset:
    """Two shop photos of every item, and a street photo of every other one."""
    item = np.concatenate((np.repeat(np.arange(items), 2), np.arange(0, items, 2)))
    domain = np.arange(len(item)) >= 2 * items
    made = catalogue(random_labels(len(item), (3, 2, 4), 0.0, seed), (3, 2, 4), np.zeros(len(item)), domain)
    return Dataset(replace(made, item=item), Noise())


def test_street_photos_ask_for_items_that_are_searched():
    data = take(street(100), Sample(("x",), split="drawn", gallery=50, queries=12, street=True))
    catalog = data.catalog
    assert (len(data.searched), len(data.queries)) == (50, 12)
    assert (catalog.domain[data.queries] == Domain.STREET).all()
    assert (catalog.domain[data.searched] == Domain.SHOP).all()
    wanted = catalog.item[data.queries]
    assert len(np.unique(wanted)) == 12
    assert [int((catalog.item[data.searched] == item).sum()) for item in wanted] == [2] * 12
    trained = catalog.item[catalog.split != Split.TEST]
    assert not np.isin(catalog.item[data.searched], trained).any()
    with pytest.raises(UserError, match="holds 200 shop photos and 50 items with street photos of theirs"):
        take(street(100), Sample(("x",), split="drawn", gallery=60, queries=51, street=True))


def test_one_street_photo_of_an_item_asks_and_none_of_an_item_that_is_not_searched():
    data = street(40)
    item = data.catalog.item.copy()
    again = np.flatnonzero(data.catalog.domain == Domain.STREET)
    item[again[:6]] = item[again[6]]  # seven street photos of one item
    item[again[10:]] = 1000 + np.arange(len(again) - 10)  # items without a shop photo
    data = data._replace(catalog=replace(data.catalog, item=item))
    with pytest.raises(UserError, match="holds 80 shop photos and 4 items with street photos of theirs"):
        take(data, Sample(("x",), split="drawn", gallery=20, queries=5, street=True))
    taken = take(data, Sample(("x",), split="drawn", gallery=20, queries=4, street=True))
    assert len(np.unique(taken.catalog.item[taken.queries])) == 4
    assert np.isin(taken.catalog.item[taken.queries], taken.catalog.item[taken.searched]).all()


def test_folds_of_labelled_pictures_alone():
    sample = Sample(("x",), split="folds", gallery=60, labelled=True)
    data = take(dataset((150, 20, 30), missing=0.2), sample)
    assert len(data.catalog) == 60
    assert (data.catalog.labels >= 0).all()
    with pytest.raises(UserError, match=r"needs 60 images, all of them searched.* holds \d\d?:"):
        take(dataset((60, 20, 20), missing=0.5), sample)


def test_folds_search_everything_and_a_tenth_asks():
    sample = Sample(("x",), split="folds", gallery=100)
    whole = take(dataset((150, 20, 30), street=0.2), sample)
    assert len(whole.catalog) == 100
    assert (whole.catalog.domain == Domain.SHOP).all()
    asked = [folded(whole, fold) for fold in range(5)]
    assert all(np.array_equal(gallery_of(fold), np.arange(100)) for fold in asked)
    assert all(len(fold.catalog.rows(Split.TEST)) == 10 for fold in asked)
    with pytest.raises(UserError, match=r"about 100 tops, but x was read with \d+ shop photos: .*tops alone"):
        take(dataset((150, 20, 30)), replace(sample, part="tops"))
    with pytest.raises(UserError, match=r"needs 100 images, all of them searched.* holds 60"):
        take(dataset((20, 20, 20)), sample)
    assert "instead of 100 images" in take(dataset((20, 20, 20)), sample, Room(50, 40)).notes[-1]
    assert len(take(dataset((150, 20, 30)), sample, Room(50, 4)).catalog) == 40


def test_the_own_split_must_be_as_large_as_the_papers():
    plain = dataset((60, 20, 60))
    rows = plain.catalog.rows(Split.TEST)
    data = plain._replace(queries=rows[:25])
    sample = Sample(("x",), gallery=35, queries=25)
    assert np.array_equal(take(data, sample).searched, rows[25:])
    with pytest.raises(UserError, match="holds 35 images to search and 25 that ask"):
        take(data, replace(sample, gallery=36))
    with pytest.raises(UserError, match=r"needs 35 images searched, 24 others ask, but x holds 35 .* and 25 that ask"):
        take(data, replace(sample, queries=24))
    shrunk = take(data, replace(sample, gallery=36), Room(300, 120))
    assert shrunk.searched is None
    assert np.array_equal(gallery_of(shrunk), rows[25:])
    assert "not the task of the paper" in shrunk.notes[-1]


def test_attributes_are_found_by_plain_words():
    schema = AttributeSchema(("clothes category", "Colour", "sleeve_length", "sleeve shape"), (("a",),) * 4)
    assert [role(schema, name) for name in ("category", "color", "sleeve length")] == [0, 1, 2]
    darn = AttributeSchema(("sleeve_length", "length", "shape", "sleeve_shape"), (("a",),) * 4)
    assert [role(darn, name) for name in ("length", "shape", "sleeve length")] == [1, 2, 0]  # what is called so
    with pytest.raises(UserError, match="several can be meant"):
        role(schema, "sleeve")
    with pytest.raises(UserError, match="none can be meant"):
        role(schema, "texture")


def test_attributes_and_values_that_are_left_out_are_gone():
    labels = np.array([[0, 2, 0], [0, 2, 1], [1, 0, 1], [2, -1, 0], [2, 1, 0], [2, 0, 1]])
    data = Dataset(catalogue(labels, (3, 3, 2)), Noise())
    described = take(data, Sample(("x",), attributes=("a1", "a0"), values=2)).catalog
    assert described.schema.names == ("a1", "a0")
    assert described.schema.values == (("a1v0", "a1v2"), ("a0v0", "a0v2"))
    assert described.labels.tolist() == [[1, 0], [1, 0], [0, -1], [-1, 1], [-1, 1], [0, 1]]
    assert data.catalog.labels.tolist() == labels.tolist()
    assert most_frequent(np.array([2, 2, 1, 0, -1, -1], np.int16), 4, 2).tolist() == [0, 2]


def test_selected_rows_keep_their_queries_and_requests():
    data = dataset((30, 10, 60), sizes=(2, 2), missing=0.0)
    test = data.catalog.rows(Split.TEST)
    requests = mine(data.catalog, test[:20], test[20:], changes=1, limit=30, seed=0)
    data = data._replace(queries=test[:20], requests=requests)
    rows = np.sort(np.random.default_rng(0).permutation(len(data.catalog))[:70])
    part = select(data, rows)
    assert names(part, part.queries) == names(data, np.intersect1d(data.queries, rows))
    kept = np.isin(requests.query, rows)
    assert 0 < kept.sum() < len(requests)
    assert np.array_equal(part.catalog.image[part.requests.query], data.catalog.image[requests.query[kept]])
    assert np.array_equal(part.requests.target, requests.target[kept])


def test_what_asks_is_not_searched_and_folds_forget_it(tmp_path):
    data = dataset((30, 10, 40))
    test = data.catalog.rows(Split.TEST)
    requests = mine(data.catalog, test[:10], test[10:], changes=1, limit=8, seed=0)
    data = data._replace(queries=test[:10], requests=requests)
    module = FashionDataModule(data, image_size=(8, 8), batch_size=4, gallery=25, cache=tmp_path)
    module.setup("predict")
    assert len(module.gallery_rows) == 25
    assert not np.isin(module.gallery_rows, data.queries).any()
    (batch,) = list(module.query_dataloader(requests))
    assert np.array_equal(batch.image_index.numpy(), requests.query)
    exactly = FashionDataModule(
        data._replace(searched=test[10:]), image_size=(8, 8), batch_size=4, gallery=25, cache=tmp_path
    )
    exactly.setup("predict")
    assert np.array_equal(exactly.gallery_rows, test[10:])
    fold = folded(data, 0)
    assert fold.queries is None
    assert fold.requests is None


def test_requests_on_unreadable_pictures_are_left_out_and_told(tmp_path):
    whole = dataset((30, 10, 40))
    test = whole.catalog.rows(Split.TEST)
    lost = int(whole.catalog.image[test[3]])
    data = dataset((30, 10, 40), unreadable=(lost,))._replace(queries=test[:10], searched=test[10:])
    module = FashionDataModule(data, image_size=(8, 8), batch_size=4, cache=tmp_path, on_error="skip")
    module.setup("predict")
    config = EvaluationConfig(protocols=["fsn_s100k_1"], shrink=True)
    every, _ = ask_all(data, module.gallery_rows, config)
    kept, told = ask_all(data, module.gallery_rows, config, module.readable)
    before, after = every["fsn_s100k_1"].requests, kept["fsn_s100k_1"].requests
    assert np.isin(test[3], before.query)
    assert np.array_equal(after.query, before.query[before.query != test[3]])
    assert told == [f"fsn_s100k_1: {(before.query == test[3]).sum()} requests are on unreadable pictures."]
    assert sum(len(batch.index) for batch in module.query_dataloader(after)) == len(after)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": []}, "names no data"),
        ({"data": "darn"}, "give a list of names"),
        ({"split": "random"}, "split 'random' is not known"),
        ({"gallery": 0}, "gallery 0"),
        ({"split": "drawn"}, "how many pictures are searched"),
        ({"street": True}, "split: drawn"),
        ({"split": "folds", "gallery": 5, "queries": 2}, "leave queries out"),
    ],
)
def test_impossible_samples(fields, message):
    with pytest.raises(UserError, match=message):
        Sample(**{"data": ("x",)} | fields)


def test_a_catalogue_is_not_touched():
    data = dataset((150, 20, 30))
    before: Catalog = data.catalog
    digest = before.digest
    take(data, DRAWN)
    assert data.catalog is before
    assert Catalog.digest.func(before) == digest
