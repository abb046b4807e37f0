# SPDX-License-Identifier: MIT
"""Soft triplets, invariants 1 to 4 of the FashionSearchNet paper by their numbers, and partners of a batch."""

import pytest
import torch

from fm_bench.nn.triplets import partners, soft_triplet


def distances(positive, negative):
    """Triplets with these distances."""
    anchor = torch.zeros(len(positive), 2, dtype=positive.dtype)
    return anchor, torch.stack([positive, 0 * positive], 1), torch.stack([0 * negative, negative], 1)


def test_1_soft_triplet_values():
    near, far = torch.tensor([1.0, 2.0, 1.5]), torch.tensor([2.0, 1.0, 1.5])
    loss = soft_triplet(*distances(near, far))
    assert loss.tolist() == pytest.approx([0.268941, 0.731059, 0.5], abs=1e-6)
    squared = soft_triplet(*distances(near, far), squared=True)
    assert squared[2].item() == pytest.approx(0.25)
    assert torch.allclose(squared, loss.square())


def test_2_shares_add_up_to_one_and_swap():
    torch.manual_seed(0)
    near, far = torch.rand(20) * 3, torch.rand(20) * 3
    plus, minus = soft_triplet(*distances(near, far)), soft_triplet(*distances(far, near))
    assert torch.allclose(plus + minus, torch.ones(20))
    assert torch.allclose(plus.square() + (minus - 1).square(), 2 * plus.square(), atol=1e-6)
    one = soft_triplet(*distances(torch.tensor([1.0]), torch.tensor([2.0])))
    assert 2 * one.square().item() == pytest.approx(0.144659, abs=1e-6)


@pytest.mark.parametrize(("near", "far", "slope"), [(1.0, 1.0, 0.25), (11.0, 1.0, 4.54e-5), (1.0, 2.0, 0.196612)])
def test_3_gradients(near, far, slope):
    near, far = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (near, far))
    soft_triplet(*distances(near, far)).sum().backward()
    assert near.grad.item() == pytest.approx(slope, rel=1e-3)
    assert far.grad.item() == pytest.approx(-slope, rel=1e-3)


def test_4_no_overflow():
    far = torch.tensor([100.0, 1000.0])
    assert soft_triplet(*distances(far, far)).tolist() == [0.5, 0.5]
    assert torch.isnan(torch.exp(far[:1]) / (torch.exp(far[:1]) + torch.exp(far[:1]))).all()


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
