# SPDX-License-Identifier: MIT
"""The stages of DARN, what they share and leave, and how it searches, on tiny networks."""

import numpy as np
import pytest
import torch
from darn_models import ATTRIBUTES_OF, LABELS, SIZES, batch_of, context, pictures, total, trainer

from fm_bench import recipe
from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog
from fm_bench.config import configure
from fm_bench.data.batches import LabelledBatch
from fm_bench.errors import UserError
from fm_bench.methods.attribute_based import MATCH_SCALE
from fm_bench.methods.darn import ATTRIBUTES, COMPONENTS, DARN, RANKING


@pytest.fixture
def images():
    return pictures()


# --------------------------------------------------------------------------- stages


def test_both_networks_start_from_the_one_that_knows_attributes(darn):
    model = darn()
    model.on_ranking_start([])
    street, shop = model.network("street").state_dict(), model.network("shop").state_dict()
    assert all(torch.equal(street[name], shop[name]) for name in shop)
    model.network("street").fc1.weight.data.zero_()
    assert shop["fc1.weight"].abs().sum() > 0  # copied, not shared


def test_the_first_stage_trains_one_network_and_the_second_all(darn):
    model = darn(features="fc1+conv5", pca=4)
    model._trainer = trainer()
    for stage, names in ((ATTRIBUTES, ["shop"]), (RANKING, ["shop", "street"])):
        model.begin(stage, 0)
        asked = {id(p) for p in model.parameters() if p.requires_grad}
        given = model.attributes_optimizer() if stage is ATTRIBUTES else model.ranking_optimizer()
        optimised = [p for group in given["optimizer"].param_groups for p in group["params"]]
        expected = {id(p) for name in names for p in model.network(name).parameters()}
        assert {id(p) for p in optimised} == expected == asked
        assert len(optimised) == len(expected)
    assert set(model.stage_state(COMPONENTS)) == {"pca.mean", "pca.components"}


def test_one_shared_first_stage_and_shared_rankings(darn):
    def same(stage, one, two):
        return darn(**one).stage_config(stage) == darn(**two).stage_config(stage)

    variants = [
        configure(f"darn/{v}", "garments", "quick", "common", 0).hyper
        for v in recipe.load("methods", "darn")["variants"]
    ]
    changed = [{name: hyper[name] for name in ("dual", "rank", "features", "substitute")} for hyper in variants]
    assert all(same(ATTRIBUTES, {}, variant) for variant in changed)
    assert same(RANKING, {}, {"substitute": True})
    assert same(RANKING, {"domains": 1}, {"dual": False})
    for other in ({"dual": False}, {"rank": False}, {"features": "fc1+conv5"}, {"margin": 0.2}):
        assert not same(RANKING, {}, other)
    assert not same(ATTRIBUTES, {}, {"attributes_lr": 0.1})
    assert not same(COMPONENTS, {}, {"pca": 5})


def test_what_validation_sees_does_not_depend_on_later_stages(darn, images):
    models = [darn(features="fc1+conv5", pca=4, substitute=substitute) for substitute in (False, True)]
    for model in models:
        model.stage = RANKING
    one, two = (model.embed_gallery(images) for model in models)
    assert torch.equal(one, two)
    assert one.shape == (5, 6 + 45)


def test_components_are_fitted_on_equal_numbers_of_both_domains(darn):
    model = darn(features="fc1+conv4", pca=4)
    model.on_ranking_start([])
    model.network("street").fc1.bias.data.add_(3)  # another space than the shop's
    model._trainer = trainer()
    images = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    domain = (torch.arange(30) % 3 == 0).long()
    batches = [
        LabelledBatch(images[i : i + 8], torch.zeros(8, 3), torch.arange(8), domain[i : i + 8]) for i in range(0, 30, 8)
    ]
    with torch.no_grad():
        model.on_components_start(batches)
        features, _ = model.routed(images, context(domain.tolist()))
        shop = features[domain == 0][:10]
        expected = torch.cat([shop, features[domain == 1]]).mean(0)
        assert torch.allclose(model.pca.mean, expected, atol=1e-5)
        assert torch.allclose(model.pca.components @ model.pca.components.T, torch.eye(4), atol=1e-5)
        embedded = model.embed_gallery(images[:3], context([0, 0, 0]))
        by_hand = (model.feature(model.network("shop")(images[:3]).parts) - model.pca.mean) @ model.pca.components.T
    assert torch.allclose(embedded, by_hand, atol=1e-5)  # no whitening, no second normalisation

    shop_only = darn(features="fc1+conv4", pca=4, pca_domains="shop")
    shop_only._trainer = trainer()
    with torch.no_grad():
        shop_only.on_components_start(batches)
        features, _ = shop_only.routed(images, context(domain.tolist()))
    assert torch.allclose(shop_only.pca.mean, features[domain == 0].mean(0), atol=1e-5)


def test_components_of_one_domain_read_all_images(darn, images):
    for street in (0, 1):
        model = darn(domains=1, features="fc1+conv4", pca=3)
        model._trainer = trainer()
        with torch.no_grad():
            model.on_components_start([LabelledBatch(images, LABELS, torch.arange(5), torch.full((5,), street))])
            features, _ = model.routed(images, None)
        assert torch.allclose(model.pca.mean, features.mean(0), atol=1e-5)


