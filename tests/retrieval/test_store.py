# SPDX-License-Identifier: MIT
"""A store is whole or not there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from disk import full

from fm_bench import files
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


def test_processes_of_one_run_fill_one_store(store):
    first = store.create(10, 4, "a")
    second = store.join(10, 4, "a", first.token)
    second.write(np.arange(1, 10, 2), VECTORS[1::2])
    second.flush()
    first.write(np.arange(0, 10, 2), VECTORS[::2])
    np.testing.assert_array_equal(first.finish(), VECTORS)
    assert len(list(store.path.parent.iterdir())) == 2


def test_a_process_that_cannot_see_the_file_says_so(store):
    store.create(10, 4, "a")
    for dim, token in ((4, "other"), (5, store.create(10, 4, "a").token)):
        with pytest.raises(UserError, match="a folder that all machines share"):
            store.join(10, dim, "a", token)


def test_full_disk_is_said_before_anything_is_lost(store, monkeypatch):
    monkeypatch.setattr(store_module.os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"10 embeddings need 0.00 GB in .* \(No space left on device\): make room"):
        store.create(10, 4, "a")
    assert not list(store.path.parent.iterdir())


@pytest.mark.parametrize("before", [None, VECTORS, VECTORS + 1])
def test_a_marker_that_finds_no_room_leaves_no_vectors_but_those_of_before(store, monkeypatch, before):
    if before is not None:
        fill(store, "before", before)
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        with pytest.raises(UserError, match=r"gallery.json could not be written \(No space left on device\)"):
            fill(store)
    if before is None:
        assert not list(store.path.parent.iterdir())
    else:
        np.testing.assert_array_equal(store.open("before"), before)
        assert len(list(store.path.parent.iterdir())) == 2
    np.testing.assert_array_equal(fill(store), VECTORS)


@pytest.mark.parametrize("damage", ["cut", "gone", "other shape", "other type", "empty", "header"])
def test_a_damaged_store_is_not_ready_and_is_computed_anew(store, damage):
    fill(store)
    (file,) = store.path.parent.glob("*.npy")
    if damage in ("cut", "empty"):
        os.truncate(file, file.stat().st_size - 8 if damage == "cut" else 0)
    elif damage == "gone":
        file.unlink()
    elif damage == "header":
        file.write_bytes(file.read_bytes().replace(b"(10, 4)", b"(10, 4 "))
    else:
        np.save(file, VECTORS[:5] if damage == "other shape" else VECTORS.astype(np.float64))
    assert not store.ready("a")
    assert "run again" in store.damage()
    with pytest.raises(UserError, match="run again"):
        store.open("a")
    fill(store)
    np.testing.assert_array_equal(store.open("a"), VECTORS)
    assert store.damage() == ""


def test_a_store_that_is_not_there_is_not_damaged(store):
    assert store.damage() == ""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(store):
    killed, living = store.create(10, 4, "a"), store.create(10, 4, "a")
    assert len(list(store.path.parent.iterdir())) == 4
    os.close(killed._held)  # as the system does
    fill(store)
    assert len(list(store.path.parent.iterdir())) == 4  # the living one's two, and the finished store
    living.write(np.arange(10), VECTORS)
    np.testing.assert_array_equal(living.finish(), VECTORS)
    assert len(list(store.path.parent.iterdir())) == 2


def test_a_file_that_is_taken_away_is_one_sentence(store):
    writer = store.create(10, 4, "a")
    writer.write(np.arange(10), VECTORS)
    next(store.path.parent.glob(".*.npy")).unlink()
    with pytest.raises(UserError, match="could not be written"):
        writer.finish()


@pytest.mark.parametrize("links", [True, False], ids=["hard link", "copy"])
def test_adopted_vectors_are_those_of_the_other_store(store, tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError(18, "other file system")))
    other = EmbeddingStore(tmp_path / "other" / "gallery")
    fill(other)
    original = next(other.path.parent.glob("*.npy"))
    original.chmod(0o640)
    fill(store, "b", VECTORS + 1)
    store.adopt(other)
    assert original.stat().st_mode & 0o777 == 0o640  # it is another run's file
    np.testing.assert_array_equal(store.open("a"), VECTORS)
    store.verify()
    (file,) = store.path.parent.glob("*.npy")  # what was there before is gone
    assert file.samefile(next(other.path.parent.glob("*.npy"))) == links
    assert not file.is_symlink()
    store.adopt(other)  # once more changes nothing
    assert store.ready("a")
    fill(other, "c", VECTORS + 2)  # removes the other store's name for the vectors
    np.testing.assert_array_equal(store.open("a"), VECTORS)
    assert not list(tmp_path.rglob(".*"))
    with pytest.raises(UserError, match="does not exist"):
        store.adopt(EmbeddingStore(tmp_path / "nothing"))


def test_changed_vectors_are_not_adopted(store, tmp_path):
    other = EmbeddingStore(tmp_path / "other" / "gallery")
    fill(other)
    with next(other.path.parent.glob("*.npy")).open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\x01")
    with pytest.raises(UserError, match="changed after it was written"):
        store.adopt(other)
    assert not store.marker.exists()


def test_a_store_that_is_replaced_while_it_is_opened_is_the_new_one(store, monkeypatch):
    fill(store)
    read = store.facts

    def late():
        monkeypatch.setattr(store, "facts", read)
        facts = read()
        fill(store, "a", VECTORS + 1)  # removes the file that was read of
        return facts

    monkeypatch.setattr(store, "facts", late)
    np.testing.assert_array_equal(store.open("a"), VECTORS + 1)


@pytest.mark.skipif(store_module.fcntl is None, reason="no locks here")
def test_a_file_that_is_taken_for_abandoned_before_it_is_locked_is_made_again(store, monkeypatch):
    flock = store_module.fcntl.flock

    def late(*arguments):
        monkeypatch.setattr(store_module.fcntl, "flock", flock)
        store_module._remove_abandoned(store.path)
        flock(*arguments)

    monkeypatch.setattr(store_module.fcntl, "flock", late)
    writer = store.create(10, 4, "a")
    writer.write(np.arange(10), VECTORS)
    np.testing.assert_array_equal(writer.finish(), VECTORS)
