# SPDX-License-Identifier: MIT
"""The invariants of the AMGAN paper by their numbers, on tiny networks."""

import math
import re
from contextlib import contextmanager

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fm_bench.attributes import AttributeSchema
from fm_bench.data.batches import QuadrupletBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.garments import GarmentsReader
from fm_bench.data.transforms import normalise
from fm_bench.errors import UserError
from fm_bench.methods.amgan import (
    AMGAN,
    Quadruplets,
    classification,
    halves,
    pair_discriminator,
    pair_generator,
    pair_probability,
    triplet_discriminator,
    triplet_generator,
    triplet_probability,
    visual_semantic,
)
from fm_bench.methods.base import weighted_sum
from fm_bench.nn.losses import euclidean
from fm_bench.nn.prototypes import Generator, MetricEncoder, from_pixels, replicate, to_pixels
from fm_bench.recipe import StageBudget
from fm_bench.results import load_model, save_model
from fm_bench.training import LAST, StageRunner

ATTRIBUTES = {"colour": ["red", "blue", "green"], "sleeve": ["none", "short"], "fit": ["slim", "wide", "loose", "long"]}
LABELS = torch.tensor([[2, 0, 1], [0, 1, 3], [1, 0, 0], [0, 0, 2], [2, 1, 1], [1, 1, 3]])
SCHEMES = pytest.mark.parametrize("scheme", ["pair", "triplet"])
FRESH = pytest.mark.parametrize("fresh", [False, True])


def build(**options) -> AMGAN:
    torch.manual_seed(1)
    small = {"generator_widths": [4, 6, 8], "blocks": 1, "encoder_widths": [4, 6, 10]}
    return playing(AMGAN(ATTRIBUTES, **(small | options)))


def optimizers(model, stage):
    """What the stage gives the Trainer, without one: schedules are left out, but every optimiser must ask for one."""
    given = []

    def scheduled(optimizer):
        given.append(optimizer)
        return {"optimizer": optimizer}

    model.scheduled = scheduled
    found = getattr(model, f"{stage}_optimizer")()
    listed = [entry["optimizer"] for entry in (found if isinstance(found, list) else [found])]
    assert [id(optimizer) for optimizer in listed] == [id(optimizer) for optimizer in given]
    return listed


def playing(model):
    """Takes turns with the model's own optimisers, as the Trainer does: while one moves, the others ask for nothing."""
    players = optimizers(model, model.stages[0].name)

    @contextmanager
    def turn(position):
        for player in players:
            for parameter in parameters_of(player):
                parameter.requires_grad_(False)
        for parameter in parameters_of(players[position]):
            parameter.requires_grad_(True)

        def descend(loss):
            players[position].zero_grad()
            loss.backward()
            players[position].step()

        yield descend
        for player in players:
            for parameter in parameters_of(player):
                parameter.requires_grad_(True)

    model.turn = turn
    return model


