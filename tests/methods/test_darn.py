# SPDX-License-Identifier: MIT
"""The numeric invariants of the DARN paper, on tiny networks."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fm_bench import recipe
from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog
from fm_bench.config import configure
from fm_bench.data.batches import CrossDomainBatch, LabelledBatch
from fm_bench.data.pairs import CrossDomainSampler
from fm_bench.errors import UserError
from fm_bench.evaluation.hits import Hits
from fm_bench.evaluation.relevance import Codes
from fm_bench.methods import Context
from fm_bench.methods.attribute_based import MATCH_SCALE
from fm_bench.methods.darn import ATTRIBUTES, COMPONENTS, DARN, RANKING, local_features
from fm_bench.nn.backbones import LastMaps
from fm_bench.nn.losses import attribute_cross_entropy, triplet_margin
from fm_bench.nn.pca import PrincipalComponents
from fm_bench.questions import load_protocol

SIZES = {"colour": 3, "sleeve": 2, "fit": 4}
ATTRIBUTES_OF = {name: [f"{name}-{v}" for v in range(size)] for name, size in SIZES.items()}
PAPER = (12, 20, 56, 6, 27, 10, 25, 7, 16)
LABELS = torch.tensor([[2, 0, 1], [0, 1, 3], [1, 0, 0], [0, 0, 2], [2, 1, 1]])


@pytest.fixture
def build(monkeypatch):
    def tiny(name, weights=None):
        conv4 = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        conv5 = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU())
        return LastMaps(conv4, conv5, nn.AdaptiveAvgPool2d(1), (4, 5, 5))

    monkeypatch.setattr("fm_bench.methods.darn.build_maps", tiny)

    def make(**options) -> DARN:
        torch.manual_seed(0)
        return DARN(ATTRIBUTES_OF, **{"width": 6, "branch": 7, "dropout": 0.0, "pca": None} | options).eval()

    return make


@pytest.fixture
def images():
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def batch_of(images, labels=LABELS, street=1):
    return CrossDomainBatch(
        images,
        images.roll(1, 0),
        images.roll(2, 0),
        labels,
        labels,
        labels.roll(2, 0),
        torch.full((5,), street),
        torch.arange(5),
    )


def total(losses):
    return sum(weight * value for weight, value in losses.values())


def silent(network) -> bool:
    return all(p.grad is None or p.grad.abs().sum() == 0 for p in network.parameters())


def context(domain):
    return Context(None, torch.tensor(domain), torch.arange(len(domain)), None)


def trainer(**more):
    return SimpleNamespace(world_size=1, estimated_stepping_batches=10, **more)


# --------------------------------------------------------------------------- section 8 of the paper's numbers


def test_invariant_1_triplet_value_and_gradients():
    a, b, c = (torch.tensor([x], requires_grad=True) for x in ([0.0, 0.0], [0.3, 0.4], [0.6, 0.0]))
    loss = triplet_margin(a, b, c, 0.3)
    loss.backward()
    assert loss.item() == pytest.approx(0.2)
    for point, gradient in ((a, [0.4, -0.8]), (b, [0.6, 0.8]), (c, [-1.0, 0.0])):
        assert torch.allclose(point.grad, torch.tensor([gradient]), atol=1e-6)


def test_invariant_1_the_step_ranks_with_that_loss(build, images):
    model = build(features="fc1+conv5")
    losses = model.ranking_step(batch_of(images))
    street, shop = model.network("street"), model.network("shop")
    a, b, c = (
        model.feature(network(pictures).parts)
        for network, pictures in ((street, images), (shop, images.roll(1, 0)), (shop, images.roll(2, 0)))
    )
    expected = ((a - b).norm(dim=1) - (a - c).norm(dim=1) + 0.3).clamp(min=0).mean()
    assert losses["L_rank"][1].item() == pytest.approx(expected.item(), abs=1e-5)
    assert {weight for weight, _ in losses.values()} == {1.0}


def test_invariant_2_a_held_margin_costs_nothing():
    a, b, c = (torch.tensor([x], requires_grad=True) for x in ([0.0, 0.0], [0.1, 0.0], [0.0, 0.5]))
    loss = triplet_margin(a, b, c, 0.3)
    loss.backward()
    assert loss.item() == 0
    assert all(point.grad.abs().sum() == 0 for point in (a, b, c))


@pytest.mark.parametrize("step", ["attributes", "ranking"])
def test_invariant_3_an_attribute_nobody_labelled_moves_nothing_of_its_branch(build, images, step):
    model = build()
    labels = LABELS.clone()
    labels[:, 1] = -1
    batch = LabelledBatch(images, labels, torch.arange(5), torch.zeros(5)) if step == "attributes" else None
    losses = model.attributes_step(batch) if batch else model.ranking_step(batch_of(images, labels))
    assert all(value.isfinite() for _, value in losses.values())
    total(losses).backward()
    networks = [model.network("shop")] + ([] if batch else [model.network("street")])
    for network in networks:
        gradients = [p.grad for p in network.branches[1].parameters()]
        assert all(gradient is not None for gradient in gradients)  # still in the graph: DDP waits for them
        assert all((gradient == 0).all() for gradient in gradients)
        assert all(p.grad.abs().sum() > 0 for p in network.branches[0][3].parameters())


def test_invariant_3_no_label_at_all_is_no_nan(build, images):
    model = build(rank=False, dual=False)
    losses = model.ranking_step(batch_of(images, torch.full_like(LABELS, -1)))
    assert losses["L_attr"][1].item() == 0
    total(losses).backward()
    assert all((p.grad == 0).all() for p in model.network("shop").branches.parameters())


def test_invariant_4_a_missing_label_is_as_if_that_pair_were_not_there():
    logits = [torch.randn(5, size) for size in SIZES.values()]
    labels = LABELS.clone()
    labels[3, 2] = -1
    expected = sum(
        F.cross_entropy(logits[m][i : i + 1], LABELS[i : i + 1, m])
        for i in range(5)
        for m in range(3)
        if (i, m) != (3, 2)
    )
    assert attribute_cross_entropy(logits, labels).item() == pytest.approx(expected.item() / 5, rel=1e-6)


def test_invariant_5_uniform_logits_cost_the_sum_of_logarithms():
    logits = [torch.zeros(2, size) for size in PAPER]
    labels = torch.zeros(2, len(PAPER), dtype=torch.long)
    assert attribute_cross_entropy(logits, labels).item() == pytest.approx(24.833547, abs=1e-5)
    assert sum(map(math.log, PAPER)) == pytest.approx(24.833547, abs=1e-6)


@pytest.mark.parametrize(
    ("features", "length"),
    [("fc1", 4096), ("fc1+conv5", 13_312), ("fc1+conv4+conv5", 17_920), ("fc1+conv4", 8704)],
)
def test_invariant_6_the_papers_lengths(features, length):
    with torch.device("meta"):
        model = DARN(ATTRIBUTES_OF, backbone="nin5", dual=False, features=features)
        found = model.feature(model.network("shop")(torch.zeros(1, 3, 224, 224)).parts)
    assert found.shape[1] == length
    if length == 4096:  # PCA would be a rotation
        assert model.pca is None
    else:
        assert model.pca.components.shape == (4096, length)
        assert model.pca.mean.shape == (length,)


def test_invariant_7_every_part_has_length_1(build, images):
    model = build(features="fc1+conv4+conv5")
    found = model.feature(model.network("shop")(images * 100).parts)
    for part in found.split([6, 36, 45], dim=1):
        assert torch.allclose(part.norm(dim=1), torch.ones(5), atol=1e-5)
    assert found.norm(dim=1).tolist() == pytest.approx([math.sqrt(3)] * 5, abs=1e-5)

    one = {"fc1": torch.tensor([[2.0, 0.0]]), "conv4": torch.tensor([[0.0, 5.0]]), "conv5": torch.tensor([[3.0, 4.0]])}
    two = {
        "fc1": torch.tensor([[0.0, 9.0]]),
        "conv4": torch.tensor([[0.0, 0.1]]),
        "conv5": torch.tensor([[-6.0, -8.0]]),
    }
    distance = (model.feature(one) - model.feature(two)).norm().item()  # orthogonal, equal, opposite
    assert distance == pytest.approx(2.4494897)
    opposite = {name: -part for name, part in one.items()}
    assert (model.feature(one) - model.feature(opposite)).norm().item() == pytest.approx(3.4641016)
    assert torch.equal(model.feature(one, normalize=False), torch.cat(list(one.values()), dim=1))


def test_invariant_8_each_domain_trains_its_own_network(build, images):
    for domain, other in (("street", "shop"), ("shop", "street")):
        model = build()
        features, _ = model.routed(images, context([domain == "street"] * 5))
        features.sum().backward()
        assert silent(model.network(other))
        assert not silent(model.network(domain))
    shared = {id(p) for p in model.network("street").parameters()} & {id(p) for p in model.network("shop").parameters()}
    assert not shared
    model = build()
    model.ranking_step(batch_of(images))["L_rank"][1].backward()
    assert not silent(model.network("street"))
    assert not silent(model.network("shop"))


def test_invariant_8_street_labels_train_the_street_network_alone(build, images):
    model = build(rank=False)
    unlabelled = torch.full_like(LABELS, -1)
    batch = batch_of(images)._replace(shop_labels=unlabelled, other_labels=unlabelled)
    total(model.ranking_step(batch)).backward()
    assert silent(model.network("shop"))
    assert not silent(model.network("street"))


def test_invariant_9_a_full_pca_is_an_isometry():
    features = torch.randn(50, 8, dtype=torch.float64)
    pca = PrincipalComponents(8, 8).double()
    pca.fit(features)
    assert (F.pdist(pca(features)) - F.pdist(features)).abs().max() < 1e-12


def test_invariant_9_a_feature_no_longer_than_the_pca_ranks_as_it_is(build, images):
    plain, asked = build(), build(pca=6)
    assert asked.pca is None
    assert torch.equal(asked.embed_gallery(images), plain.embed_gallery(images))


def test_invariant_10_a_ramp_pooled_to_3_by_3():
    ramp = torch.arange(169.0).reshape(1, 1, 13, 13)
    assert local_features(ramp).tolist() == [[56, 60, 64, 108, 112, 116, 160, 164, 168]]


def test_invariant_11_the_third_picture_shows_another_item():
    rng = np.random.default_rng(0)
    item, domain = rng.integers(50, size=400), (np.arange(400) % 3 == 0).astype(np.int8)
    sampler = CrossDomainSampler(np.zeros((400, 1), np.int16), item, domain, seed=0, pairs=10_000)
    first, second = sampler.table(0), sampler.table(1)
    assert (item[first[:, 2]] != item[first[:, 0]]).all()
    assert not np.array_equal(first[:, 2], second[:, 2])


def test_invariant_12_an_has_no_ranking_and_one_network_serves_both(build, images):
    model = build(dual=False, rank=False, features="fc1+conv4+conv5")
    assert model.network("shop") is model.network("street")
    losses = model.ranking_step(batch_of(images))
    assert set(losses) == {"L_attr"}
    total(losses).backward()
    held = model.network("shop").maps
    labelled = [p.grad.clone() for p in held.parameters()]

    attributes_alone = build(dual=False, features="fc1+conv4+conv5")
    attributes_alone.ranking_step(batch_of(images))["L_attr"][1].backward()
    again = [p.grad for p in attributes_alone.network("shop").maps.parameters()]
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(labelled, again, strict=True))

    ranked = build(dual=False, features="fc1+conv4+conv5")
    parts = ranked.network("shop")(images).parts
    parts["conv4"].retain_grad()
    ranked.feature(parts).pow(3).sum().backward()
    assert parts["conv4"].grad.abs().sum() > 0  # the path is there where ranking is
    street, shop = (model.embed_query(images, None, context([d] * 5)) for d in (1, 0))
    assert torch.equal(street, shop)


def test_invariant_13_equal_attributes_of_another_item_are_no_hit():
    labels = np.array([[1, 0], [1, 0], [0, 1]], np.int16)  # image 1 is labelled just as the query's item
    gallery_items, query_item = np.array([7, 8, 7]), np.array([7])
    outside = np.array([-1])  # the query is a street picture, not in the gallery
    codes = Codes.of(labels[:1], labels, "strict_equal")
    hits = Hits(codes, outside, (gallery_items, query_item), 3)
    assert hits.are(np.array([0]), np.array([[0, 1, 2]])).tolist() == [[True, False, True]]
    assert Hits(codes, outside, None, 3).are(np.array([0]), np.array([[0, 1, 2]])).tolist() == [[True, True, False]]
    assert load_protocol("instance").hit == "instance"


# --------------------------------------------------------------------------- stages


def test_both_networks_start_from_the_one_that_knows_attributes(build):
    model = build()
    model.on_ranking_start([])
    street, shop = model.network("street").state_dict(), model.network("shop").state_dict()
    assert all(torch.equal(street[name], shop[name]) for name in shop)
    model.network("street").fc1.weight.data.zero_()
    assert shop["fc1.weight"].abs().sum() > 0  # copied, not shared


def test_the_first_stage_trains_one_network_and_the_second_all(build):
    model = build(features="fc1+conv5", pca=4)
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


def test_one_shared_first_stage_and_shared_rankings(build):
    def same(stage, one, two):
        return build(**one).stage_config(stage) == build(**two).stage_config(stage)

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


def test_what_validation_sees_does_not_depend_on_later_stages(build, images):
    models = [build(features="fc1+conv5", pca=4, substitute=substitute) for substitute in (False, True)]
    for model in models:
        model.stage = RANKING
    one, two = (model.embed_gallery(images) for model in models)
    assert torch.equal(one, two)
    assert one.shape == (5, 6 + 45)


def test_components_are_fitted_on_equal_numbers_of_both_domains(build):
    model = build(features="fc1+conv4", pca=4)
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

    shop_only = build(features="fc1+conv4", pca=4, pca_domains="shop")
    shop_only._trainer = trainer()
    with torch.no_grad():
        shop_only.on_components_start(batches)
        features, _ = shop_only.routed(images, context(domain.tolist()))
    assert torch.allclose(shop_only.pca.mean, features[domain == 0].mean(0), atol=1e-5)


def test_components_of_one_domain_read_all_images(build, images):
    for street in (0, 1):
        model = build(domains=1, features="fc1+conv4", pca=3)
        model._trainer = trainer()
        with torch.no_grad():
            model.on_components_start([LabelledBatch(images, LABELS, torch.arange(5), torch.full((5,), street))])
            features, _ = model.routed(images, None)
        assert torch.allclose(model.pca.mean, features.mean(0), atol=1e-5)


def test_pairs_without_street_pictures_are_refused_by_two_networks(build, images):
    with pytest.raises(UserError, match="run darn/arn"):
        build(pairs="items")
    assert set(build(domains=1).ranking_step(batch_of(images, street=0))) == {"L_attr", "L_rank"}


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


def test_the_loss_may_rank_raw_responses(build, images):
    losses = [build(normalize_in_loss=n).ranking_step(batch_of(images))["L_rank"][1].item() for n in (True, False)]
    assert losses[0] != pytest.approx(losses[1])


def test_every_trained_parameter_receives_gradient(build, images):
    for options in ({}, {"dual": False}, {"rank": False, "dual": False}, {"features": "fc1+conv4+conv5"}):
        model = build(**options)
        total(model.ranking_step(batch_of(images))).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


# --------------------------------------------------------------------------- search


def test_pictures_of_both_domains_in_one_batch_keep_their_places(build, images):
    model = build()
    mixed = model.embed_query(images, None, context([1, 0, 0, 1, 0]))
    street, shop = (model.embed_query(images, None, context([d] * 5)) for d in (1, 0))
    assert not torch.allclose(street, shop)
    assert torch.allclose(mixed[[0, 3]], street[[0, 3]], atol=1e-6)
    assert torch.allclose(mixed[[1, 2, 4]], shop[[1, 2, 4]], atol=1e-6)
    assert torch.allclose(model.embed_gallery(images), shop, atol=1e-6)


def test_identity_ignores_the_request_and_substitute_looks_it_up(build, images):
    wanted = torch.zeros(5, 9)
    wanted[:, 4] = 1  # sleeve-1
    plain = build()
    assert torch.equal(plain.embed_query(images, wanted), plain.embed_gallery(images))

    model = build(substitute=True)
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


def test_rows_say_what_is_different(build):
    assert any("this is ARN" in note for note in build(domains=1).row_notes)
    assert any("full label vector" in note for note in build(domains=1, pairs="labels").row_notes)
    assert any("two photos of an item" in note for note in build(domains=1, pairs="items").row_notes)
    assert not any("photo" in note for note in build(domains=1, pairs="labels", rank=False).row_notes)
    assert build().row_notes == ["no manipulation: what a request asks to change is ignored"]
    assert build(substitute=True).row_notes == [
        "no trained manipulation: requested values are put into predicted attributes"
    ]
    assert not any("this is ARN" in note for note in build(domains=1, dual=False).row_notes)


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
