# SPDX-License-Identifier: MIT
"""FLAM's baselines Cls-Concat and Emb-Concat, on tiny features."""

import pytest
import torch
import torch.nn.functional as F
from stubs import Trainer, labelled

from fm_bench.data.batches import PositionsBatch
from fm_bench.errors import UserError
from fm_bench.methods.attribute_concat import MEANS, SLOTS, AttributeConcat, side_by_side
from fm_bench.methods.fir import INSTANCES
from fm_bench.methods.flam import FLAM

ATTRIBUTES = {"gender": ["women", "men"], "category": ["shirt", "dress", "skirt"], "colour": ["red", "blue", "green"]}
ATTRIBUTES["pattern"] = ["plain", "striped"]
LABELS = torch.tensor([[0, 2, 0, 1], [1, 0, 1, 0], [0, 1, 0, -1], [1, 0, 0, 1], [0, 2, 1, 0], [1, 1, 1, 1]])
T, DIM, PART = 3, 8, 5
BOTH = pytest.mark.parametrize("parts", ["classifiers", "embedders"])


@pytest.fixture
def build(maps):
    def make(**options) -> AttributeConcat:
        torch.manual_seed(1)
        model = AttributeConcat(ATTRIBUTES, **{"dim": DIM, "classes": 3, "part": PART, "embedder_hidden": 7} | options)
        model._trainer = Trainer()
        return model.eval()

    return make


def _prepared(model, images):
    """With classes known and means taken."""
    with torch.no_grad():
        model.on_slots_start([labelled(images, LABELS)])
        if model.hparams["parts"] == "classifiers":
            model.on_means_start([labelled(images[:4], LABELS[:4]), labelled(images[4:], LABELS[4:])])
    return model


@BOTH
def test_4_widths(parts):
    model = AttributeConcat(ATTRIBUTES, backbone="resnet10t", parts=parts).eval()
    with torch.no_grad():
        assert model.embed_gallery(torch.randn(2, 3, 32, 32)).shape == (2, 3 * 341)
        every = AttributeConcat(ATTRIBUTES, backbone="resnet10t", parts=parts, targets="all").eval()
        assert every.embed_gallery(torch.randn(2, 3, 32, 32)).shape == (2, 4 * 341)


@BOTH
def test_a_requested_part_is_replaced_and_no_other(build, images, parts):
    model = _prepared(build(parts=parts), images)
    plain = model.embed_gallery(images).reshape(6, T, PART)
    assert torch.allclose(plain.norm(dim=-1), torch.ones(6, T), atol=1e-5)
    request = model.schema.indicator([("colour", "blue")]).expand(6, -1)
    edited = model.embed_query(images, request).reshape(6, T, PART)
    assert torch.equal(edited[:, [0, 2]], plain[:, [0, 2]])
    assert torch.allclose(edited[:, 1], model.parts.dictionary[1, 1].expand(6, -1))
    assert not torch.allclose(edited[:, 1], plain[:, 1], atol=1e-3)
    two = model.schema.indicator([("pattern", "plain"), ("category", "dress")]).expand(6, -1)
    edited = model.embed_query(images, two).reshape(6, T, PART)
    assert torch.allclose(edited[:, 0], model.parts.dictionary[0, 1].expand(6, -1))
    assert torch.equal(edited[:, 1], plain[:, 1])
    assert torch.allclose(edited[:, 2], model.parts.dictionary[2, 0].expand(6, -1))


@BOTH
def test_what_asks_for_nothing_or_for_the_unknown_changes_nothing(build, images, parts):
    model = _prepared(build(parts=parts), images)
    plain = model.embed_gallery(images)
    for changes in ([], [("gender", "men")], [("colour", "green")]):  # nothing, no target, on no training image
        assert torch.equal(model.embed_query(images, model.schema.indicator(changes).expand(6, -1)), plain)


@BOTH
def test_an_attribute_with_one_known_class_is_not_changed(build, images, parts):
    model = build(parts=parts)
    labels = LABELS.clone()
    labels[:, 2] = 1  # every training image is blue
    with torch.no_grad():
        model.on_slots_start([labelled(images, labels)])
        request = model.schema.indicator([("colour", "blue")]).expand(6, -1)
        assert torch.equal(model.embed_query(images, request), model.embed_gallery(images))


