# SPDX-License-Identifier: MIT
"""Embedding extraction on one and on two processes."""

import os
import subprocess
import sys

import numpy as np
import pytest

from fm_bench.cli import main
from fm_bench.leaderboard.record import load

SCRIPT = """
import sys
from pathlib import Path
import lightning as L
from fm_bench.config import configure
from fm_bench.bench import build_method, data_module
from fm_bench.data.readers import READERS
from fm_bench.data.requests import mine
from fm_bench.embedding import embed_to_store

devices, out = int(sys.argv[1]), Path(sys.argv[2])
config = configure("amnet", "garments", "smoke", "common", 0)
datamodule = data_module(config, READERS["garments"](**config.reader).read())
datamodule.setup("predict")
method = build_method(config, datamodule).eval()
rows = datamodule.gallery_rows
requests = mine(datamodule.dataset.catalog, rows, rows, changes=1, limit=90, cap=4, seed=0)
strategy = "ddp" if devices > 1 else "auto"
trainer = {"devices": devices, "accelerator": "cpu", "strategy": strategy, "enable_progress_bar": False}
gallery, queries = datamodule.gallery_dataloader(), datamodule.query_dataloader(requests)
for name, loader, size in (("gallery", gallery, 300), ("queries", queries, len(requests))):
    embed_to_store(method, datamodule, loader, size, out / name, "key", trainer)
"""


@pytest.mark.slow
def test_two_processes_give_the_same_vectors_as_one(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as many threads in both, so that sums are cut the same way
    for devices in (1, 2):
        arguments = [sys.executable, tmp_path / "script.py", str(devices), tmp_path / str(devices)]
        subprocess.run(arguments, env=environment, check=True, capture_output=True, timeout=300)
    for name in ("gallery", "queries"):
        one, two = (np.load(next((tmp_path / devices).glob(f"{name}-*.npy"))) for devices in "12")
        assert np.array_equal(one, two)
        assert np.isfinite(one).all()
        assert len(np.unique(one.round(4), axis=0)) > 1


@pytest.mark.slow
def test_the_bench_runs_on_two_processes(tmp_path):
    command = [sys.executable, "-m", "fm_bench.cli", "bench", "amnet", "--profile", "smoke"]
    ddp = ["--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FM_BENCH_CACHE": str(tmp_path / "cache")}
    subprocess.run(
        [*command, *ddp, "--out", tmp_path / "run"], env=environment, check=True, capture_output=True, timeout=300
    )
    record = load(tmp_path / "run" / "record.json")
    assert record.config["trainer"] == {"devices": "2", "accelerator": "cpu", "strategy": "ddp"}
    assert main(["evaluate", str(tmp_path / "run"), "--protocol", "search"]) == 0
