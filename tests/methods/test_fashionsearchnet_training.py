# SPDX-License-Identifier: MIT
"""How FashionSearchNet is trained, stage by stage: invariants 13 to 16 of its paper, on a tiny trunk."""

import math

import numpy as np
import pytest
import torch
from fashionsearchnet_models import DIM, LABELS, WIDE, A, C, indicators, triplets
from stubs import Strategy, labelled

from fm_bench.methods import fashionsearchnet as module
from fm_bench.nn.triplets import partners

# ------------------------------------------------------------------ regions


def _backward(model, images, labels, *names):
    model.zero_grad()
    losses = model.regions_step(labelled(images, labels))
    assert {name: weight for name, (weight, _) in losses.items()} == {"L_C": 1.0, "L_T": 1.0, "L_TC": 1.0}
    sum(losses[name][1] for name in names).backward()


def test_14_ranking_does_not_move_the_classifiers(fashionsearchnet, images):
    model = fashionsearchnet()
    _backward(model, images, LABELS, "L_T", "L_TC")
    assert model.classifiers.weight.grad is None or not model.classifiers.weight.grad.any()
    assert model.conv6[0].weight.grad is None or not model.conv6[0].weight.grad.any()
    assert model.conv5[0].weight.grad.any()
    _backward(model, images, LABELS, "L_C")
    assert model.classifiers.weight.grad.any()


@pytest.mark.parametrize("labelled", range(A))
def test_15_attributes_are_independent(fashionsearchnet, images, labelled):
    labels = torch.full_like(LABELS, -1)
    labels[:, labelled] = LABELS[:, labelled]
    model = fashionsearchnet()
    _backward(model, images, labels, "L_T")
    for parameter in model.stacks.parameters():
        assert [bool(gradient.any()) for gradient in parameter.grad] == [m == labelled for m in range(A)]


def test_ranking_loss_is_written_out(fashionsearchnet, images, monkeypatch):
    """Two images per value and two values: one positive each, negatives as drawn."""
    model = fashionsearchnet()
    chosen = partners(LABELS)
    monkeypatch.setattr(module, "partners", lambda labels: chosen)
    found = model.regions_step(labelled(images, LABELS))["L_T"][1].item()
    f = model.slots(images)
    expected = 0.0
    for i in range(6):
        for m in range(A):
            if chosen[2][i, m]:
                near, far = (f[i, m] - f[chosen[0][i, m], m]).norm(), (f[i, m] - f[chosen[1][i, m], m]).norm()
                expected += torch.sigmoid(near - far).item() / 6
    assert found == pytest.approx(expected, rel=1e-4)


def test_second_stage_reaches_every_parameter_that_it_trains(fashionsearchnet, images):
    model = fashionsearchnet().train()
    model.begin(module.LOCAL, 0)
    _backward(model, images, LABELS, "L_C", "L_T", "L_TC")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith(("importance", "projection")) for name in trained)


# ------------------------------------------------------------------ prototypes and the cache


@pytest.mark.parametrize("normalize", [True, False])
def test_16_prototypes_are_means_of_true_labels(fashionsearchnet, images, normalize, caplog):
    model = fashionsearchnet(normalize=normalize)
    labels = LABELS.clone()
    labels[labels[:, 2] == 2, 2] = -1
    with torch.no_grad():
        model.on_prototypes_start([labelled(images[:4], labels[:4]), labelled(images[4:], labels[4:])])
        f = model.slots(images)
    assert torch.allclose(model.prototypes[3 + 2 + 0], f[2, 2], atol=1e-5)  # slim is worn in picture 2 alone
    mean = f[LABELS[:, 1] == 1, 1].mean(0)
    assert torch.allclose(model.prototypes[4], model.space(mean), atol=1e-5)
    assert not model.prototypes[7].any()
    assert "1 values" in caplog.text
    assert set(model.stage_state(module.PROTOTYPES)) == {"prototypes"}


def test_features_are_kept_in_the_order_of_the_catalogue(fashionsearchnet, images):
    model = fashionsearchnet()
    shuffled = torch.tensor([4, 1, 5, 0, 3, 2])
    parts = [labelled(images[rows], LABELS[rows])._replace(index=10 * rows) for rows in shuffled.split(4)]
    with torch.no_grad():
        model.cache_representation(parts)
        assert torch.allclose(model.cached, model.slots(images), atol=1e-5)
        model.cache_representation([])  # once is enough
    model.on_fit_end()
    assert len(model.cached) == 0
    assert "cached" not in model.state_dict()


def test_shares_of_two_processes_are_put_together(fashionsearchnet, images):
    """The first process has batches 0 and 2, the second batch 1 and fewer pictures."""

    class Two(Strategy):
        def __init__(self, shares):
            self.shares = shares

        def all_gather(self, value):
            if value.ndim == 0:
                return torch.tensor([4, 2])
            other = self.shares[0] if value.ndim == 1 else self.shares[1]
            return torch.stack([value, torch.cat([other, other.new_zeros(2, *other.shape[1:])])])

    model = fashionsearchnet()
    with torch.no_grad():
        f = model.slots(images)
        model._trainer = type("Trainer", (), {"world_size": 2, "strategy": Two((torch.tensor([2, 3]), f[2:4]))})()
        mine = torch.tensor([0, 1, 4, 5])
        model.cache_representation([labelled(images[mine], LABELS[mine])._replace(index=mine)])
    assert torch.allclose(model.cached, f, atol=1e-5)


# ------------------------------------------------------------------ the global representation


def test_third_stage_starts_from_the_plain_concatenation(fashionsearchnet):
    model = fashionsearchnet(global_dim=A * DIM)
    model.cached = torch.randn(40, A, DIM)
    model.importance.data.fill_(1.0)
    model.on_representation_start([])
    f = model.cached.flatten(1)
    for a in range(A + 1):
        assert torch.allclose(torch.pdist(model.embed_global(model.cached, a)), torch.pdist(f), atol=1e-3)
    narrow = fashionsearchnet(global_dim=3)
    plane = torch.randn(40, 3) @ torch.randn(3, A * DIM) + 5
    narrow.cached = plane.reshape(40, A, DIM)
    narrow.importance.data.fill_(1.0)
    narrow.on_representation_start([])
    assert torch.allclose(torch.pdist(narrow.embed_global(narrow.cached, 0)), torch.pdist(plane), rtol=1e-3, atol=1e-2)


def test_third_stage_loss_is_equation_8_written_out(fashionsearchnet):
    model = fashionsearchnet()
    model.cached = torch.randn(6, A, DIM)
    indicator = torch.stack([model.schema.indicator(r) for r in ([], [(0, 1)], [(2, 3)], [(0, 2)], [], [(3, 0)])])
    batch = triplets(indicator)
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


@pytest.mark.parametrize("w_shared", [False, True])
def test_13_third_stage_trains_lambda_and_w_of_the_sampled_settings(fashionsearchnet, w_shared):
    model = fashionsearchnet(w_shared=w_shared)
    assert model.projection.shape == (1 if w_shared else A + 1, A * DIM, WIDE)
    assert model.importance.shape == (A + 1, A)
    model.begin(module.GLOBAL, 0)
    model.cached = torch.randn(6, A, DIM)
    indicator = torch.cat([torch.zeros(3, C), indicators(model, ("fit", "wide"), count=3)])  # a* = 0 and 3
    (weight, loss) = model.representation_step(triplets(indicator))["L_G"]
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
