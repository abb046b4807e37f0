# SPDX-License-Identifier: MIT
"""Stages of several players: whose turn it is, schedules, interruptions, and losses that are no number any more."""

import subprocess
import sys
import textwrap
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn

from fm_bench.data.batches import LabelledBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.garments import GarmentsReader
from fm_bench.errors import UserError
from fm_bench.methods.base import Method, Stage
from fm_bench.recipe import StageBudget
from fm_bench.training import LAST, StageRunner


class Players(Method):
    """Two numbers that pull each other: one follows the other, which runs away."""

    stages = (Stage("game", LabelledBatch, monitor="val/accuracy@20", manual=True),)

    def __init__(self, attributes):
        super().__init__(attributes)
        self.save_hyperparameters()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(3, 4)
        self.third = nn.Parameter(torch.zeros(3), requires_grad=True)
        self.failing_epoch: int | None = None
        self.rates: list[float] = []

    def stage_state(self, stage):
        return {name: value for name, value in self.state_dict().items() if not name.startswith("third")}

    def game_step(self, batch):
        colour = batch.image.mean((2, 3))
        before = [parameter.detach().clone() for parameter in self.parameters()]
        with self.turn(0) as descend:
            assert not any(parameter.requires_grad for parameter in self.second.parameters())
            loss = (self.first(colour) - self.second(colour)).square().mean()
            descend(loss)
        self.moved(before, [True, True, False, False, False])
        before = [parameter.detach().clone() for parameter in self.parameters()]
        with self.turn(1) as descend:
            away = -(self.first(colour) - self.second(colour)).abs().mean() + 0.1 * self.second.weight.square().sum()
            descend(away)
        self.moved(before, [False, False, True, True, False])
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        if self.current_epoch == self.failing_epoch:
            away = away * float("nan")
        return {"follow": (1.0, loss), "run": (2.0, away)}

    def moved(self, before, expected):
        order = [self.third, *self.first.parameters(), *self.second.parameters()]
        now = [not torch.equal(a, b) for a, b in zip(before, self.parameters(), strict=True)]
        assert dict(zip(map(id, self.parameters()), now, strict=True)) == dict(
            zip(map(id, order), [expected[4], *expected[:4]], strict=True)
        )

    def game_optimizer(self):
        players = (self.first, self.second)
        return [self.scheduled(torch.optim.Adam(player.parameters(), 0.01)) for player in players]

    def embed_gallery(self, images, context=None):
        return self.first(images.mean((2, 3)))

    def embed_query(self, images, indicator, context=None):
        return self.second(images.mean((2, 3)))


@pytest.fixture
def datamodule(tmp_path) -> FashionDataModule:
    dataset = GarmentsReader(train=160, val=150, test=60).read()
    return FashionDataModule(dataset, image_size=(16, 16), batch_size=16, eval_batch_size=32, cache=tmp_path / "cache")


def train(folder: Path, datamodule: FashionDataModule, failing_epoch: int | None = None, **trainer):
    said: list[str] = []
    L.seed_everything(0, verbose=False)
    method = Players(datamodule.schema.to_dict())
    method.failing_epoch = failing_epoch
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"} | trainer
    runner = StageRunner(folder, 0, 480, {"game": StageBudget(epochs=3)}, quiet, "none", {}, said.append)
    return method, runner.run(method, datamodule), said


