# SPDX-License-Identifier: MIT
"""The two stages of AMGAN's baseline: what each trains, which way each pushes, what each leaves behind."""

import math
from contextlib import contextmanager

import pytest
import torch
from test_amgan import ATTRIBUTES, logged, playing, quadruplets

from fm_bench.methods.amgan import Quadruplets
from fm_bench.methods.cgan import CGAN, DRAWING, METRIC

SCHEMES = pytest.mark.parametrize("scheme", ["pair", "triplet"])


def build(**options) -> CGAN:
    torch.manual_seed(1)
    small = {"generator_widths": [4, 6, 8], "blocks": 1, "encoder_widths": [4, 6, 10]}
    return playing(CGAN(ATTRIBUTES, **(small | options)))


def changed(before, model):
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("fresh", [False, True])
def test_drawing_trains_generator_and_critic_alone(fresh):
    model = build(fresh_batches=fresh)
    before = state(model)
    losses = model.drawing_step(quadruplets(model.schema))
    parts = {name.split(".")[0] for name in changed(before, model)}
    assert parts == {"generator", "critic", "realness", "critic_heads"}
    assert set(losses) == {"realness_D", "class_D", "realness_G", "vse", "L1", "class_G", "twins"}


def test_each_player_of_the_first_stage_leaves_the_other_alone():
    model = build()
    batch = quadruplets(model.schema)
    plain, moved = model.turn, []

    @contextmanager
    def watched(position):
        before = state(model)
        with plain(position) as descend:
            yield descend
        names = {name.split(".")[0] for name in changed(before, model)}
        moved.append((position, names))

    model.turn = watched
    model.drawing_step(batch)
    assert moved == [(0, {"critic", "realness", "critic_heads"}), (1, {"generator"})]


@SCHEMES
def test_the_second_stage_moves_encoder_and_heads_and_keeps_the_generator(scheme):
    model = build(scheme=scheme)
    model.begin(METRIC, 0)
    model.train()
    before = state(model)
    total = torch.stack([w * v for w, v in model.metric_step(quadruplets(model.schema)).values()]).sum()
    total.backward()
    with_gradient = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == {"encoder", "heads"}
    assert changed(before, model) == set(), "statistics of the generator stay, too"


@SCHEMES
def test_the_second_stage_pulls_prototypes_to_their_answers(scheme):
    """G-8: as printed, Eq. 9 would push them away."""
    model = build(scheme=scheme, lambda_=0.0)
    batch = quadruplets(model.schema)
    model.begin(METRIC, 0)
    optimizer = torch.optim.SGD(model.encoder.parameters(), 0.01)

    def distances():
        with torch.no_grad():
            query = model.eval().embed_query(batch.reference, batch.indicator)
            return [(query - model.embed_gallery(part)).norm(dim=-1)[batch.indicator.sum(-1) > 0].mean().item()
                    for part in (batch.positive, batch.negative)]  # fmt: skip

    before = distances()
    for _ in range(40):
        model.train()
        optimizer.zero_grad()
        logged(model.metric_step(batch)).backward()
        optimizer.step()
    after = distances()
    assert after[0] - after[1] < before[0] - before[1]


def test_stages_share_out_the_weights():
    model = build()
    first, second = set(model.stage_state(DRAWING)), set(model.stage_state(METRIC))
    assert not first & second
    assert first | second == set(model.state_dict())
    assert {name.split(".")[0] for name in second} == {"encoder", "heads"}


def test_critic_calls_real_pictures_real():
    model = build(lambda_=0.0)
    batch = Quadruplets.of(quadruplets(model.schema))
    drawn = torch.zeros_like(batch.target)
    with torch.no_grad():
        model.critic_heads.requires_grad_(False)
        real, fake = model.score(model.critic(batch.target)), model.score(model.critic(drawn))
        losses = model.critic_losses(batch, drawn)
        expected = -(torch.sigmoid(real).log() + (1 - torch.sigmoid(fake)).log()).mean()
        assert torch.allclose(losses["realness_D"][1], expected, atol=1e-5)
        assert set(losses) == {"realness_D"}


@pytest.mark.parametrize("saturating", [False, True])
def test_generator_is_rewarded_for_prototypes_that_look_real(saturating):
    model = build(lambda_=0.0, gamma=0.0, mu=0.0, saturating=saturating)
    batch = Quadruplets.of(quadruplets(model.schema))
    values = []
    for bias in (-2.0, 2.0):
        torch.nn.init.constant_(model.realness.bias, bias)
        losses = model.painter_losses(batch, batch.target, torch.zeros(6, 8, 4, 3))
        assert set(losses) == {"realness_G"}
        values.append(losses["realness_G"][1].item())
    assert values[1] < values[0]


@pytest.mark.parametrize("module", ["critic", "generator"])
def test_a_loss_that_is_no_number_is_in_the_logged_total(module):
    model = build()
    with torch.no_grad():
        next(getattr(model, module).parameters()).fill_(math.nan)
    assert not torch.isfinite(logged(model.drawing_step(quadruplets(model.schema))))
