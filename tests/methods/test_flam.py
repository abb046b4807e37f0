# SPDX-License-Identifier: MIT
"""The invariants of the FLAM paper by their numbers, on tiny networks and features; 17 is in tests/outcomes."""

import math
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fm_bench.data.batches import InstanceBatch, LabelledBatch, PositionsBatch, UnlabelledPositionsBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.garments import GarmentsReader
from fm_bench.errors import UserError
from fm_bench.methods.base import weighted_sum
from fm_bench.methods.flam import EMBEDDERS, FLAM, INSTANCES, MANIPULATION, Pairs, choose_partners, slot_order
from fm_bench.nn.backbones import Backbone, build_backbone
from fm_bench.nn.cosine import batch_hard, cosine_distance, cosine_hinge, masked_mean
from fm_bench.nn.embedders import AttributeEmbedders
from fm_bench.recipe import StageBudget
from fm_bench.training import StageRunner

ATTRIBUTES = {
    "gender": ["women", "men"],
    "category": ["shirt", "dress", "skirt"],
    "colour": ["red", "blue", "green", "pink"],
    "pattern": ["plain", "striped"],
}
T, DIM, K = 3, 8, 5
LABELS = torch.tensor([[0, 2, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 2, 1], [0, 2, 2, 0], [1, 1, 1, 1]])


class _Maps(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, padding=1)

    def forward_features(self, images):
        return self.convolution(images).relu()

    def forward(self, images):
        return self.forward_features(images).mean((2, 3))


class _Strategy:
    @staticmethod
    def reduce(value, reduce_op):
        assert reduce_op == "sum"
        return value


class _Trainer:
    strategy = _Strategy()
    world_size = 1


@pytest.fixture
def build(monkeypatch):
    monkeypatch.setattr("fm_bench.methods.attribute_network.build_backbone", lambda *_: Backbone(_Maps(), 6))

    def make(attributes=ATTRIBUTES, **options) -> FLAM:
        torch.manual_seed(1)
        small = {"dim": DIM, "classes": 3, "code": K, "embedder_hidden": 7, "hidden": 9, "judge_hidden": [6, 4]}
        model = FLAM(attributes, **(small | options))
        model._trainer = _Trainer()
        return model.eval()

    return make


