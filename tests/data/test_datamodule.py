# SPDX-License-Identifier: MIT
"""Fit never sees the test split, and what validation and prediction are given is what they ask for, in order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from catalogues import Noise, dataset
from datamodules import SIZE, Watcher, data, shows, trainer

from fm_bench.catalog import Domain, Split
from fm_bench.data.batches import GalleryBatch, LabelledBatch, QueryBatch, TripletBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.requests import Requests, mine
from fm_bench.data.transforms import normalise
from fm_bench.errors import UserError


def asked_of_test(datamodule: FashionDataModule) -> Requests:
    rows = datamodule.gallery_rows
    return mine(datamodule.dataset.catalog, rows, rows, changes=1, limit=40, cap=4, seed=0)


# ---------------------------------------------------------------------- the test split


def test_fit_opens_no_test_picture(tmp_path: Path) -> None:
    given = dataset()
    datamodule = data(tmp_path, given)
    trainer(tmp_path, num_sanity_val_steps=0, enable_checkpointing=False).fit(Watcher(), datamodule=datamodule)
    assert given.source.seen == set(given.catalog.rows(Split.TRAIN, Split.VAL).tolist())
    for name in ("gallery_rows", "gallery_labels", "gallery_items"):
        with pytest.raises(RuntimeError, match='setup\\("predict"\\)'):
            getattr(datamodule, name)
    with pytest.raises(RuntimeError, match='setup\\("predict"\\)'):
        datamodule.gallery_dataloader()
    with pytest.raises(RuntimeError, match='setup\\("predict"\\)'):
        datamodule.query_dataloader(datamodule.val_requests)
    shown = set(datamodule.val_requests.query.tolist()) | set(datamodule._fit(datamodule._train).rows.tolist())
    assert not shown & set(given.catalog.rows(Split.TEST).tolist())


def test_the_training_side_needs_setup(tmp_path: Path) -> None:
    datamodule = data(tmp_path)
    for ask in (datamodule.train_dataloader, datamodule.val_dataloader, lambda: datamodule.train_labels):
        with pytest.raises(RuntimeError, match='setup\\("fit"\\)'):
            ask()


def test_an_empty_split_is_one_sentence(tmp_path: Path) -> None:
    datamodule = data(tmp_path, dataset((50, 0, 30)))
    with pytest.raises(UserError, match="the val split has no readable image"):
        datamodule.setup("fit")


# ---------------------------------------------------------------------- validation


def test_validation_asks_the_validation_split(opened: FashionDataModule, tmp_path: Path) -> None:
    catalog = opened._dataset.catalog
    val = catalog.rows(Split.VAL)
    watcher = Watcher()
    trainer(tmp_path, num_sanity_val_steps=0, enable_checkpointing=False).fit(watcher, datamodule=opened)
    queries = [batch for loader, batch in watcher.validated if loader == 0]
    gallery = [batch for loader, batch in watcher.validated if loader == 1]
    assert {type(batch) for batch in queries} == {QueryBatch}
    assert {type(batch) for batch in gallery} == {GalleryBatch}
    assert torch.cat([batch.index for batch in queries]).tolist() == list(range(len(opened.val_requests)))
    assert torch.cat([batch.image_index for batch in queries]).tolist() == opened.val_requests.query.tolist()
    assert torch.cat([batch.image_index for batch in gallery]).tolist() == val.tolist()
    assert np.array_equal(opened.val_labels, catalog.labels[val])
    assert np.array_equal(val[opened.val_exclude], opened.val_requests.query)
    for batch in queries:
        expected = normalise(
            torch.from_numpy(np.stack([Noise().read(str(r), SIZE) for r in batch.image_index.tolist()])).permute(
                0, 3, 1, 2
            )
        )
        torch.testing.assert_close(batch.image, expected)


def test_validation_requests_do_not_depend_on_the_seed(tmp_path: Path) -> None:
    digests = set()
    for seed in (0, 1):
        datamodule = data(tmp_path, seed=seed, val_requests=20)
        datamodule.setup("validate")
        assert len(datamodule.val_requests) == 20
        digests.add(datamodule.val_requests.digest)
    assert len(digests) == 1


def test_without_feasible_validation_requests_only_asking_fails(tmp_path: Path) -> None:
    datamodule = data(tmp_path, dataset((100, 2, 20), sizes=(40, 40, 40), missing=0.0))
    datamodule.setup("fit")
    list(datamodule.train_dataloader())
    with pytest.raises(UserError, match="no feasible 1-attribute request in the val split of 2 images"):
        datamodule.val_dataloader()


# ---------------------------------------------------------------------- prediction


def test_the_gallery_holds_the_shop_pictures_of_the_test_split(tmp_path: Path) -> None:
    given = dataset(street=0.4)
    datamodule = data(tmp_path, given)
    datamodule.setup("predict")
    test = given.catalog.rows(Split.TEST)
    shop = test[given.catalog.domain[test] == Domain.SHOP]
    assert 0 < len(shop) < len(test)
    assert np.array_equal(datamodule.gallery_rows, shop)
    assert np.array_equal(datamodule.gallery_labels, given.catalog.labels[shop])
    assert np.array_equal(datamodule.gallery_items, given.catalog.item[shop])
    batches = list(datamodule.gallery_dataloader())
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(len(shop)))
    for batch in batches:
        assert shows(batch.image, batch.image_index)
        assert np.array_equal(batch.image_index.numpy(), shop[batch.index])
        assert np.array_equal(batch.labels.numpy(), given.catalog.labels[batch.image_index])
        assert (batch.domain == Domain.SHOP).all()
    assert given.source.seen == set(shop.tolist())


def test_smaller_galleries_are_nested_and_the_same_for_every_seed(tmp_path: Path) -> None:
    rows = {}
    for size, seed in ((20, 0), (20, 1), (50, 0), (10_000, 0)):
        datamodule = data(tmp_path, gallery=size, seed=seed)
        datamodule.setup("predict")
        rows[size, seed] = datamodule.gallery_rows
        assert (np.diff(rows[size, seed]) > 0).all()
    assert [len(found) for found in rows.values()] == [20, 20, 50, 80]
    assert np.array_equal(rows[20, 0], rows[20, 1])
    assert set(rows[20, 0]) < set(rows[50, 0]) < set(rows[10_000, 0])


@pytest.mark.parametrize("gallery", [None, 40])
def test_queries_come_from_the_test_split_inside_and_outside_the_gallery(tmp_path: Path, gallery: int | None) -> None:
    given = dataset()
    datamodule = data(tmp_path, given, gallery=gallery)
    datamodule.setup("predict")
    test = given.catalog.rows(Split.TEST)
    asked = mine(given.catalog, test, datamodule.gallery_rows, changes=1, limit=60, seed=0)
    batches = list(datamodule.query_dataloader(asked))
    assert [len(batch.index) for batch in batches] == [25, 25, 10]
    for batch in batches:
        assert shows(batch.image, batch.image_index)
        assert np.array_equal(batch.image_index.numpy(), asked.query[batch.index])
        assert np.array_equal(batch.labels.numpy(), given.catalog.labels[batch.image_index])
        assert torch.equal(batch.indicator, asked.indicator(batch.index.numpy()))
        assert (batch.domain == 0).all()
    train = given.catalog.rows(Split.TRAIN)
    wrong = mine(given.catalog, train, train, changes=1, limit=5, seed=0)
    with pytest.raises(ValueError, match="of the test split"):
        datamodule.query_dataloader(wrong)


def test_the_trainer_predicts_in_order(tmp_path: Path) -> None:
    datamodule = data(tmp_path)
    datamodule.setup("predict")
    found = trainer(tmp_path).predict(Watcher(), datamodule=datamodule)
    assert found is not None
    assert torch.cat([batch.index for batch in found]).tolist() == list(range(80))


# ---------------------------------------------------------------------- unreadable pictures


def test_unreadable_pictures_leave_every_split(tmp_path: Path) -> None:
    catalog = dataset().catalog
    unreadable = tuple(int(catalog.rows(split)[i]) for split in Split for i in (0, 7))
    given = dataset(unreadable=unreadable)
    with pytest.raises(UserError, match=r"--data\.on_error skip"):
        data(tmp_path, given).prepare_data()
    datamodule = data(tmp_path, given, on_error="skip")
    datamodule.prepare_data()
    datamodule.setup("fit")
    datamodule.setup("predict")
    assert len(datamodule.train_labels) == 118
    assert len(datamodule.val_labels) == 58
    assert len(datamodule.gallery_rows) == 78
    seen = {int(i) for batch in datamodule.plain_dataloader() for i in batch.index}
    seen |= set(datamodule.val_requests.query.tolist()) | set(datamodule.gallery_rows.tolist())
    assert not seen & set(unreadable)
    for loader in (datamodule.plain_dataloader(), datamodule.gallery_dataloader(), datamodule.val_dataloader()[1]):
        for batch in loader:
            rows = batch.index if isinstance(batch, LabelledBatch) else batch.image_index
            assert shows(batch.image, rows), "positions in the cache must skip unreadable pictures"
    datamodule.use(LabelledBatch, rows=np.array([90, 30, 117]))
    for batch in datamodule.plain_dataloader():
        assert shows(batch.image, batch.index)
    for loader in (datamodule.val_dataloader()[0], datamodule.query_dataloader(asked_of_test(datamodule))):
        for batch in loader:
            assert shows(batch.image, batch.image_index)


# ---------------------------------------------------------------------- normalisation


def test_pictures_are_normalised_after_the_transfer(opened: FashionDataModule) -> None:
    opened.use(TripletBatch)
    batch = next(iter(opened.train_dataloader()))
    moved = opened.on_after_batch_transfer(batch, 0)
    assert isinstance(moved, TripletBatch)
    for name in ("reference", "positive", "negative"):
        torch.testing.assert_close(getattr(moved, name), normalise(getattr(batch, name)))
        assert getattr(moved, name).is_contiguous(memory_format=torch.channels_last)
    for name in ("indicator", "target", "negative_labels", "index"):
        assert torch.equal(getattr(moved, name), getattr(batch, name))
