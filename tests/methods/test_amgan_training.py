# SPDX-License-Identifier: MIT
"""How AMGAN is trained: whose turn it is (invariants 11 and 12), what a step logs, and a game that breaks."""

import math
from contextlib import contextmanager
from functools import partial

import lightning as L
import pytest
import torch
from amgan_models import ATTRIBUTES, FRESH, SCHEMES, SMALL, beginning, logged, named, optimizers, quadruplets, tiny
from stubs import watch_turns

from fm_bench.attributes import AttributeSchema
from fm_bench.data.batches import QuadrupletBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.garments import GarmentsReader
from fm_bench.errors import UserError
from fm_bench.methods import CGAN, FCD, FLAM
from fm_bench.methods.amgan import AMGAN, Quadruplets, halves
from fm_bench.recipe import StageBudget
from fm_bench.training import FINAL, LAST, StageRunner

build = partial(tiny, AMGAN)


# ------------------------------------------------------------------ whose turn it is


def test_each_player_has_an_optimiser_of_its_own():
    model = build(discriminator_lr=0.003, generator_lr=0.007, betas=[0.4, 0.95])
    discriminator, generator = optimizers(model, "adversarial")
    assert named(model, discriminator) == beginning(model, "encoder.", "heads.")
    assert named(model, generator) == beginning(model, "generator.")
    assert named(model, discriminator) | named(model, generator) == beginning(model, "")
    for optimizer, lr in ((discriminator, 0.003), (generator, 0.007)):
        assert isinstance(optimizer, torch.optim.Adam)
        assert [(group["lr"], group["betas"]) for group in optimizer.param_groups] == [(lr, (0.4, 0.95))]


def parameters(module):
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(before, module):
    return [torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]


@SCHEMES
@FRESH
def test_invariant_11_each_step_leaves_the_other_player_bit_identical(scheme, fresh):
    model = build(scheme=scheme, fresh_batches=fresh)
    buffers: list[list[torch.Tensor]] = []
    changes = []
    plain = model.turn

    @contextmanager
    def watched(position):
        before = parameters(model.generator), parameters(model.encoder), parameters(model.heads)
        statistics = [buffer.clone() for buffer in model.generator.buffers()]
        gradients = [parameter.grad.clone() for parameter in model.encoder.parameters() if position == 1]
        with plain(position) as descend:
            yield descend
        generator, encoder, heads = (
            same(old, module) for old, module in zip(before, (model.generator, model.encoder, model.heads), strict=True)
        )
        if position == 0:
            assert all(generator)
            assert not any(encoder)
            assert not any(heads)
            assert all(torch.equal(a, b) for a, b in zip(statistics, model.generator.buffers(), strict=True))
        else:
            assert sum(generator) < len(generator)
            assert all(encoder)
            assert all(heads)
            assert all(torch.equal(a, b.grad) for a, b in zip(gradients, model.encoder.parameters(), strict=True))
        changes.append(position)

    model.turn = watched
    buffers.append([buffer.clone() for buffer in model.generator.buffers()])
    model.adversarial_step(quadruplets(model.schema))
    assert changes == [0, 1]
    moved = [not torch.equal(a, b) for a, b in zip(buffers[0], model.generator.buffers(), strict=True)]
    assert all(moved), "the generator's own forward pass moves its statistics"
    tracked = [int(b) for name, b in model.generator.named_buffers() if name.endswith("num_batches_tracked")]
    assert set(tracked) == {1}, "and it alone: once per batch"


def test_prototypes_for_the_discriminator_are_normalised_by_their_own_batch():
    model = build(fresh_batches=True)
    batch = Quadruplets.of(quadruplets(model.schema))
    aside = model.drawn_aside(batch)
    assert not aside.requires_grad
    assert torch.allclose(aside, model.generator(batch.reference, batch.indicator)[0], atol=1e-6)


@SCHEMES
def test_invariant_12_the_discriminator_sees_detached_prototypes_and_never_classifies_them(scheme):
    model = build(scheme=scheme)
    batch = Quadruplets.of(quadruplets(model.schema))
    seen = []
    plain = model.discriminator_losses

    def watched(batch, drawn):
        seen.append(drawn)
        return plain(batch, drawn)

    model.discriminator_losses = watched
    model.adversarial_step(quadruplets(model.schema))
    assert not seen[0].requires_grad
    one, other = (
        plain(batch, drawn)["class_D"][1] for drawn in (torch.zeros_like(batch.target), torch.ones_like(batch.target))
    )
    assert torch.equal(one, other)
    fake = torch.zeros_like(batch.target).requires_grad_()
    plain(batch, fake)["metric_D"][1].backward()
    assert fake.grad.abs().sum() > 0, "but it does play with them"


def test_fresh_batches_are_halves():
    batch = quadruplets(AttributeSchema.from_dict(ATTRIBUTES))
    first, second = halves(batch)
    assert first.index.tolist() == [0, 1, 2]
    assert second.index.tolist() == [3, 4, 5]
    alone = QuadrupletBatch(*(field[:1] for field in batch))
    assert [len(half.index) for half in halves(alone)] == [1, 1]


# ------------------------------------------------------------------ what a step logs


