# SPDX-License-Identifier: MIT
"""Training batches hold what they say, whoever loads them, and a resumed run sees what an uninterrupted one sees."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from catalogues import Noise
from datamodules import SIZE, Watcher, data, shows, trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from fm_bench.catalog import Split
from fm_bench.data import examples as module
from fm_bench.data.batches import (
    InstanceBatch,
    LabelledBatch,
    PositionsBatch,
    QuadrupletBatch,
    TripletBatch,
    UnlabelledPositionsBatch,
)
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.prefetch import PrefetchingLoader


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No augmentation, so that pictures can be compared."""
    monkeypatch.setattr(module, "Augment", lambda: lambda images, keys: images)


def equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


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


@pytest.mark.usefixtures("opencv_threads")
def test_workers_live_on_when_their_parent_had_threads_of_opencv(tmp_path: Path) -> None:
    """These do not survive the fork, and a worker that sets their number would wait for them, or worse."""
    cv2.warpAffine(np.zeros((256, 256, 3), np.uint8), np.eye(2, 3), (256, 256))  # starts the threads
    datamodule = data(tmp_path, num_workers=1)
    datamodule.setup("fit")
    assert len(list(datamodule.train_dataloader())) > 0


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