def parameters_of(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def named(model, optimizer):
    """Names of what an optimiser moves."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moved = [names[id(parameter)] for parameter in parameters_of(optimizer)]
    assert len(moved) == len(set(moved))
    return set(moved)


def beginning(model, *parts):
    return {name for name, _ in model.named_parameters() if name.startswith(parts)}


def pictures(count=6, height=16, width=12, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return normalise(torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8))


def quadruplets(schema, count=6) -> QuadrupletBatch:
    """Requests for long garments."""
    labels = LABELS[:count]
    indicator = schema.indicator([("fit", "long")]).repeat(count, 1) * (labels[:, 2:] != 3)
    roles = [pictures(count, seed=seed) for seed in range(4)]
    target = schema.edit(labels, indicator)
    twin = torch.tensor([True, False] * count)[:count]
    return QuadrupletBatch(*roles, indicator, labels, target, labels.roll(1, 0), twin, torch.arange(count))


def logged(losses):
    return sum(weight * value for weight, value in losses.values())


def scalar(value):
    return torch.tensor([float(value)])


# ------------------------------------------------------------------ wiring: who moves, and what each player is given


def test_each_player_has_an_optimiser_of_its_own():
    model = build(discriminator_lr=0.003, generator_lr=0.007, betas=[0.4, 0.95])
    discriminator, generator = optimizers(model, "adversarial")
    assert named(model, discriminator) == beginning(model, "encoder.", "heads.")
    assert named(model, generator) == beginning(model, "generator.")
    assert named(model, discriminator) | named(model, generator) == beginning(model, "")
    for optimizer, lr in ((discriminator, 0.003), (generator, 0.007)):
        assert isinstance(optimizer, torch.optim.Adam)
        assert [(group["lr"], group["betas"]) for group in optimizer.param_groups] == [(lr, (0.4, 0.95))]


WEIGHTS = {"gamma": 2.0, "mu": 3.0, "lambda_": 5.0, "margin": 0.3, "shift": 0.7}


def telling(schema) -> QuadrupletBatch:
    """Two halves alike in kind: all labels of a row differ, two references have equal ones, and some are missing."""
    reference = torch.tensor([[2, 0, 1], [0, 1, 3], [2, 0, 1], [1, -1, 0], [0, 0, 2], [1, 1, 1], [0, 0, 2], [2, 1, -1]])
    target = torch.tensor([[0, 0, 1], [0, 0, 3], [1, 0, 1], [2, -1, 0], [0, 1, 0], [1, 1, 2], [0, 0, 3], [0, 1, -1]])
    negative = torch.tensor([[1, 1, 0], [1, 1, 2], [2, 1, 3], [0, 0, -1], [2, 0, 1], [0, 0, 1], [1, -1, 0], [1, 0, 2]])
    asked = (reference != target) & (target >= 0)
    indicator = schema.one_hot(target.masked_fill(~asked, -1))
    generator = torch.Generator().manual_seed(5)
    noise = torch.randint(0, 60, (32, 3, 16, 12), generator=generator)
    colour = torch.randint(0, 196, (32, 3, 1, 1), generator=generator)  # so that pictures are far from each other
    images = normalise((noise + colour).to(torch.uint8))
    twin = torch.ones(8, dtype=torch.bool)
    return QuadrupletBatch(*images.chunk(4), indicator, reference, target, negative, twin, torch.arange(8))


def pixels_of(batch, rows):
    """The four real pictures of some rows, in [-1, 1]."""
    return [to_pixels(images[rows]) for images in batch[:4]]


def distance(a, b):
    return torch.linalg.vector_norm(a - b, dim=-1)


def classes_by_hand(heads, features, labels, kind):
    """G-2: the mean of -p over all known labels, or the sum of -log p over a picture's, averaged over pictures."""
    p = [
        head(row.unsqueeze(0)).softmax(-1)[0, label]
        for row, known in zip(features, labels.tolist(), strict=True)
        for head, label in zip(heads, known, strict=True)
        if label >= 0
    ]
    return -torch.stack(p).mean() if kind == "probability" else -torch.stack(p).log().sum() / len(labels)


def consistency_by_hand(generator, maps, drawn, target, labels, mask):
    """Eqs. 3-5, one pair after the other; ``labels`` are f, of the picture that the maps are of."""
    s = [
        sum(generator.semantics[:, column] for column in columns)
        for columns in (
            [start + label for start, label in zip((0, 3, 5), row, strict=True) if label >= 0]
            for row in labels.tolist()
        )
    ]
    v = maps.mean((2, 3))
    hinges = []
    for i in range(len(s)):
        for j in range(len(s)):
            if i == j or (mask and torch.equal(labels[i], labels[j])):
                continue
            own = F.cosine_similarity(s[i], v[i], dim=0)
            hinges.append(F.relu(WEIGHTS["margin"] - own + F.cosine_similarity(s[i], v[j], dim=0)))
            hinges[-1] = hinges[-1] + F.relu(WEIGHTS["margin"] - own + F.cosine_similarity(v[i], s[j], dim=0))
    return torch.stack(hinges).mean(), (drawn - target).abs().mean()


def by_hand(batch, rows, generator, encoder, heads, options):
    """All losses of both players on ``rows``, from the paper's equations; whoever moves first is the caller's care."""
    x, y, positive, negative = pixels_of(batch, rows)
    f, wanted, others = (
        labels[rows] for labels in (batch.reference_labels, batch.target_labels, batch.negative_labels)
    )
    maps = generator.encode(x)
    drawn = generator.decode(maps, generator.request(batch.indicator[rows]), (16, 12))
    fake, real, twin, other = (encoder(images) for images in (drawn, y, positive, negative))
    if options["scheme"] == "pair":
        p = torch.sigmoid(WEIGHTS["shift"] - distance(real, twin))
        q = torch.sigmoid(WEIGHTS["shift"] - distance(fake, twin))
        discriminator = -(p.log() + (1 - q).log()).mean()
    else:
        p = torch.sigmoid(distance(real, other) - distance(real, twin))
        r = torch.sigmoid(distance(real, fake) - distance(real, twin))
        discriminator = -(p.log() + r.log()).mean()
        q = torch.sigmoid(distance(fake, other) - distance(fake, twin))
    kind = options["class_loss"]
    features, labels = [real], [wanted]
    if options["classify"] == "all":
        features, labels = [real, twin, other, encoder(x)], [wanted, wanted, others, f]
    vse, pixel = consistency_by_hand(generator, maps, drawn, y, f, options["mask_equal"])
    return {
        "metric_D": (1.0, discriminator),
        "class_D": (5.0, classes_by_hand(heads, torch.cat(features), torch.cat(labels), kind)),
        "metric_G": (1.0, (1 - q).log().mean() if options["saturating"] else -q.log().mean()),
        "vse": (2.0, vse),
        "L1": (3.0, pixel),
        "class_G": (5.0, classes_by_hand(heads, fake, wanted, kind)),
    }


def halved(fresh):
    """Rows of the first player's mini-batch, and of the second's."""
    return (slice(0, 4), slice(4, 8)) if fresh else (slice(0, 8), slice(0, 8))


def agree(found, expected):
    """Equal weights, and values within 1e-5."""
    assert set(found) == set(expected)
    for name, (weight, value) in expected.items():
        assert found[name][0] == weight, name
        assert found[name][1].item() == pytest.approx(value.item(), abs=1e-5), name


@SCHEMES
@FRESH
@pytest.mark.parametrize("saturating", [False, True])
@pytest.mark.parametrize("class_loss", ["probability", "cross-entropy"])
@pytest.mark.parametrize(("classify", "mask_equal"), [("target", False), ("all", True)])
def test_losses_of_a_step_are_those_of_the_paper(scheme, fresh, saturating, class_loss, classify, mask_equal):
    """Eqs. 4-14 by hand: the discriminator's with the first weights, the generator's after the discriminator moved."""
    options = {
        "scheme": scheme,
        "saturating": saturating,
        "class_loss": class_loss,
        "classify": classify,
        "mask_equal": mask_equal,
    }
    options_of_both = options | WEIGHTS | {"fresh_batches": fresh, "discriminator_lr": 0.01}
    before, model = build(**options_of_both), build(**options_of_both)
    batch = telling(model.schema)
    found = model.adversarial_step(batch)
    first, second = halved(fresh)
    with torch.no_grad():
        answer = by_hand(batch, first, before.generator, before.encoder, before.heads, options)
        expected = {name: answer[name] for name in ("metric_D", "class_D")}
        answer = by_hand(batch, second, before.generator, model.encoder, model.heads, options)
    expected |= {name: answer[name] for name in ("metric_G", "vse", "L1", "class_G")}
    assert found.pop("twins") == (0.0, torch.tensor(1.0))
    agree(found, expected)


@SCHEMES
def test_gradients_of_the_generator_are_those_of_its_losses(scheme):
    """Nothing that belongs to the generator's losses is detached from it."""
    options = {"scheme": scheme, "saturating": False, "class_loss": "cross-entropy", "classify": "all"}
    options["mask_equal"] = True
    model, other = build(**options, **WEIGHTS), build(**options, **WEIGHTS)
    batch = telling(model.schema)
    quadruplets_ = Quadruplets.of(batch)
    drawn, maps = model.generator(quadruplets_.reference, quadruplets_.indicator)
    weighted_sum(model.generator_losses(quadruplets_, drawn, maps)).backward()
    expected = by_hand(batch, slice(0, 8), other.generator, other.encoder, other.heads, options)
    logged({name: expected[name] for name in ("metric_G", "vse", "L1", "class_G")}).backward()
    for (name, one), two in zip(model.generator.named_parameters(), other.generator.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-4, rtol=1e-3), name


@SCHEMES
def test_gradients_of_the_discriminator_are_those_of_its_losses(scheme):
    options = {"scheme": scheme, "saturating": False, "class_loss": "cross-entropy", "classify": "all"}
    options["mask_equal"] = True
    model, other = build(**options, **WEIGHTS), build(**options, **WEIGHTS)
    batch = telling(model.schema)
    quadruplets_ = Quadruplets.of(batch)
    drawn, _ = model.generator(quadruplets_.reference, quadruplets_.indicator)
    weighted_sum(model.discriminator_losses(quadruplets_, drawn.detach())).backward()
    expected = by_hand(batch, slice(0, 8), other.generator, other.encoder, other.heads, options)
    logged({name: expected[name] for name in ("metric_D", "class_D")}).backward()
    for part in ("encoder", "heads"):
        pairs = zip(getattr(model, part).named_parameters(), getattr(other, part).parameters(), strict=True)
        for (name, one), two in pairs:
            assert torch.allclose(one.grad, two.grad, atol=1e-4, rtol=1e-3), name


@pytest.mark.parametrize("scheme", ["pair", "triplet"])
def test_only_triplets_need_the_negative_of_the_generator(scheme):
    model = build(scheme=scheme)
    batch = Quadruplets.of(telling(model.schema))
    drawn, maps = model.generator(batch.reference, batch.indicator)
    seen = []
    model.encoder.register_forward_hook(lambda module, given, features: seen.append(len(features)))
    model.generator_losses(batch, drawn, maps)
    assert sum(seen) == (16 if scheme == "pair" else 24)


# ------------------------------------------------------------------ 1 and 2: the request


def test_invariant_1_worked_request_and_none():
    generator = Generator(3, [4, 4, 2], 1)
    generator.semantics.data = torch.tensor([[1.0, 0, 2], [0, 3, 4]])
    asked = generator.request(torch.tensor([[1.0, 0, 1], [0, 0, 0]]))
    assert torch.equal(asked, torch.tensor([[1.5, 2], [0, 0]]))
    asked.sum().backward()
    assert torch.isfinite(generator.semantics.grad).all()


def test_invariant_2_replicated_maps_are_constant_over_the_picture():
    request = torch.randn(2, 5)
    maps = replicate(request, torch.zeros(2, 5, 3, 4))
    assert maps.shape == (2, 5, 3, 4)
    assert maps.var(dim=(2, 3)).eq(0).all()
    assert torch.equal(maps[:, :, 0, 0], request)


# ------------------------------------------------------------------ 3 to 7: the games


def test_invariant_3_pair_probabilities():
    p = pair_probability(torch.tensor([0.0, 1, 2]), 1.0)
    assert torch.allclose(p, torch.tensor([0.731059, 0.5, 0.268941]), atol=1e-6)
    assert (pair_probability(torch.linspace(0, 9, 50), 1.0).diff() < 0).all()


def test_invariant_4_triplet_probabilities():
    assert triplet_probability(scalar(1), scalar(2)).item() == pytest.approx(0.731059, abs=1e-6)
    assert triplet_probability(scalar(2), scalar(1)).item() == pytest.approx(1 - 0.731059, abs=1e-6)
    assert triplet_probability(scalar(4.5), scalar(5.5)).item() == pytest.approx(0.731059, abs=1e-6)


def test_invariant_5_pair_losses():
    assert pair_discriminator(scalar(0.5), scalar(2), 1.0).item() == pytest.approx(0.787339, abs=1e-6)
    assert pair_generator(scalar(2), 1.0, saturating=True).item() == pytest.approx(-0.313262, abs=1e-6)


def test_invariant_6_triplet_losses():
    assert triplet_discriminator(scalar(1), scalar(2), scalar(1.5)).item() == pytest.approx(0.787339, abs=1e-6)
    assert triplet_generator(scalar(1.5), scalar(2), saturating=True).item() == pytest.approx(-0.974077, abs=1e-6)


def test_invariant_7_softplus_equals_log_sigmoid_and_is_finite_far_away():
    near, far = torch.rand(20) * 4, torch.rand(20) * 4
    p, q = pair_probability(near, 1.0), pair_probability(far, 1.0)
    assert torch.allclose(pair_discriminator(near, far, 1.0), -(p.log() + (1 - q).log()).mean(), atol=1e-6)
    assert torch.allclose(pair_generator(far, 1.0, saturating=True), (1 - q).log().mean(), atol=1e-6)
    assert torch.allclose(pair_generator(far, 1.0, saturating=False), -q.log().mean(), atol=1e-6)
    r = triplet_probability(near, far)
    assert torch.allclose(triplet_generator(near, far, saturating=True), (1 - r).log().mean(), atol=1e-6)
    assert torch.allclose(triplet_generator(near, far, saturating=False), -r.log().mean(), atol=1e-6)
    huge = scalar(1e4)
    for value in (
        pair_discriminator(huge, huge * 0, 1.0),
        pair_generator(huge, 1.0, saturating=False),
        triplet_discriminator(huge, huge * 0, huge),
        triplet_generator(huge, huge * 0, saturating=True),
        triplet_generator(huge * 0, huge, saturating=True),
    ):
        assert torch.isfinite(value)


# ------------------------------------------------------------------ 8 and 9: visual-semantic consistency


def test_invariant_8_hinges():
    known = torch.ones(2, dtype=torch.bool)
    # on a circle, s_0 v_0 v_1 s_1: acos .9 from each s to its own v, acos .8 from it to the other one
    own, other = math.acos(0.9), math.acos(0.8)
    semantic, visual = (
        torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])
        for angles in ((0.0, own + other), (own, other))
    )
    cosine = semantic @ visual.T
    assert torch.allclose(cosine, torch.tensor([[0.9, 0.8], [0.8, 0.9]]), atol=1e-6)
    two_hinges = visual_semantic(semantic, visual, known, 0.2).item()
    assert two_hinges == pytest.approx(2 * 0.1, abs=1e-6), "one for each direction, .2 - .9 + .8"

    same = torch.ones(5, 3)
    assert visual_semantic(same, same, torch.ones(5, dtype=torch.bool), 0.2).item() == pytest.approx(0.4)
    eye = torch.eye(4)
    assert visual_semantic(eye, eye, torch.ones(4, dtype=torch.bool), 0.2).item() == 0
    assert visual_semantic(eye[:1], eye[:1], known[:1], 0.2).item() == 0


