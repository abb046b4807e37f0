# SPDX-License-Identifier: MIT
"""The numeric invariants of the AMNet paper, on a tiny backbone: a linear map of the picture."""

import pytest
import torch
from stubs import Trainer
from torch import nn

from fm_bench.data.batches import LabelledBatch, TripletBatch
from fm_bench.methods import amnet as module
from fm_bench.methods.amnet import AMNet, prototypes
from fm_bench.nn.backbones import Backbone

ATTRIBUTES = {"colour": ["red", "blue", "green"], "sleeve": ["none", "short"], "fit": ["slim", "wide", "loose", "long"]}


@pytest.fixture
def build(monkeypatch):
    def tiny(name, weights=None):
        torch.manual_seed(0)
        return Backbone(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 6), nn.Dropout(0.0)), 6)

    monkeypatch.setattr("fm_bench.methods.attribute_network.build_backbone", tiny)

    def make(**options) -> AMNet:
        torch.manual_seed(1)
        model = AMNet(ATTRIBUTES, **options)
        if options.get("memory", True):
            model.memory.data.normal_()
        return model.eval()

    return make


@pytest.fixture
def images():
    return torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))


def _indicator(model, *changes):
    return model.schema.indicator(changes)


def _triplets(model, images):
    labels = torch.tensor([[2, 0, 1], [0, 1, 3], [1, 0, 0], [0, 0, 2], [2, 1, 1]])
    indicator = torch.stack([_indicator(model, ("fit", "long"))] * 5)
    return TripletBatch(
        images,
        images.roll(1, 0),
        images.roll(2, 0),
        indicator,
        model.schema.edit(labels, indicator),
        labels.roll(2, 0),
        torch.arange(5),
    )


def test_equation_1_worked_example(build):
    model = build()
    model.schema = type(model.schema).from_dict({"a": ["x", "y", "z"]})
    model.memory = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]]))
    answer = model.address(torch.tensor([[1.0, 0.0, 1.0]]))
    assert torch.equal(answer, torch.tensor([[2.5, 2.0]]))
    assert torch.equal(model.address(torch.tensor([[3.0, 0.0, 3.0]])), answer)  # scaling h changes nothing

    answer.backward(torch.tensor([[1.0, -1.0]]))
    assert torch.equal(model.memory.grad, torch.tensor([[0.5, -0.5], [0.0, 0.0], [0.5, -0.5]]))


def test_empty_request_gives_no_nan_and_bypasses_the_manipulator(build, images):
    model = build()
    nothing = torch.zeros(5, model.schema.num_values)
    assert torch.equal(model.address(nothing), torch.zeros(5, 6))
    assert torch.equal(model.embed_query(images, nothing), model.embed_gallery(images))
    kept = build(empty_request="manipulate")
    assert torch.isfinite(kept.embed_query(images, nothing)).all()
    assert not torch.equal(kept.embed_query(images, nothing), kept.embed_gallery(images))


def test_one_request_returns_exactly_its_row(build, images):
    model = build(normalize=False)
    assert torch.equal(model.address(_indicator(model, ("sleeve", "short")).unsqueeze(0))[0], model.memory[4])
    with torch.no_grad():  # W = [0 | I], b = 0: every picture becomes the prototype
        model.manipulator.weight.copy_(torch.cat([torch.zeros(6, 6), torch.eye(6)], dim=1))
        model.manipulator.bias.zero_()
    query = model.embed_query(images, _indicator(model, ("sleeve", "short")).expand(5, -1))
    assert torch.allclose(query, model.memory[4].expand(5, 6))


def test_ignoring_the_memory_keeps_the_feature_and_stops_its_gradient(build, images):
    model = build(normalize=False)
    with torch.no_grad():
        model.manipulator.weight.copy_(torch.cat([torch.eye(6), torch.zeros(6, 6)], dim=1))
        model.manipulator.bias.zero_()
    query = model.embed_query(images, _indicator(model, ("fit", "slim"), ("colour", "red")).expand(5, -1))
    assert torch.allclose(query, model.embed_gallery(images), atol=1e-6)
    query.square().sum().backward()
    assert torch.equal(model.memory.grad, torch.zeros_like(model.memory))


def test_two_requests_average_their_prototypes(build):
    model = build()
    one, two = (_indicator(model, change) for change in (("colour", "red"), ("fit", "wide")))
    both = model.address((one + two).unsqueeze(0))
    assert torch.allclose(both, (model.address(one.unsqueeze(0)) + model.address(two.unsqueeze(0))) / 2)


def test_manipulator_starts_near_keeping_the_feature(build):
    weight = build().manipulator.weight
    assert torch.allclose(weight, torch.cat([torch.eye(6), 0.1 * torch.eye(6)], dim=1), atol=6e-3)
    assert build().manipulator.bias.abs().sum() == 0


def test_prototypes_are_means_over_the_images_that_carry_the_value(build, caplog):
    assert torch.equal(
        prototypes(torch.tensor([[4.0, 8.0], [0.0, 0.0]]), torch.tensor([2.0, 0.0])),
        torch.tensor([[2.0, 4.0], [0.0, 0.0]]),
    )

    model = build()
    model._trainer = Trainer()
    images, labels = torch.randn(4, 3, 4, 4), torch.tensor([[0, 0, -1], [0, 1, 1], [1, 1, 1], [1, -1, 0]])
    batches = [LabelledBatch(images[i : i + 2], labels[i : i + 2], torch.arange(2), torch.zeros(2)) for i in (0, 2)]
    with torch.no_grad():
        model.on_manipulation_start(batches)
        features = model.backbone(images)
    expected = torch.zeros(9, 6)
    for m in range(3):
        for value in range(len(model.schema.values[m])):
            rows = labels[:, m] == value
            if rows.any():
                expected[model.schema.offsets[m] + value] = features[rows].mean(0)
    assert torch.allclose(model.memory, expected, atol=1e-6)
    (told,) = caplog.messages  # values without an image are named, all at once
    assert "colour = green" in told
    assert "fit = " in told


