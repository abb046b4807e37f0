# SPDX-License-Identifier: MIT
"""Features for instance retrieval, which FLAM trains on: the pooled feature, what it learns from, and its backbones."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flam_models import ATTRIBUTES, DIM, LABELS
from stubs import Trainer

from fm_bench.data.batches import InstanceBatch, LabelledBatch
from fm_bench.errors import UserError
from fm_bench.methods.base import weighted_sum
from fm_bench.methods.flam import EMBEDDERS, FLAM, INSTANCES, MANIPULATION
from fm_bench.nn.cosine import batch_hard, masked_mean

# ------------------------------------------------------------------ the feature


def test_the_feature_is_sum_pooled_and_projected(flam, images):
    model = flam()
    maps = model.backbone.features.forward_features(images)
    projected = maps.sum((2, 3)) @ model.projection[0].weight.T
    mean, variance = torch.randn(DIM), torch.rand(DIM) + 0.5
    model.projection[1].load_state_dict({"running_mean": mean, "running_var": variance}, strict=False)
    expected = F.normalize((projected - mean) / (variance + 1e-5).sqrt(), dim=-1)
    assert torch.allclose(model.feature(images), expected, atol=1e-5)
    shared = flam(features="attributes")
    assert torch.allclose(shared.feature(images), F.normalize(shared.backbone(images), dim=-1), atol=1e-6)
    assert shared.width == 6
    assert not hasattr(shared, "projection")


def test_what_all_pictures_share_does_not_become_the_feature(flam):
    """Without a normalised projection, pooled maps that differ little from their mean give nearly equal features."""
    model = flam(dim=32).train()
    model._seen = lambda images: 50 + images
    features = model.feature(torch.randn(64, 6, 2, 2))
    assert (features @ features.T).fill_diagonal_(0).sum() / (64 * 63) < 0.05
    spectrum = torch.linalg.svdvals(features) ** 2
    assert spectrum.sum() / spectrum.max() > 3  # of the six directions that pooled maps have


def test_features_are_kept_until_the_last_stage_ends(flam, images):
    model = flam()
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


# ------------------------------------------------------------------ what it learns from


def test_one_of_the_two_feature_stages_is_left_out(flam):
    skipped = {
        features: [stage.name for stage in FLAM.stages if flam(features=features).skips(stage)]
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
def test_what_an_instance_is(flam, pairs, stand_in, expected):
    model = flam(pairs=pairs, stand_in=stand_in)
    assert model.instances == expected
    notes = " ".join(model.row_notes)
    assert ("full label vector" in notes) == (expected == "labels")
    assert ("augmented views" in notes) == (expected == "views")
    assert model.stage_config(INSTANCES)["instances"] == expected


def test_rare_instances_are_in_triplets_alone(flam, images):
    model = flam(classes=2)
    batch = InstanceBatch(images, torch.tensor([0, 1, 7, 0, 1, 7]), torch.arange(6))
    losses = model.instances_step(batch)
    x = model.feature(images)
    logits = model.classifier(x * 4)[[0, 1, 3, 4]]
    expected = F.cross_entropy(logits, torch.tensor([0, 1, 0, 1]))
    assert losses["L_ce"][1].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["L_t"][1].item() == pytest.approx(batch_hard(x, batch.instance, 0.3).item())
    rare = model.instances_step(batch._replace(instance=torch.tensor([5, 6, 7, 5, 6, 7])))
    assert rare["L_ce"][1].item() == 0


def test_a_step_descends_cross_entropy_and_triplets_alike(flam, images):
    model = flam()
    batch = InstanceBatch(images, torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6))
    losses = model.instances_step(batch)
    x = model.feature(images)
    entropy, triplets = F.cross_entropy(model.classifier(4 * x), batch.instance), batch_hard(x, batch.instance, 0.3)
    assert min(entropy.item(), triplets.item()) > 0.01
    assert {name: weight for name, (weight, _) in losses.items()} == {"L_ce": 1.0, "L_t": 1.0}
    assert weighted_sum(losses).item() == pytest.approx((entropy + triplets).item(), rel=1e-5)


def test_learning_some_items_does_not_drive_the_classifier_off_the_others(flam):
    """Early features are much alike, so that a step towards the items of a batch moves all logits: by length^2."""
    model = flam(dim=256, classes=1000)
    model.feature = lambda images: F.normalize(images.flatten(1)[:, :256], dim=-1)
    torch.manual_seed(2)
    alike = 1 + 0.3 * torch.randn(32, 3, 10, 10)
    learnt, others = (InstanceBatch(alike[i], i, i) for i in torch.arange(32).split(16))
    model.instances_step(learnt)["L_ce"][1].backward()
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter -= 10 * model.hparams["instances_lr"] * parameter.grad  # momentum of 0.9: ten steps in one
    assert model.instances_step(others)["L_ce"][1] < math.log(1000) + 1


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


# ------------------------------------------------------------------ target attributes


@pytest.mark.parametrize(
    ("targets", "expected"),
    [("three", [1, 2, 3]), ("all", [0, 1, 2, 3]), (["pattern", "gender"], [0, 3])],
)
def test_targets(flam, targets, expected):
    model = flam(targets=targets)
    assert model.targets == expected
    left = [name for m, name in enumerate(ATTRIBUTES) if m not in expected]
    assert any("answered by the feature as it is" in note for note in model.row_notes) == bool(left)
    assert all(any(name in note for note in model.row_notes) for name in left)


def test_targets_of_other_names(flam):
    assert flam({"sleeve": ["a", "b"], "color": ["c", "d"], "article_type": ["e", "f"]}).targets == [1, 2]
    other = flam({"sleeve": ["a", "b"], "length": ["c", "d"]})
    assert other.targets == [0, 1], "none of the three: all"
    assert any("neither shape nor colour nor pattern" in note for note in other.row_notes)
    assert not any("neither" in note for note in flam().row_notes)
    with pytest.raises(UserError, match="colour"):
        flam(targets=["colur"])


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"targets": []}, "targets names no attribute"),
        ({"values": 1}, "values is 1"),
        ({"values": 0}, "values is 0"),
        ({"values": -3}, "values is -3"),
    ],
)
def test_settings_that_leave_nothing_to_learn_are_refused(flam, wrong, found):
    with pytest.raises(UserError, match=found):
        flam(**wrong)


# ------------------------------------------------------------------ backbones


def test_backbones_without_maps_are_refused():
    with pytest.raises(UserError, match="resnet50"):
        FLAM(ATTRIBUTES, backbone="alexnet")


@pytest.mark.parametrize(
    ("backbone", "side", "features", "found"),
    [
        ("densenet121", 28, "instances", "'densenet121' cannot read pictures of 28 x 28"),
        ("densenet121", 28, "attributes", "'densenet121' cannot read pictures of 28 x 28"),
        ("vit_tiny_patch16_224", 64, "instances", "cannot read pictures of 64 x 64 .*224"),
        ("vit_tiny_patch16_224", 224, "instances", "shows no last map .* convolutional network of timm"),
        ("swin_tiny_patch4_window7_224", 224, "instances", "shows no last map .* convolutional network of timm"),
    ],
)
def test_backbones_are_tried_on_the_size_of_the_pictures(backbone, side, features, found):
    with pytest.raises(UserError, match=found):
        FLAM(ATTRIBUTES, backbone=backbone, features=features, image_size=(side, side))


def test_pictures_too_small_for_a_backbone_are_enlarged_in_their_own_proportions():
    torch.manual_seed(0)
    small = {"dim": 8, "classes": 2, "hidden": 9, "judge_hidden": [6]}
    model = FLAM(ATTRIBUTES, backbone="inception_resnet_v2", image_size=(80, 60), **small).eval()
    trunk, images = model.backbone.features, torch.randn(2, 3, 80, 60)
    enlarged = F.interpolate(images, (100, 75), mode="bilinear")
    seen = []
    trunk.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        assert torch.equal(model.backbone.maps(images), trunk.forward_features(enlarged))
        assert torch.equal(model.backbone(images), trunk(enlarged))
        assert torch.equal(model.backbone(enlarged[..., :90, :]), trunk(enlarged[..., :90, :]))
    assert torch.equal(seen[0], enlarged)
    assert "pictures of 60 pixels are enlarged to 75, the fewest that the backbone reads" in model.row_notes
    for known in (None, (100, 75)):
        assert not any("enlarged" in note for note in FLAM(ATTRIBUTES, image_size=known, **small).row_notes)


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
    ("backbone", "width", "side", "refuses"),
    [
        ("resnet50", 2048, 32, False),  # of the first three, which read one pixel, too: one column of the last map
        ("seresnet50", 2048, 32, False),
        ("seresnext50_32x4d", 2048, 32, False),
        ("inception_resnet_v2", 1536, 75, False),  # which smaller ones are enlarged to
        ("densenet121", 1024, 29, True),
    ],
)
def test_backbones_of_table_5_learn_from_the_smallest_pictures(backbone, width, side, refuses):
    torch.manual_seed(0)
    small = {"dim": 8, "classes": 2, "hidden": 9, "judge_hidden": [6]}
    model = FLAM(ATTRIBUTES, backbone=backbone, image_size=(side, side), **small)
    trunk = model.backbone.features
    with torch.no_grad():
        assert trunk.eval().forward_features(torch.zeros(1, 3, side, side)).shape == (1, width, 1, 1)
        for parameter in trunk.parameters():
            if not parameter.any():  # timm begins with branches that give 0, and pass nothing on to what lies before
                parameter.normal_()
    assert model.backbone.dim == width
    if refuses:
        with pytest.raises(UserError, match="cannot read pictures"):
            model._try_backbone(side - 1, side - 1)

    model._trainer = Trainer()
    model.begin(INSTANCES, 0)
    optimizer = model.train().instances_optimizer()["optimizer"]
    losses = model.instances_step(
        InstanceBatch(torch.randn(4, 3, side, side), torch.tensor([0, 0, 1, 1]), torch.arange(4))
    )
    assert all(value.isfinite() for _, value in losses.values())
    weighted_sum(losses).backward()
    learning = dict(trunk.named_parameters())
    assert all(parameter.requires_grad for parameter in learning.values())
    assert [name for name, p in learning.items() if p.grad is None or not p.grad.any()] == []
    assert all(parameter.grad.isfinite().all() for parameter in learning.values())
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in learning.values())
