# SPDX-License-Identifier: MIT
"""The callback logs what the evaluator counts, and checkpoints can be chosen by it."""

from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from fm_bench.data.batches import EmbeddingBatch
from fm_bench.evaluation import Protocol, RetrievalValidation, evaluate
from fm_bench.evaluation.metrics import RetrievalMetric
from fm_bench.retrieval import reduced

NAMES = {"val/accuracy@20": "accuracy@20", "val/ndcg@20": "ndcg@20", "val/mrr": "mrr@1000"}


class Data(L.LightningDataModule):
    """Vectors in place of pictures: requests first, gallery second."""

    def __init__(self, n=80, r=30):
        super().__init__()
        rng = np.random.default_rng(0)
        self.val_labels = rng.integers(0, 3, (n, 3))
        self.gallery = torch.from_numpy(rng.standard_normal((n, 4)).astype(np.float32))
        self.queries = torch.from_numpy(rng.standard_normal((r, 4)).astype(np.float32))
        target = self.val_labels[rng.integers(0, n, r)]
        self.val_requests = SimpleNamespace(target=target, attribute=np.full((r, 2), -1))
        self.val_instance, self.val_items = False, (np.arange(n), np.arange(r))
        self.val_exclude = rng.integers(-1, n, r)

    def train_dataloader(self):
        return DataLoader(torch.zeros(4, 1), batch_size=2)

    def val_dataloader(self):
        return [
            DataLoader(list(zip(x, range(len(x)), strict=True)), batch_size=8) for x in (self.queries, self.gallery)
        ]

    def expected(self, shift, k=20):
        report = evaluate(
            (self.gallery + shift * self.gallery.roll(1)).numpy(),
            self.queries.numpy(),
            protocol=Protocol("x", 1, k=(k,), ndcg=(k,), mrr=(1000,)),
            targets=self.val_requests.target,
            gallery_labels=self.val_labels,
            exclude=self.val_exclude,
            infeasible="miss",
            resamples=0,
        )
        return {ours: report.metrics[theirs.replace("20", str(k))].value for ours, theirs in NAMES.items()}


class Model(L.LightningModule):
    """Its embeddings change with every epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch, batch_idx):
        return (self.weight * batch).sum()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        vectors, index = batch
        if dataloader_idx == 1:
            vectors = vectors + self.current_epoch * self.trainer.datamodule.gallery.roll(1)[index]
        return EmbeddingBatch(vectors, index)

    def on_validation_end(self):
        if not self.trainer.sanity_checking:
            self.seen.append({name: float(self.trainer.callback_metrics[name]) for name in NAMES})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data, tmp_path, **trainer):
    checkpoint = ModelCheckpoint(tmp_path, "{epoch}", monitor="val/accuracy@20", mode="max", save_top_k=1)
    model = Model()
    L.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RetrievalValidation(), checkpoint],
        **trainer,
    ).fit(model, datamodule=data)
    return model, checkpoint


def test_a_trainer_on_the_processor_searches_there(tmp_path, monkeypatch):
    compute, may = RetrievalMetric.compute, []
    monkeypatch.setattr(RetrievalMetric, "compute", lambda self: (may.append(reduced.may_use_gpus()), compute(self))[1])
    fit(Data(), tmp_path)
    assert may == [False] * 3
    assert reduced.may_use_gpus()


def test_logs_what_the_evaluator_counts_and_checkpoints_follow(tmp_path):
    data = Data()
    model, checkpoint = fit(data, tmp_path)
    expected = [data.expected(epoch) for epoch in range(3)]
    for seen, values in zip(model.seen, expected, strict=True):
        assert seen == pytest.approx(values, abs=1e-6)
    accuracy = [values["val/accuracy@20"] for values in expected]
    assert len(set(accuracy)) > 1
    assert checkpoint.best_model_path.endswith(f"epoch={int(np.argmax(accuracy))}.ckpt")


def test_small_gallery_keeps_the_names(tmp_path):
    data = Data(n=12, r=10)
    model, _ = fit(data, tmp_path)
    assert model.seen[0] == pytest.approx(data.expected(0, k=11), abs=1e-6)


def test_few_batches_are_enough(tmp_path):
    model, _ = fit(Data(), tmp_path, limit_val_batches=2)
    assert all(0 <= value <= 1 for seen in model.seen for value in seen.values())


def test_street_photos_look_for_their_item(tmp_path):
    data = Data()
    rng = np.random.default_rng(1)
    data.val_instance, data.val_items = True, (rng.integers(0, 20, 80), rng.integers(0, 20, 30))
    expected = evaluate(
        data.gallery.numpy(),
        data.queries.numpy(),
        protocol=Protocol("x", 0, hit="instance", k=(20,), ndcg=(20,), mrr=(1000,)),
        targets=data.val_requests.target,
        gallery_labels=data.val_labels,
        exclude=data.val_exclude,
        gallery_items=data.val_items[0],
        query_items=data.val_items[1],
        infeasible="miss",
        resamples=0,
    )
    model, _ = fit(data, tmp_path)
    assert model.seen[0]["val/accuracy@20"] == pytest.approx(expected.metrics["accuracy@20"].value)
    assert model.seen[0]["val/accuracy@20"] != pytest.approx(Data().expected(0)["val/accuracy@20"])


def test_requests_are_searched_in_the_view_that_the_method_names(tmp_path):
    """Two spaces, the second one turned upside down: the gallery of a request is the one of its setting."""

    class Twofold(Model):
        def views(self, gallery, attribute, region):
            assert attribute.shape == (len(region), 2)
            assert (region == -1).all()
            self.asked = getattr(self, "asked", 0) + len(attribute)
            half = len(attribute) // 2
            yield np.arange(half), gallery
            yield np.arange(half, len(attribute)), -gallery

    data, plain = Data(), Data().expected(0)
    upside = Data()
    upside.gallery = -upside.gallery
    model = Twofold()
    runner = L.Trainer(
        max_epochs=1,
        callbacks=[RetrievalValidation()],
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    runner.fit(model, datamodule=data)
    assert model.asked == 30
    found = model.seen[0]["val/accuracy@20"]
    assert found not in (pytest.approx(plain["val/accuracy@20"]), pytest.approx(upside.expected(0)["val/accuracy@20"]))
