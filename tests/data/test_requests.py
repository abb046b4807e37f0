# SPDX-License-Identifier: MIT
"""Mining finds exactly the feasible requests, and draws from them fairly."""

import itertools
import json
import pickle
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogues import catalogue, random_labels
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_bench.catalog import Catalog
from fm_bench.data import neighbours, requests
from fm_bench.data.requests import Requests, exclusions, join, mine
from fm_bench.errors import UserError

SIZES = (3, 2, 4)


def brute_force(catalog: Catalog, queries: Any, gallery: Any, changes: int) -> set[tuple[Any, ...]]:
    """Every feasible request, by trying all of them on all gallery images."""
    found = set()
    for q in queries:
        y = catalog.labels[q].tolist()
        labelled = [m for m, v in enumerate(y) if v >= 0]
        if len(labelled) < 2:
            continue
        for attributes in itertools.combinations(labelled, changes):
            for values in itertools.product(*(range(catalog.schema.sizes[m]) for m in attributes)):
                if any(y[m] == v for m, v in zip(attributes, values, strict=True)):
                    continue
                target = list(y)
                for m, v in zip(attributes, values, strict=True):
                    target[m] = v
                if any(g != q and all(catalog.labels[g, m] == target[m] for m in labelled) for g in gallery):
                    found.add((int(q), attributes, values, tuple(target)))
    return found


def as_set(mined: Requests) -> set[tuple[Any, ...]]:
    rows = []
    for q, attribute, value, target in zip(mined.query, mined.attribute, mined.value, mined.target, strict=True):
        n = int((attribute >= 0).sum())
        rows.append((int(q), tuple(attribute[:n].tolist()), tuple(value[:n].tolist()), tuple(target.tolist())))
    assert len(set(rows)) == len(rows), "a request was drawn twice"
    return set(rows)


def mine_all(
    catalog: Catalog, queries: Any, gallery: Any, changes: int, attributes: Any = None
) -> set[tuple[Any, ...]]:
    try:
        mined = mine(catalog, queries, gallery, changes=changes, limit=None, cap=None, seed=0, attributes=attributes)
        return as_set(mined)
    except UserError:
        return set()


@st.composite
def situations(draw: st.DrawFn) -> tuple[Catalog, Any, Any, int]:
    rows = draw(st.integers(1, 14))
    vector = st.tuples(*(st.integers(-1, size - 1) for size in SIZES))
    catalog = catalogue(draw(st.lists(vector, min_size=rows, max_size=rows)), SIZES)
    numbers = st.lists(st.integers(0, rows - 1), min_size=1, max_size=rows)
    return catalog, np.array(draw(numbers)), np.unique(draw(numbers)), draw(st.integers(0, 2))