def test_invariant_8_all_ordered_pairs_count():
    """A hinge of a single pair of 64 pictures is divided by 4,032."""
    semantic = torch.eye(64)
    visual = torch.eye(64)
    visual[1] = torch.eye(64)[0]  # picture 1 looks like the labels of picture 0
    known = torch.ones(64, dtype=torch.bool)
    # pair (0, 1): s_0 v_1 gives 0.2; pair (1, j): own cosine 0, so 0.2 with each other j, and 1.2 where v_1 meets s_0
    pairs = 64 * 63
    expected = (0.2 + 63 * 0.2 + 62 * 0.2 + 1.2) / pairs
    assert visual_semantic(semantic, visual, known, 0.2).item() == pytest.approx(expected, rel=1e-5)


def test_invariant_9_scale_of_labels_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    semantic, visual = (torch.randn(6, 5, generator=generator) for _ in range(2))
    known = torch.ones(6, dtype=torch.bool)
    results = []
    for factor in (1.0, 1 / 12, 7.0):
        weights = semantic.clone().requires_grad_()
        loss = visual_semantic(factor * weights, visual, known, 0.2)
        loss.backward()
        results.append((loss.item(), weights.grad))
    for value, gradient in results[1:]:
        assert value == pytest.approx(results[0][0], abs=1e-6)
        assert torch.allclose(gradient, results[0][1], atol=1e-6)


