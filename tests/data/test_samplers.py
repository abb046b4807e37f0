# SPDX-License-Identifier: MIT
"""Epochs are seeded, triplets are true, and processes share every batch."""

import itertools
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from catalogues import random_labels
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_bench.data import samplers
from fm_bench.data.samplers import (
    DealtBatches,
    GlobalBatches,
    LabelledSampler,
    QuadrupletSampler,
    TripletSampler,
    per_value_rows,
)
from fm_bench.errors import UserError

SIZES = (3, 2, 4)


def partners(labels: Any, changes: tuple[int, ...]) -> dict[int, set[tuple[int, ...]]]:
    """For each row that has one: the sets of attributes in which a row with the same labelled set differs from it.

    Where nothing may differ, some row must be known to differ, since it is the negative.
    """
    found: dict[int, set[tuple[int, ...]]] = {}
    opposite = [((one != labels) & (one >= 0) & (labels >= 0)).any() for one in labels]
    for i, one in enumerate(labels):
        for j, other in enumerate(labels):
            if i == j or ((one == other).all() and not opposite[i]):
                continue
            differs = tuple(np.flatnonzero(one != other).tolist())
            if ((one < 0) == (other < 0)).all() and len(differs) in changes:
                found.setdefault(i, set()).add(differs)
    return found


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(*(st.integers(-1, size - 1) for size in SIZES)), min_size=1, max_size=15),
    changes=st.sampled_from([(1,), (2,), (1, 2), (0,), (0, 1)]),
)
def test_triplets_are_true(rows: Any, changes: tuple[int, ...]) -> None:
    labels = np.array(rows, dtype=np.int16)
    expected = partners(labels, changes)
    if not expected:
        with pytest.raises(UserError, match="training images has a partner"):
            TripletSampler(labels, changes=changes, seed=0)
        return
    sampler = TripletSampler(labels, changes=changes, seed=0)
    assert sorted(sampler.table(0)[:, 0].tolist()) == sorted(expected)
    for reference, positive, negative in sampler.table(1):
        one, target, other = labels[reference], labels[positive], labels[negative]
        assert reference != positive
        assert tuple(np.flatnonzero(one != target).tolist()) in expected[reference]
        assert ((one < 0) == (target < 0)).all(), "the positive must carry the whole edited label vector"
        assert ((target != other) & (target >= 0) & (other >= 0)).any(), "the negative must be known to differ"


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(*(st.integers(-1, size - 1) for size in SIZES)), min_size=1, max_size=15))
def test_quadruplets_are_triplets_with_a_twin_of_the_positive(rows: Any) -> None:
    labels = np.array(rows, dtype=np.int16)
    if not partners(labels, (1, 2)):
        return
    sampler = QuadrupletSampler(labels, changes=(1, 2), seed=0, triplets=40)
    reference, positive, twin, negative = sampler.table(2).T
    assert np.array_equal(labels[positive], labels[twin]), "missing labels included"
    alone = np.array([(labels == labels[one]).all(axis=1).sum() == 1 for one in positive])
    assert np.array_equal(positive == twin, alone)
    known = (labels[positive] >= 0) & (labels[negative] >= 0)
    assert ((labels[positive] != labels[negative]) & known).any(axis=1).all()
    assert (labels[reference] != labels[positive]).any(axis=1).all()


def test_every_other_picture_is_as_often_the_twin() -> None:
    labels = np.array([[0, 0]] * 4 + [[0, 1]], dtype=np.int16)
    table = QuadrupletSampler(labels, changes=(1,), seed=0, triplets=30_000).table(0)
    table = table[table[:, 1] == 2]
    counts = np.bincount(table[:, 2], minlength=5)
    assert counts[2] == counts[4] == 0
    assert (abs(counts[[0, 1, 3]] - len(table) / 3) < 0.1 * len(table)).all()


@pytest.mark.parametrize("changes", [(), (-1,), (1, 3)])
def test_other_numbers_of_changes_are_refused(changes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="0, 1 or 2 attributes"):
        TripletSampler(np.array([[0, 0], [0, 1]], dtype=np.int16), changes=changes, seed=0)


