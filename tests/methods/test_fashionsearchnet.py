# SPDX-License-Identifier: MIT
"""FashionSearchNet's maps, spaces and searches: invariants 5 to 12, 17 and 18 of its paper; see tests/nn, too."""

import numpy as np
import pytest
import torch
from fashionsearchnet_models import DIM, WIDE, A, C, indicators, triplets

from fm_bench.attributes import AttributeSchema
from fm_bench.data.regions import REGIONS
from fm_bench.errors import UserError
from fm_bench.methods import fashionsearchnet as module
from fm_bench.methods.base import Context
from fm_bench.methods.fashionsearchnet import FashionSearchNet, global_representation
from fm_bench.nn.localisation import whole

# ------------------------------------------------------------------ maps and boxes


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_5_maps_sum_to_the_logit_of_the_most_confident_class(fashionsearchnet, images, pooling):
    model = fashionsearchnet(pooling=pooling)
    _, conv7 = model.convolve(images)
    logits = model.classify(conv7)
    maps = model.activation_maps(conv7, logits)
    best = torch.stack([block.amax(-1) for block in logits.split([3, 2, 4, 2], -1)], 1)
    assert torch.allclose(getattr(maps, pooling)((2, 3)), best, atol=1e-4)
    assert model.classifiers.bias is None


def test_6_scaled_classifiers_give_the_same_boxes(fashionsearchnet, images):
    model = fashionsearchnet()
    boxes = model.look(images)[1]
    with torch.no_grad():
        model.classifiers.weight *= 11
    assert torch.equal(model.look(images)[1], boxes)


