# SPDX-License-Identifier: MIT
"""One run from end to end: catalogue, requests, training, embedding, search, metrics, record."""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from numpy.typing import NDArray
from rich.console import Console
from torch.utils.data import DataLoader

from fm_bench import recipe
from fm_bench.catalog import Dataset
from fm_bench.config import RunConfig
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.readers import READERS
from fm_bench.data.requests import Requests, exclusions, mine
from fm_bench.environment import code_digest, code_version, hardware, versions
from fm_bench.errors import UserError
from fm_bench.evaluation.evaluator import Report, evaluate
from fm_bench.evaluation.protocol import Protocol
from fm_bench.files import digest, replacing, write_json
from fm_bench.leaderboard.record import Record
from fm_bench.methods import METHODS, Method
from fm_bench.retrieval.store import EmbeddingStore
from fm_bench.training import StageResult, StageRunner

RECORD = "record.json"
CONFIG = "config.json"
MODEL = "model.ckpt"
PER_REQUEST = "requests.npz"
REQUEST_SEED = 0  # every run of every method and seed is asked the same requests


@dataclass
class Clock:
    """Adds up wall-clock seconds per phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Times the block as part of ``phase``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


def data_module(config: RunConfig, dataset: Dataset) -> FashionDataModule:
    """The DataModule of a run: sizes, seeds and batch sizes as the configuration says."""
    reader = READERS[config.data](**config.reader)
    return FashionDataModule(
        dataset,
        image_size=config.image_size,
        batch_size=config.loader.batch_size,
        eval_batch_size=config.loader.eval_batch_size,
        num_workers=config.loader.num_workers,
        seed=config.seed,
        on_error=reader.on_error,
        gallery=config.evaluation.gallery,
        val_requests=config.loader.val_requests,
    )


def run_fingerprint(config: RunConfig, data_digest: str) -> str:
    """Digest of everything that can change a number of the run."""
    protocols = {name: load_protocol(name).digest for name in config.evaluation.protocols}
    return digest(config.numeric(), data_digest, protocols, METHODS[config.method].version, code_digest())


def load_protocol(name: str) -> Protocol:
    """A protocol by name. Raises UserError with the nearest names if there is none."""
    recipe.load("protocols", name)
    return Protocol.from_yaml(recipe.benchmarks_dir() / "protocols" / f"{name}.yaml")


def default_out(config: RunConfig, fingerprint: str, runs: Path) -> Path:
    """``runs/DATA-PROFILE/METHOD-VARIANT/seed0-1a2b3c4d``: no two different runs share a folder."""
    mode = "" if config.mode == "common" else f"-{config.mode}"
    return runs / f"{config.data}-{config.profile}{mode}" / config.label.replace("/", "-") / f"seed{config.seed}-{fingerprint[:8]}"


@dataclass
class Bench:
    """One run.

    Args:
        config: what to run.
        out: the run's folder; None chooses one below ``runs``.
        runs: where runs are kept.
        logger: ``csv``, ``tensorboard``, ``wandb`` or ``none``.
        command: as the user gave it, for the record.
        console: where progress is shown.
    """

    config: RunConfig
    out: Path | None = None
    runs: Path = Path("runs")
    logger: str = "csv"
    command: str = ""
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def run(self) -> Record | None:
        """Trains, embeds, searches, judges and writes the record; continues where an earlier attempt stopped.

        Returns:
            The record, or None on the processes of a distributed run that do not write it.

        Raises:
            UserError: on bad input, or if the folder holds another run.
        """
        clock = Clock()
        say = self._say
        with clock("prepare"):
            dataset = READERS[self.config.data](**self.config.reader).read()
        data_digest = digest(dataset.catalog.digest, dataset.source.digest)
        fingerprint = run_fingerprint(self.config, data_digest)
        self.out = self.out or default_out(self.config, fingerprint, self.runs)
        if recorded := _recorded(self.out, fingerprint):
            say(f"{self.config.label} is recorded already in {self.out / RECORD}")
            return recorded
        _claim(self.out, fingerprint, self.config)
        catalog = dataset.catalog
        say(f"{self.config.data}: {len(catalog):,} images, {catalog.schema.num_attributes} attributes, {catalog.schema.num_values} values")
        for note in dataset.notes:
            say(f"  {note}")
        datamodule = data_module(self.config, dataset)
        with clock("prepare"):
            datamodule.prepare_data()
            method = build_method(self.config, datamodule)
        stages = self._train(method, datamodule, data_digest)
        with clock("prepare"):
            datamodule.setup("predict")
            asked, notes = mine_requests(self.config, datamodule, say)
        galleries, queries = self._embed(method, datamodule, asked, clock)
        if not datamodule_is_rank_zero():
            return None
        reports = self._judge(galleries, queries, datamodule, asked, clock)
        save_model(method, self.out / MODEL)
        save_per_request(self.out / PER_REQUEST, reports)
        record = self._record(fingerprint, data_digest, method, datamodule, asked, reports, stages, clock, [*dataset.notes, *notes])
        record.save(self.out / RECORD)
        return record
