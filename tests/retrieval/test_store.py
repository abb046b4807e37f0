# SPDX-License-Identifier: MIT
"""A store is whole or not there."""

import json

import numpy as np
import pytest

from fm_bench.errors import UserError
from fm_bench.retrieval import EmbeddingStore
from fm_bench.retrieval import store as store_module

VECTORS = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    return EmbeddingStore(tmp_path / "run" / "gallery")


def fill(store, key="a", vectors=VECTORS):
    writer = store.create(*vectors.shape, key)
    writer.write(np.arange(len(vectors)), vectors)
    return writer.finish()


def test_written_by_position_and_memory_mapped(store):
    writer = store.create(10, 4, "a")
    for part in (np.arange(9, -1, -2), np.arange(0, 10, 2)):
        assert not store.ready("a")
        writer.write(part, VECTORS[part])
    vectors = writer.finish()
    assert isinstance(vectors, np.memmap)
    assert not vectors.flags.writeable
    np.testing.assert_array_equal(store.open("a"), VECTORS)
    store.verify()
    assert sorted(path.suffix for path in store.path.parent.iterdir()) == [".json", ".npy"]


def test_key_decides(store):
    assert not store.ready("a")
    fill(store, "a")
    assert store.ready("a")
    assert not store.ready("b")
    with pytest.raises(UserError, match="other weights"):
        store.open("b")
    fill(store, "b", VECTORS + 1)
    np.testing.assert_array_equal(store.open("b"), VECTORS + 1)
    assert len(list(store.path.parent.glob("*.npy"))) == 1  # what nobody can open any more is gone


def test_not_a_number_is_refused(store):
    writer, vectors = store.create(10, 4, "a"), VECTORS.copy()
    vectors[[3, 7], 1] = np.nan, np.inf
    with pytest.raises(UserError, match=r"2 of 10 embeddings .* first at position 3"):
        writer.write(np.arange(10), vectors)
    writer.discard()
    assert not list(store.path.parent.iterdir())


def test_missing_rows_are_counted(store):
    writer = store.create(10, 4, "a")
    writer.write(np.array([0, 1, 5]), VECTORS[[0, 1, 5]])
    with pytest.raises(UserError, match=r"7 of 10 embeddings .* the first is 2"):
        writer.finish()
    assert not store.ready("a")


def test_truncated_file_is_not_ready(store):
    fill(store)
    (file,) = store.path.parent.glob("*.npy")
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size - 8)
    assert not store.ready("a")
    with pytest.raises(UserError, match=f"{file.name} is damaged"):
        store.open("a")
    fill(store)
    assert store.ready("a")


def test_changed_bytes_are_noticed(store):
    fill(store)
    (file,) = store.path.parent.glob("*.npy")
    with file.open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x01")
    with pytest.raises(UserError, match="changed after it was written"):
        store.verify()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"key": "a"}', json.dumps({"key": "a", "file": "../x.npy", "shape": [1], "digest": ""})]
)
def test_damaged_marker(store, text):
    store.path.parent.mkdir()
    store.marker.write_text(text)
    with pytest.raises(UserError, match="not a marker"):
        store.open()


def test_two_writers_at_once(store):
    first, second = store.create(10, 4, "a"), store.create(10, 4, "a")
    first.write(np.arange(6), VECTORS[:6])
    second.write(np.arange(10), VECTORS)
    second.finish()
    first.write(np.arange(6, 10), VECTORS[6:])
    first.finish()
    np.testing.assert_array_equal(store.open("a"), VECTORS)
    store.verify()
    assert len(list(store.path.parent.iterdir())) == 2


def test_writers_with_one_token_fill_one_store(store):
    first, second = store.create(10, 4, "a", token="t"), store.create(10, 4, "a", token="t")
    first.write(np.arange(0, 10, 2), VECTORS[::2])
    second.write(np.arange(1, 10, 2), VECTORS[1::2])
    np.testing.assert_array_equal(first.finish(), VECTORS)
    np.testing.assert_array_equal(second.finish(), VECTORS)  # somebody else was faster: nothing to do


def test_full_disk_is_said_before_anything_is_lost(store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "posix_fallocate", full)
    with pytest.raises(UserError, match="No space left on device"):
        store.create(10, 4, "a")
    assert not list(store.path.parent.iterdir())
