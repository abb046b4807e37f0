# SPDX-License-Identifier: MIT
"""The joint space of pictures and values, on a tiny backbone: a linear map of the picture."""

import pytest
import torch
import torch.nn.functional as F
from stubs import Trainer
from torch import nn

from fm_bench.data.batches import LabelledBatch
from fm_bench.methods.base import Context, weighted_sum
from fm_bench.methods.fcd import FCD
from fm_bench.nn.backbones import Backbone

ATTRIBUTES = {"colour": ["red", "blue", "green"], "sleeve": ["none", "short"], "fit": ["slim", "wide", "loose", "long"]}


@pytest.fixture
def build(monkeypatch):
    def tiny(name, weights=None):
        torch.manual_seed(0)
        return Backbone(nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 6)), 6)

    monkeypatch.setattr("fm_bench.methods.attribute_network.build_backbone", tiny)

    def make(**options) -> FCD:
        torch.manual_seed(1)
        return FCD(ATTRIBUTES, **{"dim": 12, "step": 1.0} | options).eval()

    return make


@pytest.fixture
def orthogonal(build):
    """A model whose nine values are the first nine axes of the space."""
    model = build()
    with torch.no_grad():
        model.values.copy_(3 * torch.eye(12)[:9])  # their length does not matter
    return model


@pytest.fixture
def images():
    return torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))


def _picture(*columns):
    """The unit vector of a picture that is as near to each of the values in ``columns``."""
    return F.normalize(torch.eye(12)[list(columns)].sum(0), dim=0).unsqueeze(0)


def _ask(model, *changes):
    return model.schema.indicator(changes).unsqueeze(0)


def test_vectors_are_unit_vectors_of_512(build, images):
    model = build(dim=512)
    asked = _ask(model, ("colour", "blue"), ("fit", "wide")).expand(5, -1)
    for vectors in (model.embed_gallery(images), model.embed_query(images, asked)):
        assert vectors.shape == (5, 512)
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(5), atol=1e-6)
    assert torch.allclose(model.semantic().norm(dim=-1), torch.ones(9), atol=1e-6)


def test_a_request_replaces_the_value_of_its_attribute_that_the_picture_shows(orthogonal):
    red, short, wide = 0, 4, 6
    asked = _ask(orthogonal, ("colour", "green"))
    assert orthogonal.unwanted(_picture(red, short, wide), asked).nonzero()[:, 1].tolist() == [red]
    expected = F.normalize(_picture(red, short, wide) + torch.eye(12)[2] - torch.eye(12)[red], dim=-1)
    assert torch.allclose(orthogonal.compose(_picture(red, short, wide), asked), expected)

    both = _ask(orthogonal, ("colour", "green"), ("fit", "slim"))
    assert orthogonal.unwanted(_picture(red, short, wide), both).nonzero()[:, 1].tolist() == [red, wide]
    change = torch.eye(12)[2] + torch.eye(12)[5] - torch.eye(12)[red] - torch.eye(12)[wide]
    expected = F.normalize(_picture(red, short, wide) + change, dim=-1)
    assert torch.allclose(orthogonal.compose(_picture(red, short, wide), both), expected)


def test_step_scales_what_is_added_and_taken_away(orthogonal):
    """With the share of a value in a picture as the step, the request turns one picture exactly into the other."""
    orthogonal.hparams["step"] = 3**-0.5
    query = orthogonal.compose(_picture(0, 4, 6), _ask(orthogonal, ("colour", "green")))
    assert torch.allclose(query, _picture(2, 4, 6), atol=1e-6)
    orthogonal.hparams["step"] = 0.0
    assert torch.allclose(
        orthogonal.compose(_picture(0, 4, 6), _ask(orthogonal, ("colour", "green"))), _picture(0, 4, 6)
    )


