# SPDX-License-Identifier: MIT
"""The numeric invariants of the DARN paper, on tiny networks."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from darn_models import ATTRIBUTES_OF, LABELS, SIZES, batch_of, context, pictures, total

from fm_bench.data.batches import LabelledBatch
from fm_bench.data.pairs import CrossDomainSampler
from fm_bench.evaluation.hits import Hits
from fm_bench.evaluation.relevance import Codes
from fm_bench.methods.darn import DARN, local_features
from fm_bench.nn.losses import attribute_cross_entropy, triplet_margin
from fm_bench.nn.pca import PrincipalComponents
from fm_bench.questions import load_protocol

PAPER = (12, 20, 56, 6, 27, 10, 25, 7, 16)


@pytest.fixture
def images():
    return pictures()


def silent(network) -> bool:
    return all(p.grad is None or p.grad.abs().sum() == 0 for p in network.parameters())


# --------------------------------------------------------------------------- section 8 of the paper's numbers


def test_invariant_1_triplet_value_and_gradients():
    a, b, c = (torch.tensor([x], requires_grad=True) for x in ([0.0, 0.0], [0.3, 0.4], [0.6, 0.0]))
    loss = triplet_margin(a, b, c, 0.3)
    loss.backward()
    assert loss.item() == pytest.approx(0.2)
    for point, gradient in ((a, [0.4, -0.8]), (b, [0.6, 0.8]), (c, [-1.0, 0.0])):
        assert torch.allclose(point.grad, torch.tensor([gradient]), atol=1e-6)


def test_invariant_1_the_step_ranks_with_that_loss(darn, images):
    model = darn(features="fc1+conv5")
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
def test_invariant_3_an_attribute_nobody_labelled_moves_nothing_of_its_branch(darn, images, step):
    model = darn()
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


def test_invariant_3_no_label_at_all_is_no_nan(darn, images):
    model = darn(rank=False, dual=False)
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


def test_invariant_7_every_part_has_length_1(darn, images):
    model = darn(features="fc1+conv4+conv5")
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


def test_invariant_8_each_domain_trains_its_own_network(darn, images):
    for domain, other in (("street", "shop"), ("shop", "street")):
        model = darn()
        features, _ = model.routed(images, context([domain == "street"] * 5))
        features.sum().backward()
        assert silent(model.network(other))
        assert not silent(model.network(domain))
    shared = {id(p) for p in model.network("street").parameters()} & {id(p) for p in model.network("shop").parameters()}
    assert not shared
    model = darn()
    model.ranking_step(batch_of(images))["L_rank"][1].backward()
    assert not silent(model.network("street"))
    assert not silent(model.network("shop"))


def test_invariant_8_street_labels_train_the_street_network_alone(darn, images):
    model = darn(rank=False)
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


def test_invariant_9_a_feature_no_longer_than_the_pca_ranks_as_it_is(darn, images):
    plain, asked = darn(), darn(pca=6)
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


def test_invariant_12_an_has_no_ranking_and_one_network_serves_both(darn, images):
    model = darn(dual=False, rank=False, features="fc1+conv4+conv5")
    assert model.network("shop") is model.network("street")
    losses = model.ranking_step(batch_of(images))
    assert set(losses) == {"L_attr"}
    total(losses).backward()
    held = model.network("shop").maps
    labelled = [p.grad.clone() for p in held.parameters()]

    attributes_alone = darn(dual=False, features="fc1+conv4+conv5")
    attributes_alone.ranking_step(batch_of(images))["L_attr"][1].backward()
    again = [p.grad for p in attributes_alone.network("shop").maps.parameters()]
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(labelled, again, strict=True))

    ranked = darn(dual=False, features="fc1+conv4+conv5")
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