def test_players_take_turns_and_the_best_epoch_is_kept(tmp_path, datamodule):
    method, results, _ = train(tmp_path / "run", datamodule)
    assert results["game"].epochs == 3
    assert results["game"].images == 480
    assert results["game"].best is not None
    assert torch.equal(method.third, torch.zeros(3))
    assert len(method.rates) == 30
    assert max(method.rates) > 2 * method.rates[-1], "schedules are stepped once per batch"
    assert all(parameter.requires_grad for parameter in method.first.parameters())


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_epoch(tmp_path, datamodule):
    with pytest.raises(UserError, match="loss became nan in epoch 2: lower the learning rate") as caught:
        train(tmp_path / "run", datamodule, failing_epoch=2)
    kept = tmp_path / "run/stages/game" / LAST
    assert str(kept.parent) in str(caught.value)
    state = torch.load(kept, weights_only=True)
    assert state["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


class NoGradient(torch.autograd.Function):
    """Passes a number on, and gives its gradient back as NaN."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


class Unwatched(Method):
    """One stage that nobody validates, whose last step has a finite loss and a gradient that is none."""

    stages = (Stage("unwatched", LabelledBatch),)

    def __init__(self, attributes):
        super().__init__(attributes)
        self.save_hyperparameters()
        self.layer = nn.Linear(3, 4)
        self.failing_epoch: int | None = None

    def unwatched_step(self, batch):
        loss = self.layer(batch.image.mean((2, 3))).square().mean()
        last = self.trainer.fit_loop.epoch_loop.batch_idx == 9 and self.current_epoch == self.failing_epoch
        return {"loss": (1.0, NoGradient.apply(loss) if last else loss)}

    def unwatched_optimizer(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def embed_gallery(self, images, context=None):
        return self.layer(images.mean((2, 3)))

    def embed_query(self, images, indicator, context=None):
        return self.embed_gallery(images)


@pytest.mark.parametrize("failing_epoch", [0, 1])
def test_weights_that_are_no_number_are_never_kept(tmp_path, datamodule, failing_epoch):
    method = Unwatched(datamodule.schema.to_dict())
    method.failing_epoch = failing_epoch
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    budgets = {"unwatched": StageBudget(epochs=2)}
    runner = StageRunner(tmp_path / "run", 0, 320, budgets, quiet, "none", {}, lambda line: None)
    with pytest.raises(UserError, match=rf"a weight became .*layer.* in epoch {failing_epoch}: lower the") as caught:
        runner.run(method, datamodule)
    folder = tmp_path / "run/stages/unwatched"
    assert not list(folder.glob("*.json")) + list(folder.glob("*.pt"))
    assert ("is kept in" in str(caught.value)) == (folder / LAST).exists() == (failing_epoch > 0)


@pytest.mark.parametrize("setting", [{"gradient_clip_val": 1.0}, {"accumulate_grad_batches": 2}, {"max_steps": 8}])
def test_settings_of_one_optimiser_are_refused_before_anything_is_trained(tmp_path, datamodule, setting):
    with pytest.raises(UserError, match=rf"--trainer\.{next(iter(setting))} is"):
        train(tmp_path / "run", datamodule, **setting)
    assert not (tmp_path / "run").exists()


def test_an_interrupted_game_goes_on_with_both_players(tmp_path, datamodule):
    whole, results, _ = train(tmp_path / "whole", datamodule)
    with pytest.raises(UserError):
        train(tmp_path / "parts", datamodule, failing_epoch=1)
    resumed, again, said = train(tmp_path / "parts", datamodule)
    assert any("resumed" in line for line in said)
    assert again["game"].best == results["game"].best
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_two_processes_play_the_same_game(tmp_path):
    script = tmp_path / "play.py"
    here = Path(__file__).parent
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            from pathlib import Path

            sys.path.insert(0, {str(here)!r})
            import lightning as L
            import torch
            from test_manual import Players

            from fm_bench.data.datamodule import FashionDataModule
            from fm_bench.data.garments import GarmentsReader
            from fm_bench.recipe import StageBudget
            from fm_bench.training import StageRunner

            if __name__ == "__main__":
                dataset = GarmentsReader(train=160, val=150, test=60).read()
                cache = Path({str(tmp_path)!r}) / "cache"
                datamodule = FashionDataModule(dataset, image_size=(16, 16), batch_size=16, cache=cache)
                L.seed_everything(0, verbose=False)
                method = Players(datamodule.schema.to_dict())
                trainer = {{"enable_progress_bar": False, "accelerator": "cpu", "devices": int(sys.argv[1])}}
                budgets = {{"game": StageBudget(epochs=1)}}
                StageRunner(Path(sys.argv[2]), 0, 160, budgets, trainer, "none", {{}}, print).run(method, datamodule)
            """
        )
    )
    states = []
    for devices in (1, 2):
        out = tmp_path / f"of{devices}"
        subprocess.run(
            [sys.executable, str(script), str(devices), str(out)], check=True, capture_output=True, timeout=300
        )
        states.append(torch.load(out / "stages/game/final.pt", weights_only=True))
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-5), name