@pytest.mark.parametrize("join_cost", [0, neighbours.JOIN_COST])
@pytest.mark.parametrize("project_from", [1, 1000])
@settings(max_examples=150, deadline=None)
@given(situation=situations())
def test_exactly_the_feasible_requests_are_found(join_cost: int, project_from: int, situation: Any) -> None:
    """Both ways of finding neighbours, with and without distinct gallery vectors, agree with trying everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "JOIN_COST", join_cost)
        patch.setattr(requests, "PROJECT_FROM", project_from)
        assert mine_all(*situation) == brute_force(*situation)


@pytest.mark.parametrize("join_cost", [0, neighbours.JOIN_COST])
@settings(max_examples=100, deadline=None)
@given(situation=situations(), allowed=st.sets(st.integers(0, len(SIZES) - 1)))
def test_only_the_given_attributes_are_changed(join_cost: int, situation: Any, allowed: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "JOIN_COST", join_cost)
        wanted = {request for request in brute_force(*situation) if set(request[1]) <= allowed}
        assert mine_all(*situation, attributes=sorted(allowed)) == wanted


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("changes", [0, 1, 2])
@pytest.mark.parametrize("join_cost", [0, 10**9])
def test_larger_catalogues_agree_too(missing: float, changes: int, join_cost: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(neighbours, "JOIN_COST", join_cost)
    monkeypatch.setattr(neighbours, "JOIN_BLOCK", 7)
    monkeypatch.setattr(neighbours, "SCAN_CELLS", 500)
    sizes = (4, 3, 2, 3)
    catalog = catalogue(random_labels(150, sizes, missing, seed=3), sizes)
    queries, gallery = np.arange(0, 60), np.arange(20, 150)
    assert mine_all(catalog, queries, gallery, changes) == brute_force(catalog, queries, gallery, changes)


def test_a_small_case_by_hand() -> None:
    catalog = catalogue([[0, 0, 0], [1, 0, 0], [0, 1, -1], [0, 1, 3], [2, -1, -1], [0, 0, 0]], SIZES)
    everything = np.arange(6)
    # Row 4 has one label only and asks nothing; row 2 may differ from row 3 in what it does not know.
    assert {r[:3] for r in mine_all(catalog, everything, everything, 1)} == {
        (0, (0,), (1,)),
        (1, (0,), (0,)),
        (2, (1,), (0,)),
        (5, (0,), (1,)),
    }
    # Search: rows 0 and 5 find each other, row 2 finds row 3; row 3 would only find itself.
    assert {r[0] for r in mine_all(catalog, everything, everything, 0)} == {0, 2, 5}
    # Two changes: row 3 is the only answer to rows 0 and 5, which it may ask for in turn.
    assert {r[:3] for r in mine_all(catalog, everything, everything, 2)} == {
        (0, (1, 2), (1, 3)),
        (5, (1, 2), (1, 3)),
        (3, (1, 2), (0, 0)),
        (2, (0, 1), (1, 0)),
    }


def test_the_own_image_is_no_answer_to_a_search_but_a_copy_is() -> None:
    catalog = catalogue([[0, 0, 0], [1, 1, 1], [1, 1, 1]], SIZES)
    assert {r[0] for r in mine_all(catalog, np.arange(3), np.arange(3), 0)} == {1, 2}
    assert {r[0] for r in mine_all(catalog, np.array([1]), np.array([0, 1]), 0)} == set()
    assert {r[0] for r in mine_all(catalog, np.array([1]), np.array([0, 2]), 0)} == {1}


def test_cap_and_limit_spread_over_pictures() -> None:
    catalog = catalogue(random_labels(300, SIZES, 0.0, seed=1), SIZES)
    rows = np.arange(300)
    capped = mine(catalog, rows, rows, changes=1, limit=None, cap=4, seed=5)
    assert max(Counter(capped.query.tolist()).values()) == 4
    assert as_set(capped) <= mine_all(catalog, rows, rows, 1)
    few = mine(catalog, rows, rows, changes=1, limit=200, cap=4, seed=5)
    assert len(few) == len(set(few.query.tolist())) == 200
    assert np.array_equal(few.query, capped.query[:200])
    assert np.array_equal(few.target, capped.target[:200])
    assert len(mine(catalog, rows, rows, changes=1, limit=700, cap=4, seed=5)) == 700


@pytest.mark.parametrize("changes", [0, 1, 2])
@pytest.mark.parametrize("limit", [40, None])
def test_the_division_of_work_and_the_order_of_rows_change_nothing(changes: int, limit: Any, monkeypatch: Any) -> None:
    catalog = catalogue(random_labels(400, SIZES, 0.15, seed=2), SIZES)
    rows = np.arange(400)
    before = mine(catalog, rows, rows, changes=changes, limit=limit, seed=9)
    monkeypatch.setattr(requests, "FIRST_CHUNK", 1)
    monkeypatch.setattr(neighbours, "JOIN_BLOCK", 3)
    monkeypatch.setattr(neighbours, "SCAN_CELLS", 1)
    monkeypatch.setattr(requests, "PROJECT_FROM", 5)
    after = mine(catalog, rows[::-1], rows[::-1], changes=changes, limit=limit, seed=9)
    assert after.digest == before.digest
    assert mine(catalog, rows, rows, changes=changes, limit=limit, seed=10).digest != before.digest


@pytest.mark.parametrize("changes", [1, 2])
def test_every_feasible_request_is_equally_likely(changes: int) -> None:
    """The first of a picture's requests, over many seeds, by a chi-squared test; attributes have unequal sizes."""
    sizes = (2, 3, 5)
    vectors = list(itertools.product(*map(range, sizes)))
    catalog = catalogue(vectors, sizes)
    rows = np.arange(len(vectors))
    draws = 2000
    counts: Counter[Any] = Counter()
    for seed in range(draws):
        drawn = mine(catalog, rows[:1], rows, changes=changes, limit=1, seed=seed)
        counts[drawn.attribute[0].tobytes() + drawn.value[0].tobytes()] += 1
    options = {1: 1 + 2 + 4, 2: 1 * 2 + 1 * 4 + 2 * 4}[changes]
    assert len(counts) == options
    expected = draws / options
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi2 < 35  # 99.9 % quantile of chi-squared with 13 degrees of freedom: 34.5