def test_pairs_without_street_pictures_are_refused_by_two_networks(darn, images):
    with pytest.raises(UserError, match="run darn/arn"):
        darn(pairs="items")
    assert set(darn(domains=1).ranking_step(batch_of(images, street=0))) == {"L_attr", "L_rank"}


@pytest.mark.parametrize(
    ("item", "domain", "split", "dual", "refused"),
    [
        ([0, 1, 0, 2], [0, 0, 1, 1], [0, 0, 0, 0], True, False),
        ([0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0], True, True),
        ([0, 1, 0, 2], [0, 0, 1, 1], [2, 0, 0, 0], True, True),  # the shop picture of item 0 is for the test
        ([0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0], False, False),
        ([0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 0, 0], True, False),
        ([0, 1, 2, 3], [1, 1, 1, 1], [0, 0, 0, 0], True, False),
    ],
)
def test_data_that_two_networks_cannot_learn_from_are_told_by_the_catalogue_alone(item, domain, split, dual, refused):
    labels = np.zeros((4, len(SIZES)), np.int16)
    places = np.array(item, np.int64), np.array(split, np.int8), np.array(domain, np.int8)
    catalog = Catalog(AttributeSchema.from_dict(ATTRIBUTES_OF), np.array(list("abcd")), labels, *places)
    assert ("run darn/arn" in str(DARN.obstacle(catalog, {"dual": dual}))) == refused


def test_the_loss_may_rank_raw_responses(darn, images):
    losses = [darn(normalize_in_loss=n).ranking_step(batch_of(images))["L_rank"][1].item() for n in (True, False)]
    assert losses[0] != pytest.approx(losses[1])


def test_every_trained_parameter_receives_gradient(darn, images):
    for options in ({}, {"dual": False}, {"rank": False, "dual": False}, {"features": "fc1+conv4+conv5"}):
        model = darn(**options)
        total(model.ranking_step(batch_of(images))).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


# --------------------------------------------------------------------------- search


def test_pictures_of_both_domains_in_one_batch_keep_their_places(darn, images):
    model = darn()
    mixed = model.embed_query(images, None, context([1, 0, 0, 1, 0]))
    street, shop = (model.embed_query(images, None, context([d] * 5)) for d in (1, 0))
    assert not torch.allclose(street, shop)
    assert torch.allclose(mixed[[0, 3]], street[[0, 3]], atol=1e-6)
    assert torch.allclose(mixed[[1, 2, 4]], shop[[1, 2, 4]], atol=1e-6)
    assert torch.allclose(model.embed_gallery(images), shop, atol=1e-6)


def test_identity_ignores_the_request_and_substitute_looks_it_up(darn, images):
    wanted = torch.zeros(5, 9)
    wanted[:, 4] = 1  # sleeve-1
    plain = darn()
    assert torch.equal(plain.embed_query(images, wanted), plain.embed_gallery(images))

    model = darn(substitute=True)
    gallery = model.embed_gallery(images, context([0] * 5))
    query = model.embed_query(images, wanted, context([1] * 5))
    _, predicted = model.routed(images, context([1] * 5))
    predicted[:, 1] = 1
    assert torch.allclose(query[:, :9], MATCH_SCALE * model.schema.one_hot(predicted))
    agreement = (query[:, :9] @ gallery[:, :9].T / MATCH_SCALE**2).round()
    distances = torch.cdist(query, gallery)
    for row in range(5):
        order = distances[row].argsort()
        assert (agreement[row][order].diff() <= 0).all()  # agreement outweighs looks


def test_rows_say_what_is_different(darn):
    assert any("this is ARN" in note for note in darn(domains=1).row_notes)
    assert any("full label vector" in note for note in darn(domains=1, pairs="labels").row_notes)
    assert any("two photos of an item" in note for note in darn(domains=1, pairs="items").row_notes)
    assert not any("photo" in note for note in darn(domains=1, pairs="labels", rank=False).row_notes)
    assert darn().row_notes == ["no manipulation: what a request asks to change is ignored"]
    assert darn(substitute=True).row_notes == [
        "no trained manipulation: requested values are put into predicted attributes"
    ]
    assert not any("this is ARN" in note for note in darn(domains=1, dual=False).row_notes)


def test_variants_are_the_papers_rows():
    def hyper(spec, mode="common"):
        chosen = configure(spec, "garments", "paper" if mode == "paper" else "quick", mode, 0).hyper
        return chosen["dual"], chosen["rank"], chosen["features"], chosen["substitute"]

    expected = {
        "darn": (True, True, "fc1", False),
        "darn/an": (False, False, "fc1", False),
        "darn/arn": (False, True, "fc1", False),
        "darn/conv5": (True, True, "fc1+conv5", False),
        "darn/conv4-5": (True, True, "fc1+conv4+conv5", False),
        "darn/identity": (True, True, "fc1", False),
        "darn/attribute-substitute": (True, True, "fc1", True),
    }
    for spec, settings in expected.items():
        assert hyper(spec) == hyper(spec, "paper") == settings
    paper = configure("darn", "garments", "paper", "paper", 0).hyper
    assert (paper["backbone"], paper["width"], paper["branch"], paper["pca"]) == ("nin5", 4096, 512, 4096)