def test_pictures_without_labels_and_equal_labels_are_left_out():
    generator = torch.Generator().manual_seed(0)
    semantic, visual = (torch.randn(4, 5, generator=generator) for _ in range(2))
    semantic[3] = 0
    semantic.requires_grad_()
    known = torch.tensor([True, True, True, False])
    loss = visual_semantic(semantic, visual, known, 0.2)
    loss.backward()
    assert torch.allclose(loss, visual_semantic(semantic[:3], visual[:3], known[:3], 0.2))
    assert torch.equal(semantic.grad[3], torch.zeros(5))
    labels = torch.tensor([[0, 1], [0, 1], [0, 2], [-1, -1]])
    kept = visual_semantic(semantic, visual, known, 0.2, labels)
    parts = [visual_semantic(semantic[[i, 2]], visual[[i, 2]], known[:2], 0.2) for i in (0, 1)]
    assert torch.allclose(kept, torch.stack(parts).mean())
    assert visual_semantic(semantic, visual, known, 0.2, labels * 0).item() == 0


# ------------------------------------------------------------------ 10: pixels


def test_invariant_10_pixel_distance_is_a_mean():
    model = build(gamma=0)
    batch = Quadruplets.of(quadruplets(model.schema))
    maps = torch.zeros(6, 8, 4, 3)
    assert model.consistency(batch, batch.target, maps)["L1"][1].item() == 0
    assert model.consistency(batch, batch.target + 0.1, maps)["L1"][1].item() == pytest.approx(0.1, abs=1e-6)


