# SPDX-License-Identifier: MIT
"""What every method gets from its base: stages without gradients, caches, and galleries that depend on the request."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from fm_bench.attributes import MISSING
from fm_bench.data.batches import CrossDomainBatch, LabelledBatch, TripletPositionsBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.garments import GarmentsReader
from fm_bench.methods.base import VIEW_BLOCK, Method, Stage
from fm_bench.recipe import StageBudget
from fm_bench.training import StageRunner


class Centred(Method):
    """Mean colour minus its mean over the training images, which a stage without gradients finds."""

    stages = (
        Stage("mean", LabelledBatch, trained=False),
        Stage("scale", TripletPositionsBatch),
    )

    def __init__(self, attributes):
        super().__init__(attributes)
        self.save_hyperparameters()
        self.register_buffer("mean", torch.zeros(3))
        self.scale = nn.Parameter(torch.ones(3))
        self.starts, self.caches = 0, 0

    def on_mean_start(self, batches):
        assert not self.training
        self.starts += 1
        self.mean.copy_(torch.cat([batch.image.mean((2, 3)) for batch in batches]).mean(0))

    def cache_scale(self, batches):
        self.caches += 1
        self.features = torch.cat([batch.image.mean((2, 3)) for batch in batches])

    def scale_step(self, batch):
        assert not isinstance(batch.reference, float)
        difference = self.features[batch.reference] - self.features[batch.positive]
        return {"L": (1.0, (self.scale * difference).square().sum(-1).mean())}

    def scale_optimizer(self):
        return torch.optim.SGD([self.scale], 0.1)

    def embed_gallery(self, images, context=None):
        return (images.mean((2, 3)) - self.mean) * self.scale

    def embed_query(self, images, indicator, context=None):
        return self.embed_gallery(images)


@pytest.fixture
def datamodule(tmp_path) -> FashionDataModule:
    dataset = GarmentsReader(train=150, val=60, test=60, street=0.3).read()
    return FashionDataModule(dataset, image_size=(16, 16), batch_size=16, eval_batch_size=32, cache=tmp_path / "cache")


def train(folder: Path, datamodule: FashionDataModule, **trainer) -> tuple[Centred, dict, list[str]]:
    said: list[str] = []
    L.seed_everything(0, verbose=False)
    method = Centred(datamodule.schema.to_dict())
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"} | trainer
    runner = StageRunner(folder, 0, 300, {"scale": StageBudget(epochs=2)}, quiet, "none", {}, said.append)
    return method, runner.run(method, datamodule), said


def test_a_stage_without_gradients_leaves_what_it_found(tmp_path, datamodule):
    method, results, said = train(tmp_path / "a", datamodule)
    pictures = datamodule._train.read(np.arange(150)) / 255.0
    assert method.starts == 1
    expected = torch.from_numpy(pictures).float().mean((0, 1, 2))
    normalised = (expected - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(method.mean, normalised, atol=1e-4)
    assert results["mean"].images == results["scale"].images == 0
    assert results["mean"].epochs == 0
    assert results["scale"].epochs == 2
    assert any("on features" in line for line in said)
    again, _, _ = train(tmp_path / "a", datamodule)  # finished: nothing is done twice
    assert again.starts == again.caches == 0
    assert torch.equal(again.mean, method.mean)
    assert torch.equal(again.scale, method.scale)


def test_a_shared_stage_is_taken_from_runs_with_the_same_libraries_and_processor_alone(
    tmp_path, datamodule, monkeypatch
):
    monkeypatch.setenv("FM_BENCH_CACHE", str(tmp_path / "shared"))
    shared = Stage("mean", LabelledBatch, trained=False, shared=True)
    monkeypatch.setattr(Centred, "stages", (shared,))
    assert train(tmp_path / "a", datamodule)[0].starts == 1
    assert train(tmp_path / "b", datamodule)[0].starts == 0
    for what in ("versions", "made_with"):
        with monkeypatch.context() as patched:
            patched.setattr(f"fm_bench.training.{what}", lambda *_: {"torch": "99", "processor": "Other CPU"})
            assert train(tmp_path / what, datamodule)[0].starts == 1
            assert train(tmp_path / "a", datamodule)[0].starts == 0  # what is begun in a folder goes on there


def test_the_users_epochs_do_not_give_gradients_to_a_stage_without(tmp_path, datamodule):
    method, results, _ = train(tmp_path / "a", datamodule, max_epochs=1)
    assert results["mean"].epochs == 0
    assert results["scale"].epochs == 1
    assert method.starts == 1


def test_what_is_cached_is_there_again_after_an_interruption(tmp_path, datamodule, monkeypatch):
    whole, _, _ = train(tmp_path / "whole", datamodule)

    def fail(method):
        if method.stage.name == "scale" and method.current_epoch == 1:
            raise RuntimeError("the power went out")

    with monkeypatch.context() as patched:
        patched.setattr(Centred, "on_train_epoch_start", fail)
        with pytest.raises(RuntimeError, match="power"):
            train(tmp_path / "parts", datamodule)
    resumed, results, said = train(tmp_path / "parts", datamodule)
    assert any("resumed" in line for line in said)
    assert resumed.caches == 1
    assert resumed.starts == 0
    assert results["scale"].epochs == 2
    assert torch.equal(resumed.scale, whole.scale)
    assert torch.equal(resumed.mean, whole.mean)


def test_position_batches_read_no_picture(datamodule, monkeypatch):
    datamodule.setup("fit")
    datamodule.use(TripletPositionsBatch, count=64)
    monkeypatch.setattr(type(datamodule._train), "read", lambda *_: pytest.fail("a picture was read"))
    labels, changes = datamodule.train_labels, set()
    for batch in datamodule.train_dataloader():
        assert isinstance(batch, TripletPositionsBatch)
        reference, positive = labels[batch.reference], labels[batch.positive]
        assert np.array_equal(batch.target, positive)
        changes |= set((reference != positive).sum(1).tolist())
        known = (batch.negative_labels != MISSING) & (batch.target != MISSING)
        assert ((batch.negative_labels != batch.target) & known).any(1).all()
        assert np.array_equal(batch.indicator.sum(1), (reference != positive).sum(1))
        assert np.array_equal(batch.index, datamodule._train.rows[batch.reference])
    assert changes <= {0, 1}


def test_pairs_show_one_item_in_both_domains(datamodule):
    datamodule.setup("fit")
    datamodule.use(CrossDomainBatch, count=64)
    catalog = datamodule.dataset.catalog
    for batch in datamodule.train_dataloader():
        assert batch.street.shape == batch.shop.shape == batch.other.shape == (16, 3, 16, 16)
        assert (batch.street_domain == 1).all()
        assert np.array_equal(batch.street_labels, catalog.labels[batch.index])
        assert np.array_equal(batch.street_labels, batch.shop_labels)  # no label is wrong here
        assert np.array_equal(catalog.domain[batch.index], batch.street_domain)


def test_validation_by_pictures_alone_looks_for_the_item(datamodule):
    datamodule.setup("fit")
    assert not datamodule.val_instance
    assert set(datamodule.val_requests.changes) <= {1, 2}
    datamodule.validate_by("query")
    assert datamodule.val_instance
    catalog = datamodule.dataset.catalog
    gallery, queries = datamodule.val_items
    assert (catalog.domain[datamodule.val_requests.query] == 1).all()
    assert np.isin(queries, gallery).all()
    shown, searched = datamodule.val_dataloader()
    assert sum(len(batch.index) for batch in shown) == len(queries)
    assert torch.cat([batch.domain for batch in searched]).sum() == 0
    assert datamodule.domains == 2


class Facets(Centred):
    """One space for each changed attribute."""

    def settings(self, attribute, region):
        return attribute[:, 0].astype(np.int64) + 10 * (region + 1)

    def gallery_view(self, stored, setting):
        return stored * setting


def test_views_are_built_one_by_one_for_the_requests_they_serve(datamodule):
    method = Facets(datamodule.schema.to_dict())
    stored = np.random.default_rng(0).standard_normal((VIEW_BLOCK + 7, 3)).astype(np.float32)
    attribute = np.array([[4, -1], [2, -1], [4, -1], [4, -1]], np.int16)
    region = np.array([-1, -1, -1, 1])
    found = list(method.views(stored, attribute, region))
    assert [positions.tolist() for positions, _ in found] == [[1], [0, 2], [3]]
    for (_, vectors), setting in zip(found, (2, 4, 24), strict=True):
        assert np.allclose(vectors, stored * setting)
    assert Centred(datamodule.schema.to_dict()).views(stored, attribute, region) is None
