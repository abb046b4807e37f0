# SPDX-License-Identifier: MIT
"""The bound on what bfloat16 can be off by holds, and is not needlessly wide."""

import numpy as np
import pytest
import torch

from fm_bench.retrieval import reduced
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.shortlist import shortlist


def vectors(kind, n, dim, seed):
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((n, dim))
    if kind == "long tail":
        found *= np.exp(2 * rng.standard_normal((n, 1)))
    elif kind == "just above a power of two":  # where rounding cuts off most
        found = np.where(found > 0, 1, -1) * (1 + 2.0**-8 - 2.0**-20)
    elif kind == "far from the origin":
        found += 50
    elif kind == "tiny":
        found *= 1e-30
    return found.astype(np.float32)


KINDS = ["plain", "long tail", "just above a power of two", "far from the origin", "tiny"]


@pytest.mark.parametrize("dim", [1, 40, 512, 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_off_by_no_more_than_the_bound(kind, dim):
    gallery, asked = vectors(kind, 300, dim, 0), vectors(kind, 50, dim, 1)
    norms = np.linalg.norm(asked.astype(np.float64), axis=1)
    queries = reduced.Queries(asked, norms)
    block = queries.block(gallery, 0)
    found, error = reduced.scores(queries, slice(0, 50), block)
    true = asked.astype(np.float64) @ gallery.T.astype(np.float64)
    true -= np.square(gallery.astype(np.float64)).sum(1) / 2
    assert (np.abs(found - true) <= error).all()
    threshold = np.median(true, axis=1)
    above = reduced.above(queries, slice(0, 50), block, threshold)
    off = np.abs(above.excess - (true - threshold[:, None])[above.row, above.image])
    assert (off <= above.error).all()
    missed = true >= threshold[:, None]
    missed[above.row, above.image] = False
    assert not missed.any()


def test_few_more_than_needed_are_let_through():
    gallery, asked = vectors("plain", 4000, 64, 0), vectors("plain", 20, 64, 1)
    index = ExactIndex(gallery)
    found = shortlist(index, *index.centred(asked), 20)
    assert len(found.given_up) == 0
    assert len(found.row) < 20 * 30


def test_a_rounded_sum_of_three_holds_24_bits():
    values = torch.from_numpy(np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.arange(-10, 10).repeat(50))
    parts = reduced._terms(values)
    assert parts.dtype == torch.bfloat16
    assert ((parts.double().sum(1) - values).abs() <= values.abs() * 2.0**-24).all()


def test_negative_zero_and_odd_sizes_are_placed():
    products = torch.tensor([[-1.0, 0.0, 2.0], [-0.0, -3.0, 1.0], [5.0, -1.0, -2.0]], dtype=torch.bfloat16)
    row, column = reduced._places(reduced._not_negative(products), 3)
    assert list(zip(row.tolist(), column.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2), (2, 0)]


def test_sorted_galleries_do_not_fill_the_list():
    """The nearest images come last, and each block is nearer than all before it."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((6000, 32)).astype(np.float32)
    gallery *= np.linspace(9, 0.1, 6000, dtype=np.float32)[:, None]
    index = ExactIndex(gallery)
    found = shortlist(index, *index.centred(np.zeros((3, 32), np.float32)), 10)
    assert len(found.given_up) == 0
    distances = np.square(gallery.astype(np.float64)).sum(1)
    for query in range(3):
        assert set(np.argsort(distances)[:10]) <= set(found.image[found.row == query])
