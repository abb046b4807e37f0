# SPDX-License-Identifier: MIT
"""The two stages of AMGAN's baseline: what each trains, which way each pushes, what each leaves behind."""

import math
from contextlib import contextmanager
from functools import partial

import pytest
import torch
from amgan_by_hand import WEIGHTS, agree, classes_by_hand, consistency_by_hand, distance, halved, pixels_of, telling
from amgan_models import SCHEMES, beginning, logged, named, optimizers, parameters_of, quadruplets, tiny

from fm_bench.methods.amgan import Quadruplets
from fm_bench.methods.cgan import CGAN, DRAWING, METRIC

build = partial(tiny, CGAN)


def changed(before, model):
    return {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_each_stage_moves_its_own_part_at_its_own_rate():
    model = build(discriminator_lr=0.003, generator_lr=0.007)
    critic, generator = optimizers(model, "drawing")
    (metric,) = optimizers(model, "metric")
    assert named(model, critic) == beginning(model, "critic.", "realness.", "critic_heads.")
    assert named(model, generator) == beginning(model, "generator.")
    assert named(model, metric) == beginning(model, "encoder.", "heads.")
    assert named(model, critic) | named(model, generator) | named(model, metric) == beginning(model, "")
    for optimizer, lr in ((critic, 0.003), (generator, 0.007), (metric, 0.003)):
        assert [(group["lr"], group["betas"]) for group in optimizer.param_groups] == [(lr, (0.5, 0.999))]


CHOICES = {"class_loss": ("probability", "cross-entropy"), "classify": ("target", "all")}


def real_by_hand(batch, rows, encoder, heads, options):
    """The classification of real pictures."""
    x, y, positive, negative = (encoder(images) for images in pixels_of(batch, rows))
    f, wanted, others = (
        labels[rows] for labels in (batch.reference_labels, batch.target_labels, batch.negative_labels)
    )
    features, labels = [y], [wanted]
    if options["classify"] == "all":
        features, labels = [y, positive, negative, x], [wanted, wanted, others, f]
    return classes_by_hand(heads, torch.cat(features), torch.cat(labels), options["class_loss"])


def drawing_by_hand(batch, rows, generator, judges, options):
    """The ordinary game, with D the probability that the critic calls a picture real."""
    critic, realness, heads = judges
    x, y, _, _ = pixels_of(batch, rows)
    maps = generator.encode(x)
    drawn = generator.decode(maps, generator.request(batch.indicator[rows]), (16, 12))
    real, fake = (torch.sigmoid(realness(critic(images)))[:, 0] for images in (y, drawn))
    vse, pixel = consistency_by_hand(generator, maps, drawn, y, batch.reference_labels[rows], options["mask_equal"])
    return {
        "realness_D": (1.0, -(real.log() + (1 - fake).log()).mean()),
        "class_D": (5.0, real_by_hand(batch, rows, critic, heads, options)),
        "realness_G": (1.0, (1 - fake).log().mean() if options["saturating"] else -fake.log().mean()),
        "vse": (2.0, vse),
        "L1": (3.0, pixel),
        "class_G": (5.0, classes_by_hand(heads, critic(drawn), batch.target_labels[rows], options["class_loss"])),
    }


def judges_of(model):
    return model.critic, model.realness, model.critic_heads


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("saturating", [False, True])
@pytest.mark.parametrize("class_loss", CHOICES["class_loss"])
@pytest.mark.parametrize("classify", CHOICES["classify"])
def test_losses_of_drawing_are_those_of_an_ordinary_game(fresh, saturating, class_loss, classify):
    """By hand: the critic's with the first weights, the generator's after the critic moved."""
    options = {"saturating": saturating, "class_loss": class_loss, "classify": classify, "mask_equal": not fresh}
    both = options | WEIGHTS | {"fresh_batches": fresh, "discriminator_lr": 0.01}
    before, model = build(**both), build(**both)
    batch = telling(model.schema)
    found = model.drawing_step(batch)
    first, second = halved(fresh)
    with torch.no_grad():
        answer = drawing_by_hand(batch, first, before.generator, judges_of(before), options)
        expected = {name: answer[name] for name in ("realness_D", "class_D")}
        answer = drawing_by_hand(batch, second, before.generator, judges_of(model), options)
    expected |= {name: answer[name] for name in ("realness_G", "vse", "L1", "class_G")}
    del found["twins"]
    agree(found, expected)


@SCHEMES
@pytest.mark.parametrize("class_loss", CHOICES["class_loss"])
@pytest.mark.parametrize("classify", CHOICES["classify"])
def test_losses_of_the_second_stage_are_between_prototypes_and_real_pictures(scheme, class_loss, classify):
    """By hand, with prototypes as the search draws them."""
    options = {"scheme": scheme, "class_loss": class_loss, "classify": classify}
    model = build(**options, **WEIGHTS)
    model.begin(METRIC, 0)
    model.train()
    batch, rows = telling(model.schema), slice(0, 8)
    found = model.metric_step(batch)
    with torch.no_grad():
        x, _, positive, negative = pixels_of(batch, rows)
        drawn, _ = model.eval().generator(x, batch.indicator)
        near, far = (distance(model.encoder(drawn), model.encoder(images)) for images in (positive, negative))
        if scheme == "pair":
            p, q = torch.sigmoid(WEIGHTS["shift"] - near), torch.sigmoid(WEIGHTS["shift"] - far)
            metric = -(p.log() + (1 - q).log()).mean()
        else:
            metric = -torch.sigmoid(far - near).log().mean()
        classes = real_by_hand(batch, rows, model.encoder, model.heads, options)
    agree(found, {"metric": (1.0, metric), "class": (5.0, classes)})


@pytest.mark.parametrize("lambda_", [0.0, 1.0])
def test_every_weight_of_the_second_stage_that_asks_for_a_gradient_gets_one(lambda_):
    """DDP waits for every one of them."""
    model = build(lambda_=lambda_)
    model.begin(METRIC, 0)
    model.train()
    logged(model.metric_step(quadruplets(model.schema))).backward()
    asking = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    got = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert asking == got == beginning(model, *(("encoder.", "heads.") if lambda_ else ("encoder.",)))
    assert set(model.stage_state(METRIC)) == asking


def test_without_classification_heads_that_ask_for_no_gradient_stay_as_they_are():
    model = build(lambda_=0.0)
    model.begin(METRIC, 0)
    (optimizer,) = optimizers(model, "metric")
    before = state(model)
    logged(model.metric_step(quadruplets(model.schema))).backward()
    optimizer.step()
    assert {name.split(".")[0] for name in changed(before, model)} == {"encoder"}
    assert len(parameters_of(optimizer)) > len(model.stage_state(METRIC))


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
