# SPDX-License-Identifier: MIT
"""The bound on what bfloat16 can be off by holds, and is not needlessly wide."""

import tracemalloc

import numpy as np
import pytest
import torch

from fm_bench.retrieval import reduced
from fm_bench.retrieval.basis import Basis, find_basis
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.shortlist import sampled, shortlist


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


def basis_of(gallery, count):
    return Basis(np.linalg.svd(gallery.astype(np.float64), full_matrices=False)[2][:count].T, torch.device("cpu"))


@pytest.mark.parametrize("directions", [None, 1, 40])
@pytest.mark.parametrize("dim", [1, 40, 512, 5000])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_off_by_no_more_than_the_bound(kind, dim, directions):
    gallery, asked = vectors(kind, 300, dim, 0), vectors(kind, 50, dim, 1)
    norms = np.linalg.norm(asked.astype(np.float64), axis=1)
    basis = None if directions is None else basis_of(gallery, min(dim, directions))
    rows = reduced.Blocks(slice(100, 400), lambda part: gallery[part.start - 100 : part.stop - 100], 300, basis)
    queries, (block,) = rows.queries(asked, norms), rows.growing(300)
    true = asked.astype(np.float64) @ gallery.T.astype(np.float64)
    true -= np.square(gallery.astype(np.float64)).sum(1) / 2
    least, most = reduced.bounds(queries, slice(0, 50), block)
    assert (least <= true).all()
    assert (true <= most).all()
    threshold = np.median(true, axis=1)
    above = reduced.above(queries, slice(0, 50), block, threshold)
    excess = (true - threshold[:, None])[above.row, above.image - 100]
    assert (above.least <= excess).all()
    assert (excess <= above.most).all()
    missed = true >= threshold[:, None]
    missed[above.row, above.image - 100] = False
    assert not missed.any()


def test_few_more_than_needed_are_let_through():
    gallery, asked = vectors("plain", 4000, 64, 0), vectors("plain", 20, 64, 1)
    found = scanned(ExactIndex(gallery), asked, 20)
    assert len(found.given_up) == 0
    assert len(found.row) < 20 * 30


def scanned(index, asked, k, basis=None):
    sample = index.gallery[sampled(index.rows, k)] - index.centre
    return shortlist(index.in_blocks(basis), sample, *index.centred(asked), k)


