# SPDX-License-Identifier: MIT
"""The invariants of the FashionSearchNet paper by their numbers, on a tiny trunk; 5 to 9 are in tests/nn, too."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fm_bench.attributes import AttributeSchema
from fm_bench.data.batches import LabelledBatch, TripletPositionsBatch
from fm_bench.data.regions import REGIONS
from fm_bench.errors import UserError
from fm_bench.methods import fashionsearchnet as module
from fm_bench.methods.base import Context
from fm_bench.methods.fashionsearchnet import FashionSearchNet, global_representation
from fm_bench.nn.localisation import whole
from fm_bench.nn.triplets import partners, soft_triplet
from fm_bench.nn.trunks import Trunk, build_trunk

ATTRIBUTES = {
    "colour": ["red", "blue", "green"],
    "sleeve length": ["none", "short"],
    "fit": ["slim", "wide", "loose", "long"],
    "collar": ["none", "shirt"],
}
A, C, DIM, WIDE = 4, 11, 6, 8
LABELS = torch.tensor([[2, 0, 1, 0], [0, 1, 3, 1], [1, 0, 0, 0], [0, 0, 2, 1], [2, 1, 1, 0], [1, 1, 3, 1]])


class _Strategy:
    @staticmethod
    def reduce(value, reduce_op):
        assert reduce_op == "sum"
        return value

    @staticmethod
    def broadcast(value):
        return value


class _Trainer:
    strategy = _Strategy()
    estimated_stepping_batches = 10
    world_size = 1


@pytest.fixture
def build(monkeypatch):
    def tiny(name, weights=None, blocks=3):
        return Trunk(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), 4)

    monkeypatch.setattr(module, "build_trunk", tiny)

    def make(attributes=ATTRIBUTES, **options) -> FashionSearchNet:
        torch.manual_seed(1)
        small = {"maps": [5, 6, 7], "dim": DIM, "crop": 3, "dropout": 0.0, "global_dim": WIDE}
        model = FashionSearchNet(attributes, **(small | options))
        model._trainer = _Trainer()
        model.prototypes.normal_()
        if options.get("global_representation", True):
            model.importance.data.uniform_(0.5, 1.5)
            model.projection.data.normal_()
        return model.eval()

    return make


@pytest.fixture
def images():
    return torch.randn(6, 3, 9, 7, generator=torch.Generator().manual_seed(2))


def _indicator(model, *changes, count=6):
    return model.schema.indicator(changes).expand(count, -1)


def _labelled(images, labels=LABELS):
    return LabelledBatch(images, labels, torch.arange(len(images)), torch.zeros(len(images)))


def _triplets(model, indicator):
    n = len(indicator)
    rows = torch.arange(n)
    return TripletPositionsBatch(rows, rows.roll(1), rows.roll(2), indicator, LABELS[:n], LABELS[:n], rows)


def _distances(positive, negative):
    """Triplets with these distances."""
    anchor = torch.zeros(len(positive), 2, dtype=positive.dtype)
    return anchor, torch.stack([positive, 0 * positive], 1), torch.stack([0 * negative, negative], 1)


# ------------------------------------------------------------------ soft triplets


def test_1_soft_triplet_values():
    near, far = torch.tensor([1.0, 2.0, 1.5]), torch.tensor([2.0, 1.0, 1.5])
    loss = soft_triplet(*_distances(near, far))
    assert loss.tolist() == pytest.approx([0.268941, 0.731059, 0.5], abs=1e-6)
    squared = soft_triplet(*_distances(near, far), squared=True)
    assert squared[2].item() == pytest.approx(0.25)
    assert torch.allclose(squared, loss.square())


def test_2_shares_add_up_to_one_and_swap():
    torch.manual_seed(0)
    near, far = torch.rand(20) * 3, torch.rand(20) * 3
    plus, minus = soft_triplet(*_distances(near, far)), soft_triplet(*_distances(far, near))
    assert torch.allclose(plus + minus, torch.ones(20))
    assert torch.allclose(plus.square() + (minus - 1).square(), 2 * plus.square(), atol=1e-6)
    one = soft_triplet(*_distances(torch.tensor([1.0]), torch.tensor([2.0])))
    assert 2 * one.square().item() == pytest.approx(0.144659, abs=1e-6)


@pytest.mark.parametrize(("near", "far", "slope"), [(1.0, 1.0, 0.25), (11.0, 1.0, 4.54e-5), (1.0, 2.0, 0.196612)])
def test_3_gradients(near, far, slope):
    near, far = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (near, far))
    soft_triplet(*_distances(near, far)).sum().backward()
    assert near.grad.item() == pytest.approx(slope, rel=1e-3)
    assert far.grad.item() == pytest.approx(-slope, rel=1e-3)


def test_4_no_overflow():
    far = torch.tensor([100.0, 1000.0])
    assert soft_triplet(*_distances(far, far)).tolist() == [0.5, 0.5]
    assert torch.isnan(torch.exp(far[:1]) / (torch.exp(far[:1]) + torch.exp(far[:1]))).all()


# ------------------------------------------------------------------ maps and boxes


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_5_maps_sum_to_the_logit_of_the_most_confident_class(build, images, pooling):
    model = build(pooling=pooling)
    _, conv7 = model.convolve(images)
    logits = model.classify(conv7)
    maps = model.activation_maps(conv7, logits)
    best = torch.stack([block.amax(-1) for block in logits.split([3, 2, 4, 2], -1)], 1)
    assert torch.allclose(getattr(maps, pooling)((2, 3)), best, atol=1e-4)
    assert model.classifiers.bias is None


def test_6_scaled_classifiers_give_the_same_boxes(build, images):
    model = build()
    boxes = model.look(images)[1]
    with torch.no_grad():
        model.classifiers.weight *= 11
    assert torch.equal(model.look(images)[1], boxes)


def test_7_and_8_boxes_are_of_the_grid(build, images):
    maps, boxes, values = build().look(images)
    assert ((values >= 0) & (values < torch.tensor([3, 2, 4, 2]))).all()
    assert maps.shape == (6, A, 9, 7)
    assert boxes.shape == (6, A, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    model = build()
    with torch.no_grad():
        model.classifiers.weight.zero_()  # no map has a maximum above zero
    assert torch.equal(model.look(images)[1], whole(maps))


def test_9_without_localisation_every_box_is_full(build, images):
    plain, whole_boxes = build(), build(localise=False)
    assert torch.equal(whole_boxes.look(images)[1], whole(torch.zeros(6, A, 1, 1)))
    assert not torch.allclose(plain.slots(images), whole_boxes.slots(images))
    plain.boxes = whole  # the same weights
    assert torch.equal(plain.slots(images), whole_boxes.slots(images))


# ------------------------------------------------------------------ prototypes and the global representation


@pytest.mark.parametrize("normalize", [True, False])
def test_10_the_replaced_representation_does_not_matter(build, normalize):
    model = build(normalize=normalize)
    slots = model.space(torch.randn(3, A, DIM))
    request = _indicator(model, ("fit", "loose"), count=3)
    found = model.gallery_view(model.manipulate(slots, request).flatten(1), 3)
    for m in range(A):
        other = slots.clone()
        other[:, m] = model.space(torch.randn(3, DIM))
        assert torch.allclose(model.gallery_view(model.manipulate(other, request).flatten(1), 3), found) == (m == 2)


def test_10_only_the_query_is_manipulated(build, images):
    model = build()
    before = model.embed_gallery(images)
    model.prototypes.add_(1.0)
    assert torch.equal(model.embed_gallery(images), before)
    batch = _triplets(model, _indicator(model, ("fit", "loose")))
    model.cached = torch.randn(6, A, DIM)
    seen = []
    model._ranking = lambda *triplet: seen.append(triplet) or torch.zeros(1)
    model.representation_step(batch)
    anchor, positive, negative = seen[0]
    edited = model.manipulate(model.cached, batch.indicator)
    for found, slots in ((anchor, edited), (positive, model.cached.roll(1, 0)), (negative, model.cached.roll(2, 0))):
        assert torch.allclose(found, model.embed_global(slots, 3), atol=1e-5)


def test_11_lambda_chooses_and_an_identity_slices():
    f = torch.randn(5, A, DIM)
    other = f.clone()
    other[:, [0, 2, 3]] += 1
    only = torch.tensor([0.0, 1.0, 0.0, 0.0])
    matrix = torch.randn(A * DIM, WIDE)
    assert torch.allclose(global_representation(f, only, matrix), global_representation(other, only, matrix))
    assert not torch.allclose(
        global_representation(f, torch.ones(A), matrix), global_representation(other, torch.ones(A), matrix)
    )
    sliced = global_representation(f, torch.ones(A), torch.eye(A * DIM, WIDE))
    assert torch.equal(sliced, f.flatten(1)[:, :WIDE])


def test_12_lambda_is_redundant_beside_its_own_projection():
    f, importance, matrix = torch.randn(5, A, DIM), torch.randn(A), torch.randn(A * DIM, WIDE)
    scaled = importance.repeat_interleave(DIM).unsqueeze(1) * matrix
    assert torch.allclose(
        global_representation(f, importance, matrix), global_representation(f, torch.ones(A), scaled), atol=1e-5
    )


@pytest.mark.parametrize("w_shared", [False, True])
def test_13_third_stage_trains_lambda_and_w_of_the_sampled_settings(build, w_shared):
    model = build(w_shared=w_shared)
    assert model.projection.shape == (1 if w_shared else A + 1, A * DIM, WIDE)
    assert model.importance.shape == (A + 1, A)
    model.begin(module.GLOBAL, 0)
    model.cached = torch.randn(6, A, DIM)
    indicator = torch.cat([torch.zeros(3, C), _indicator(model, ("fit", "wide"), count=3)])  # a* = 0 and 3
    (weight, loss) = model.representation_step(_triplets(model, indicator))["L_G"]
    (weight * loss).backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == {
        "importance",
        "projection",
    }
    moved = model.importance.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, False, False, True, False]
    if not w_shared:
        assert (model.projection.grad.abs().sum((1, 2)) > 0).tolist() == moved.tolist()
    assert not model.prototypes.requires_grad
    trained = {
        parameter
        for group in model.representation_optimizer()["optimizer"].param_groups
        for parameter in group["params"]
    }
    assert trained == {model.importance, model.projection}


def test_third_stage_loss_is_equation_8_written_out(build):
    model = build()
    model.cached = torch.randn(6, A, DIM)
    indicator = torch.stack([model.schema.indicator(r) for r in ([], [(0, 1)], [(2, 3)], [(0, 2)], [], [(3, 0)])])
    batch = _triplets(model, indicator)
    terms = []
    for i in range(6):
        slots = [model.cached[position[i]].clone() for position in (batch.reference, batch.positive, batch.negative)]
        a = 0
        for column in indicator[i].nonzero().flatten().tolist():
            a = 1 + max(m for m in range(A) if model.schema.offsets[m] <= column)
            slots[0][a - 1] = model.prototypes[column]
        F = [(model.importance[a].unsqueeze(1) * slot).flatten() @ model.projection[a] for slot in slots]
        near, far = (F[0] - F[1]).norm().item(), (F[0] - F[2]).norm().item()
        terms.append(1 / (1 + math.exp(far - near)))
    assert model.representation_step(batch)["L_G"][1].item() == pytest.approx(np.mean(terms), rel=1e-4)


# ------------------------------------------------------------------ training on regions


def _backward(model, images, labels, *names):
    model.zero_grad()
    losses = model.regions_step(_labelled(images, labels))
    assert {name: weight for name, (weight, _) in losses.items()} == {"L_C": 1.0, "L_T": 1.0, "L_TC": 1.0}
    sum(losses[name][1] for name in names).backward()


def test_14_ranking_does_not_move_the_classifiers(build, images):
    model = build()
    _backward(model, images, LABELS, "L_T", "L_TC")
    assert model.classifiers.weight.grad is None or not model.classifiers.weight.grad.any()
    assert model.conv6[0].weight.grad is None or not model.conv6[0].weight.grad.any()
    assert model.conv5[0].weight.grad.any()
    _backward(model, images, LABELS, "L_C")
    assert model.classifiers.weight.grad.any()


@pytest.mark.parametrize("labelled", range(A))
def test_15_attributes_are_independent(build, images, labelled):
    labels = torch.full_like(LABELS, -1)
    labels[:, labelled] = LABELS[:, labelled]
    model = build()
    _backward(model, images, labels, "L_T")
    for parameter in model.stacks.parameters():
        assert [bool(gradient.any()) for gradient in parameter.grad] == [m == labelled for m in range(A)]


def test_no_image_has_a_partner_of_the_same_value_alone():
    labels = torch.tensor([[0, -1], [0, 1], [1, 1], [-1, 1]])
    for _ in range(5):
        positive, negative, found = partners(labels)
        assert found.tolist() == [[True, False], [True, False], [False, False], [False, False]]
        assert [positive[0, 0].item(), positive[1, 0].item()] == [1, 0]
        assert negative[:2, 0].tolist() == [2, 2]


def test_partners_are_drawn_evenly_and_per_attribute():
    torch.manual_seed(0)
    labels = torch.tensor([[0, 0]] * 4 + [[1, 1]] * 4)
    draws = torch.stack([torch.stack(partners(labels)[:2]) for _ in range(600)])  # (600, 2, 8, 2)
    counts = torch.bincount(draws[:, 0, 0, 0], minlength=8)
    assert counts[0] == 0
    assert counts[4:].sum() == 0
    assert (counts[1:4] - 200).abs().max() < 60
    assert (torch.bincount(draws[:, 1, 0, 0], minlength=8)[4:] - 150).abs().max() < 60
    assert (draws[:, 0, 0, 0] != draws[:, 0, 0, 1]).any()


def test_ranking_loss_is_written_out(build, images, monkeypatch):
    """Two images per value and two values: one positive each, negatives as drawn."""
    model = build()
    chosen = partners(LABELS)
    monkeypatch.setattr(module, "partners", lambda labels: chosen)
    found = model.regions_step(_labelled(images))["L_T"][1].item()
    f = model.slots(images)
    expected = 0.0
    for i in range(6):
        for m in range(A):
            if chosen[2][i, m]:
                near, far = (f[i, m] - f[chosen[0][i, m], m]).norm(), (f[i, m] - f[chosen[1][i, m], m]).norm()
                expected += torch.sigmoid(near - far).item() / 6
    assert found == pytest.approx(expected, rel=1e-4)


def test_second_stage_reaches_every_parameter_that_it_trains(build, images):
    model = build().train()
    model.begin(module.LOCAL, 0)
    _backward(model, images, LABELS, "L_C", "L_T", "L_TC")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith(("importance", "projection")) for name in trained)


# ------------------------------------------------------------------ prototypes and the cache


@pytest.mark.parametrize("normalize", [True, False])
def test_16_prototypes_are_means_of_true_labels(build, images, normalize, caplog):
    model = build(normalize=normalize)
    labels = LABELS.clone()
    labels[labels[:, 2] == 2, 2] = -1
    with torch.no_grad():
        model.on_prototypes_start([_labelled(images[:4], labels[:4]), _labelled(images[4:], labels[4:])])
        f = model.slots(images)
    assert torch.allclose(model.prototypes[3 + 2 + 0], f[2, 2], atol=1e-5)  # slim is worn in picture 2 alone
    mean = f[LABELS[:, 1] == 1, 1].mean(0)
    assert torch.allclose(model.prototypes[4], model.space(mean), atol=1e-5)
    assert not model.prototypes[7].any()
    assert "1 values" in caplog.text
    assert set(model.stage_state(module.PROTOTYPES)) == {"prototypes"}


def test_features_are_kept_in_the_order_of_the_catalogue(build, images):
    model = build()
    shuffled = torch.tensor([4, 1, 5, 0, 3, 2])
    parts = [_labelled(images[rows], LABELS[rows])._replace(index=10 * rows) for rows in shuffled.split(4)]
    with torch.no_grad():
        model.cache_representation(parts)
        assert torch.allclose(model.cached, model.slots(images), atol=1e-5)
        model.cache_representation([])  # once is enough
    model.on_fit_end()
    assert len(model.cached) == 0
    assert "cached" not in model.state_dict()


def test_shares_of_two_processes_are_put_together(build, images):
    """The first process has batches 0 and 2, the second batch 1 and fewer pictures."""

    class Two(_Strategy):
        def __init__(self, shares):
            self.shares = shares

        def all_gather(self, value):
            if value.ndim == 0:
                return torch.tensor([4, 2])
            other = self.shares[0] if value.ndim == 1 else self.shares[1]
            return torch.stack([value, torch.cat([other, other.new_zeros(2, *other.shape[1:])])])

    model = build()
    with torch.no_grad():
        f = model.slots(images)
        model._trainer = type("Trainer", (), {"world_size": 2, "strategy": Two((torch.tensor([2, 3]), f[2:4]))})()
        mine = torch.tensor([0, 1, 4, 5])
        model.cache_representation([_labelled(images[mine], LABELS[mine])._replace(index=mine)])
    assert torch.allclose(model.cached, f, atol=1e-5)


def test_third_stage_starts_from_the_plain_concatenation(build):
    model = build(global_dim=A * DIM)
    model.cached = torch.randn(40, A, DIM)
    model.importance.data.fill_(1.0)
    model.on_representation_start([])
    f = model.cached.flatten(1)
    for a in range(A + 1):
        assert torch.allclose(torch.pdist(model.embed_global(model.cached, a)), torch.pdist(f), atol=1e-3)
    narrow = build(global_dim=3)
    plane = torch.randn(40, 3) @ torch.randn(3, A * DIM) + 5
    narrow.cached = plane.reshape(40, A, DIM)
    narrow.importance.data.fill_(1.0)
    narrow.on_representation_start([])
    assert torch.allclose(torch.pdist(narrow.embed_global(narrow.cached, 0)), torch.pdist(plane), rtol=1e-3, atol=1e-2)


# ------------------------------------------------------------------ search


def test_17_nothing_asked_reads_no_prototype(build, images):
    model = build()
    nothing = torch.zeros(6, C)
    model.prototypes.fill_(float("nan"))
    query = model.embed_query(images, nothing)
    gallery = model.gallery_view(model.embed_gallery(images), 0)
    assert torch.allclose(query, gallery, atol=1e-5)
    assert torch.isfinite(query).all()


def test_requests_are_searched_in_the_space_of_their_own_setting(build, images):
    model = build()
    requests = [
        [],
        [("fit", "wide")],
        [("colour", "blue"), ("collar", "shirt")],
        [("fit", "long")],
        [],
        [("colour", "red")],
    ]
    indicator = torch.stack([model.schema.indicator(changes) for changes in requests])
    attribute = np.array([[-1, -1], [2, -1], [3, 0], [2, -1], [-1, -1], [0, -1]])
    settings = model.settings(attribute, np.full(6, -1))
    assert np.array_equal(settings, model.settings(attribute[:, ::-1], np.full(6, -1)))
    assert settings.tolist() == [0, 3, 4 + 5 * 1, 3, 0, 1]
    found = model.embed_query(images, indicator)
    assert found.shape == (6, model.width)
    edited = model.manipulate(model.slots(images), indicator)
    for i in range(6):
        expected = model.gallery_view(edited[i : i + 1].flatten(1), int(settings[i]))
        assert torch.allclose(found[i], expected[0], atol=1e-5)
    assert model.gallery_view(model.embed_gallery(images), 1).shape == (6, model.width)


def test_two_attributes_average_both_squared_distances(build):
    model = build()
    one, two = torch.randn(2, 4, A, DIM)
    setting = int(model.settings(np.array([[1, 3]]), np.array([-1]))[0])
    both = (model.gallery_view(one.flatten(1), setting) - model.gallery_view(two.flatten(1), setting)).square().sum(1)
    each = [(model.embed_global(one, a) - model.embed_global(two, a)).square().sum(1) for a in (2, 4)]
    assert torch.allclose(both, (each[0] + each[1]) / 2, rtol=1e-4)


def test_without_the_global_representation_one_space_is_enough(build, images):
    model = build(global_representation=False)
    assert [stage.name for stage in model.stages] == ["attributes", "regions", "prototypes"]
    assert [stage.name for stage in FashionSearchNet.stages][-1] == "representation"
    attribute = np.array([[-1, -1], [2, -1], [3, 0]])
    assert model.settings(attribute, np.array([-1, -1, 1])).tolist() == [0, 0, 0]
    stored = model.embed_gallery(images)
    assert torch.equal(model.gallery_view(stored, 0), stored)
    query = model.embed_query(images, _indicator(model, ("collar", "shirt")))
    assert torch.allclose(
        query, model.manipulate(model.slots(images), _indicator(model, ("collar", "shirt"))).flatten(1)
    )


# ------------------------------------------------------------------ region awareness


def test_18_torso_overlaps_nothing(build, images):
    model = build(region_aware=True)
    with torch.no_grad():
        model.classifiers.weight.abs_()  # every map is positive everywhere, so that every mask is large
    _, conv7 = model.convolve(images)
    masks, heat = model.region_masks(conv7, model.classify(conv7))
    torso, sleeves, collar = (REGIONS.index(name) for name in ("torso", "sleeves", "collar"))
    assert masks[:, sleeves].any()
    assert masks[:, collar].any()
    assert not (masks[:, torso] & (masks[:, sleeves] | masks[:, collar])).any()
    assert (heat[:, torso] > 0.2 * heat[:, torso].amax((1, 2), keepdim=True)).any()


def test_heat_is_the_sum_of_what_confident_classes_see(build, images):
    model = build(region_aware=True)
    _, conv7 = model.convolve(images)
    logits = 3 * torch.randn(6, C)
    _, heat = model.region_masks(conv7, logits)
    for region, m in (("sleeves", 1), ("torso", 2), ("collar", 3)):  # of `LINKS`, the schema has one attribute each
        block = slice(model.schema.offsets[m], model.schema.offsets[m + 1])
        confidence = logits[:, block].softmax(-1)
        expected = sum(
            (confidence[:, c, None, None] * (confidence[:, c, None, None] > 0.1))
            * torch.einsum("k,bkhw->bhw", model.classifiers.weight[block][c], conv7)
            for c in range(confidence.shape[1])
        )
        assert torch.allclose(heat[:, REGIONS.index(region)], expected, atol=1e-5)


def test_a_region_request_replaces_its_own_slot_and_weighs_it_most(build, images):
    model = build(region_aware=True)
    request = _indicator(model, ("colour", "green"))
    region = torch.tensor([1, 2, -1, 1, 0, -1])
    context = Context(None, torch.zeros(6), torch.arange(6), region)
    settings = model.settings(np.array([[0, -1]] * 6), region.numpy())
    assert settings.tolist() == [26, 27, 1, 26, 25, 1]
    found, slots = model.embed_query(images, request, context), model.slots(images)
    assert slots.shape == (6, A + 3, DIM)
    gallery = torch.randn(6, (A + 3) * DIM)
    for i, asked in enumerate(region.tolist()):
        edited = slots[i].clone()
        edited[0 if asked < 0 else A + asked] = model.prototypes[2]
        view = model.gallery_view(gallery, int(settings[i]))
        assert view.shape[1] == found.shape[1]
        assert torch.allclose(found[i], model.gallery_view(edited.flatten()[None], int(settings[i]))[0], atol=1e-5)
        if asked >= 0:
            weights = torch.full((A + 3,), 0.3)
            weights[A + asked] = 1.0
            parts = (edited - gallery[i].reshape(A + 3, DIM)).square().sum(1)
            assert (found[i] - view[i]).square().sum().item() == pytest.approx((weights * parts).sum().item(), rel=1e-4)


def test_other_attributes_and_plain_models_ignore_the_region(build, images):
    aware, plain = build(region_aware=True), build()
    region = np.array([1, 2])
    assert aware.settings(np.array([[2, -1], [0, 1]]), region).tolist() == [3, 2 + 5]
    assert plain.settings(np.array([[2, -1], [0, -1]]), region).tolist() == [3, 1]
    with pytest.raises(UserError, match="colour"):
        build({"pattern": ["plain", "dots"]}, region_aware=True)


def test_a_region_without_attributes_is_the_whole_map(build, images):
    model = build({"colour": ["red", "blue"]}, region_aware=True)
    _, conv7 = model.convolve(images)
    masks, _ = model.region_masks(conv7, model.classify(conv7))
    assert not masks.any()
    assert model.embed_query(images, torch.tensor([[0.0, 1.0]] * 6)).shape == (6, model.width)


# ------------------------------------------------------------------ what stages share


def test_variants_share_what_they_have_in_common(build):
    plain = build()
    variants = {
        "no-aam": build(localise=False),
        "no-global": build(global_representation=False),
        "region-aware": build(region_aware=True),
        "shared-w": build(w_shared=True),
    }
    for name, model in variants.items():
        assert model.stage_config(module.ATTRIBUTES) == plain.stage_config(module.ATTRIBUTES)
        for stage in (module.LOCAL, module.PROTOTYPES):
            assert (model.stage_config(stage) == plain.stage_config(stage)) == (name != "no-aam")
    assert variants["region-aware"].stage_config(module.GLOBAL) == plain.stage_config(module.GLOBAL)
    assert variants["shared-w"].stage_config(module.GLOBAL) != plain.stage_config(module.GLOBAL)
    assert build(lr=0.1).stage_config(module.ATTRIBUTES) != plain.stage_config(module.ATTRIBUTES)
    left = [set(plain.stage_state(stage)) for stage in FashionSearchNet.stages]
    assert left[0] < left[1]
    assert set.union(*left) == set(plain.state_dict())
    read = {name for names in module._READ.values() for name in names}
    only_search = {"attributes", "global_representation", "region_aware", "region_attribute", "kept"}
    assert read | only_search == set(plain.hparams)


def test_trunks_have_the_grid_that_the_paper_needs():
    torch.manual_seed(0)
    alexnet = build_trunk("alexnet").eval()
    with torch.no_grad():
        assert alexnet(torch.zeros(1, 3, 227, 227)).shape == (1, 256, 13, 13)
        assert alexnet(torch.zeros(1, 3, 224, 224)).shape == (1, 256, 13, 13)
        for blocks, width in ((2, 128), (3, 256)):
            trunk = build_trunk("resnet10t", blocks=blocks).eval()
            assert trunk.width == width
            assert trunk(torch.zeros(1, 3, 80, 64)).shape == (1, width, 10, 8)
    with pytest.raises(UserError, match="grid"):
        build_trunk("vit_tiny_patch16_224")
    with pytest.raises(UserError, match="backbone"):
        build_trunk("resnet10x")


def test_the_schema_of_a_request_may_have_one_attribute(build, images):
    model = build({"colour": ["red", "blue"]})
    assert AttributeSchema.from_dict({"colour": ["red", "blue"]}) == model.schema
    assert model.embed_query(images, torch.tensor([[1.0, 0.0]] * 6)).shape == (6, model.width)
