# SPDX-License-Identifier: MIT
"""FLAM's attribute embedders: invariants 1 to 3 of the paper, Eq. (2), and which classes are learnt."""

import numpy as np
import pytest
import torch
from flam_models import DIM, LABELS, K, T

from fm_bench.data.batches import LabelledBatch, PositionsBatch
from fm_bench.nn.cosine import cosine_distance, cosine_hinge
from fm_bench.nn.embedders import AttributeEmbedders

# ------------------------------------------------------------------ triplets


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


# ------------------------------------------------------------------ which classes, of which attributes


def test_only_the_most_frequent_classes_are_learnt(flam, images):
    model = flam(values=2)
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


def test_an_attribute_with_one_known_class_is_not_changed(flam, images):
    model = flam()
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


def test_embedders_step_reads_the_targets_alone(flam, features):
    model = flam()
    model.cached = features
    batch = PositionsBatch(torch.arange(6), LABELS, torch.arange(6))
    torch.manual_seed(0)
    loss = model.embedders_step(batch)["L_emb"][1]
    other = LABELS.clone()
    other[:, 0] = 1 - other[:, 0]
    torch.manual_seed(0)
    assert model.embedders_step(batch._replace(labels=other))["L_emb"][1].item() == pytest.approx(loss.item())


def test_an_attributes_embedding_is_that_of_its_own_embedder(flam, features):
    model = flam()
    embedded = model.embedders(features)
    for target, attribute in enumerate(model.targets):
        assert torch.equal(model.attribute_embedding(attribute, features), embedded[target])
    assert model.attribute_embedding(0, features) is None  # gender is no target