def test_pictures_are_drawn_evenly() -> None:
    catalog = catalogue(list(itertools.product(*map(range, SIZES))), SIZES)
    rows = np.arange(len(catalog))
    counts = np.zeros(len(catalog))
    for seed in range(600):
        counts[mine(catalog, rows, rows, changes=1, limit=4, seed=seed).query] += 1
    assert abs(counts - 100).max() < 45  # 4 of 24 pictures each time: mean 100, deviation 9


def test_nothing_feasible_is_one_sentence() -> None:
    catalog = catalogue([[0, 0, 0], [1, 1, 1]], SIZES)
    with pytest.raises(UserError, match=r"^no feasible 1-attribute request in the test split of 2 images: "):
        mine(catalog, np.arange(2), np.arange(2), changes=1, limit=5, seed=0)
    with pytest.raises(UserError, match="no feasible 0-attribute request"):
        mine(catalog, np.array([0]), np.empty(0, np.int64), changes=0, limit=5, seed=0)
    with pytest.raises(ValueError, match="0, 1 or 2"):
        mine(catalog, np.arange(2), np.arange(2), changes=3, limit=5, seed=0)


def test_more_label_vectors_than_64_bits() -> None:
    sizes = (1000,) * 8
    labels = np.zeros((50, 8), np.int64)
    labels[:, 7] = np.arange(50)
    labels[0, :] = 999
    catalog = catalogue(labels, sizes)
    found = mine(catalog, np.arange(50), np.arange(50), changes=1, limit=None, cap=None, seed=0)
    assert len(found) == 49 * 48
    assert 0 not in found.query
    # In a code that wrapped around, the first of thirty columns would have been multiplied by a multiple of 2^64.
    wide = np.random.default_rng(0).integers(0, 1000, (1, 30)).repeat(1000, axis=0)
    wide[:, 0] = np.arange(1000)
    wide[500:, 1:] = (wide[500:, 1:] + np.arange(500)[:, None]) % 1000
    codes = neighbours.codes(np.concatenate([wide, wide[::-1]]), range(30))
    assert len(set(codes.tolist())) == 1000
    assert np.array_equal(codes[:1000], codes[1000:][::-1])


def test_indicator_and_changes() -> None:
    catalog = catalogue(random_labels(80, SIZES, 0.1, seed=4), SIZES)
    rows = np.arange(80)
    mined = join([mine(catalog, rows, rows, changes=n, limit=10, seed=0) for n in (0, 1, 2)])
    assert mined.changes.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    indicator = mined.indicator(np.arange(30))
    assert indicator.shape == (30, 9)
    assert indicator.sum(1).tolist() == mined.changes.tolist()
    import torch

    edited = mined.schema.edit(torch.from_numpy(catalog.labels[mined.query]), indicator)
    assert np.array_equal(edited.numpy(), mined.target)
    assert mined.indicator(np.array([29, 3])).sum(1).tolist() == [2, 0]
    assert mined.select(np.array([25, 2])).changes.tolist() == [2, 0]


