# SPDX-License-Identifier: MIT
"""The losses of the AMGAN paper: Eqs. 3 to 14 by hand, and invariants 3 to 10, 13, 15 to 17 and 19 by their numbers."""

import math
from functools import partial

import pytest
import torch
from amgan_by_hand import WEIGHTS, agree, by_hand, halved, telling
from amgan_models import FRESH, SCHEMES, logged, quadruplets, scalar, tiny
from torch import nn

from fm_bench.methods.amgan import (
    AMGAN,
    Quadruplets,
    classification,
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

build = partial(tiny, AMGAN)


# ------------------------------------------------------------------ a whole step by hand


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


def alike(scheme):
    """Two equal models, a batch of the first's, and what the second loses on it by hand."""
    options = {"scheme": scheme, "saturating": False, "class_loss": "cross-entropy", "classify": "all"}
    options["mask_equal"] = True
    model, other = build(**options, **WEIGHTS), build(**options, **WEIGHTS)
    batch = telling(model.schema)
    expected = by_hand(batch, slice(0, 8), other.generator, other.encoder, other.heads, options)
    return model, other, Quadruplets.of(batch), expected


def same_gradients(one, other):
    for (name, parameter), twin in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.allclose(parameter.grad, twin.grad, atol=1e-4, rtol=1e-3), name


@SCHEMES
def test_gradients_of_the_generator_are_those_of_its_losses(scheme):
    """Nothing that belongs to the generator's losses is detached from it."""
    model, other, batch, expected = alike(scheme)
    drawn, maps = model.generator(batch.reference, batch.indicator)
    weighted_sum(model.generator_losses(batch, drawn, maps)).backward()
    logged({name: expected[name] for name in ("metric_G", "vse", "L1", "class_G")}).backward()
    same_gradients(model.generator, other.generator)


@SCHEMES
def test_gradients_of_the_discriminator_are_those_of_its_losses(scheme):
    model, other, batch, expected = alike(scheme)
    drawn, _ = model.generator(batch.reference, batch.indicator)
    weighted_sum(model.discriminator_losses(batch, drawn.detach())).backward()
    logged({name: expected[name] for name in ("metric_D", "class_D")}).backward()
    same_gradients(model.encoder, other.encoder)
    same_gradients(model.heads, other.heads)


@SCHEMES
def test_only_triplets_need_the_negative_of_the_generator(scheme):
    model = build(scheme=scheme)
    batch = Quadruplets.of(telling(model.schema))
    drawn, maps = model.generator(batch.reference, batch.indicator)
    seen = []
    model.encoder.register_forward_hook(lambda module, given, features: seen.append(len(features)))
    model.generator_losses(batch, drawn, maps)
    assert sum(seen) == (16 if scheme == "pair" else 24)


# ------------------------------------------------------------------ 3 to 7, 13, 16 and 17: the games


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


def test_without_pixels_there_is_no_pixel_term():
    model = build(mu=0)
    assert "L1" not in model.adversarial_step(quadruplets(model.schema))


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


# ------------------------------------------------------------------ 19: classification


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