def flat(n, dim, inside, seed):
    """Vectors of which all but a little lies in ``inside`` dimensions, turned somehow."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(np.random.default_rng(9).standard_normal((dim, dim)))[0]
    found = rng.standard_normal((n, dim)) * np.where(np.arange(dim) < inside, 1, 0.02)
    return (found @ turned).astype(np.float32)


@pytest.fixture
def always_worth(monkeypatch):
    """Directions are looked for however small the search is."""
    monkeypatch.setattr("fm_bench.retrieval.basis._WORTH", 0)


@pytest.mark.usefixtures("always_worth")
def test_flat_galleries_are_compared_in_few_directions(monkeypatch):
    monkeypatch.setattr(reduced, "supported", lambda: True)
    gallery, asked = flat(6000, 64, 6, 0), flat(800, 64, 6, 1)
    index, whole = ExactIndex(gallery), ExactIndex(gallery)
    whole.blocks = whole.in_blocks(None)
    found, expected = index.search(asked, 10), whole.search(asked, 10)
    assert index.blocks.basis.directions.shape == (64, 8)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    bytes_kept = sum(block.columns.nbytes for block in index.blocks._kept.values())
    assert bytes_kept < gallery.nbytes / 4


@pytest.mark.usefixtures("always_worth")
@pytest.mark.parametrize(
    ("gallery", "asked"),
    [
        (flat(6000, 64, 60, 0), flat(800, 64, 6, 1)),  # the gallery is not flat
        (flat(6000, 64, 6, 0), flat(800, 64, 60, 1)),  # the queries are not
        (flat(1000, 64, 6, 0), flat(800, 64, 6, 1)),  # few images
        (flat(6000, 64, 6, 0), flat(70, 64, 6, 1)),  # few queries: turning the gallery would not pay
    ],
)
def test_other_galleries_are_compared_in_all_dimensions(gallery, asked):
    index = ExactIndex(gallery)
    assert find_basis(gallery, index.centre, index.centred(asked)[0], torch.device("cpu")) is None


def test_no_directions_are_looked_for_where_the_search_is_small():
    gallery, asked = flat(6000, 64, 6, 0), flat(800, 64, 6, 1)
    index = ExactIndex(gallery)
    assert find_basis(gallery, index.centre, index.centred(asked)[0], torch.device("cpu")) is None


@pytest.mark.usefixtures("always_worth")
def test_what_few_directions_cannot_tell_is_compared_in_all(monkeypatch):
    """One direction holds nearly all of the length, the others decide."""
    monkeypatch.setattr(reduced, "supported", lambda: True)
    monkeypatch.setattr("fm_bench.retrieval.shortlist._KEPT", 0)
    rng = np.random.default_rng(0)
    gallery, asked = rng.standard_normal((6000, 64)), rng.standard_normal((800, 64))
    gallery[:, 0], asked[:, 0] = rng.choice([-300, 300], 6000), rng.choice([-300, 300], 800)
    gallery, asked = gallery.astype(np.float32), asked.astype(np.float32)
    index = ExactIndex(gallery)
    found = index.search(asked, 5)
    assert index.blocks.basis.directions.shape[1] == 8
    distances = np.square(asked[:50, None].astype(np.float64) - gallery).sum(-1)
    np.testing.assert_array_equal(found.ids[:50], np.argsort(distances, axis=1)[:, :5])


def test_a_rounded_sum_of_three_holds_24_bits():
    values = torch.from_numpy(np.random.default_rng(0).standard_normal(1000) * 10.0 ** np.arange(-10, 10).repeat(50))
    parts = reduced._terms(values)
    assert parts.dtype == torch.bfloat16
    assert ((parts.double().sum(1) - values).abs() <= values.abs() * 2.0**-24).all()


def test_negative_zero_and_odd_sizes_are_placed():
    products = torch.tensor([[-1.0, 0.0, 2.0], [-0.0, -3.0, 1.0], [5.0, -1.0, -2.0]], dtype=torch.bfloat16)
    row, column = reduced._not_negative(products, None)
    assert list(zip(row.tolist(), column.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2), (2, 0)]


@pytest.mark.parametrize("shape", [(1, 1), (7, 13), (8, 4), (16, 64), (300, 31)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_all_that_is_not_negative_is_found_by_row(shape, share):
    generator = torch.Generator().manual_seed(0)
    products = torch.where(torch.rand(shape, generator=generator) < share, 1.0, -1.0).bfloat16()
    there = products.float().numpy() > 0
    row, column = reduced._not_negative(products, there.sum())
    assert (np.diff(row) >= 0).all()
    assert sorted(zip(row, column, strict=True)) == list(zip(*there.nonzero(), strict=True))
    assert not there.any() or reduced._not_negative(products, there.sum() - 1) is None


def test_sorted_galleries_do_not_fill_the_list():
    """The nearest images come last, and each block is nearer than all before it."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((6000, 32)).astype(np.float32)
    gallery *= np.linspace(9, 0.1, 6000, dtype=np.float32)[:, None]
    found = scanned(ExactIndex(gallery), np.zeros((3, 32), np.float32), 10)
    assert len(found.given_up) == 0
    distances = np.square(gallery.astype(np.float64)).sum(1)
    for query in range(3):
        assert set(np.argsort(distances)[:10]) <= set(found.image[found.row == query])


def test_many_near_images_take_bounded_memory(monkeypatch):
    """Tight clusters, of which each query sees one: hundreds of images that bfloat16 cannot tell apart."""
    monkeypatch.setattr(reduced, "supported", lambda: True)
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((10, 64))
    gallery = (np.repeat(centres, 800, axis=0) + 0.003 * rng.standard_normal((8000, 64))).astype(np.float32)
    asked = (centres[rng.integers(0, 10, 3000)] + 0.003 * rng.standard_normal((3000, 64))).astype(np.float32)
    few = ExactIndex(gallery).search(asked[:40], 50)  # with FAISS
    index = ExactIndex(gallery)
    index.search(asked[:64], 50)
    tracemalloc.start()
    found = index.search(asked, 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 250e6
    np.testing.assert_array_equal(found.ids[:40], few.ids)