def test_exclusions_are_positions_in_the_gallery() -> None:
    catalog = catalogue(random_labels(60, SIZES, 0.0, seed=4), SIZES)
    mined = mine(catalog, np.arange(0, 40), np.arange(60), changes=1, limit=None, seed=0)
    gallery = np.random.default_rng(0).permutation(np.arange(10, 60))
    excluded = exclusions(mined, gallery)
    for query, place in zip(mined.query, excluded, strict=True):
        assert (place == -1) if query < 10 else (gallery[place] == query)
    assert (exclusions(mined, np.empty(0, np.int64)) == -1).all()


def some_requests() -> Requests:
    catalog = catalogue(random_labels(60, SIZES, 0.1, seed=4), SIZES)
    rows = np.arange(60)
    return join([mine(catalog, rows, rows, changes=n, limit=20, seed=0) for n in (0, 1, 2)])


def test_the_file_gives_the_same_requests_without_pickles(tmp_path: Path) -> None:
    mined = some_requests()
    mined.save(tmp_path / "requests.npz")
    loaded = Requests.load(tmp_path / "requests.npz")
    assert loaded.digest == mined.digest
    assert as_set(loaded) == as_set(mined)
    with np.load(tmp_path / "requests.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
    assert list(tmp_path.iterdir()) == [tmp_path / "requests.npz"]


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("query", -1, "negative"),
        ("target", 9, "outside"),
        ("attribute", 5, "does not exist"),
        ("value", 1, "does not hold|lacks"),
        ("query", None, "digest differs"),
        ("digest", None, "not a request file"),
    ],
)
def test_tampered_files_are_refused(tmp_path: Path, name: str, value: Any, found: str) -> None:
    mined = some_requests()
    mined.save(tmp_path / "requests.npz")
    with np.load(tmp_path / "requests.npz") as arrays:
        columns = {key: arrays[key].copy() for key in arrays.files}
    if name == "digest":
        del columns["digest"]
    elif value is None:
        columns[name] = columns[name][::-1]
        columns["target"] = columns["target"][::1]
    else:
        columns[name].reshape(len(mined), -1)[20, 0] = value if value != 1 else columns["value"][20, 0] ^ 1
    np.savez(tmp_path / "requests.npz", **columns)
    with pytest.raises(UserError, match=found):
        Requests.load(tmp_path / "requests.npz")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "requests.npz"
    with pytest.raises(UserError, match="is not a request file"):
        Requests.load(path)
    for content in (b"", b"<html>", pickle.dumps({"query": 1}), b"PK\x03\x04 cut"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not a request file"):
            Requests.load(path)
    np.savez(path, schema=np.array(json.dumps([1])), digest=np.array(""))
    with pytest.raises(UserError, match="is not a request file"):
        Requests.load(path)


def test_arrays_of_requests_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        some_requests().target[0] = 0


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_fifty_thousand_rows_are_mined_in_no_time(missing: float) -> None:
    """A quarter of what ``benchmarks/speed/mining.py`` measures (there: at most 10 s), with room to spare."""
    sizes = (16, 19, 5, 17, 4, 14, 17, 10, 10, 8, 12, 19)
    rng = np.random.default_rng(0)
    designs = random_labels(500, sizes, 0.0, seed=0)[rng.integers(500, size=50_000)]
    labels = np.where(rng.random(designs.shape) < 0.15, random_labels(50_000, sizes, missing, seed=1), designs)
    catalog = catalogue(labels, sizes)
    rows = np.arange(50_000)
    begin = time.process_time()
    for changes in (0, 1, 2):
        assert len(mine(catalog, rows, rows, changes=changes, limit=5000, seed=0)) == 5000
    assert time.process_time() - begin < 10
