# SPDX-License-Identifier: MIT
"""What a run leaves for its page: written, filed, checked."""

import dataclasses
import json

import pytest
from extras import extras, picture
from records import make

from fm_bench.errors import UserError
from fm_bench.leaderboard.extras import (
    Extras,
    add_extras,
    check_extras,
    extras_file,
    load_extras,
    remove_extras,
    save_extras,
)
from fm_bench.leaderboard.record import find, load_all, save


@pytest.fixture
def filed(tmp_path):
    """A run's folder, and its record filed with its extras."""
    record = make()
    save(record, tmp_path / "run" / "record.json")
    save_extras(extras(record), picture(), tmp_path / "run" / "record.json")
    path = tmp_path / "records" / "amnet.json"
    save(record, path)
    assert [file.name for file in add_extras(tmp_path / "run", path)] == ["amnet.webp", "amnet.json"]
    return path


def test_what_was_written_is_read_and_is_no_record(filed):
    found, sheet = load_extras(filed)
    assert found == extras(make())
    assert sheet == picture()
    assert extras_file(filed) == filed.parent / "extras" / "amnet.json"
    assert find(filed.parent) == [filed]
    assert load_all(filed.parent)[1] == []
    assert check_extras(filed.parent) == []


def test_a_run_without_extras_is_filed_without(tmp_path):
    save(make(), tmp_path / "run" / "record.json")
    save(make(), tmp_path / "records" / "amnet.json")
    assert add_extras(tmp_path / "run", tmp_path / "records" / "amnet.json") == []
    assert load_extras(tmp_path / "records" / "amnet.json") is None
    assert check_extras(tmp_path / "records") == []


def test_they_are_removed_and_filed_again(filed, tmp_path):
    remove_extras(filed)
    assert load_extras(filed) is None
    assert len(add_extras(tmp_path / "run", filed)) == 2
    assert load_extras(filed)[1] == picture()


def test_an_edited_number_is_found(filed):
    path = extras_file(filed)
    path.write_text(path.read_text().replace("0.125", "0.126"))
    (problem,) = check_extras(filed.parent)
    assert "digest does not fit" in problem
    assert str(path) in problem


def test_other_pictures_or_none_are_found(filed):
    sheet = extras_file(filed).with_suffix(".webp")
    sheet.write_bytes(picture()[:-2] + b"xx")
    assert "not the sheet" in check_extras(filed.parent)[0]
    sheet.unlink()
    assert "could not be read" in check_extras(filed.parent)[0]


def test_extras_of_another_run_and_of_none_are_found(filed):
    save_extras(extras(make(seed=1)), picture(), filed)
    assert "of another run" in check_extras(filed.parent)[0]
    filed.rename(filed.with_name("other.json"))
    assert len(check_extras(filed.parent)) == 2
    assert all("belongs to no record" in problem for problem in check_extras(filed.parent))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 2),
        ("about", "a text"),
        ("about", [3]),
        ("curves", {"main": {"train/loss": [[1, "<b>"]]}}),
        ("curves", {"main": {"train/loss": [[1, float("nan")]]}}),
        ("rates", {"manipulate-1": {"requests": 3}}),
        ("examples", [{"kind": "best"}]),
        ("sheet", {"digest": "", "columns": "1;}", "rows": 1, "width": 1, "height": 1}),
        ("sheet", None),
        ("sheet", {"digest": "", "columns": 1, "rows": 3, "width": 1, "height": 1}),
        ("unknown", 1),
        ("examples_of", None),
    ],
)
def test_what_no_run_writes_is_one_sentence(key, value):
    plain = extras(make()).to_json() | {key: value}
    with pytest.raises(UserError, match="is not what a run wrote"):
        Extras.from_json(json.loads(json.dumps(plain)))


@pytest.mark.parametrize("value", [None, [], "x", {}, {"schema": 1}])
def test_anything_else_is_one_sentence_too(value):
    with pytest.raises(UserError, match="is not what a run wrote"):
        Extras.from_json(value)


def test_every_field_survives():
    found = extras(make())
    assert all(getattr(found, field.name) for field in dataclasses.fields(found))  # nothing is left at its default
    assert Extras.from_json(json.loads(json.dumps(found.to_json()))) == found