def test_attributes_then_vectors_then_images_are_even() -> None:
    """Reference (0, 0): attribute 0 has one other value, on 3 images; attribute 1 has four, on one image each."""
    labels = np.array([[0, 0]] + [[1, 0]] * 3 + [[0, v] for v in (1, 2, 3, 4)], dtype=np.int16)
    sampler = TripletSampler(labels, changes=(1,), seed=1, triplets=8 * 4000)
    table = sampler.table(0)
    of_first = table[table[:, 0] == 0]
    assert len(of_first) == 4000
    counts = np.bincount(of_first[:, 1], minlength=8)
    assert abs(counts[1:4].sum() - 2000) < 150
    assert abs(counts[1:4] - 2000 / 3).max() < 110
    assert abs(counts[4:] - 500).max() < 110


def test_one_and_two_changes_are_even() -> None:
    labels = np.array(list(itertools.product(*map(range, SIZES))), dtype=np.int16)
    table = TripletSampler(labels, changes=(2, 1), seed=1, triplets=6000).table(0)
    changed = (labels[table[:, 0]] != labels[table[:, 1]]).sum(axis=1)
    assert abs(np.bincount(changed)[1:] - 3000).max() < 200
    pairs = Counter(tuple(np.flatnonzero(row)) for row in labels[table[:, 0]] != labels[table[:, 1]])
    assert all(abs(count - 1000) < 150 for count in pairs.values())


def test_nothing_and_every_attribute_are_even() -> None:
    labels = np.repeat(np.array(list(itertools.product(*map(range, SIZES))), dtype=np.int16), 2, axis=0)
    table = TripletSampler(labels, changes=(0, 1), seed=1, triplets=8000).table(0)
    changed = Counter(tuple(np.flatnonzero(row)) for row in labels[table[:, 0]] != labels[table[:, 1]])
    assert set(changed) == {(), (0,), (1,), (2,)}
    assert all(abs(count - 2000) < 200 for count in changed.values())
    assert (table[:, 0] != table[:, 1]).all()


def test_a_lonely_negative_is_found_where_nothing_changes() -> None:
    labels = np.array([[0, 0]] * 4000 + [[1, 0]], dtype=np.int16)
    table = TripletSampler(labels, changes=(0,), seed=0).table(0)
    assert len(table) == 4000
    assert (table[:, 2] == 4000).all()
    with pytest.raises(UserError, match="exactly 0 of"):
        TripletSampler(labels[:4000], changes=(0,), seed=0)


def test_an_epoch_is_a_pure_function_of_seed_and_epoch() -> None:
    labels = random_labels(200, SIZES, 0.1, seed=0)
    one, other = (TripletSampler(labels, changes=(1, 2), seed=3) for _ in range(2))
    other.table(0)
    assert np.array_equal(one.table(5), other.table(5))
    assert not np.array_equal(one.table(5), one.table(6))
    assert not np.array_equal(one.table(5), TripletSampler(labels, changes=(1, 2), seed=4).table(5))
    ordered = LabelledSampler(np.arange(50), seed=3)
    assert np.array_equal(ordered.table(2), LabelledSampler(np.arange(50), seed=3).table(2))
    assert not np.array_equal(ordered.table(2), ordered.table(3))
    assert sorted(ordered.table(2)[:, 0].tolist()) == list(range(50))


def test_references_repeat_only_after_all_were_used() -> None:
    labels = random_labels(100, SIZES, 0.0, seed=0)
    usable = len(TripletSampler(labels, seed=0))
    counts = np.bincount(TripletSampler(labels, seed=0, triplets=2 * usable + 7).table(0)[:, 0])
    assert set(counts[counts > 0].tolist()) == {2, 3}
    assert len(set(TripletSampler(labels, seed=0, triplets=10).table(0)[:, 0].tolist())) == 10


def test_without_partners_one_sentence() -> None:
    with pytest.raises(UserError, match=r"none of the 2 training images has a partner .* exactly 1 of"):
        TripletSampler(np.array([[0, 0], [1, 1]], dtype=np.int16), seed=0)
    with pytest.raises(UserError, match="exactly 2 of"):
        TripletSampler(np.array([[0], [1]], dtype=np.int16), changes=(2,), seed=0)