# ------------------------------------------------------------------ 11 to 13: whose turn it is


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


@SCHEMES
@pytest.mark.parametrize("saturating", [False, True])
def test_invariant_13_a_step_of_the_generator_brings_the_prototype_closer(scheme, saturating):
    torch.manual_seed(0)
    linear = nn.Linear(4, 3, bias=False)
    x, positive, negative = torch.randn(8, 4), torch.randn(8, 3), torch.randn(8, 3)

    def loss():
        near, far = euclidean(linear(x), positive), euclidean(linear(x), negative)
        if scheme == "pair":
            return pair_generator(near, 1.0, saturating=saturating)
        return triplet_generator(near, far, saturating=saturating)

    before = euclidean(linear(x), positive).mean().item()
    optimizer = torch.optim.SGD(linear.parameters(), 0.05)
    loss().backward()
    optimizer.step()
    assert euclidean(linear(x), positive).mean().item() < before


# ------------------------------------------------------------------ 14: labels


def test_invariant_14_edited_labels(tmp_path):
    schema = AttributeSchema.from_dict({"a": list("xyz"), "b": list("pqrs"), "c": list("abcdefg")})
    wanted = torch.zeros(14)
    wanted[3 + 3] = 1  # the second attribute, its value 3
    assert torch.equal(schema.edit(torch.tensor([2, 0, 5]), wanted), torch.tensor([2, 3, 5]))

    dataset = GarmentsReader(train=160, val=150, test=60).read()
    datamodule = FashionDataModule(dataset, image_size=(16, 16), batch_size=16, cache=tmp_path, changes=[1, 2])
    datamodule.setup("fit")
    datamodule.use(QuadrupletBatch, count=64)
    values = [(m, v) for m, size in enumerate(datamodule.schema.sizes) for v in range(size)]
    counts = set()
    for batch in datamodule.train_dataloader():
        assert torch.equal(batch.reference_labels, torch.from_numpy(dataset.catalog.labels[batch.index]).long())
        for h, f, e in zip(batch.indicator, batch.reference_labels.tolist(), batch.target_labels.tolist(), strict=True):
            ones = h.nonzero().flatten().tolist()
            edited = dict(enumerate(f)) | dict(values[column] for column in ones)
            assert list(edited.values()) == e, "e* is the target's, not the request's doing"
            assert len(ones) == sum(a != b for a, b in zip(f, e, strict=True))
            counts.add(len(ones))
    assert counts == {1, 2}