def test_gallery_reads_neither_memory_nor_manipulator(build, images):
    model = build()
    before = model.embed_gallery(images)
    with torch.no_grad():
        for parameter in (model.memory, model.manipulator.weight, model.manipulator.bias):
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(model.embed_gallery(images), before)


def test_reference_and_positive_paths_share_their_weights(build, images):
    model = build()
    batch = _triplets(model, images)._replace(positive=images, indicator=torch.zeros(5, model.schema.num_values))
    losses = model.manipulation_step(batch)
    # identical pictures, no request: |r' - p| = 0 and the hinge is the margin minus the distance to the negative
    distance = (model.embed_gallery(images) - model.embed_gallery(batch.negative)).norm(dim=-1)
    assert losses["L_t"][1].item() == pytest.approx((0.5 - distance).clamp(min=0).mean().item(), abs=1e-5)


def test_edited_labels_are_what_the_manipulated_feature_is_classified_by(build, images):
    model = build()
    labels = torch.tensor([[2, 0, 3]])
    target = model.schema.edit(labels, _indicator(model, ("sleeve", "short")).unsqueeze(0))
    assert target.tolist() == [[2, 1, 3]]
    batch = _triplets(model, images)
    loss = build(classify_pos_neg=False).manipulation_step(batch)["L_a"][1]
    model = build(classify_pos_neg=False)
    manipulated = model.manipulate(model.backbone(images), batch.indicator)
    expected = sum(
        nn.functional.cross_entropy(block, batch.target[:, m]) for m, block in enumerate(model.logits(manipulated))
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_no_memory_has_no_memory_and_still_listens(build, images):
    model = build(memory=False)
    assert not any(parameter.shape == (9, 6) for parameter in model.parameters())
    assert model.manipulator.weight.shape == (6, 6 + 9)
    with torch.no_grad():
        model.manipulator.weight.normal_()
    asked = [_indicator(model, ("colour", value)).expand(5, -1) for value in ("red", "blue")]
    assert not torch.allclose(model.embed_query(images, asked[0]), model.embed_query(images, asked[1]))


def test_no_ranking_sends_nothing_through_positive_and_negative(build, images):
    batch = _triplets(build(), images)
    for classify, silent in ((False, True), (True, False)):
        model = build(classification_weight=1.0, classify_pos_neg=classify)
        pictures = [image.clone().requires_grad_() for image in (batch.reference, batch.positive, batch.negative)]
        losses = model.manipulation_step(
            batch._replace(reference=pictures[0], positive=pictures[1], negative=pictures[2])
        )
        assert set(losses) == {"L_a"}
        losses["L_a"][1].backward()
        assert pictures[0].grad.abs().sum() > 0
        assert all((picture.grad is None or picture.grad.abs().sum() == 0) == silent for picture in pictures[1:])


def test_rows_that_a_step_does_not_address_stay_exactly_where_they_are(build, images):
    model = build().train()
    model._trainer = Trainer()
    optimizer = model.manipulation_optimizer()["optimizer"]
    for value in ("slim", "long"):
        batch = _triplets(model, images)
        indicator = _indicator(model, ("fit", value)).expand(5, -1)
        before = model.memory.detach().clone()
        optimizer.zero_grad()
        losses = model.manipulation_step(batch._replace(indicator=indicator))
        sum(weight * loss for weight, loss in losses.values()).backward()
        optimizer.step()
        addressed = indicator[0] > 0
        assert torch.equal(model.memory[~addressed], before[~addressed])
        assert not torch.equal(model.memory[addressed], before[addressed])


def test_losses_are_weighted_as_equation_6_says(build, images):
    losses = build(classification_weight=0.2).manipulation_step(_triplets(build(), images))
    assert {name: weight for name, (weight, _) in losses.items()} == {"L_a": 0.2, "L_t": 0.8}


def test_every_trainable_parameter_receives_gradient(build, images):
    model = build()
    batch = _triplets(model, images)
    indicator = torch.eye(9)[:5] + torch.eye(9)[4:].flip(0)  # every row of the memory is addressed
    sum(w * v for w, v in model.manipulation_step(batch._replace(indicator=indicator)).values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert (model.memory.grad.abs().sum(-1) > 0).all()


def test_paper_mode_searches_raw_features(build, images):
    lengths = build(normalize=False).embed_gallery(images).norm(dim=-1)
    assert not torch.allclose(lengths, torch.ones(5))
    assert torch.allclose(build().embed_gallery(images).norm(dim=-1), torch.ones(5))


def test_shared_stage_is_the_attribute_networks_alone(build):
    stage = AMNet.stages[0]
    assert build().stage_config(stage) == build(memory=False, classification_weight=1.0).stage_config(stage)
    assert build().stage_config(stage) != build(attributes_lr=0.1).stage_config(stage)
    assert set(build().stage_state(stage)) == {
        name for name in build().state_dict() if name.startswith(("backbone.", "heads."))
    }
    assert module.ATTRIBUTES is stage