def test_7_and_8_boxes_are_of_the_grid(fashionsearchnet, images):
    maps, boxes, values = fashionsearchnet().look(images)
    assert ((values >= 0) & (values < torch.tensor([3, 2, 4, 2]))).all()
    assert maps.shape == (6, A, 9, 7)
    assert boxes.shape == (6, A, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    model = fashionsearchnet()
    with torch.no_grad():
        model.classifiers.weight.zero_()  # no map has a maximum above zero
    assert torch.equal(model.look(images)[1], whole(maps))


def test_9_without_localisation_every_box_is_full(fashionsearchnet, images):
    plain, whole_boxes = fashionsearchnet(), fashionsearchnet(localise=False)
    assert torch.equal(whole_boxes.look(images)[1], whole(torch.zeros(6, A, 1, 1)))
    assert not torch.allclose(plain.slots(images), whole_boxes.slots(images))
    plain.boxes = whole  # the same weights
    assert torch.equal(plain.slots(images), whole_boxes.slots(images))


# ------------------------------------------------------------------ prototypes and the global representation


@pytest.mark.parametrize("normalize", [True, False])
def test_10_the_replaced_representation_does_not_matter(fashionsearchnet, normalize):
    model = fashionsearchnet(normalize=normalize)
    slots = model.space(torch.randn(3, A, DIM))
    request = indicators(model, ("fit", "loose"), count=3)
    found = model.gallery_view(model.manipulate(slots, request).flatten(1), 3)
    for m in range(A):
        other = slots.clone()
        other[:, m] = model.space(torch.randn(3, DIM))
        assert torch.allclose(model.gallery_view(model.manipulate(other, request).flatten(1), 3), found) == (m == 2)


def test_10_only_the_query_is_manipulated(fashionsearchnet, images):
    model = fashionsearchnet()
    before = model.embed_gallery(images)
    model.prototypes.add_(1.0)
    assert torch.equal(model.embed_gallery(images), before)
    batch = triplets(indicators(model, ("fit", "loose")))
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


# ------------------------------------------------------------------ search


def test_17_nothing_asked_reads_no_prototype(fashionsearchnet, images):
    model = fashionsearchnet()
    nothing = torch.zeros(6, C)
    model.prototypes.fill_(float("nan"))
    query = model.embed_query(images, nothing)
    gallery = model.gallery_view(model.embed_gallery(images), 0)
    assert torch.allclose(query, gallery, atol=1e-5)
    assert torch.isfinite(query).all()


def test_requests_are_searched_in_the_space_of_their_own_setting(fashionsearchnet, images):
    model = fashionsearchnet()
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


def test_two_attributes_average_both_squared_distances(fashionsearchnet):
    model = fashionsearchnet()
    one, two = torch.randn(2, 4, A, DIM)
    setting = int(model.settings(np.array([[1, 3]]), np.array([-1]))[0])
    both = (model.gallery_view(one.flatten(1), setting) - model.gallery_view(two.flatten(1), setting)).square().sum(1)
    each = [(model.embed_global(one, a) - model.embed_global(two, a)).square().sum(1) for a in (2, 4)]
    assert torch.allclose(both, (each[0] + each[1]) / 2, rtol=1e-4)


def test_without_the_global_representation_one_space_is_enough(fashionsearchnet, images):
    model = fashionsearchnet(global_representation=False)
    assert [stage.name for stage in model.stages] == ["attributes", "regions", "prototypes"]
    assert [stage.name for stage in FashionSearchNet.stages][-1] == "representation"
    attribute = np.array([[-1, -1], [2, -1], [3, 0]])
    assert model.settings(attribute, np.array([-1, -1, 1])).tolist() == [0, 0, 0]
    stored = model.embed_gallery(images)
    assert torch.equal(model.gallery_view(stored, 0), stored)
    query = model.embed_query(images, indicators(model, ("collar", "shirt")))
    assert torch.allclose(
        query, model.manipulate(model.slots(images), indicators(model, ("collar", "shirt"))).flatten(1)
    )


def test_the_schema_of_a_request_may_have_one_attribute(fashionsearchnet, images):
    model = fashionsearchnet({"colour": ["red", "blue"]})
    assert AttributeSchema.from_dict({"colour": ["red", "blue"]}) == model.schema
    assert model.embed_query(images, torch.tensor([[1.0, 0.0]] * 6)).shape == (6, model.width)


# ------------------------------------------------------------------ region awareness


def test_18_torso_overlaps_nothing(fashionsearchnet, images):
    model = fashionsearchnet(region_aware=True)
    with torch.no_grad():
        model.classifiers.weight.abs_()  # every map is positive everywhere, so that every mask is large
    _, conv7 = model.convolve(images)
    masks, heat = model.region_masks(conv7, model.classify(conv7))
    torso, sleeves, collar = (REGIONS.index(name) for name in ("torso", "sleeves", "collar"))
    assert masks[:, sleeves].any()
    assert masks[:, collar].any()
    assert not (masks[:, torso] & (masks[:, sleeves] | masks[:, collar])).any()
    assert (heat[:, torso] > 0.2 * heat[:, torso].amax((1, 2), keepdim=True)).any()


def test_heat_is_the_sum_of_what_confident_classes_see(fashionsearchnet, images):
    model = fashionsearchnet(region_aware=True)
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


def test_a_region_request_replaces_its_own_slot_and_weighs_it_most(fashionsearchnet, images):
    model = fashionsearchnet(region_aware=True)
    request = indicators(model, ("colour", "green"))
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


def test_other_attributes_and_plain_models_ignore_the_region(fashionsearchnet, images):
    aware, plain = fashionsearchnet(region_aware=True), fashionsearchnet()
    region = np.array([1, 2])
    assert aware.settings(np.array([[2, -1], [0, 1]]), region).tolist() == [3, 2 + 5]
    assert plain.settings(np.array([[2, -1], [0, -1]]), region).tolist() == [3, 1]
    with pytest.raises(UserError, match="colour"):
        fashionsearchnet({"pattern": ["plain", "dots"]}, region_aware=True)


def test_a_region_without_attributes_is_the_whole_map(fashionsearchnet, images):
    model = fashionsearchnet({"colour": ["red", "blue"]}, region_aware=True)
    _, conv7 = model.convolve(images)
    masks, _ = model.region_masks(conv7, model.classify(conv7))
    assert not masks.any()
    assert model.embed_query(images, torch.tensor([[0.0, 1.0]] * 6)).shape == (6, model.width)


# ------------------------------------------------------------------ what stages share


def test_variants_share_what_they_have_in_common(fashionsearchnet):
    plain = fashionsearchnet()
    variants = {
        "no-aam": fashionsearchnet(localise=False),
        "no-global": fashionsearchnet(global_representation=False),
        "region-aware": fashionsearchnet(region_aware=True),
        "shared-w": fashionsearchnet(w_shared=True),
    }
    for name, model in variants.items():
        assert model.stage_config(module.ATTRIBUTES) == plain.stage_config(module.ATTRIBUTES)
        for stage in (module.LOCAL, module.PROTOTYPES):
            assert (model.stage_config(stage) == plain.stage_config(stage)) == (name != "no-aam")
    assert variants["region-aware"].stage_config(module.GLOBAL) == plain.stage_config(module.GLOBAL)
    assert variants["shared-w"].stage_config(module.GLOBAL) != plain.stage_config(module.GLOBAL)
    assert fashionsearchnet(lr=0.1).stage_config(module.ATTRIBUTES) != plain.stage_config(module.ATTRIBUTES)
    left = [set(plain.stage_state(stage)) for stage in FashionSearchNet.stages]
    assert left[0] < left[1]
    assert set.union(*left) == set(plain.state_dict())
    read = {name for names in module._READ.values() for name in names}
    only_search = {"attributes", "global_representation", "region_aware", "region_attribute", "kept"}
    assert read | only_search == set(plain.hparams)