# ------------------------------------------------------------------ 15: what is switched off


def test_invariant_15_without_consistency_the_matrix_still_learns_from_requests():
    model = build(gamma=0)
    batch = Quadruplets.of(quadruplets(model.schema))
    drawn, maps = model.generator(batch.reference, batch.indicator)
    losses = model.generator_losses(batch, drawn, maps)
    assert "vse" not in losses
    weighted_sum(losses).backward()
    asked = batch.indicator.sum(0) > 0
    gradient = model.generator.semantics.grad.abs().sum(0)
    assert (gradient[asked] > 0).all()
    assert gradient[~asked].eq(0).all(), "only the consistency reaches values that nobody asks for"
    whole = build()
    drawn, maps = whole.generator(batch.reference, batch.indicator)
    weighted_sum(whole.generator_losses(batch, drawn, maps)).backward()
    assert (whole.generator.semantics.grad.abs().sum(0)[~asked] > 0).any()


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_invariant_15_only_the_consistency_reaches_the_visual_maps_by_themselves(gamma):
    """The generator's encoder learns from its maps' means by Eq. 4 and from nothing else but what is drawn."""
    model = build(gamma=gamma)
    batch = Quadruplets.of(telling(model.schema))
    drawn, maps = model.generator(batch.reference, batch.indicator)
    aside = maps.detach().requires_grad_()
    weighted_sum(model.generator_losses(batch, drawn.detach(), aside)).backward()
    assert (aside.grad is not None and bool(aside.grad.abs().sum() > 0)) == (gamma > 0)


def test_invariant_15_the_consistency_moves_the_generators_encoder_and_not_its_decoder():
    model = build(gamma=1.0)
    batch = Quadruplets.of(telling(model.schema))
    drawn, maps = model.generator(batch.reference, batch.indicator)
    model.generator_losses(batch, drawn, maps)["vse"][1].backward()
    reached = {name.split(".")[0] for name, p in model.generator.named_parameters() if p.grad is not None}
    assert reached == {"encoder", "semantics"}
    assert all(parameter.grad is None for parameter in [*model.encoder.parameters(), *model.heads.parameters()])


def test_invariant_15_without_classification_the_heads_learn_nothing():
    model = build(lambda_=0)
    batch = Quadruplets.of(quadruplets(model.schema))
    drawn, maps = model.generator(batch.reference, batch.indicator)
    losses = model.discriminator_losses(batch, drawn.detach()) | model.generator_losses(batch, drawn, maps)
    assert not any(name.startswith("class") for name in losses)
    weighted_sum(losses).backward()
    assert all(parameter.grad is None for parameter in model.heads.parameters())


