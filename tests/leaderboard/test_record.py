# SPDX-License-Identifier: MIT
import dataclasses
import json
import math
from pathlib import Path

import pytest
from disk import full
from records import make

from fm_bench.errors import UserError
from fm_bench.leaderboard.record import Record, load, load_all, save
from fm_bench.leaderboard.schema import LATER


def test_a_saved_record_is_read_back_equal(tmp_path):
    record = make("amnet/no-memory", seed=2, notes=["a caveat"])
    save(record, tmp_path / "a" / "record.json")
    assert load(tmp_path / "a" / "record.json") == record
    assert record.name == "amnet/no-memory"
    assert json.loads((tmp_path / "a" / "record.json").read_text())["schema"] == 1


def test_records_from_before_there_were_other_indexes_are_of_exact_search(tmp_path):
    value = make(search={"index": "HNSW32,Flat", "protocols": {"search": {"recall@50": 0.98}}}).to_json()
    assert Record.from_json(value).index == "HNSW32,Flat"
    del value["search"]
    (tmp_path / "record.json").write_text(json.dumps(value))
    assert load(tmp_path / "record.json").index == "exact"
    assert load(tmp_path / "record.json").search == {}


def _set(value, path, new):
    *above, last = path
    for key in above:
        value = value[key]
    value[last] = new


@pytest.mark.parametrize(
    ("path", "new", "named"),
    [
        (["schema"], 2, "schema version is 2"),
        (["seed"], "0", "seed is a text"),
        (["seed"], True, "seed is true or false"),
        (["seed"], -1, "seed is -1"),
        (["mode"], "fast", "mode is 'fast'"),
        (["method"], "", "method is ''"),
        (["gallery"], 0, "gallery is 0"),
        (["dim"], 2.5, "dim is a number"),
        (["dim"], 10**400, "dim is 1000"),
        (["parameters"], 10**16, "parameters is 1e+16, which is beyond what runs measure"),
        (["seconds", "train"], 1e308, "seconds.train is 1e+308, which is beyond"),
        (["metrics", "search", "ndcg@20", "high"], 1e308, "metrics.search.ndcg@20.high is 1e+308, which is beyond"),
        (["config", "hyper"], [1], "config.hyper is a list instead of an object"),
        (["config", "fold"], "first", "config.fold is a text instead of a whole number"),
        (["config", "evaluation"], {"also": [{}]}, "config.evaluation.also[0] is {}"),
        (["metrics", "search", "ndcg@20"], 0.5, "metrics.search.ndcg@20 is a number instead of an object"),
        (["metrics", "search", "ndcg@20", "value"], math.nan, "metrics.search.ndcg@20.value is nan"),
        (["metrics", "search", "ndcg@20", "low"], math.inf, "metrics.search.ndcg@20.low is inf"),
        (["metrics", "search", "ndcg@20", "low"], 10**400, "metrics.search.ndcg@20.low is 1000"),
        (["metrics", "search", "ndcg@20", "low"], 0.99, "metrics.search.ndcg@20 has its value"),
        (["metrics", "search", "ndcg@20", "high"], 0.01, "metrics.search.ndcg@20 has its value"),
        (["metrics", "search", "ndcg@20"], {"value": 0.5, "low": 0.4}, "metrics.search.ndcg@20 has the keys"),
        (["metrics", "search", "ndcg@20"], {"low": 0.4}, "metrics.search.ndcg@20.value is missing"),
        (["metrics", "other"], {}, "metrics names"),
        (["by_attribute", "other"], {}, "by_attribute names ['other']"),
        (["curves", "search", "k"], [1, 5], "curves.search has 2 values of k and 6"),
        (["curves", "search", "k"], [5, 1, 10, 20, 30, 50], "curves.search.k does not grow"),
        (["tied", "search"], 1.5, "tied.search is 1.5"),
        (["seconds", "train"], -1.0, "seconds.train is -1.0"),
        (["query_ms"], "fast", "query_ms is a text"),
        (["config", "model", "lr"], math.nan, "config.model.lr is nan"),
        (["code"], {"version": "1"}, "code.digest is missing"),
        (["tuning"], {"trials": []}, "tuning.images is missing"),
        (["tuning"], {"trials": [3], "images": 9}, "tuning.trials[0] is a whole number instead of an object"),
        (["search"], {"recall@50": 0.9}, "search.index is missing"),
        (["search"], {"index": ""}, "search.index is ''"),
        (["search"], {"index": "HNSW32,Flat"}, "search.protocols is missing"),
        (["search"], {"index": "Flat", "protocols": {"search": {"recall@50": "high"}}}, "recall@50 is a text"),
        (["notes"], "a note", "notes is a text instead of a list"),
        (["notes"], [1], "notes[0] is a whole number"),
        (["finished"], "yesterday", "finished is 'yesterday'"),
        (["surprise"], 1, "the key 'surprise' is not known"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(tmp_path, path, new, named):
    value = make().to_json()
    value = json.loads(json.dumps(value))
    _set(value, path, new)
    file = tmp_path / "record.json"
    file.write_text(json.dumps(value))
    with pytest.raises(UserError) as error:
        load(file)
    assert str(file) in str(error.value)
    assert named in str(error.value)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Record) if field.name not in LATER])