def test_the_wanted_value_is_never_the_unwanted_one(orthogonal):
    asked = _ask(orthogonal, ("colour", "red"))
    seen = F.normalize(_picture(0, 4, 6) + 0.3 * torch.eye(12)[1], dim=-1)  # red above all, then a little blue
    assert orthogonal.unwanted(seen, asked).nonzero()[:, 1].tolist() == [1]


def test_no_request_leaves_the_picture_where_it_is(build, images):
    model = build()
    nothing = torch.zeros(5, 9)
    assert model.unwanted(model.visual(images), nothing).sum() == 0
    assert torch.allclose(model.embed_query(images, nothing), model.embed_gallery(images), atol=1e-6)


def test_true_labels_are_never_read(build, images):
    model = build()
    asked = _ask(model, ("sleeve", "short")).expand(5, -1)
    labels = (torch.zeros(5, 3, dtype=torch.long), torch.ones(5, 3, dtype=torch.long))
    contexts = [Context(label, torch.zeros(5), torch.arange(5)) for label in labels]
    assert torch.equal(*(model.embed_query(images, asked, context) for context in contexts))
    assert torch.equal(*(model.embed_gallery(images, context) for context in contexts))
    assert not model.needs_labels


def test_ranking_worked_example(orthogonal):
    """Two images, own cosines 0.5 and 0.4; margin 0.2."""
    cosines = torch.zeros(2, 9)
    cosines[0, :3] = torch.tensor([0.5, 0.4, 0.1])  # red; blue comes within the margin by 0.1
    cosines[1, :3] = torch.tensor([0.6, 0.4, 0.1])  # blue; red is nearer, by 0.2 + 0.2
    labels = torch.tensor([[0, -1, -1], [1, -1, -1]])
    to_values, to_images = orthogonal.ranking(cosines, labels)
    assert to_values.item() == pytest.approx((0.1 / 2 + 0.4 / 2) / 2)  # two other values each, two labels
    # red: own 0.5, the other image 0.6; blue: own 0.4, the other image 0.4
    assert to_images.item() == pytest.approx((0.3 + 0.2) / 2)


def test_a_step_descends_both_directions_alike(build, images):
    """By hand, from the cosines: an image's own value against others, and against other images that have others."""
    model = build(margin=0.4)
    labels = torch.tensor([[0, 1, 2], [1, -1, 3], [2, 0, -1], [0, 0, 1], [1, 1, 2]])
    losses = model.joint_step(LabelledBatch(images, labels, None, None))
    cosines = F.cosine_similarity(
        model.projection(model.backbone(images)).unsqueeze(1), model.values.unsqueeze(0), dim=-1
    ).tolist()
    to_values, to_images = [], []
    for i, row in enumerate(labels.tolist()):
        for start, size, m in ((0, 3, 0), (3, 2, 1), (5, 4, 2)):
            if row[m] < 0:
                continue
            own = cosines[i][start + row[m]]
            hinges = [max(0.0, 0.4 - own + cosines[i][start + v]) for v in range(size) if v != row[m]]
            to_values.append(sum(hinges) / len(hinges))
            strangers = [j for j, other in enumerate(labels[:, m].tolist()) if other not in (row[m], -1)]
            hinges = [max(0.0, 0.4 - own + cosines[j][start + row[m]]) for j in strangers]
            to_images.append(sum(hinges) / len(hinges))
    expected = sum(to_values) / len(to_values), sum(to_images) / len(to_images)
    assert min(expected) > 0.1
    assert {name: weight for name, (weight, _) in losses.items()} == {"L_iv": 1.0, "L_vi": 1.0}
    assert (losses["L_iv"][1].item(), losses["L_vi"][1].item()) == pytest.approx(expected, abs=1e-5)
    assert weighted_sum(losses).item() == pytest.approx(sum(expected), abs=1e-5)


def test_ranking_is_zero_once_the_margin_holds(orthogonal):
    labels = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 0, 2]])
    own = orthogonal.schema.one_hot(labels)
    assert [loss.item() for loss in orthogonal.ranking(0.25 * own, labels)] == [0, 0]
    assert all(loss.item() == pytest.approx(0.1) for loss in orthogonal.ranking(0.1 * own, labels))
    assert all(loss.item() == pytest.approx(0.2) for loss in orthogonal.ranking(torch.zeros(3, 9), labels))


