# SPDX-License-Identifier: MIT
"""FLAM's stages as they are trained: who moves, what no stage reads, and two processes that train as one."""

import os
from dataclasses import replace
from pathlib import Path

import lightning as L
import pytest
import ranks
import torch
from stubs import watch_turns

from fm_bench.data.batches import UnlabelledPositionsBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.garments import GarmentsReader
from fm_bench.methods.flam import FLAM, MANIPULATION
from fm_bench.recipe import StageBudget
from fm_bench.training import StageRunner

SMALL = {"dim": 8, "hidden": 16, "judge_hidden": [16, 8], "code": 4, "embedder_hidden": 16}
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}

# ------------------------------------------------------------------ two processes


class Untrained(FLAM):
    """FLAM on features that nobody trained, so that any number of processes has the same."""

    def skips(self, stage):
        return stage in FLAM.stages[:2]

    def count_labels(self, batches):
        counts = super().count_labels(batches)
        torch.save(counts, f"counts{self.trainer.world_size}-{self.trainer.global_rank}.pt")
        return counts

    def keep_features(self, batches):
        super().keep_features(batches)
        torch.save(self.cached, f"kept{self.trainer.world_size}-{self.trainer.global_rank}.pt")

    def on_train_end(self):
        state = self.stage_state(self.stage)
        torch.save(state, f"{self.stage.name}{self.trainer.world_size}-{self.trainer.global_rank}.pt")


def train(rank, devices, folder):
    """The last two stages, as one of so many processes, in ``folder``."""
    os.chdir(folder)
    dataset = GarmentsReader(train=150, val=120, test=60).read()  # five batches, the last one not full
    datamodule = FashionDataModule(dataset, image_size=(24, 24), batch_size=32, eval_batch_size=32, cache=Path("cache"))
    L.seed_everything(0, verbose=False)
    method = Untrained(datamodule.schema.to_dict(), backbone="resnet10t", values=2, **SMALL)
    budgets = {name: StageBudget(share=0.0, epochs=1) for name in ("embedders", "manipulation")}
    StageRunner(Path(f"of{devices}"), 0, 150, budgets, QUIET | {"devices": devices}, "none", {}, print).run(
        method, datamodule
    )


@pytest.mark.slow
def test_two_processes_keep_the_same_features_and_train_the_same_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # and back at the end
    train(0, 1, tmp_path)
    assert ranks.run(train, 2, tmp_path / "meeting", 2, tmp_path) == [None, None]

    def left(name):
        return torch.load(tmp_path / name, weights_only=True)

    alone = left("kept1-0.pt")
    assert alone.shape == (150, 8)
    for rank in (0, 1):
        assert torch.allclose(left(f"kept2-{rank}.pt"), alone, atol=1e-5)
        assert torch.equal(left(f"counts2-{rank}.pt"), left("counts1-0.pt"))
    known = left("of1/stages/embedders/final.pt")["embedders.known"]
    assert (known.sum(1) == 2).all()
    assert torch.equal(left("of2/stages/embedders/final.pt")["embedders.known"], known)
    for stage in ("embedders", "manipulation"):
        first, second = left(f"{stage}2-0.pt"), left(f"{stage}2-1.pt")
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        assert all(value.isfinite().all() for value in first.values())


# ------------------------------------------------------------------ who moves, and by what


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains all stages for a moment; ``hide`` takes the labels of all training images away after the embedders."""
    folder = tmp_path_factory.mktemp("flam")
    dataset = GarmentsReader(train=128, val=120, test=60).read()
    budgets = {
        "attributes": StageBudget(share=0.0),
        "instances": StageBudget(share=1.0, epochs=1),
        "embedders": StageBudget(share=0.0, passes=40),
        "manipulation": StageBudget(share=0.0, epochs=2),
    }

    def train(name: str, hide: bool = False):
        datamodule = FashionDataModule(
            dataset, image_size=(24, 24), batch_size=32, eval_batch_size=64, cache=folder / "cache"
        )
        L.seed_everything(0, verbose=False)
        method = FLAM(datamodule.schema.to_dict(), backbone="resnet10t", embedders_lr=0.02, **SMALL)
        states = []
        begin = method.begin

        def watched(stage, seed):
            states.append({name: value.clone() for name, value in method.state_dict().items()})
            if stage is MANIPULATION and hide:
                pictures = datamodule._train
                labels = pictures.catalog.labels.copy()
                labels[pictures.rows] = -1
                datamodule._train = replace(pictures, catalog=replace(pictures.catalog, labels=labels))
                assert (datamodule.train_labels == -1).all()
            begin(stage, seed)

        method.begin = watched
        StageRunner(folder / name, 0, 128, budgets, QUIET, "none", {}, lambda _: None).run(method, datamodule)
        return method, states

    return train


@pytest.fixture(scope="module")
def plain(trained):
    return trained("plain")


def test_hiding_every_label_of_the_training_images_changes_no_weight_of_the_manipulation(trained, plain):
    method, _ = plain
    blind, states = trained("blind", hide=True)
    assert UnlabelledPositionsBatch._fields == ("position", "index")
    after = blind.state_dict()
    assert not torch.equal(
        states[-1]["generators.network.layers.0.weight"], after["generators.network.layers.0.weight"]
    )
    for name, value in method.state_dict().items():
        assert torch.equal(value, after[name]), name


def test_9_and_16_the_manipulation_changes_neither_features_nor_embedders(plain):
    method, states = plain
    for name, value in method.state_dict().items():
        moved = not torch.equal(value, states[-1][name])
        assert moved == name.startswith(("generators.", "discriminators.")), name


def test_9_each_player_moves_alone(trained, monkeypatch):
    seen = watch_turns(monkeypatch, FLAM, lambda model: (model.discriminators, model.generators))
    trained("watched")
    assert seen == [(0, [True, False]), (1, [False, True])] * (2 * 4)