@SCHEMES
@FRESH
@pytest.mark.parametrize("class_loss", ["probability", "cross-entropy"])
def test_a_step_logs_every_loss_of_both_players(scheme, fresh, class_loss):
    model = build(scheme=scheme, fresh_batches=fresh, class_loss=class_loss, lambda_=3.0, saturating=fresh)
    losses = model.adversarial_step(quadruplets(model.schema))
    assert set(losses) == {"metric_D", "class_D", "metric_G", "vse", "L1", "class_G", "twins"}
    assert all(torch.isfinite(value) for _, value in losses.values())
    assert losses["class_D"][0] == losses["class_G"][0] == 3.0
    assert losses["twins"] == (0.0, torch.tensor(0.5))


@pytest.mark.parametrize("module", ["encoder", "generator"])
def test_a_loss_that_is_no_number_is_in_the_logged_total(module):
    """Where either player breaks, so that the run stops."""
    model = build()
    with torch.no_grad():
        next(getattr(model, module).parameters()).fill_(math.nan)
    losses = model.adversarial_step(quadruplets(model.schema))
    assert not torch.isfinite(logged(losses))


@pytest.mark.parametrize("player", ["discriminator", "generator"])
def test_the_total_has_the_losses_of_each_player(player):
    model = build()
    plain = getattr(model, f"{player}_losses")
    setattr(model, f"{player}_losses", lambda *given: {k: (w, v * math.nan) for k, (w, v) in plain(*given).items()})
    assert not torch.isfinite(logged(model.adversarial_step(quadruplets(model.schema))))


def test_half_precision_keeps_losses_in_single_precision():
    model = build()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.adversarial_step(quadruplets(model.schema))
    assert all(value.dtype == torch.float32 for _, value in losses.values())


# ------------------------------------------------------------------ a run


def train(folder, datamodule, failing_epoch=None):
    """Three epochs of two batches; the generator's losses are no number in ``failing_epoch``."""
    L.seed_everything(0, verbose=False)
    method = AMGAN(datamodule.schema.to_dict(), **SMALL)
    plain = method.generator_losses

    def losses(*given):
        factor = math.nan if method.current_epoch == failing_epoch else 1.0
        return {name: (weight, value * factor) for name, (weight, value) in plain(*given).items()}

    method.generator_losses = losses
    quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
    budgets = {"adversarial": StageBudget(epochs=3)}
    runner = StageRunner(folder, 0, 4 * 3 * 32, budgets, quiet, "none", {}, lambda line: None)
    return method, runner.run(method, datamodule)["adversarial"]


def test_a_broken_game_stops_keeps_the_last_good_epoch_and_goes_on_from_there(tmp_path):
    dataset = GarmentsReader(train=160, val=150, test=60).read()
    options = {"batch_size": 16, "eval_batch_size": 32, "cache": tmp_path / "cache"}
    datamodule = FashionDataModule(dataset, image_size=(16, 16), **options)
    whole, result = train(tmp_path / "whole", datamodule)
    assert result.epochs == 3
    assert result.best is not None
    with pytest.raises(UserError, match="loss became nan in epoch 1: lower the learning rate"):
        train(tmp_path / "parts", datamodule, failing_epoch=1)
    kept = torch.load(tmp_path / "parts/stages/adversarial" / LAST, weights_only=True)
    assert kept["epoch"] == 0
    assert len(kept["optimizer_states"]) == 2
    assert all(torch.isfinite(value).all() for value in kept["state_dict"].values())
    resumed, again = train(tmp_path / "parts", datamodule)
    assert again.best == result.best
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_invariant_11_each_player_moves_alone_in_a_run(tmp_path, monkeypatch):
    seen = watch_turns(monkeypatch, AMGAN, lambda model: (model.encoder, model.heads, model.generator))
    dataset = GarmentsReader(train=160, val=150, test=60).read()
    options = {"batch_size": 16, "eval_batch_size": 32, "cache": tmp_path / "cache"}
    train(tmp_path / "run", FashionDataModule(dataset, image_size=(16, 16), **options))
    assert seen == [(0, [True, True, False]), (1, [False, False, True])] * (3 * 2)


class Scripted(L.Callback):
    """Scores of three epochs, of which the second is best, and the weights that each was given for."""

    seen: list[dict[str, torch.Tensor]]

    def __init__(self):
        Scripted.seen = []

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val/accuracy@20", torch.tensor([0.2, 0.6, 0.4])[len(self.seen)])
        self.seen.append({name: value.clone() for name, value in pl_module.state_dict().items()})


def test_the_epoch_that_does_best_on_validation_requests_is_kept(tmp_path, monkeypatch):
    for method in (AMGAN, CGAN, FLAM, FCD):  # the last stage, which is the one that searches
        assert method.stages[-1].monitor == "val/accuracy@20"
    monkeypatch.setattr("fm_bench.training.RetrievalValidation", Scripted)
    dataset = GarmentsReader(train=160, val=150, test=60).read()
    options = {"batch_size": 16, "eval_batch_size": 32, "cache": tmp_path / "cache"}
    method, result = train(tmp_path / "run", FashionDataModule(dataset, image_size=(16, 16), **options))
    assert (result.epochs, result.best) == (3, pytest.approx(0.6))
    kept = torch.load(tmp_path / "run/stages/adversarial" / FINAL, weights_only=True)
    for name, value in method.state_dict().items():
        assert torch.equal(value, Scripted.seen[1][name]), name
        assert torch.equal(value, kept[name]), name
    assert not torch.equal(kept["generator.paint.weight"], Scripted.seen[2]["generator.paint.weight"])