def test_every_key_is_required(key):
    value = make().to_json()
    del value[key]
    with pytest.raises(UserError, match="schema version is None" if key == "schema" else f"the key '{key}' is missing"):
        Record.from_json(value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "version https://git-lfs.github.com/spec/v1", "[" * 100_000, "\x00"]
)
def test_a_file_that_is_no_record_is_a_users_error(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match=r"record\.json"):
        load(tmp_path / "record.json")


def test_bytes_that_are_no_text_and_a_missing_file_are_users_errors(tmp_path):
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00")
    for name in ("record.json", "none.json"):
        with pytest.raises(UserError, match=name):
            load(tmp_path / name)


def test_chance_needs_no_interval_and_rounding_is_tolerated():
    record = make()
    metrics = json.loads(json.dumps(record.metrics))
    metrics["search"]["mrr@1000"] = {"value": 0.5, "low": 0.5 + 1e-9, "high": 0.6}
    changed = make(metrics=metrics)
    assert "low" not in changed.metrics["search"]["chance@20"]


def test_another_run_is_never_overwritten(tmp_path):
    path = tmp_path / "record.json"
    save(make(seed=0), path)
    before = path.read_bytes()
    with pytest.raises(UserError, match="another run"):
        save(make(seed=1), path)
    path.with_name("notes.json").write_text("mine")
    with pytest.raises(UserError, match=r"notes\.json"):
        save(make(seed=1), path.with_name("notes.json"))
    assert path.read_bytes() == before
    assert path.with_name("notes.json").read_text() == "mine"
    save(dataclasses.replace(make(seed=0), finished="2027-01-01T00:00:00"), path)  # the same run, evaluated again
    assert load(path).finished == "2027-01-01T00:00:00"


def test_an_invalid_record_is_not_written(tmp_path):
    with pytest.raises(UserError, match="query_ms is nan"):
        save(dataclasses.replace(make(), query_ms=math.nan), tmp_path / "record.json")
    with pytest.raises(UserError, match=r"config\.path is a PosixPath"):
        save(dataclasses.replace(make(), config={"path": Path("x")}), tmp_path / "record.json")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_users_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="No space left"):
        save(make(), tmp_path / "record.json")
    assert not list(tmp_path.iterdir())


def test_load_all_reports_damage_and_keeps_the_rest(tmp_path):
    first, second = make(seed=0), make(seed=1)
    save(first, tmp_path / "a" / "b" / "record.json")
    save(second, tmp_path / "filed.json")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "record.json").write_text("{")
    (tmp_path / ".record-being-written.json").write_text("{")
    (tmp_path / "a" / "config.json").write_text("{}")
    records, problems = load_all(tmp_path)
    assert {record.fingerprint for record in records} == {first.fingerprint, second.fingerprint}
    assert len(problems) == 1
    assert str(tmp_path / "c" / "record.json") in problems[0]
    with pytest.raises(UserError, match="not a folder"):
        load_all(tmp_path / "nowhere")


def test_a_run_found_twice_counts_once_and_the_newer_wins(tmp_path):
    record = make()
    save(record, tmp_path / "a" / "record.json")
    newer = dataclasses.replace(record, finished="2027-01-01T00:00:00+00:00")
    save(newer, tmp_path / "b" / "record.json")
    save(record, tmp_path / "c" / "record.json")
    assert load_all(tmp_path) == ([newer], [])