@pytest.fixture
def images():
    return torch.randn(6, 3, 9, 7, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def features():
    return F.normalize(torch.randn(12, DIM, generator=torch.Generator().manual_seed(3)), dim=-1)


def _pairs(model, features):
    """Pairs of features, of which the first few are the classes."""
    torch.manual_seed(0)
    with torch.no_grad():
        model.embedders.rows.copy_(model.embedders(features)[:, : model.embedders.rows.shape[1]])
        pairs = model.pairs(features)[0]
    assert pairs.found.all()
    return pairs


class _Generate(nn.Module):
    """A generator that is a formula."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, features, code):
        return self.formula(features, code)

    def one(self, _target, features, code):
        return self.formula(features, code)


# ------------------------------------------------------------------ triplets and embedders


def test_1_triplets_by_cosine_distance():
    anchor, near, far = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    close, wide = cosine_distance(anchor, near), cosine_distance(anchor, far)
    assert close.item() == pytest.approx(0.4)
    assert wide.item() == pytest.approx(1.0)
    assert cosine_hinge(close, wide, 0.2).item() == 0
    assert cosine_hinge(close, wide, 0.7).item() == pytest.approx(0.1)
    assert cosine_distance(near, near).item() == pytest.approx(0, abs=1e-6)
    assert cosine_distance(near, -3 * near).item() == pytest.approx(2)


@pytest.mark.parametrize("negatives", ["random", "hardest"])
def test_2_collapsed_embedders_lose_twice_the_margin(features, negatives):
    embedders = AttributeEmbedders(DIM, 7, K, [3, 4, 2])
    with torch.no_grad():
        for layer in embedders.phi.layers:
            layer.weight.zero_()
            layer.bias.fill_(1.0)
        embedders.rows.fill_(1.0)
    loss = embedders.loss(features[:6], LABELS[:, 1:], 0.2, negatives)
    assert loss.tolist() == pytest.approx([0.4] * T)


def test_3_gradients_reach_the_embedder_and_the_rows_of_the_batch_alone(features):
    torch.manual_seed(0)
    embedders = AttributeEmbedders(DIM, 7, K, [3, 4, 2])
    embedders.loss(features[:6], LABELS[:, 1:], 2.0, "random").sum().backward()
    assert all(parameter.grad.any() for parameter in embedders.phi.parameters())
    touched = embedders.rows.grad.abs().sum(-1) > 0
    assert touched.tolist() == [[True] * 3 + [False], [True] * 3 + [False], [True] * 2 + [False] * 2]  # no pink


def test_embedding_loss_is_equation_2_written_out(features):
    torch.manual_seed(4)
    embedders = AttributeEmbedders(DIM, 7, K, [4])
    labels = torch.tensor([[0], [0], [1], [-1]])
    e, d = embedders(features[:4])[0], embedders.dictionary[0]

    def hinge(anchor, near, far):
        return max(0.0, (1 - anchor @ near).item() - (1 - anchor @ far).item() + 1.5)

    for negatives in ("random", "hardest"):
        loss = embedders.loss(features[:4], labels, 1.5, negatives).item()
        terms = []
        for image, own, other in ((0, 0, 2), (1, 0, 2), (2, 1, None)):
            rivals = [i for i in range(4) if i != own]
            far = max(rivals, key=lambda i: (e[image] @ d[i]).item()) if negatives == "hardest" else 1 - own
            others = [other] if other is not None else [0, 1]
            terms.append([hinge(d[own], e[image], e[j]) + hinge(e[image], d[own], d[far]) for j in others])
        possible = [np.mean([terms[0][0], terms[1][0], last]) for last in terms[2]]
        assert min(abs(loss - value) for value in possible) < 1e-5


def test_embedders_learn_what_the_labels_say(features):
    torch.manual_seed(0)
    embedders = AttributeEmbedders(DIM, 16, K, [3, 4, 2])
    optimizer = torch.optim.Adam(embedders.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        embedders.loss(features[:6], LABELS[:, 1:], 0.2, "hardest").sum().backward()
        optimizer.step()
    assert torch.equal(embedders.classes(embedders(features[:6])), LABELS[:, 1:].T)


def test_only_the_most_frequent_classes_are_learnt(build, images):
    model = build(values=2)
    labels = torch.tensor([[0, 2, 3, -1]] * 3 + [[0, 1, 0, 1]] * 2 + [[0, 0, 1, 1]])
    batch = LabelledBatch(images, labels, torch.arange(6), torch.zeros(6))
    model.on_embedders_start([batch, batch])
    known = model.embedders.known
    assert known.tolist() == [[False, True, True, False], [True, False, False, True], [False, True, False, False]]
    kept = model.embedders.drop_unknown(labels[:, 1:].T)
    assert kept.tolist() == [[2] * 3 + [1] * 2 + [-1], [3] * 3 + [0] * 2 + [-1], [-1] * 3 + [1] * 3]
    assert (model.embedders.classes(model.embedders(torch.randn(50, DIM))) == 2)[1].sum() == 0
    x = model.feature(images)
    assert torch.equal(model.manipulate(x, model.schema.indicator([("colour", "blue")]).expand(6, -1)), x)
    assert not torch.allclose(model.manipulate(x, model.schema.indicator([("colour", "pink")]).expand(6, -1)), x)


def test_an_attribute_with_one_known_class_is_not_changed(build, images):
    model = build()
    labels = LABELS.clone()
    labels[:, 2] = 1  # every training image is blue
    model.on_embedders_start([LabelledBatch(images, labels, torch.arange(6), torch.zeros(6))])
    assert model.embedders.known[1].tolist() == [False, True, False, False]
    x = model.feature(images)
    assert torch.equal(model.manipulate(x, model.schema.indicator([("colour", "blue")]).expand(6, -1)), x)
    both = model.schema.indicator([("colour", "blue"), ("pattern", "striped")]).expand(6, -1)
    striped = model.schema.indicator([("pattern", "striped")]).expand(6, -1)
    assert torch.equal(model.manipulate(x, both), model.manipulate(x, striped))
    assert not torch.allclose(model.manipulate(x, both), x)


# ------------------------------------------------------------------ shapes


def test_4_widths():
    for match, width in (("all", 96), ("target", 32)):
        model = FLAM(ATTRIBUTES, backbone="resnet10t", match=match)
        assert model.generators.network.layers[0].weight.shape == (T, 1056, 1024)
        logit, matched = model.discriminators(torch.randn(T, 2, 1024))
        assert logit.shape == (T, 2)
        assert matched.shape == (T, 2, width)
        assert model.embedders(torch.randn(2, 1024)).shape == (T, 2, 32)
        assert model.embedders.dictionary.shape == (T, 4, 32)


def test_4_a_shared_generator_is_told_the_target(build, features):
    model = build(shared_generator=True)
    assert model.generators.network.layers[0].weight.shape == (1, DIM + K + T, 9)
    assert model.discriminators(features.expand(T, -1, -1))[1].shape == (T, 12, T * K)
    code = F.normalize(torch.randn(1, 12, K), dim=-1).expand(T, -1, -1)
    made = model.generators(features.expand(T, -1, -1), code)
    for target in range(T):
        assert torch.allclose(model.generators.one(target, features, code[0]), made[target], atol=1e-6)
    assert not torch.allclose(made[0], made[1], atol=1e-3)
    with pytest.raises(UserError, match="one order"):
        build(shared_generator=True, match="target")


@pytest.mark.parametrize("residual", [True, False])
def test_targets_have_networks_of_their_own(build, features, residual):
    model = build(residual=residual)
    code = F.normalize(torch.randn(T, 12, K), dim=-1)
    made = model.generators(features.expand(T, -1, -1), code)
    assert torch.allclose(made.norm(dim=-1), torch.ones(T, 12), atol=1e-5)
    for target in range(T):
        assert torch.allclose(model.generators.one(target, features, code[target]), made[target], atol=1e-6)
        made[target].sum().backward(retain_graph=True)
        for parameter in model.generators.parameters():
            assert [bool(part.any()) for part in parameter.grad] == [m == target for m in range(T)]
        model.zero_grad()


def test_slots_begin_with_the_target():
    assert slot_order(3, "all", shared=False).tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1]]
    assert slot_order(3, "all", shared=True).tolist() == [[0, 1, 2]] * 3
    assert slot_order(3, "target", shared=False).tolist() == [[0], [1], [2]]
    assert slot_order(1, "all", shared=False).tolist() == [[0]]


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_matched(build, features, shared):
    model = build(shared_generator=shared)
    pairs = _pairs(model, features)
    real, fake = model.slots(pairs, manipulated=False), model.slots(pairs, manipulated=True)
    for target in range(T):
        order = [0, 1, 2] if shared else [target, *(m for m in range(T) if m != target)]
        assert torch.equal(real[target], torch.cat([pairs.embedded[m] for m in order], -1))
        wanted = [pairs.wanted[m] if m == target else pairs.embedded[m] for m in order]
        assert torch.equal(fake[target], torch.cat(wanted, -1))


# ------------------------------------------------------------------ losses of the manipulation


def test_5_identity_generator(build, images, features):
    model = build()
    model.generators = _Generate(lambda x, e: x)
    losses = model.generator_losses(_pairs(model, features))
    assert losses["L_cyc"][1].item() == pytest.approx(0, abs=1e-4)
    assert losses["cycle_cosine"][1].item() == pytest.approx(1, abs=1e-5)
    request = model.schema.indicator([("colour", "blue")]).expand(6, -1)
    assert torch.equal(model.embed_query(images, request), model.embed_gallery(images))


def test_6_linear_generator(build, features):
    model = build()
    matrix = torch.randn(K, DIM)
    model.generators = _Generate(lambda x, e: x + e @ matrix)
    pairs = _pairs(model, features)
    expected = ((pairs.wanted + pairs.embedded) @ matrix).norm(dim=-1)
    assert model.generator_losses(pairs)["L_cyc"][1].item() == pytest.approx(expected.mean(1).sum().item(), rel=1e-5)
    opposite = pairs._replace(wanted=-pairs.embedded)
    assert model.generator_losses(opposite)["L_cyc"][1].item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("norm", ["l2", "l1", "mse"])
def test_7_constant_generator(build, features, norm):
    model = build(norm=norm)
    constant = torch.randn(DIM)
    model.generators = _Generate(lambda x, e: constant.expand_as(x))
    pairs = _pairs(model, features)
    difference = features - constant
    expected = {
        "l2": difference.norm(dim=-1).mean(),
        "l1": difference.abs().sum(-1).mean(),
        "mse": difference.square().mean(),
    }
    assert model.generator_losses(pairs)["L_cyc"][1].item() == pytest.approx(T * expected[norm].item(), rel=1e-5)


@pytest.mark.parametrize(("saturating", "fooled"), [(True, -math.log(2)), (False, math.log(2))])
def test_8_an_undecided_discriminator(build, features, saturating, fooled):
    model = build(saturating=saturating)
    for layer in model.discriminators.judge.layers:
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    pairs = _pairs(model, features)
    weight, adversarial = model.discriminator_losses(pairs)["L_adv"]
    assert weight == -1
    assert adversarial.item() == pytest.approx(T * -1.386294, abs=1e-4)
    assert model.generator_losses(pairs)["G_adv"][1].item() == pytest.approx(T * fooled, abs=1e-5)


@pytest.mark.parametrize("saturating", [True, False])
def test_8_both_forms_push_towards_real(build, features, saturating):
    model = build(saturating=saturating, match_weight=0.0, cycle_weight=0.0)
    pairs = _pairs(model, features)
    optimizer = torch.optim.SGD(model.generators.parameters(), 0.05)
    before = model.discriminators(model.generators(pairs.features, pairs.wanted))[0].mean().item()
    for _ in range(5):
        optimizer.zero_grad()
        weighted_sum(model.generator_losses(pairs)).backward()
        optimizer.step()
    assert model.discriminators(model.generators(pairs.features, pairs.wanted))[0].mean().item() > before


def test_9_who_learns_from_what(build, features):
    model = build()
    model.begin(MANIPULATION, 0)
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {
        "generators",
        "discriminators",
    }
    pairs = _pairs(model, features)
    weighted_sum(model.discriminator_losses(pairs)).backward()
    assert all(parameter.grad is None for parameter in model.generators.parameters())
    assert all(parameter.grad.any() for parameter in model.discriminators.parameters())
    before = [parameter.grad.clone() for parameter in model.discriminators.parameters()]
    other = model.discriminator_losses(pairs)["M_real"][1]
    model.generators = build(hidden=4).generators
    assert torch.equal(model.discriminator_losses(pairs)["M_real"][1], other), "M_real does not look at G"
    model.discriminators.requires_grad_(False)
    weighted_sum(model.generator_losses(pairs)).backward()
    assert all(parameter.grad.any() for parameter in model.generators.parameters())
    after = [parameter.grad for parameter in model.discriminators.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in [*model.embedders.parameters(), *model.backbone.parameters()])


def test_9_discriminator_may_fit_fakes_if_asked(build, features):
    assert "M_fake_of_D" not in build().discriminator_losses(_pairs(build(), features))
    model = build(d_fits_fake=True)
    weight, value = model.discriminator_losses(_pairs(model, features))["M_fake_of_D"]
    assert weight == 10
    assert value.item() == pytest.approx(model.generator_losses(_pairs(model, features))["M_fake"][1].item(), rel=1e-5)


def _perfect(model):
    """D whose second branch says exactly what the embedders do."""
    model.discriminators.forward = lambda x: (
        x.sum(-1),
        torch.stack([torch.cat([model.embedders(x[t])[m] for m in model.order[t]], -1) for t in range(len(x))]),
    )


def test_10_a_real_feature_matches_its_own_target_and_not_the_rest(build, features):
    model = build(norm="l1", dictionary_share=0.0)
    _perfect(model)
    pairs = _pairs(model, features)
    partner, _ = choose_partners(
        model.embedders(features), model.embedders.classes(model.embedders(features)), online=True
    )
    assert model.discriminator_losses(pairs)["M_real"][1].item() == pytest.approx(0, abs=1e-5)
    model.generators = _Generate(lambda x, e: features[partner])
    matched = model.discriminators(features[partner])[1]
    difference = (matched - model.slots(pairs, manipulated=True)).reshape(T, 12, T, K)
    assert difference[:, :, 0].abs().max() < 1e-5
    away = torch.stack(
        [pairs.embedded[m][partner[t]] - pairs.embedded[m] for t in range(T) for m in model.order[t, 1:]]
    )
    assert difference[:, :, 1:].abs().sum().item() == pytest.approx(away.abs().sum().item(), rel=1e-4)
    assert away.abs().sum() > 1
    fitted = model.generator_losses(pairs)["M_fake"][1].item()  # summed over targets, averaged over the batch
    assert fitted == pytest.approx(away.abs().sum().item() / 12, rel=1e-4)


@pytest.mark.parametrize("match", ["target", "all"])
def test_11_the_single_slot_does_not_see_the_remaining_attributes(build, features, match):
    model = build(match=match)
    pairs = _pairs(model, features)
    mixed = pairs.embedded.clone()
    mixed[1:] = mixed[1:].roll(1, dims=1)  # colour and pattern of another feature
    for manipulated in (False, True):
        same = torch.equal(
            model.slots(pairs, manipulated=manipulated)[0],
            model.slots(pairs._replace(embedded=mixed), manipulated=manipulated)[0],
        )
        assert same == (match == "target")


# ------------------------------------------------------------------ online sampling


def _at(*distances):
    cosine = 1 - torch.tensor(distances)
    return torch.stack([cosine, (1 - cosine.square()).clamp(min=0).sqrt()], dim=-1)


def test_12_online_sampling_takes_the_nearest_of_another_class():
    embedded = torch.stack([_at(0.0, 0.0, 0.0, 0.0), _at(0.0, 0.1, 0.4, 0.2)])
    classes = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3]])
    partner, found = choose_partners(embedded, classes, online=True)
    assert partner[0, 0] == 3
    assert found.all()


def test_12_a_batch_of_one_class_has_no_pairs(build, features):
    model = build()
    model.embedders.classes = lambda embedded: torch.zeros(embedded.shape[:2], dtype=torch.long)
    with torch.no_grad():
        pairs = model.pairs(features)[0]
    assert not pairs.found.any()
    for losses in (model.discriminator_losses(pairs), model.generator_losses(pairs)):
        assert weighted_sum(losses).item() == 0
        weighted_sum(losses).backward()
    gradients = [p.grad for p in [*model.generators.parameters(), *model.discriminators.parameters()]]
    assert not any(gradient.any() or gradient.isnan().any() for gradient in gradients)


def test_13_partners_are_of_another_class_and_online_sampling_is_nearer():
    torch.manual_seed(0)
    embedded, classes = F.normalize(torch.randn(3, 40, K), dim=-1), torch.randint(3, (3, 40))
    distance = 1 - embedded @ embedded.transpose(1, 2)
    remaining = distance.sum(0) - distance

    def cost(partner):
        return remaining.gather(2, partner.unsqueeze(-1)).mean().item()

    online, found = choose_partners(embedded, classes, online=True)
    assert found.all()
    assert (classes.gather(1, online) != classes).all()
    drawn = []
    for _ in range(5):
        random, _ = choose_partners(embedded, classes, online=False)
        assert (classes.gather(1, random) != classes).all()
        assert cost(online) < cost(random)
        drawn.append(random)
    assert not torch.equal(drawn[0], drawn[1])
    alone, _ = choose_partners(embedded[:1], classes[:1], online=True)  # nothing remains to be near in
    assert len(alone[0].unique()) > 10


def test_14_a_dictionary_vector_is_of_its_own_class(build):
    embedders = build().embedders
    found = embedders.classes(embedders.dictionary)
    for target, size in enumerate((3, 4, 2)):
        assert found[target, :size].tolist() == list(range(size))


@pytest.mark.parametrize("share", [0.0, 1.0, 0.5])
def test_generators_are_fed_embeddings_or_dictionary_vectors(build, features, share):
    model = build(dictionary_share=share, online_sampling=False)
    many = F.normalize(torch.randn(300, DIM), dim=-1)
    _pairs(model, many)
    model.embedders.rows.data.add_(0.1 * torch.randn(model.embedders.rows.shape))  # no embedding is a dictionary's
    pairs, agreement = model.pairs(many)
    from_dictionary = (pairs.wanted.unsqueeze(2) == model.embedders.dictionary.unsqueeze(1)).all(-1).any(-1)
    assert from_dictionary.float().mean().item() == pytest.approx(share, abs=0.1 if share == 0.5 else 0)
    assert agreement.item() == pytest.approx(model.embedders.likeness(pairs.embedded).amax(-1).mean().item(), abs=0.1)


# ------------------------------------------------------------------ search


def test_15_requests(build, images):
    model = build()
    x = model.feature(images)
    nothing = torch.zeros(6, 11)
    assert torch.equal(model.embed_query(images, nothing), x)
    mixed = nothing.clone()
    mixed[1] = model.schema.indicator([("colour", "green")])
    mixed[2] = model.schema.indicator([("gender", "men")])  # no target
    found = model.embed_query(images, mixed)
    assert (found == x).all(1).tolist() == [True, False, True, True, True, True]
    code = model.embedders.dictionary[1, 2]
    assert torch.allclose(found[1], model.generators.one(1, x[1:2], code.expand(1, -1))[0], atol=1e-6)
    gallery = F.normalize(torch.randn(50, DIM), dim=-1)
    order = torch.cdist(found, gallery).argsort(1)
    assert len(order.unique(dim=0)) > 1
    for length in (0.1, 7.0):
        assert torch.equal(torch.cdist(length * found, gallery).argsort(1), order), "only the direction counts"
    assert torch.allclose(found.norm(dim=-1), torch.ones(6), atol=1e-5)
    assert torch.allclose(model.embed_gallery(images).norm(dim=-1), torch.ones(6), atol=1e-5)


def test_two_requests_go_through_one_generator_after_the_other(build, images):
    model = build()
    request = model.schema.indicator([("pattern", "striped"), ("category", "skirt")]).expand(6, -1)
    x, d = model.feature(images), model.embedders.dictionary
    first = model.generators.one(0, x, d[0, 2].expand(6, -1))
    assert torch.allclose(
        model.embed_query(images, request), model.generators.one(2, first, d[2, 1].expand(6, -1)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("targets", "expected"),
    [("three", [1, 2, 3]), ("all", [0, 1, 2, 3]), (["pattern", "gender"], [0, 3])],
)
def test_targets(build, targets, expected):
    model = build(targets=targets)
    assert model.targets == expected
    left = [name for m, name in enumerate(ATTRIBUTES) if m not in expected]
    assert any("answered by the feature as it is" in note for note in model.row_notes) == bool(left)
    assert all(any(name in note for note in model.row_notes) for name in left)


def test_targets_of_other_names(build):
    assert build({"sleeve": ["a", "b"], "color": ["c", "d"], "article_type": ["e", "f"]}).targets == [1, 2]
    other = build({"sleeve": ["a", "b"], "length": ["c", "d"]})
    assert other.targets == [0, 1], "none of the three: all"
    assert any("neither shape nor colour nor pattern" in note for note in other.row_notes)
    assert not any("neither" in note for note in build().row_notes)
    with pytest.raises(UserError, match="colour"):
        build(targets=["colur"])


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"targets": []}, "targets names no attribute"),
        ({"judge_hidden": []}, "judge_hidden is empty"),
        ({"values": 1}, "values is 1"),
        ({"values": 0}, "values is 0"),
        ({"values": -3}, "values is -3"),
    ],
)
def test_settings_that_leave_nothing_to_learn_are_refused(build, wrong, found):
    with pytest.raises(UserError, match=found):
        build(**wrong)


def test_readers_of_the_row_are_told(build):
    def told(said, **options):
        return any(said in note for note in build(**options).row_notes)

    assert told("values beyond the 3 most frequent are answered by the feature as it is", values=3)
    assert not told("most frequent", values=4)
    assert not told("most frequent")
    assert told("without their labels, in the place of the paper's private photos")
    assert told("chosen on validation requests")
    assert told("most items have one photo", pairs="labels")
    assert not told("one photo")


# ------------------------------------------------------------------ features


def test_the_feature_is_sum_pooled_and_projected(build, images):
    model = build()
    maps = model.backbone.features.forward_features(images)
    projected = maps.sum((2, 3)) @ model.projection[0].weight.T
    mean, variance = torch.randn(DIM), torch.rand(DIM) + 0.5
    model.projection[1].load_state_dict({"running_mean": mean, "running_var": variance}, strict=False)
    expected = F.normalize((projected - mean) / (variance + 1e-5).sqrt(), dim=-1)
    assert torch.allclose(model.feature(images), expected, atol=1e-5)
    shared = build(features="attributes")
    assert torch.allclose(shared.feature(images), F.normalize(shared.backbone(images), dim=-1), atol=1e-6)
    assert shared.width == 6
    assert not hasattr(shared, "projection")


def test_what_all_pictures_share_does_not_become_the_feature(build):
    """Without a normalised projection, pooled maps that differ little from their mean give nearly equal features."""
    model = build(dim=32).train()
    model._seen = lambda images: 50 + images
    features = model.feature(torch.randn(64, 6, 2, 2))
    assert (features @ features.T).fill_diagonal_(0).sum() / (64 * 63) < 0.05
    spectrum = torch.linalg.svdvals(features) ** 2
    assert spectrum.sum() / spectrum.max() > 3  # of the six directions that pooled maps have


def test_learning_some_items_does_not_drive_the_classifier_off_the_others(build):
    """Early features are much alike, so that a step towards the items of a batch moves all logits: by length^2."""
    model = build(dim=256, classes=1000)
    model.feature = lambda images: F.normalize(images.flatten(1)[:, :256], dim=-1)
    torch.manual_seed(2)
    alike = 1 + 0.3 * torch.randn(32, 3, 10, 10)
    learnt, others = (InstanceBatch(alike[i], i, i) for i in torch.arange(32).split(16))
    model.instances_step(learnt)["L_ce"][1].backward()
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter -= 10 * model.hparams["instances_lr"] * parameter.grad  # momentum of 0.9: ten steps in one
    assert model.instances_step(others)["L_ce"][1] < math.log(1000) + 1


def test_one_of_the_two_feature_stages_is_left_out(build):
    skipped = {
        features: [stage.name for stage in FLAM.stages if build(features=features).skips(stage)]
        for features in ("instances", "attributes")
    }
    assert skipped == {"instances": ["attributes"], "attributes": ["instances"]}


@pytest.mark.parametrize(
    ("pairs", "stand_in", "expected"),
    [
        ("items", "labels", "items"),
        ("domains", "views", "items"),
        ("labels", "labels", "labels"),
        ("labels", "views", "views"),
    ],
)
def test_what_an_instance_is(build, pairs, stand_in, expected):
    model = build(pairs=pairs, stand_in=stand_in)
    assert model.instances == expected
    notes = " ".join(model.row_notes)
    assert ("full label vector" in notes) == (expected == "labels")
    assert ("augmented views" in notes) == (expected == "views")
    assert model.stage_config(INSTANCES)["instances"] == expected


def test_rare_instances_are_in_triplets_alone(build, images):
    model = build(classes=2)
    batch = InstanceBatch(images, torch.tensor([0, 1, 7, 0, 1, 7]), torch.arange(6))
    losses = model.instances_step(batch)
    x = model.feature(images)
    logits = model.classifier(x * 4)[[0, 1, 3, 4]]
    expected = F.cross_entropy(logits, torch.tensor([0, 1, 0, 1]))
    assert losses["L_ce"][1].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["L_t"][1].item() == pytest.approx(batch_hard(x, batch.instance, 0.3).item())
    rare = model.instances_step(batch._replace(instance=torch.tensor([5, 6, 7, 5, 6, 7])))
    assert rare["L_ce"][1].item() == 0


def test_batch_hard_is_written_out():
    torch.manual_seed(0)
    x, instance = F.normalize(torch.randn(7, 3), dim=-1), torch.tensor([0, 0, 0, 1, 1, 2, 3])
    distance = 1 - x @ x.T
    terms = []
    for i in range(5):
        near = max(distance[i, j].item() for j in range(7) if instance[j] == instance[i] and j != i)
        far = min(distance[i, j].item() for j in range(7) if instance[j] != instance[i])
        terms.append(max(0.0, near - far + 0.3))
    assert batch_hard(x, instance, 0.3).item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert batch_hard(x, torch.zeros(7), 0.3).item() == 0
    assert batch_hard(x, torch.arange(7), 0.3).item() == 0


def test_masked_mean():
    values = torch.tensor([[1.0, 3.0], [torch.nan, 2.0]])
    assert masked_mean(values, torch.tensor([[True, True], [False, True]])).tolist() == [2, 2]
    assert masked_mean(values, torch.zeros(2, 2, dtype=torch.bool)).tolist() == [0, 0]


def test_backbones_without_maps_are_refused():
    with pytest.raises(UserError, match="resnet50"):
        FLAM(ATTRIBUTES, backbone="alexnet")


@pytest.mark.parametrize(
    ("backbone", "side", "features", "found"),
    [
        ("inception_resnet_v2", 64, "instances", "'inception_resnet_v2' cannot read pictures of 64 x 64"),
        ("inception_resnet_v2", 64, "attributes", "'inception_resnet_v2' cannot read pictures of 64 x 64"),
        ("vit_tiny_patch16_224", 64, "instances", "cannot read pictures of 64 x 64 .*224"),
        ("vit_tiny_patch16_224", 224, "instances", "shows no last map .* convolutional network of timm"),
        ("swin_tiny_patch4_window7_224", 224, "instances", "shows no last map .* convolutional network of timm"),
    ],
)
def test_backbones_are_tried_on_the_size_of_the_pictures(backbone, side, features, found):
    with pytest.raises(UserError, match=found):
        FLAM(ATTRIBUTES, backbone=backbone, features=features, image_size=(side, side))


@pytest.mark.parametrize("features", ["instances", "attributes"])
def test_trying_a_backbone_changes_nothing(features):
    states = []
    for size in (None, (40, 32)):
        torch.manual_seed(0)
        model = FLAM(ATTRIBUTES, backbone="resnet10t", features=features, image_size=size)
        assert all(module.training for module in model.modules())
        states.append(model.state_dict() | {"drawn next": torch.rand(3)})
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("backbone", "width"),
    [
        ("resnet50", 2048),
        ("seresnet50", 2048),
        ("seresnext50_32x4d", 2048),
        ("inception_resnet_v2", 1536),
        ("densenet121", 1024),
    ],
)
def test_backbones_of_table_5(backbone, width):
    network = build_backbone(backbone).eval()
    with torch.no_grad():
        maps = network.features.forward_features(torch.randn(1, 3, 75, 75))
    assert maps.ndim == 4
    assert maps.shape[1] == network.dim == width


# ------------------------------------------------------------------ stages


def test_what_variants_share(build):
    first = build()
    for stage, other, same in (
        (INSTANCES, {"targets": "all", "code": 3}, True),
        (INSTANCES, {"dim": 9}, False),
        (INSTANCES, {"pairs": "labels"}, False),
        (EMBEDDERS, {"match": "target", "lr": 1.0, "hidden": 3}, True),
        (EMBEDDERS, {"targets": "all"}, False),
        (EMBEDDERS, {"values": 3}, False),
        (EMBEDDERS, {"margin": 0.5}, False),
        (MANIPULATION, {"match": "target"}, False),
    ):
        assert (build(**other).stage_config(stage) == first.stage_config(stage)) == same, (stage.name, other)


def test_what_stages_leave(build):
    model = build()
    names = {stage.name: {name.partition(".")[0] for name in model.stage_state(stage)} for stage in FLAM.stages}
    assert names == {
        "attributes": {"backbone", "heads"},
        "instances": {"backbone", "projection", "classifier"},
        "embedders": {"embedders"},
        "manipulation": {"generators", "discriminators"},
    }
    assert "embedders.known" in model.stage_state(EMBEDDERS)


def test_features_are_kept_until_the_last_stage_ends(build, images):
    model = build()
    shuffled = torch.tensor([4, 1, 5, 0, 3, 2])
    parts = [LabelledBatch(images[rows], LABELS[rows], 10 * rows, torch.zeros(len(rows))) for rows in shuffled.split(4)]
    with torch.no_grad():
        model.cache_embedders(parts)
        assert torch.allclose(model.cached, model.feature(images), atol=1e-5)
        model.cache_manipulation([])
    model.stage = EMBEDDERS
    model.on_fit_end()
    assert len(model.cached) == 6
    model.stage = MANIPULATION
    model.on_fit_end()
    assert len(model.cached) == 0
    assert "cached" not in model.state_dict()


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


@pytest.mark.slow
def test_two_processes_keep_the_same_features_and_train_the_same_networks(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            from pathlib import Path

            sys.path.insert(0, {str(Path(__file__).parent)!r})
            import lightning as L
            from test_flam import Untrained

            from fm_bench.data.datamodule import FashionDataModule
            from fm_bench.data.garments import GarmentsReader
            from fm_bench.recipe import StageBudget
            from fm_bench.training import StageRunner

            if __name__ == "__main__":
                dataset = GarmentsReader(train=150, val=120, test=60).read()  # five batches, the last one not full
                datamodule = FashionDataModule(
                    dataset, image_size=(24, 24), batch_size=32, eval_batch_size=32, cache=Path("cache")
                )
                L.seed_everything(0, verbose=False)
                small = {{"dim": 8, "hidden": 16, "judge_hidden": [16, 8], "code": 4, "embedder_hidden": 16}}
                method = Untrained(datamodule.schema.to_dict(), backbone="resnet10t", values=2, **small)
                trainer = {{"enable_progress_bar": False, "accelerator": "cpu", "devices": int(sys.argv[1])}}
                budgets = {{name: StageBudget(share=0.0, epochs=1) for name in ("embedders", "manipulation")}}
                runner = StageRunner(Path("of" + sys.argv[1]), 0, 150, budgets, trainer, "none", {{}}, print)
                runner.run(method, datamodule)
            """
        )
    )
    for devices in ("1", "2"):
        subprocess.run(
            [sys.executable, str(script), devices], check=True, capture_output=True, timeout=300, cwd=tmp_path
        )

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


