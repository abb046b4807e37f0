# SPDX-License-Identifier: MIT
import math

import numpy as np
import pytest
import torch

from fm_bench.nn.losses import attribute_cross_entropy, euclidean, triplet_margin

DARN = (12, 20, 56, 6, 27, 10, 25, 7, 16)  # 179 values
SHOPPING100K = (16, 17, 19, 14, 10, 15, 2, 11, 16, 7, 9, 15)


@pytest.mark.parametrize(("sizes", "value"), [(DARN, 24.833547), (SHOPPING100K, 28.914750)])
def test_uniform_logits_cost_the_sum_of_log_sizes(sizes, value):
    logits = [torch.zeros(3, size) for size in sizes]
    loss = attribute_cross_entropy(logits, torch.zeros(3, len(sizes), dtype=torch.long))
    assert loss.item() == pytest.approx(sum(map(math.log, sizes)), rel=1e-6)
    assert loss.item() == pytest.approx(value, abs=1e-5)


def test_attribute_cross_entropy_equals_its_equation_and_skips_missing_labels():
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(4, 3)), rng.normal(size=(4, 5))]
    labels = np.array([[0, 4], [-1, 2], [2, -1], [-1, -1]])
    expected = 0.0
    for i in range(4):
        for m in range(2):
            if labels[i, m] >= 0:
                row = logits[m][i]
                expected -= row[labels[i, m]] - math.log(np.exp(row).sum())
    tensors = [torch.tensor(block, requires_grad=True) for block in logits]
    loss = attribute_cross_entropy(tensors, torch.tensor(labels))
    assert loss.item() == pytest.approx(expected / 4)
    loss.backward()
    assert torch.equal(tensors[0].grad[1], torch.zeros(3, dtype=torch.float64))  # no label, no gradient
    assert tensors[0].grad[0].abs().sum() > 0


def test_no_label_at_all_costs_nothing():
    loss = attribute_cross_entropy([torch.randn(2, 3)], torch.full((2, 1), -1))
    assert loss.item() == 0


@pytest.mark.parametrize(("negative", "loss"), [(1.0, 0.0), (0.6, 0.4), (0.5, 0.5)])
def test_triplet_margin_hinge(negative, loss):
    anchor = torch.zeros(1, 2)
    value = triplet_margin(anchor, torch.tensor([[0.5, 0.0]]), torch.tensor([[0.0, negative]]), margin=0.5)
    assert value.item() == pytest.approx(loss, abs=1e-6)


def test_distance_of_equal_rows_has_a_finite_gradient():
    a = torch.ones(2, 3, requires_grad=True)
    euclidean(a, torch.ones(2, 3)).sum().backward()
    assert torch.isfinite(a.grad).all()
