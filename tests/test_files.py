# SPDX-License-Identifier: MIT
"""Files are whole or absent; equal digests mean equal content."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from disk import full

from fm_bench import files
from fm_bench.errors import UserError


def test_replacing_renames_at_the_end_and_keeps_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "array.npz"
    with files.replacing(path) as temporary:
        assert temporary.suffix == ".npz"
        assert temporary.parent == path.parent
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["array.npz"]


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON compliant"), files.replacing(path) as temporary:
        json.dump(["half", float("inf")], temporary.open("w"), allow_nan=False)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with (
        pytest.raises(UserError, match=r"record\.json could not be written \(No space left on device\)"),
        files.replacing(path),
    ):
        full()
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_a_folder_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        files.write_text(tmp_path / "runs" / "record.json", "")


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    plain, written = tmp_path / "plain", tmp_path / "written"
    plain.touch()
    files.write_text(written, "x")
    assert written.stat().st_mode == plain.stat().st_mode


def test_json_refuses_numbers_that_are_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())
    files.write_json(tmp_path / "a.json", {"x": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 2]}


def test_digest_tells_type_shape_and_content_apart() -> None:
    array = np.arange(6, dtype=np.int16)
    parts = [
        array,
        array.astype(np.int32),
        array.reshape(2, 3),
        array[::-1],
        array[:0],
        np.zeros((3, 0)),
        [0, 1, 2, 3, 4, 5],
        "0",
        0,
    ]
    assert len({files.digest(part) for part in parts}) == len(parts)
    assert files.digest([1], [2]) != files.digest([1, 2])


def test_digest_sees_content_not_layout() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert files.digest(np.asfortranarray(array)) == files.digest(array)
    assert files.digest(np.repeat(array, 2, axis=1)[:, ::2]) == files.digest(array)
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1})


def test_tensors_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_torch(tmp_path / "x.pt", {"a": torch.ones(2)})

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        files.write_torch(tmp_path / "x.pt", {"a": torch.zeros(2)})
    assert torch.equal(torch.load(tmp_path / "x.pt", weights_only=True)["a"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]


def test_cache_dir_obeys_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FM_BENCH_CACHE", raising=False)
    assert files.cache_dir() == tmp_path / "fm-bench"
    monkeypatch.setenv("FM_BENCH_CACHE", str(tmp_path / "mine"))
    assert files.cache_dir() == tmp_path / "mine"


@pytest.mark.parametrize("text", ["~nobody-of-this-name/data", "a" * 300])
def test_what_cannot_be_a_path_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"cannot be a path \(.*\): check it\.$"):
        files.user_path(text)


def test_a_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.user_path("~/data") == tmp_path / "data"
    assert files.user_path("nowhere/yet") == Path("nowhere/yet")
