# SPDX-License-Identifier: MIT
"""Where curves and results go: to files below the run's folder, never into a run's way."""

import json
import struct
from pathlib import Path

import pytest
import torch
from commands import bench
from lightning.pytorch.loggers import CSVLogger
from third_party import write

from fm_bench import loggers
from fm_bench.leaderboard.extras import load_extras
from fm_bench.leaderboard.record import load

pytestmark = pytest.mark.usefixtures("forget")

BRIEF = ["--evaluation.protocols", '["manipulate-1"]', "--evaluation.also", "[]"]


@pytest.fixture(scope="module")
def method(tmp_path_factory) -> str:
    """A method that takes milliseconds."""
    return f"{write(tmp_path_factory.mktemp('method'))}:Colours"


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulated = EventAccumulator(str(folder), size_guidance={"images": 0})
    accumulated.Reload()
    return accumulated


def offline(folder):
    """What an offline run of Weights & Biases holds: its folder, configuration, history, summary and staged files."""
    from wandb.proto.wandb_internal_pb2 import Record

    (place,) = (folder / "wandb").glob("offline-run-*")
    (file,) = place.glob("*.wandb")
    config, history, summary, staged = {}, [], {}, {}
    for data in messages(file.read_bytes()):
        record = Record.FromString(data)
        for update in [*record.run.config.update, *record.config.update]:
            config |= named(update)
        if record.history.item:
            history.append({name: value for item in record.history.item for name, value in named(item).items()})
        for update in record.summary.update:
            summary |= named(update)
        staged |= {content.path: Path(content.local_path) for content in record.artifact.manifest.contents}
    return place, config, history, summary, staged


def named(item):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json)}


def messages(data):
    """The messages of a log in LevelDB's format: blocks of 32 KiB, parts with checksum, length and kind."""
    at, parts = 7, b""  # after the file's own head
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def page_curves(out):
    """The curves that the method's page shows of the run's only stage."""
    extras, _ = load_extras(out / "record.json")
    assert extras.without_curves == {}
    return set(extras.curves["move"])


@pytest.mark.slow
def test_wandb_has_the_configuration_the_curves_and_a_table(tmp_path, monkeypatch, method):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    out = tmp_path / "run"
    assert bench(method, *BRIEF, "--logger", "wandb", "--log-pictures", "3", out=out) == 0
    record = load(out / "record.json")
    place, config, history, summary, staged = offline(out)
    assert config["method"] == "colours"
    assert config["hyper"] == {"dim": 16, "margin": 0.5}
    assert config["fingerprint"] == record.fingerprint
    curve = [row["move-train/rank"] for row in history if "move-train/rank" in row]
    assert curve
    assert all(0 <= value < 3 for value in curve)
    assert page_curves(out) == {"train/loss", "train/rank"}
    assert summary["manipulate-1/accuracy@20"] == record.metrics["manipulate-1"]["accuracy@20"]["value"]
    (path,) = place.glob("files/media/table/results/*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["picture", "request", *(f"result {i}" for i in range(1, 6)), "hits"]
    assert len(table["data"]) == 3
    for row in table["data"]:
        assert ": " in row[1]
        assert len(row[-1].split()) == 5
    pictures = [path for name, path in staged.items() if name.endswith(".png")]
    assert 5 < len(pictures) <= 18
    for path in staged.values():
        assert path.is_relative_to(out)
        assert path.stat().st_size > 0
    assert not loggers._open


@pytest.mark.slow
def test_tensorboard_has_curves_settings_and_an_image_when_asked(tmp_path, method):
    out = tmp_path / "run"
    assert bench(method, *BRIEF, "--logger", "tensorboard", "--log-pictures", "2", out=out) == 0
    record = load(out / "record.json")
    assert "train/rank" in events(out / "logs" / "move").Tags()["scalars"]
    assert page_curves(out) == {"train/loss", "train/rank"}
    results = events(out / "logs" / "results")
    assert results.Tags()["images"] == ["results/manipulate-1"]
    (score,) = results.Scalars("manipulate-1/accuracy@20")
    assert score.value == pytest.approx(record.metrics["manipulate-1"]["accuracy@20"]["value"])
    settings = (out / "logs" / "results" / "hparams.yaml").read_text()
    assert "hyper.margin: 0.5" in settings


@pytest.mark.slow
def test_a_logger_that_fails_loses_no_run(tmp_path, monkeypatch, method, capsys):
    def full(self, *args, **kwargs):
        raise OSError("the disk is full.")

    monkeypatch.setattr(CSVLogger, "log_metrics", full)
    out = tmp_path / "run"
    assert bench(method, *BRIEF, out=out) == 0
    assert load(out / "record.json").metrics
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("the logger")]
    assert told == ["the logger 'csv' failed (the disk is full): the run goes on without it."]


def test_without_a_logger_that_cannot_be_started_there_are_csv_files(tmp_path, monkeypatch):
    def missing(*args, **kwargs):
        raise ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available.")

    monkeypatch.setattr(loggers, "TensorBoardLogger", missing)
    said = []
    (logger,) = loggers.stage_loggers("tensorboard", tmp_path, "move", said.append)
    logger.log_metrics({"train/rank": torch.tensor(0.5)}, 0)
    logger.save()
    assert "0.5" in (tmp_path / "logs" / "move" / "metrics.csv").read_text()
    assert len(said) == 1
    assert said[0].startswith("the logger 'tensorboard' could not be started (Neither")
    assert said[0].endswith(f"the curves go to CSV files in {tmp_path / 'logs'} alone.")


def test_results_that_cannot_be_logged_are_told(tmp_path, monkeypatch):
    def away(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(loggers, "_wandb_run", away)
    said = []
    loggers.log_results("wandb", tmp_path, None, None, said.append)
    assert said == ["the logger 'wandb' failed (no route): the run is recorded without it."]


def test_wandb_sends_nothing_unless_asked(tmp_path, monkeypatch):
    import wandb

    given = {}
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(wandb, "init", lambda **settings: given.update(settings) or object())
    monkeypatch.setattr(loggers, "_open", {})
    loggers._wandb_run(tmp_path)
    assert given["mode"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    loggers._open.clear()
    loggers._wandb_run(tmp_path)
    assert given["mode"] is None


def test_an_earlier_attempts_curves_stay(tmp_path):
    for attempt in ("move", "move-2", "move-3"):
        (logger,) = loggers.stage_loggers("csv", tmp_path, "move", pytest.fail)
        logger.log_metrics({"train/rank": 1.0}, 0)
        logger.save()
        assert (tmp_path / "logs" / attempt / "metrics.csv").exists()
    assert loggers.stage_loggers("none", tmp_path, "move", pytest.fail) == []
