# SPDX-License-Identifier: MIT
"""Batches hold what they say, fit never sees the test split, and a resumed run sees what an uninterrupted one sees."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from catalogues import Noise, dataset
from lightning.pytorch.callbacks import ModelCheckpoint

from fm_bench.catalog import Dataset, Domain, Split
from fm_bench.data import examples as module
from fm_bench.data.batches import (
    EmbeddingBatch,
    GalleryBatch,
    InstanceBatch,
    LabelledBatch,
    PositionsBatch,
    QuadrupletBatch,
    QueryBatch,
    TripletBatch,
    UnlabelledPositionsBatch,
)
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.prefetch import PrefetchingLoader
from fm_bench.data.requests import Requests, mine
from fm_bench.data.transforms import normalise
from fm_bench.errors import UserError

SIZE = (20, 16)


def data(cache: Path, given: Dataset | None = None, **options: Any) -> FashionDataModule:
    chosen = {"image_size": SIZE, "batch_size": 16, "eval_batch_size": 25, "cache": cache} | options
    return FashionDataModule(given or dataset(), **chosen)


@pytest.fixture
def opened(tmp_path: Path) -> FashionDataModule:
    datamodule = data(tmp_path)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No augmentation, so that pictures can be compared."""
    monkeypatch.setattr(module, "Augment", lambda: lambda images, keys: images)


def shows(images: torch.Tensor, rows: torch.Tensor) -> bool:
    """Whether uint8 ``images`` are the pictures of catalogue ``rows``."""
    expected = np.stack([Noise().read(str(row), SIZE) for row in rows.tolist()])
    return images.dtype == torch.uint8 and np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)


def asked_of_test(datamodule: FashionDataModule) -> Requests:
    rows = datamodule.gallery_rows
    return mine(datamodule.dataset.catalog, rows, rows, changes=1, limit=40, cap=4, seed=0)


def equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