def test_a_lonely_negative_is_found() -> None:
    """Almost everything equals the target: the redraw must not settle for an equal one."""
    labels = np.array([[0, 0]] * 400 + [[1, 0]], dtype=np.int16)
    table = TripletSampler(labels, seed=0, triplets=401).table(0)
    assert (labels[table[:, 1]] != labels[table[:, 2]]).any(axis=1).all()


def test_the_reference_is_seldom_its_own_negative() -> None:
    """Half of the images equal the target; drawing anew finds one of the other half, evenly."""
    labels = np.repeat(np.array([[0, 0], [1, 0]], dtype=np.int16), 20, axis=0)
    table = TripletSampler(labels, seed=0, triplets=4000).table(0)
    assert 0.02 < (table[:, 0] == table[:, 2]).mean() < 0.09


def test_a_large_split_is_drawn_fast() -> None:
    sizes = (16, 19, 5, 17, 4, 14, 17, 10, 10, 8, 12, 19)
    rng = np.random.default_rng(0)
    designs = random_labels(500, sizes, 0.0, seed=0)[rng.integers(500, size=50_000)]
    labels = np.where(rng.random(designs.shape) < 0.15, random_labels(50_000, sizes, 0.05, seed=1), designs)
    begin = time.process_time()
    table = TripletSampler(labels, changes=(1, 2), seed=0).table(0)
    assert time.process_time() - begin < 8
    assert len(table) > 20_000


def test_up_to_so_many_images_of_every_value() -> None:
    labels = random_labels(2000, (2, 40), 0.2, seed=0)
    rows = per_value_rows(labels, 10, seed=0)
    assert np.array_equal(rows, np.unique(rows))
    for column in labels.T:
        available, chosen = (np.bincount(part[part >= 0], minlength=40) for part in (column, column[rows]))
        assert (chosen >= np.minimum(10, available)).all()
    assert len(rows) <= 42 * 10
    assert np.array_equal(rows, per_value_rows(labels, 10, seed=0))
    assert not np.array_equal(rows, per_value_rows(labels, 10, seed=1))
    assert len(per_value_rows(np.full((5, 2), -1, np.int16), 3, seed=0)) == 0


def batches(sampler: Any, monkeypatch: pytest.MonkeyPatch, rank: int = 0, world: int = 1) -> list[Any]:
    monkeypatch.setattr(samplers, "processes", lambda: (rank, world))
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_every_training_batch(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = GlobalBatches(TripletSampler(random_labels(100, SIZES, 0.0, seed=0), seed=0, triplets=50), 16, seed=0)
    sampler.set_epoch(4)
    alone = batches(sampler, monkeypatch)
    shared = [batches(sampler, monkeypatch, rank, world) for rank in range(world)]
    assert [len(draw.pictures) for draw in alone] == [16, 16, 16]
    for i, whole in enumerate(alone):
        assert np.array_equal(np.concatenate([part[i].pictures for part in shared]), whole.pictures)
        assert np.array_equal(np.concatenate([part[i].key for part in shared]), whole.key)


def test_only_a_lone_batch_may_be_small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {
        n: [len(d.pictures) for d in batches(GlobalBatches(LabelledSampler(np.arange(n), 0), 16, 0), monkeypatch)]
        for n in (5, 16, 31, 32)
    }
    assert sizes == {5: [5], 16: [16], 31: [16], 32: [16, 16]}


def test_augmentation_keys_never_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = random_labels(100, SIZES, 0.0, seed=0)
    seen: list[int] = []
    for source in (TripletSampler(labels, seed=0), LabelledSampler(np.arange(100), seed=0)):
        sampler = GlobalBatches(source, 10, seed=0)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            seen += [key for draw in batches(sampler, monkeypatch) for key in draw.key.ravel().tolist()]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_whole_evaluation_batches_are_dealt_out(even: bool, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = DealtBatches(45, 10, even=even)
    alone = batches(sampler, monkeypatch)
    assert np.concatenate(alone).tolist() == list(range(45))
    dealt = [batches(sampler, monkeypatch, rank, world) for rank in range(world)]
    whole = {tuple(batch) for batch in alone}
    assert {tuple(batch) for part in dealt for batch in part} == whole
    counts = [len(part) for part in dealt]
    assert (len(set(counts)) == 1) if even else (sum(counts) == 5)
    assert list(DealtBatches(0, 10, even=even)) == []