def test_without_pixels_there_is_no_pixel_term():
    model = build(mu=0)
    assert "L1" not in model.adversarial_step(quadruplets(model.schema))


# ------------------------------------------------------------------ 16 to 19: numbers


def test_invariant_16_distance_zero_has_a_finite_gradient():
    a = torch.ones(3, 4, requires_grad=True)
    euclidean(a, a.detach()).sum().backward()
    assert torch.isfinite(a.grad).all()


def test_invariant_17_slopes():
    def slope(function, at):
        distance = scalar(at).requires_grad_()
        function(distance).backward()
        return abs(distance.grad.item())

    assert slope(lambda d: pair_generator(d, 1.0, saturating=True), 10) == pytest.approx(1.23395e-4, rel=1e-4)
    assert slope(lambda d: pair_generator(d, 1.0, saturating=False), 10) == pytest.approx(0.9998766, rel=1e-5)
    wrong = slope(lambda d: triplet_generator(d, scalar(1), saturating=True), 6)
    right = slope(lambda d: triplet_generator(d, scalar(6), saturating=True), 1)
    assert (wrong, right) == (pytest.approx(0.0066929, abs=1e-6), pytest.approx(0.9933071, abs=1e-6))


@pytest.mark.parametrize("size", [(64, 64), (80, 64), (33, 47)])
@pytest.mark.parametrize("count", [1, 3])
def test_invariant_18_shapes_and_range(size, count):
    model = AMGAN(ATTRIBUTES, "pair", [4, 6, 8], 1, [4, 4, 6, 8, 512]).eval()
    images = pictures(count, *size)
    asked = model.schema.indicator([("colour", "red")]).expand(count, -1)
    with torch.no_grad():
        drawn = model.prototypes(images, asked)
        assert drawn.shape == images.shape
        assert drawn.abs().max() <= 1
        assert model.embed_query(images, asked).shape == (count, 512)
        assert model.embed_gallery(images).shape == (count, 512)


def test_invariant_19_gradient_of_probability_and_logarithm():
    """At p = 1/56 the gradient with respect to the wanted logit is p(1 - p) and 1 - p."""
    gradients = {}
    for kind in ("probability", "cross-entropy"):
        logits = torch.zeros(1, 56, requires_grad=True)
        classification([logits], torch.tensor([[7]]), kind).backward()
        gradients[kind] = -logits.grad[0, 7].item()
    assert gradients["probability"] == pytest.approx(0.0175383, abs=1e-6)
    assert gradients["cross-entropy"] == pytest.approx(0.9821429, abs=1e-6)
    assert gradients["cross-entropy"] / gradients["probability"] == pytest.approx(56, rel=1e-4)


def test_probabilities_are_averaged_over_labelled_attributes_and_logarithms_summed():
    logits = [torch.randn(2, 3), torch.randn(2, 2)]
    labels = torch.tensor([[1, -1], [2, 0]])
    wanted = torch.stack([logits[0][0].softmax(0)[1], logits[0][1].softmax(0)[2], logits[1][1].softmax(0)[0]])
    assert torch.allclose(classification(logits, labels, "probability"), -wanted.mean())
    assert torch.allclose(classification(logits, labels, "cross-entropy"), -wanted.log().sum() / 2)
    for kind in ("probability", "cross-entropy"):
        assert classification(logits, torch.full((2, 2), -1), kind).item() == 0


# ------------------------------------------------------------------ searching and drawing


def test_a_request_of_nothing_searches_with_the_picture_itself():
    model = build().eval()
    images = pictures()
    indicator = quadruplets(model.schema).indicator
    nothing = indicator.sum(-1) == 0
    assert nothing.any()
    assert not nothing.all()
    with torch.no_grad():
        query, plain = model.embed_query(images, indicator), model.embed_gallery(images)
        assert torch.allclose(query[nothing], plain[nothing], atol=1e-6)
        assert not torch.isclose(query[~nothing], plain[~nothing]).all(-1).any()
        assert torch.equal(model.embed_query(images, indicator * 0), plain)
        assert torch.allclose(model.draw(images, indicator)[nothing], images[nothing], atol=1e-5)


def test_pixels_and_normalised_pictures():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    pixels = to_pixels(normalise(images))
    assert torch.allclose(pixels, images / 127.5 - 1, atol=1e-5)
    assert torch.allclose(from_pixels(pixels), normalise(images), atol=1e-5)