class Watcher(L.LightningModule):
    """Learns nothing; remembers every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[tuple[int, Any]] = []
        self.validated: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.batches.append((self.current_epoch, batch))
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validated.append((dataloader_idx, batch))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> EmbeddingBatch:
        return EmbeddingBatch(batch.image.mean((2, 3)), batch.index)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, epochs: int = 1, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(max_epochs=epochs, default_root_dir=folder, use_distributed_sampler=False, **quiet | options)


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


# ---------------------------------------------------------------------- training batches


@pytest.mark.usefixtures("plain")
def test_labelled_batches_hold_pictures_with_their_labels(opened: FashionDataModule) -> None:
    catalog = opened._dataset.catalog
    opened.use(LabelledBatch)
    loader = opened.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 120 // 16
    rows = torch.cat([batch.index for batch in batches])
    assert len(set(rows.tolist())) == len(rows)
    assert set(rows.tolist()) <= set(catalog.rows(Split.TRAIN).tolist())
    for batch in batches:
        assert isinstance(batch, LabelledBatch)
        assert batch.image.shape == (16, 3, *SIZE)
        assert shows(batch.image, batch.index)
        assert np.array_equal(batch.labels.numpy(), catalog.labels[batch.index])
        assert batch.labels.dtype == torch.int64


@pytest.mark.usefixtures("plain")
def test_triplet_batches_hold_a_request_and_its_answer(opened: FashionDataModule) -> None:
    catalog = opened._dataset.catalog
    opened.use(TripletBatch, count=64)
    batches = list(opened.train_dataloader())
    assert len(batches) == 4
    for batch in batches:
        assert isinstance(batch, TripletBatch)
        reference_labels = torch.from_numpy(catalog.labels[batch.index]).long()
        assert shows(batch.reference, batch.index)
        assert torch.equal(opened.schema.edit(reference_labels, batch.indicator), batch.target)
        assert torch.equal(batch.indicator.sum(1), torch.ones(16))
        pictures = {Noise().read(str(row), SIZE).tobytes(): row for row in catalog.rows(Split.TRAIN).tolist()}
        for name, labels in (("positive", batch.target), ("negative", batch.negative_labels)):
            images = getattr(batch, name).permute(0, 2, 3, 1).contiguous().numpy()
            rows = [pictures[image.tobytes()] for image in images]
            assert np.array_equal(catalog.labels[rows], labels.numpy()), name


def test_quadruplet_batches_hold_a_twin_of_the_answer(opened: FashionDataModule, plain: None) -> None:
    opened.use(QuadrupletBatch, count=64)
    labels, twins = opened.dataset.catalog.labels, 0
    for batch in opened.train_dataloader():
        assert isinstance(batch, QuadrupletBatch)
        assert shows(batch.reference, batch.index)
        assert np.array_equal(batch.reference_labels, labels[batch.index])
        asked = opened.schema.edit(batch.reference_labels, batch.indicator)
        assert torch.equal(asked, batch.target_labels)
        assert batch.reference.shape == batch.target.shape == batch.positive.shape == batch.negative.shape
        same = (batch.target == batch.positive).flatten(1).all(1)
        assert torch.equal(~same, batch.twin)
        known = (batch.negative_labels >= 0) & (batch.target_labels >= 0)
        assert ((batch.negative_labels != batch.target_labels) & known).any(1).all()
        twins += int(batch.twin.sum())
    assert 0 < twins < 64


def test_instance_batches_hold_anchors_and_then_their_partners(opened: FashionDataModule, plain: None) -> None:
    opened.use(InstanceBatch, count=64, batch_size=64, instances="labels")
    labels = opened.dataset.catalog.labels
    for batch in opened.train_dataloader():
        assert isinstance(batch, InstanceBatch)
        assert len(batch.image) == len(batch.instance) == 64
        assert shows(batch.image, batch.index)
        anchor, partner = batch.instance.chunk(2)
        assert torch.equal(anchor, partner)
        one, other = labels[batch.index.chunk(2)[0]], labels[batch.index.chunk(2)[1]]
        assert np.array_equal(one, other)


@pytest.mark.parametrize("rows", [None, np.array([3, 5, 8, 9, 20, 21])])
def test_positions_count_the_images_of_the_plain_loader(opened: FashionDataModule, rows: Any) -> None:
    opened.use(LabelledBatch, rows=rows)
    shown = torch.cat([batch.index for batch in opened.plain_dataloader()])
    for kind in (PositionsBatch, UnlabelledPositionsBatch):
        opened.use(kind, count=24, batch_size=8)
        seen = list(opened.train_dataloader())
        assert len(seen) == 3
        for batch in seen:
            assert isinstance(batch, kind)
            assert torch.equal(shown[batch.position], batch.index)
            if isinstance(batch, PositionsBatch):
                assert np.array_equal(batch.labels, opened.dataset.catalog.labels[batch.index])
    assert not any("label" in field for field in UnlabelledPositionsBatch._fields)


def test_two_changes_are_asked_where_they_are_wanted(tmp_path: Path) -> None:
    datamodule = data(tmp_path, changes=(1, 2), val_requests=30)
    datamodule.setup("fit")
    datamodule.use(TripletBatch, count=160)
    asked = torch.cat([batch.indicator.sum(1) for batch in datamodule.train_dataloader()])
    assert set(asked.tolist()) == {1.0, 2.0}
    assert np.bincount(datamodule.val_requests.changes).tolist() == [0, 15, 15]


@pytest.mark.parametrize("accelerator", [False, True])
def test_a_cpu_that_trains_is_left_to_it(
    opened: FashionDataModule, monkeypatch: pytest.MonkeyPatch, accelerator: bool
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    opened.use(LabelledBatch, count=32)
    assert isinstance(opened.train_dataloader(), PrefetchingLoader) is accelerator
    assert isinstance(opened.val_dataloader()[1], PrefetchingLoader)


def test_training_pictures_are_augmented(opened: FashionDataModule) -> None:
    batch = next(iter(opened.train_dataloader()))
    assert not shows(batch.image, batch.index)


@pytest.mark.parametrize("kind", [LabelledBatch, TripletBatch])
def test_workers_change_no_batch(tmp_path: Path, kind: Any) -> None:
    found = []
    for workers in (0, 2):
        datamodule = data(tmp_path, num_workers=workers, seed=3)
        datamodule.setup("fit")
        datamodule.use(kind)
        loader = datamodule.train_dataloader()
        loader.sampler.set_epoch(2)
        found.append(list(loader))
    assert all(equal(one, other) for one, other in zip(*found, strict=True))


def test_seeds_and_epochs_change_batches(tmp_path: Path) -> None:
    first = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        datamodule = data(tmp_path, seed=seed)
        datamodule.setup("fit")
        loader = datamodule.train_dataloader()
        loader.sampler.set_epoch(epoch)
        first[seed, epoch] = next(iter(loader))
    assert not equal(first[0, 0], first[0, 1])
    assert not equal(first[0, 0], first[1, 0])


@pytest.mark.parametrize("kind", [LabelledBatch, TripletBatch])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(tmp_path: Path, kind: Any) -> None:
    def fit(epochs: int, resume: Path | None) -> list[tuple[int, Any]]:
        datamodule = data(tmp_path)
        datamodule.setup("fit")
        datamodule.use(kind)
        watcher = Watcher()
        checkpoint = ModelCheckpoint(
            tmp_path, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        trainer(tmp_path, epochs, callbacks=[checkpoint], limit_val_batches=0).fit(
            watcher, datamodule=datamodule, ckpt_path=resume, weights_only=True
        )
        return watcher.batches

    whole = fit(3, None)
    fit(2, None)
    rest = fit(3, tmp_path / "last.ckpt")
    assert {epoch for epoch, _ in rest} == {2}
    expected = [(epoch, batch) for epoch, batch in whole if epoch == 2]
    assert len(rest) == len(expected) == len(whole) // 3
    assert all(one[0] == other[0] and equal(one[1], other[1]) for one, other in zip(rest, expected, strict=True))
    by_epoch = [next(batch for epoch, batch in whole if epoch == e) for e in range(3)]
    assert not equal(by_epoch[0], by_epoch[1])
    assert not equal(by_epoch[1], by_epoch[2])
    assert not torch.equal(by_epoch[1].index, by_epoch[2].index)


@pytest.mark.usefixtures("plain")
def test_the_plain_loader_keeps_to_the_rows_of_the_labelled_stage(opened: FashionDataModule) -> None:
    train = opened._dataset.catalog.rows(Split.TRAIN)
    batches = list(opened.plain_dataloader())
    assert torch.cat([batch.index for batch in batches]).tolist() == train.tolist()
    chosen = np.array([3, 5, 8, 50])
    opened.use(LabelledBatch, rows=chosen)
    assert {int(i) for batch in opened.train_dataloader() for i in batch.index} == set(train[chosen].tolist())
    opened.use(TripletBatch)
    [batch] = opened.plain_dataloader()
    assert batch.index.tolist() == train[chosen].tolist()
    assert shows(batch.image, batch.index)
    assert np.array_equal(batch.labels.numpy(), opened.train_labels[chosen])


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
