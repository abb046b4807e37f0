# SPDX-License-Identifier: MIT
"""Search against brute force in float64, and against itself with other blocks, orders, shards and libraries."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_bench.errors import UserError
from fm_bench.retrieval import ExactIndex, merge, reduced, search, shortlist
from fm_bench.retrieval import index as index_module
from fm_bench.retrieval.ordering import TieOrder

N, R, D = 400, 40, 16


def brute_force(gallery, queries, k, exclude=None, keys=None, seed=0):
    """Ids, distances and ties, from all distances in float64."""
    distances = np.square(queries[:, None].astype(np.float64) - gallery[None]).sum(-1)
    keys = np.arange(len(gallery)) if keys is None else keys
    rows = np.arange(len(queries))
    ties = TieOrder(keys, rows, seed)(rows[:, None], np.arange(len(gallery)))
    if exclude is not None:
        distances[rows[exclude >= 0], exclude[exclude >= 0]] = np.inf
    order = np.lexsort((ties, distances), axis=1)
    ordered = np.take_along_axis(distances, order, axis=1)
    tied = ordered[:, k - 1] == ordered[:, k] if k < len(gallery) else np.zeros(len(queries), bool)
    return order[:, :k], ordered[:, :k], tied & np.isfinite(ordered[:, k - 1])


def embeddings(kind):
    """A gallery and queries of one kind of difficulty."""
    rng = np.random.default_rng(3)
    gallery, queries = rng.standard_normal((N, D)), rng.standard_normal((R, D))
    if kind == "offset":
        gallery, queries = 100 + 0.001 * gallery, 100 + 0.001 * queries
    elif kind == "constant":
        gallery, queries = np.ones_like(gallery), np.ones_like(queries)
    elif kind == "binary":
        gallery, queries = rng.integers(0, 2, (N, D)) * (np.arange(D) < 6), rng.integers(0, 2, (R, D)) * 1.0
    elif kind == "repeated":
        gallery = np.repeat(gallery[: N // 4], 4, axis=0)
    elif kind == "clusters":
        gallery = np.repeat(100 * gallery[:5], N // 5, axis=0) + 1e-5 * gallery
        queries = 100 * gallery[:R] / 100 + 1e-5 * queries
    elif kind == "huge":
        gallery, queries = 1e30 * gallery, 1e30 * queries
    elif kind == "tiny":
        gallery, queries = 1e-30 * gallery, 1e-30 * queries
    elif kind == "outlier":
        gallery[7] *= 1e8
    return gallery.astype(np.float32), queries.astype(np.float32)


KINDS = ["plain", "offset", "constant", "binary", "repeated", "clusters", "huge", "tiny", "outlier"]


def choose(way, monkeypatch):
    """Lets the search go one of its ways: with faiss, with torch in float32, or in bfloat16."""
    monkeypatch.setattr(reduced, "supported", lambda: way.startswith("bfloat16"))
    monkeypatch.setattr(index_module, "_MANY", 1)
    if way == "torch":
        monkeypatch.setattr(index_module, "faiss", None)
    elif index_module.faiss is None and way == "faiss":
        pytest.skip("faiss is not installed")
    if way == "bfloat16 in small blocks":
        small = {"_SAMPLE": 8, "_FIRST": 16, "_SMALLEST": 4, "_QUERIES": 7, "_KEPT": 20, "_FRESH": 50, "_ROOM": 900}
        for name, value in small.items():
            monkeypatch.setattr(shortlist, name, value)


WAYS = ["faiss", "torch", "bfloat16", "bfloat16 in small blocks"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_brute_force(kind, way, monkeypatch):
    choose(way, monkeypatch)
    gallery, queries = embeddings(kind)
    exclude = np.random.default_rng(0).integers(-1, N, R)
    for k, block_bytes in ((1, 900), (20, 900), (20, 1 << 20), (N - 1, 1 << 20)):
        found = search(gallery, queries, k, exclude=exclude, block_bytes=block_bytes)
        ids, distances, tied = brute_force(gallery, queries, k, exclude)
        np.testing.assert_array_equal(found.ids, ids)
        np.testing.assert_array_equal(found.distances, distances)
        np.testing.assert_array_equal(found.tied, tied)


def test_all_gpus_share_the_gallery(monkeypatch):
    """With the functions of faiss-gpu, whose index on several GPUs is played by one on the processor."""
    if index_module.faiss is None:
        pytest.skip("faiss is not installed")
    asked = []

    class Gpus:
        IndexFlatL2 = index_module.faiss.IndexFlatL2
        GpuMultipleClonerOptions = SimpleNamespace

        @staticmethod
        def get_num_gpus():
            return 2

        @staticmethod
        def index_cpu_to_all_gpus(index, options):
            asked.append(options.shard)
            return index

    monkeypatch.setattr(index_module, "faiss", Gpus)
    monkeypatch.setattr(index_module, "_MANY", 1)
    gallery, queries = embeddings("repeated")
    found = search(gallery, queries, 20, block_bytes=900)
    ids, distances, _ = brute_force(gallery, queries, 20)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.distances, distances)
    assert asked
    assert all(asked)


@pytest.mark.parametrize("way", ["faiss", "torch", "bfloat16", None])
def test_gpus_are_left_alone_where_the_user_wants_it(way, monkeypatch):
    if way is not None:  # else as this processor is
        choose(way, monkeypatch)
    if index_module.faiss is not None:
        monkeypatch.setattr(index_module.faiss, "get_num_gpus", lambda: 2)
        monkeypatch.setattr(index_module.faiss, "index_cpu_to_all_gpus", refuse, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", refuse)
    monkeypatch.setattr(torch.cuda, "current_device", refuse)
    gallery, queries = embeddings("repeated")
    with reduced.searching_apart_from_gpus(True):
        with reduced.searching_apart_from_gpus(False):  # which is no leave to use them
            found = search(gallery, queries, 20)
        index = ExactIndex(gallery)
        index.count_before(*place_of_the_last(index, queries, found), np.full(R, -1), N)
    ids, distances, _ = brute_force(gallery, queries, 20)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.distances, distances)
    monkeypatch.undo()
    assert reduced.may_use_gpus()


def refuse(*_, **__):
    raise AssertionError("what must be left alone was used")


def place_of_the_last(index, queries, found):
    """The first arguments of ``count_before`` for the last images of a ranking."""
    rows, ties = np.arange(len(queries)), index.ties(np.arange(len(queries)))
    return queries, found.distances[:, -1], ties(rows, found.ids[:, -1]), ties


@pytest.mark.parametrize("kind", ["plain", "constant", "binary", "repeated"])
def test_order_of_gallery_does_not_matter(kind):
    gallery, queries = embeddings(kind)
    keys = np.random.default_rng(1).permutation(10 * N)[:N]
    shuffled = np.random.default_rng(2).permutation(N)
    straight = search(gallery, queries, 30, keys=keys)
    mixed = search(gallery[shuffled], queries, 30, keys=keys[shuffled])
    np.testing.assert_array_equal(shuffled[mixed.ids], straight.ids)
    np.testing.assert_array_equal(mixed.distances, straight.distances)
    np.testing.assert_array_equal(mixed.tied, straight.tied)


@pytest.mark.parametrize("cuts", [[0, N], [0, 150, N], [0, 5, 222, N]])
@pytest.mark.parametrize("kind", KINDS)
def test_shards_merge_to_one_search(kind, cuts):
    gallery, queries = embeddings(kind)
    exclude = np.random.default_rng(0).integers(-1, N, R)
    whole = search(gallery, queries, 20, exclude=exclude, seed=5)
    shards = [search(gallery[a:b], queries, 20, exclude=exclude, seed=5, shard_start=a) for a, b in pairwise(cuts)]
    merged = merge(shards, keys=np.arange(N), seed=5)
    for column, expected in zip(merged, whole, strict=True):
        np.testing.assert_array_equal(column, expected)


def test_more_than_one_block_of_queries(monkeypatch):
    gallery, queries = embeddings("repeated")
    whole = search(gallery, queries, 10)
    monkeypatch.setattr(index_module, "_QUERIES", 7)
    for column, expected in zip(search(gallery, queries, 10), whole, strict=True):
        np.testing.assert_array_equal(column, expected)


def test_seed_decides_among_equals_and_only_there():
    gallery, queries = embeddings("repeated")
    one, other = search(gallery, queries, 10, seed=1), search(gallery, queries, 10, seed=2)
    assert (one.ids != other.ids).any()
    np.testing.assert_array_equal(one.distances, other.distances)
    np.testing.assert_array_equal(one.ids // 4, other.ids // 4)


def test_every_image_is_equally_likely_among_equals():
    gallery, queries = np.zeros((50, 4), np.float32), np.zeros((20_000, 4), np.float32)
    found = np.bincount(search(gallery, queries, 5).ids.ravel(), minlength=50)
    expected = 20_000 * 5 / 50
    assert np.abs(found - expected).max() < 5 * np.sqrt(expected)


def test_memory_map_is_enough(tmp_path):
    gallery, queries = embeddings("plain")
    np.save(tmp_path / "gallery.npy", gallery)
    found = search(np.load(tmp_path / "gallery.npy", mmap_mode="r"), queries, 5)
    np.testing.assert_array_equal(found.ids, search(gallery, queries, 5).ids)


@pytest.mark.parametrize("kind", KINDS)
def test_candidates_are_thinned_out_on_the_way(kind, monkeypatch):
    gallery, queries = embeddings(kind)
    whole = search(gallery, queries, 10)
    for name, value in (("_PAIRS", -(10**9)), ("_ROWS", 7), ("_QUERIES", 11)):
        monkeypatch.setattr(f"fm_bench.retrieval.scan.{name}", value)
    monkeypatch.setattr(index_module, "_MARGIN", 0)
    for column, expected in zip(search(gallery, queries, 10), whole, strict=True):
        np.testing.assert_array_equal(column, expected)


@given(
    st.integers(1, 60), st.integers(1, 8), st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 1000])
)
@settings(max_examples=60, deadline=None)
def test_small_integer_vectors(n, r, d, seed, scale):
    rng = np.random.default_rng(seed)
    gallery = (rng.integers(0, 3, (n, d)) * scale).astype(np.float32)
    queries = (rng.integers(0, 3, (r, d)) * scale).astype(np.float32)
    k = int(rng.integers(1, n + 1))
    found = search(gallery, queries, k, seed=seed, block_bytes=64)
    ids, distances, tied = brute_force(gallery, queries, k, seed=seed)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.distances, distances)
    np.testing.assert_array_equal(found.tied, tied)


def assert_same(ranking, other):
    for column, of_other in zip(ranking, other, strict=True):
        np.testing.assert_array_equal(column, of_other)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_count_before_is_the_rank(kind, way, monkeypatch):
    choose(way, monkeypatch)
    gallery, queries = embeddings(kind)
    index, rng = ExactIndex(gallery, block_bytes=900), np.random.default_rng(0)
    exclude, wanted = rng.integers(-1, N, R), rng.integers(0, N, R)
    wanted = np.where(wanted == exclude, (wanted + 1) % N, wanted)
    ids, distances, _ = brute_force(gallery, queries, N, exclude)
    rank = (ids == wanted[:, None]).argmax(axis=1)
    ties, rows = index.ties(np.arange(R)), np.arange(R)
    for limit in (N, 10):
        count = index.count_before(queries, distances[rows, rank], ties(rows, wanted), ties, exclude, limit)
        np.testing.assert_array_equal(np.minimum(count, limit + 1), np.minimum(rank, limit + 1))
        asked = rng.random(R) < 0.7
        place = np.where(asked, distances[rows, rank], -1), ties(rows, wanted)
        ranking, count = index.search_counting(queries, 20, *place, limit, exclude=exclude)
        np.testing.assert_array_equal(np.minimum(count, limit + 1), np.where(asked, np.minimum(rank, limit + 1), 0))
        assert_same(ranking, index.search(queries, 20, exclude=exclude))


def overflowing():
    """A gallery and queries of which some products, and some squares, are beyond float32 while distances are not."""
    rng = np.random.default_rng(0)
    gallery, queries = 1e17 * rng.standard_normal((N, 4)), 1e17 * rng.standard_normal((R, 4))
    gallery[:, 0] = np.linspace(-1.6e19, 1.6e19, N)
    gallery[7, 0], queries[:, 0] = 2e19, 1.84e19
    return gallery.astype(np.float32), queries.astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
def test_what_overflows_may_be_the_nearest(way, monkeypatch):
    choose(way, monkeypatch)
    gallery, queries = overflowing()
    found = search(gallery, queries, 2)
    ids, distances, _ = brute_force(gallery, queries, 2)
    assert (ids[:, 0] == 7).all()
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_array_equal(found.distances, distances)


@pytest.mark.parametrize("way", WAYS)
def test_what_overflows_is_counted(way, monkeypatch):
    choose(way, monkeypatch)
    gallery, queries = embeddings("plain")
    gallery *= np.linspace(1.5e19, 2.5e19, N, dtype=np.float32)[:, None] / np.linalg.norm(
        gallery, axis=1, keepdims=True
    )
    index, rows = ExactIndex(gallery), np.arange(R)
    ids, distances, _ = brute_force(gallery, queries, N)
    for rank in (1, N // 2, N - 1):
        ties = index.ties(rows)
        place = distances[:, rank], ties(rows, ids[:, rank])
        assert (index.count_before(queries, *place, ties, np.full(R, -1), N) == rank).all()
        ranking, count = index.search_counting(queries, 5, *place, N)
        assert (count == rank).all()
        np.testing.assert_array_equal(ranking.ids, ids[:, :5])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [1e3, 1e18])  # where a place is much farther than others; where it overflows
def test_one_huge_image_spoils_no_count(length, way, monkeypatch):
    choose(way, monkeypatch)
    gallery, queries = embeddings("plain")
    gallery[3] *= np.float32(length)
    ids, distances, _ = brute_force(gallery, queries, N)
    rank = np.where(np.arange(R) % 2, N // 2, (ids == 3).argmax(axis=1))
    index, rows = ExactIndex(gallery, block_bytes=900), np.arange(R)
    place = distances[rows, rank], index.ties(rows)(rows, ids[rows, rank])
    ranking, count = index.search_counting(queries, 5, *place, N)
    np.testing.assert_array_equal(count, rank)
    np.testing.assert_array_equal(ranking.ids, ids[:, :5])


def test_places_too_far_for_bfloat16_are_counted_in_float32(monkeypatch):
    choose("bfloat16", monkeypatch)
    gallery, queries = embeddings("plain")
    index, rows = ExactIndex(gallery), np.arange(R)
    ties = index.ties(rows)
    place = np.full(R, 1e60), np.zeros(R, np.uint64)
    assert (index.search_counting(queries, 5, *place, N)[1] == N).all()
    monkeypatch.setattr(reduced, "above", refuse)  # beyond its range would stand NaN, which may be more or less
    assert (index.count_before(queries, *place, ties, np.full(R, -1), N) == N).all()


def test_many_undecided_pairs_are_compared_by_group(monkeypatch):
    for name, value in (("_PAIRS", 3), ("_EACH", 2), ("_FEW", 2)):
        monkeypatch.setattr(f"fm_bench.retrieval.scan.{name}", value)
    monkeypatch.setattr(index_module, "_ELEMENTS", 9 * D)
    for way in ("faiss", "bfloat16"):
        test_count_before_is_the_rank("repeated", way, monkeypatch)
        test_count_before_is_the_rank("constant", way, monkeypatch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, q: (g, q, 401, None), "k is 401, but the gallery has 400 images"),
        (lambda g, q: (g, q, 400, np.zeros(R, int)), "k is 400, but the gallery has 400 images, one of which"),
        (lambda g, q: (g, q, 0, None), "k is 0"),
        (lambda g, q: (g, q[:, :3], 5, None), "3 dimensions, but the gallery's have 16"),
        (lambda g, q: (g[0], q, 5, None), r"gallery embeddings have shape \(16,\)"),
        (lambda g, q: (g.astype(int), q, 5, None), "gallery embeddings have type int64"),
        (
            lambda g, q: (g, np.where(np.arange(R)[:, None] > 36, np.nan, q), 5, None),
            "3 of 40 query .* first in row 37",
        ),
        (lambda g, q: (np.where(np.arange(N)[:, None] == 9, np.inf, g), q, 5, None), "1 of 400 gallery .* row 9"),
        (lambda g, q: (g, q, 5, np.full(R, N)), "exclude names gallery row 400 for query 0, but only 0 to 399"),
        (lambda g, q: (g, q, 5, np.zeros(3, int)), "exclude has shape"),
    ],
)
def test_bad_input_is_named(change, message):
    gallery, queries, k, exclude = change(*embeddings("plain"))
    with pytest.raises(UserError, match=message):
        search(gallery, queries, k, exclude=exclude)