def test_what_is_drawn_depends_on_the_request():
    model = build().eval()
    images = pictures()
    one, other = (
        model.draw(images, model.schema.indicator([change]).expand(6, -1))
        for change in (("colour", "red"), ("fit", "long"))
    )
    assert not torch.allclose(one, other)


def test_encoder_embeds_one_picture_as_it_does_many():
    encoder = MetricEncoder([4, 6, 10])
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    images = pictures()
    assert torch.allclose(encoder(images)[:1], encoder(images[:1]), atol=1e-5)


# ------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"gamma": -1.0}, "--method.gamma is -1.0: give at least 0"),
        ({"mu": -0.5}, "--method.mu is -0.5: give at least 0"),
        ({"lambda_": -1.0}, "--method.lambda_ is -1.0: give at least 0"),
        ({"margin": -0.1}, "--method.margin is -0.1: give at least 0"),
        ({"margin": math.nan}, "--method.margin is nan: give at least 0"),
        ({"blocks": -1}, "--method.blocks is -1: give at least 0"),
        ({"generator_widths": [4, 6]}, "--method.generator_widths is [4, 6]: give three widths"),
        ({"encoder_widths": []}, "--method.encoder_widths is []: give at least one width"),
        ({"betas": [0.5]}, "--method.betas is [0.5]: give two numbers"),
        ({"image_size": (32, 7)}, "pictures of 32 x 7 cannot be halved 3 times: raise --loader.image_size to 8"),
        ({"image_size": (3, 3), "encoder_widths": [4]}, "pictures of 3 x 3 cannot be halved 2 times"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(options, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        build(**options)


@pytest.mark.parametrize("widths", [[4], [4, 6, 10], [4, 4, 6, 8, 10]])
def test_the_smallest_pictures_that_are_let_through_can_be_searched_and_drawn(widths):
    size = 2 ** max(2, len(widths))
    model = build(encoder_widths=widths, image_size=(size, size)).eval()
    images = pictures(2, size, size)
    asked = model.schema.indicator([("colour", "red")]).expand(2, -1)
    with torch.no_grad():
        assert model.embed_query(images, asked).shape == (2, widths[-1])
        assert model.draw(images, asked).shape == images.shape
    with pytest.raises(UserError, match="cannot be halved"):
        build(encoder_widths=widths, image_size=(size, size - 1))


@pytest.mark.parametrize("size", [None, (16, 12)])
def test_models_load_whether_or_not_they_know_their_pictures_size(tmp_path, size):
    """Runs from before the size was known have no such setting."""
    model = build(image_size=size)
    if size is None:
        del model.hparams["image_size"]
    save_model(model, tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt", "amgan-t").state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_the_row_says_which_class_term_was_trained():
    assert "cross-entropy" in build().row_notes[0]
    assert "probability itself, as printed" in build(class_loss="probability").row_notes[0]
    assert build(lambda_=0).row_notes == []


# ------------------------------------------------------------------ training


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


def test_fresh_batches_are_halves():
    batch = quadruplets(AttributeSchema.from_dict(ATTRIBUTES))
    first, second = halves(batch)
    assert first.index.tolist() == [0, 1, 2]
    assert second.index.tolist() == [3, 4, 5]
    alone = QuadrupletBatch(*(field[:1] for field in batch))
    assert [len(half.index) for half in halves(alone)] == [1, 1]


def test_targets_alone_or_all_real_pictures_are_classified():
    batch = None
    for classify, images in (("target", 6), ("all", 24)):
        model = build(classify=classify)
        batch = Quadruplets.of(quadruplets(model.schema))
        _, labels = model.real_pictures(batch)
        assert len(labels) == images
    pictures_, labels = model.real_pictures(batch)
    expected = [batch.target_labels, batch.target_labels, batch.negative_labels, batch.reference_labels]
    assert torch.equal(labels, torch.cat(expected))
    assert pictures_[3] is batch.reference


def test_half_precision_keeps_losses_in_single_precision():
    model = build()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.adversarial_step(quadruplets(model.schema))
    assert all(value.dtype == torch.float32 for _, value in losses.values())


def train(folder, datamodule, failing_epoch=None):
    """Three epochs of two batches; the generator's losses are no number in ``failing_epoch``."""
    L.seed_everything(0, verbose=False)
    small = {"generator_widths": [4, 6, 8], "blocks": 1, "encoder_widths": [4, 6, 10]}
    method = AMGAN(datamodule.schema.to_dict(), **small)
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
