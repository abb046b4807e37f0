# SPDX-License-Identifier: MIT
"""The whole line at profile ``smoke``, through the command line, as users run it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fm_bench import recipe
from fm_bench.cli import main
from fm_bench.leaderboard.record import load
from fm_bench.results import load_model

SPECS = [
    spec
    for name in recipe.names("methods")
    for spec in (name, *(f"{name}/{v}" for v in recipe.load("methods", name).get("variants", {})))
]


def command(*arguments, out: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "fm_bench.cli",
        "bench",
        *map(str, arguments),
        "--profile",
        "smoke",
        "--out",
        str(out),
    ]


def bench(*arguments: str, out: Path) -> int:
    """The command in this process, at smoke and without a progress bar."""
    quiet = ["--trainer.enable_progress_bar", "false"]
    return main(["bench", *arguments, "--profile", "smoke", "--out", str(out), *quiet])


def numbers(folder: Path) -> dict:
    """Everything in a record that must not depend on time or place."""
    record = json.loads((folder / "record.json").read_text())
    for name in ("seconds", "query_ms", "peak_memory_mb", "command", "finished", "notes"):
        record.pop(name)
    return record


@pytest.fixture(scope="module")
def amnet(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("amnet") / "run"
    assert bench("amnet", out=folder) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_every_recipe_runs_at_smoke(spec, tmp_path, capsys):
    out = tmp_path / "run"
    assert bench(spec, out=out) == 0
    record = load(out / "record.json")
    assert record.name == spec
    assert set(record.metrics) == {"manipulate-1", "manipulate-2", "search"}
    for metrics in record.metrics.values():
        assert {"accuracy@1", "accuracy@20", "ndcg@20", "ndcg_ones@20", "mrr@1000", "chance@20"} <= set(metrics)
        assert (
            0 <= metrics["accuracy@20"]["low"] <= metrics["accuracy@20"]["value"] <= metrics["accuracy@20"]["high"] <= 1
        )
    assert record.gallery == 300
    assert "accuracy" in capsys.readouterr().out
    assert (out / "leaderboard.html").exists()
    if spec == "oracle":
        assert record.metrics["manipulate-1"]["accuracy@1"]["value"] == 1
    if spec == "random":
        metrics = record.metrics["manipulate-1"]
        assert (
            metrics["accuracy@20"]["low"] - 0.02
            <= metrics["chance@20"]["value"]
            <= metrics["accuracy@20"]["high"] + 0.02
        )


@pytest.mark.slow
def test_paper_mode_runs(tmp_path):
    options = [
        "--mode",
        "paper",
        "--method.weights",
        "null",
        "--method.backbone",
        "resnet10t",
        "--method.images_per_value",
        "3",
    ]
    assert bench("amnet", *options, out=tmp_path / "run") == 0
    record = load(tmp_path / "run" / "record.json")
    assert record.mode == "paper"
    assert record.config["hyper"]["normalize"] is False


def test_record_and_weights_are_there_and_safe_to_read(amnet):
    record = load(amnet / "record.json")
    assert record.fingerprint == json.loads((amnet / "config.json").read_text())["fingerprint"]
    assert record.seconds["train"] > 0
    assert record.config["hyper"]["memory"] is True
    content = torch.load(amnet / "model.ckpt", weights_only=True)
    assert content["class"] == "AMNet"
    assert (amnet / "logs" / "manipulation" / "metrics.csv").exists()
    with np.load(amnet / "requests.npz", allow_pickle=False) as arrays:
        assert arrays["manipulate-1/accuracy@20"].mean() == pytest.approx(
            record.metrics["manipulate-1"]["accuracy@20"]["value"]
        )


@pytest.mark.slow
def test_weights_give_the_same_embedding_in_a_fresh_process(amnet, tmp_path):
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    method = load_model(amnet / "model.ckpt", "amnet")
    indicator = torch.eye(method.schema.num_values)[:3]
    with torch.no_grad():
        here = method.embed_query(images, indicator)
    script = (
        "import sys, torch; from fm_bench.results import load_model; from pathlib import Path\n"
        "m = load_model(Path(sys.argv[1]), 'amnet')\n"
        "x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))\n"
        "with torch.no_grad(): torch.save(m.embed_query(x, torch.eye(m.schema.num_values)[:3]), sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", script, amnet / "model.ckpt", tmp_path / "there.pt"], check=True)
    assert torch.equal(torch.load(tmp_path / "there.pt", weights_only=True), here)


def test_a_recorded_run_is_not_run_again(amnet, capsys):
    before = (amnet / "record.json").stat().st_mtime_ns
    assert bench("amnet", out=amnet) == 0
    assert "recorded already" in capsys.readouterr().err
    assert (amnet / "record.json").stat().st_mtime_ns == before


def test_another_run_never_overwrites_this_one(amnet, capsys):
    assert bench("amnet", "--seed", "1", out=amnet) == 2
    assert "other settings" in capsys.readouterr().err
    (amnet.parent / "mine").mkdir()
    (amnet.parent / "mine" / "thesis.txt").write_text("precious")
    assert bench("amnet", out=amnet.parent / "mine") == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_with_the_same_numbers(tmp_path, monkeypatch):
    """SIGKILL after ever longer times, then to the end; a second cache keeps the runs from sharing a stage."""
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    options = ["amnet", "--stages.manipulation.epochs", "3", "--budget", "1500", "--logger", "none"]
    options += ["--method.images_per_value", "4"]  # the prototypes must come from these images after a resume, too
    environment = os.environ | {"FM_BENCH_CACHE": str(tmp_path / "cache-a")}
    subprocess.run(command(*options, out=whole), env=environment, check=True, capture_output=True)
    environment["FM_BENCH_CACHE"] = str(tmp_path / "cache-b")
    marks = [
        "stages/attributes/last.ckpt",
        "stages/attributes/done.json",
        "stages/manipulation/last.ckpt",
        "embeddings/gallery.json",
    ]
    kills = 0
    for mark in marks:
        process = subprocess.Popen(
            command(*options, out=pieces), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (pieces / mark).exists():
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert kills >= 2  # the marks were there to be seen
    subprocess.run(command(*options, out=pieces), env=environment, check=True, capture_output=True)
    assert numbers(pieces) == numbers(whole)
    arrays = [dict(np.load(folder / "requests.npz")) for folder in (whole, pieces)]
    assert all(np.array_equal(arrays[0][name], arrays[1][name], equal_nan=True) for name in arrays[0])