def test_embedders_step_reads_the_targets_alone(build, features):
    model = build()
    model.cached = features
    batch = PositionsBatch(torch.arange(6), LABELS, torch.arange(6))
    torch.manual_seed(0)
    loss = model.embedders_step(batch)["L_emb"][1]
    other = LABELS.clone()
    other[:, 0] = 1 - other[:, 0]
    torch.manual_seed(0)
    assert model.embedders_step(batch._replace(labels=other))["L_emb"][1].item() == pytest.approx(loss.item())


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
        small = {
            "dim": 8,
            "hidden": 16,
            "judge_hidden": [16, 8],
            "code": 4,
            "embedder_hidden": 16,
            "embedders_lr": 0.02,
        }
        method = FLAM(datamodule.schema.to_dict(), backbone="resnet10t", **small)
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
        quiet = {"enable_progress_bar": False, "accelerator": "cpu"}
        StageRunner(folder / name, 0, 128, budgets, quiet, "none", {}, lambda _: None).run(method, datamodule)
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
    seen = []

    def watch(self, position):
        def state():
            return [
                {name: value.clone() for name, value in player.state_dict().items()}
                for player in (self.discriminators, self.generators)
            ]

        from contextlib import contextmanager

        @contextmanager
        def turn():
            before = state()
            with original(self, position) as descend:
                yield descend
            after = state()
            moved = [
                any(not torch.equal(value, b[name]) for name, value in a.items())
                for a, b in zip(before, after, strict=True)
            ]
            seen.append((position, moved))

        return turn()

    original = FLAM.turn
    monkeypatch.setattr(FLAM, "turn", watch)
    trained("watched")
    assert len(seen) == 2 * 2 * 4
    assert all(moved == [position == 0, position == 1] for position, moved in seen)


def test_pairs_are_a_tuple_of_one_shape(build, features):
    pairs = _pairs(build(), features)
    assert isinstance(pairs, Pairs)
    assert pairs.features.shape == (T, 12, DIM)
    assert pairs.embedded.shape == pairs.wanted.shape == (T, 12, K)


def test_an_attributes_embedding_is_that_of_its_own_embedder(build, features):
    model = build()
    embedded = model.embedders(features)
    for target, attribute in enumerate(model.targets):
        assert torch.equal(model.attribute_embedding(attribute, features), embedded[target])
    assert model.attribute_embedding(0, features) is None  # gender is no target
