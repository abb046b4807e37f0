# SPDX-License-Identifier: MIT
"""Principal components: a rotation at full rank, the best plane below it."""

import pytest
import torch

from fm_bench.nn.pca import PrincipalComponents


def features(n: int, dim: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64) * torch.linspace(3, 0.1, dim) + 5


def test_full_rank_is_an_isometry() -> None:
    x = features(50, 8)
    pca = PrincipalComponents(8, 4096).double()
    pca.fit(x)
    assert pca.dim == 8
    assert (distances(x, x) - distances(pca(x), pca(x))).abs().max() < 1e-13
    other = features(90, 8)[50:]  # one that was not fitted
    assert (distances(x, other) - distances(pca(x), pca(other))).abs().max() < 1e-13


def distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x[:, None] - y[None]).square().sum(dim=-1).sqrt()


@pytest.mark.parametrize(("n", "dim", "outputs"), [(200, 20, 12), (30, 60, 25), (200, 100, 10)])
def test_the_components_are_those_of_the_singular_value_decomposition(n: int, dim: int, outputs: int) -> None:
    x = features(n, dim)
    pca = PrincipalComponents(dim, outputs).double()
    pca.fit(x)
    _, _, right = torch.linalg.svd(x - x.mean(0), full_matrices=False)
    kept = (right[: outputs - 3] @ pca.components.T).square().sum(dim=1)  # how much of each lies in the plane found
    assert kept.min() > (0.999 if outputs > 10 else 0.9)
    assert torch.allclose(pca.components @ pca.components.T, torch.eye(outputs, dtype=torch.float64), atol=1e-10)


def test_fewer_features_than_outputs_leave_zeros() -> None:
    x = features(6, 40)
    pca = PrincipalComponents(40, 10).double()
    pca.fit(x)
    assert pca(x).shape == (6, 10)
    assert not pca(x)[:, 6:].any()
    assert torch.allclose(distances(x, x), distances(pca(x), pca(x)), atol=1e-10)


def test_a_checkpoint_holds_it_and_a_seed_repeats_it() -> None:
    x = features(300, 100).float()
    one, two, three = (PrincipalComponents(100, 5) for _ in range(3))
    one.fit(x, seed=3)
    two.fit(x, seed=3)
    three.load_state_dict(one.state_dict())
    assert torch.equal(one(x), two(x))
    assert torch.equal(one(x), three(x))