def test_missing_labels_teach_nothing(orthogonal):
    cosines = torch.randn(4, 9).requires_grad_()
    labels = torch.tensor([[0, 1, 2], [1, -1, 3], [-1, -1, -1], [2, 0, -1]])
    losses = orthogonal.ranking(cosines, labels)
    sum(losses).backward()
    assert cosines.grad[2].abs().sum() == 0
    assert cosines.grad[1, 3:5].abs().sum() == 0
    assert cosines.grad[0].abs().sum() > 0
    none = orthogonal.ranking(torch.randn(4, 9), torch.full((4, 3), -1))
    assert [loss.item() for loss in none] == [0, 0]


def test_images_with_the_same_value_do_not_repel_each_other(orthogonal):
    cosines = torch.zeros(2, 9)
    cosines[:, 0] = torch.tensor([0.1, 0.9])  # both red: however much nearer the second is
    _, to_images = orthogonal.ranking(cosines, torch.tensor([[0, -1, -1], [0, -1, -1]]))
    assert to_images.item() == 0


def test_training_brings_pictures_near_their_values_and_requests_to_their_answers(build):
    model = build(lr=0.1, new_lr=0.5, weight_decay=0.0).train()
    model._trainer = Trainer()
    generator = torch.Generator().manual_seed(3)
    looks = torch.randn(9, 3, 4, 4, generator=generator)
    labels = torch.stack([torch.randint(size, (64,), generator=generator) for size in (3, 2, 4)], dim=1)
    images = torch.einsum("bc,cdhw->bdhw", model.schema.one_hot(labels), looks)
    optimizer = model.joint_optimizer()["optimizer"]
    for group, rate in zip(optimizer.param_groups, (0.1, 0.5), strict=True):
        group["lr"] = rate  # past the warm-up
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        total = sum(w * v for w, v in model.joint_step(LabelledBatch(images, labels, None, None)).values())
        total.backward()
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.2 * losses[0]
    model.eval()
    with torch.no_grad():
        wanted = (labels[:, 0] + 1) % 3
        target = torch.stack([wanted, labels[:, 1], labels[:, 2]], dim=1)
        indicator = model.schema.one_hot(torch.where(target == labels, -1, target))
        read = model.unwanted(model.visual(images), indicator)
        assert (read.argmax(-1) == labels[:, 0]).float().mean() > 0.95
        answers = model.embed_gallery(torch.einsum("bc,cdhw->bdhw", model.schema.one_hot(target), looks))
        query = model.embed_query(images, indicator)
        still = model.embed_gallery(images)
        assert ((query * answers).sum(-1) > (still * answers).sum(-1)).float().mean() > 0.95


def test_the_joint_stage_trains_all_but_the_heads(build, images):
    model = build()
    attributes, joint = model.stages
    model.begin(joint, seed=0)
    labels = torch.tensor([[0, 1, 2], [1, 0, 3], [2, 1, 0], [0, 0, 1], [1, 1, 2]])
    sum(w * v for w, v in model.joint_step(LabelledBatch(images, labels, None, None)).values()).backward()
    silent = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert silent == {name for name, parameter in model.named_parameters() if name.startswith("heads.")}
    assert not silent & set(model.stage_state(joint))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(model.stage_state(joint))
    model._trainer = Trainer()
    optimised = {id(p) for group in model.joint_optimizer()["optimizer"].param_groups for p in group["params"]}
    assert optimised == {id(p) for p in model.parameters() if p.requires_grad}
    assert set(model.stage_state(attributes)) == {
        n for n in model.state_dict() if n.startswith(("backbone.", "heads."))
    }
    assert model.stage_config(attributes) == build(margin=0.5, dim=4).stage_config(attributes)  # shared with others