@BOTH
def test_features_are_kept_until_the_last_stage_that_is_not_left_out(build, images, parts):
    model = build(parts=parts)
    with torch.no_grad():
        model.cache_slots([labelled(images, LABELS)])
    model.stage = SLOTS
    model.on_fit_end()
    assert len(model.cached) == (6 if parts == "classifiers" else 0)
    if parts == "classifiers":
        model.stage = MEANS
        model.on_fit_end()
        assert len(model.cached) == 0


def test_readers_are_told_which_values_change_nothing(build):
    said = "values beyond the 2 most frequent are answered by the feature as it is"
    assert said in build(values=2).row_notes
    assert not any("most frequent" in note for note in build(values=3).row_notes)


@BOTH
def test_backbones_are_tried_on_the_size_of_the_pictures(parts):
    with pytest.raises(UserError, match=r"vit_tiny_patch16_224.*64 x 48"):
        AttributeConcat(ATTRIBUTES, backbone="vit_tiny_patch16_224", parts=parts, image_size=(64, 48))


def test_means_are_directions_of_mean_parts_of_true_labels(build, images):
    model = _prepared(build(), images)
    slots = model.parts(model.feature(images))
    for target, column in enumerate((1, 2, 3)):
        for value in range(model.schema.sizes[column]):
            members = LABELS[:, column] == value
            expected = F.normalize(slots[target, members].sum(0), dim=-1)
            assert torch.allclose(model.parts.dictionary[target, value], expected, atol=1e-5)
    assert not model.parts.dictionary[1, 2].any()


def test_classifiers_have_two_layers_and_dropout_between(build):
    parts = build(dropout=0.5).parts
    x = torch.randn(4, DIM)
    hidden = torch.stack(
        [(x @ parts.first.layers[0].weight[t] + parts.first.layers[0].bias[t]).relu() for t in range(T)]
    )
    assert torch.allclose(parts(x), F.normalize(hidden, dim=-1), atol=1e-5)
    labels = torch.tensor([[0, 1, 0], [2, -1, 1], [1, 0, -1], [1, 1, 1]])
    logits = hidden @ parts.second.weight + parts.second.bias
    for t, size in enumerate((3, 3, 2)):
        expected = F.cross_entropy(logits[t, :, :size], labels[:, t], ignore_index=-1)
        assert parts.eval().loss(x, labels)[t].item() == pytest.approx(expected.item(), rel=1e-4)
    parts.train()
    assert not torch.allclose(parts.loss(x, labels), parts.loss(x, labels))


@BOTH
def test_parts_learn_from_labels_of_their_own_attribute_alone(build, images, parts):
    model = _prepared(build(parts=parts, dropout=0.0, margin=2.0), images).train()
    model.begin(SLOTS, 0)
    with torch.no_grad():
        model.cache_slots([labelled(images, LABELS)])
    for target, column in enumerate((1, 2, 3)):
        labels = torch.full_like(LABELS, -1)
        labels[:, column] = LABELS[:, column]
        ((weight, loss),) = model.slots_step(PositionsBatch(torch.arange(6), labels, torch.arange(6))).values()
        assert weight == 1
        model.zero_grad()
        loss.backward()
        for name, parameter in model.parts.named_parameters():
            assert [bool(part.any()) for part in parameter.grad] == [m == target for m in range(T)], name
    trained = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"parts"}


def test_stages(build):
    cls, emb = build(), build(parts="embedders")
    assert not cls.skips(MEANS)
    assert emb.skips(MEANS)
    assert not emb.skips(SLOTS)
    assert {name.partition(".")[0] for name in cls.stage_state(MEANS)} == {"parts"}
    assert "parts.dictionary" in cls.stage_state(MEANS)
    assert cls.stage_config(SLOTS) != emb.stage_config(SLOTS)
    assert cls.stage_config(INSTANCES) == FLAM(ATTRIBUTES, dim=DIM, classes=3, code=4).stage_config(INSTANCES)


def test_parts_lie_side_by_side():
    slots = torch.arange(12).reshape(2, 3, 2)
    assert side_by_side(slots).tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
