# SPDX-License-Identifier: MIT
import sys

import numpy as np
import pytest

from fm_bench.errors import UserError
from fm_bench.retrieval.index import ExactIndex
from fm_bench.retrieval.milvus import MilvusIndex
from fm_bench.retrieval.openers import check_index, opener

N, D, R, K = 300, 8, 12, 10


@pytest.fixture(scope="module")
def installed():
    pytest.importorskip("pymilvus", reason="the extra 'milvus' is not installed")
    pytest.importorskip("milvus_lite", reason="the extra 'milvus' is not installed")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("milvus") / "below" / "gallery.db")


@pytest.fixture(scope="module")
def gallery() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, D), dtype=np.float32)


def test_what_milvus_finds_is_the_exact_ranking_and_is_used_again(installed, place, gallery):
    keys, own = np.random.default_rng(1).permutation(N), np.arange(R)
    exact = ExactIndex(gallery, keys=keys, seed=3).search(gallery[:R], K, exclude=own)
    first = MilvusIndex(gallery, keys=keys, seed=3, uri=place, kind="FLAT")
    found = first.search(gallery[:R], K, exclude=own)
    assert np.array_equal(found.ids, exact.ids)
    assert np.array_equal(found.distances, exact.distances)
    assert not first.reused
    assert first.size() > 0
    again = MilvusIndex(gallery, keys=keys, seed=3, uri=place, kind="FLAT")
    assert again.reused
    assert np.array_equal(again.search(gallery[:R], K, exclude=own).ids, exact.ids)


def test_other_vectors_never_meet(installed, place, gallery):
    other = MilvusIndex(gallery[::-1].copy(), uri=place, kind="FLAT")
    assert not other.reused
    assert other.search(gallery[:1], 1).ids.tolist() == [[N - 1]]


def test_a_half_filled_collection_is_filled_anew(installed, place, gallery):
    half = gallery * np.float32(2)
    index = MilvusIndex(half, uri=place, kind="FLAT")
    index._client.delete(index.name, ids=list(range(N // 2)))
    again = MilvusIndex(half, uri=place, kind="FLAT")
    assert not again.reused
    assert again.search(half[:1], 1).ids.tolist() == [[0]]


def test_two_runs_may_fill_at_once(installed, place, gallery, monkeypatch):
    vectors, insert = gallery * np.float32(3), MilvusIndex._insert
    inside = []

    def slow(self, name):
        insert(self, name)
        if not inside:  # another run comes, and is through first
            inside.append(1)
            inside.append(MilvusIndex(vectors, uri=place, kind="FLAT"))

    monkeypatch.setattr(MilvusIndex, "_insert", slow)
    late = MilvusIndex(vectors, uri=place, kind="FLAT")
    names = [name for name in late._client.list_collections() if name.startswith(late.name)]
    assert names == [late.name]
    assert late.search(vectors[:3], 1).ids.ravel().tolist() == [0, 1, 2]
    assert inside[1].search(vectors[:3], 1).ids.ravel().tolist() == [0, 1, 2]


def test_a_graph_finds_most(installed, place, gallery):
    index = opener(f"milvus:{place}")(gallery, keys=np.arange(N), seed=0)
    found = index.search(gallery, K)
    assert (found.ids == ExactIndex(gallery).search(gallery, K).ids).mean() > 0.9


def test_a_place_that_does_not_answer_is_a_users_error(installed, tmp_path, gallery):
    (tmp_path / "file.db").write_text("not a database")
    with pytest.raises(UserError, match=r"Milvus at .*file\.db"):
        MilvusIndex(gallery, uri=str(tmp_path / "file.db"))


@pytest.mark.parametrize(
    ("index", "complaint"),
    [("milvus:", "no place of Milvus"), ("milvus:gallery.txt", "ends in .db"), ("milvus/TREE:g.db", "TREE")]
    + [(f"milvus:{uri}", "no place of Milvus") for uri in ("http:/x", "http://", "http:///x", "http:x.db")]
    + [(f"milvus:{uri}", "MILVUS_TOKEN") for uri in ("http://me:secret@host:1", "tcp://token@host")],
)
def test_what_is_no_place_is_said(index, complaint):
    with pytest.raises(UserError, match=complaint) as error:
        check_index(index, D, N)
    assert "secret" not in str(error.value)


def test_without_the_extra_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(UserError, match=r"fm-bench\[milvus\]"):
        check_index("milvus:gallery.db", D, N)
