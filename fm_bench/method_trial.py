# SPDX-License-Identifier: MIT
"""A method after a few steps of training, and what could be seen of them: what ``fm_bench.method_check`` looks at."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from fm_bench.bench import build_method, data_module
from fm_bench.catalog import Dataset
from fm_bench.config import RunConfig
from fm_bench.data.batches import GalleryBatch, QueryBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.memory import peak_memory
from fm_bench.methods import Method
from fm_bench.training import StageRunner

OTHER_SIZE = 48
"""Shorter side in pixels of the second size that pictures are shown at."""
STEPS = 2
"""Of training, in each stage."""


class Watch(Callback):
    """Notes the loss of every step, and which parameters receive gradients."""

    def __init__(self) -> None:
        self.losses: dict[str, list[float]] = {}
        self.asked: dict[str, set[str]] = {}
        self.largest: dict[tuple[str, str], float] = {}
        self._hooks: list[Any] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begins to listen to every parameter of the stage."""
        stage = _stage(pl_module)
        self.losses[stage], self.asked[stage] = [], set()
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad:
                self.asked[stage].add(name)
                self._hooks.append(parameter.register_hook(partial(self._note, stage, name)))  # type: ignore[no-untyped-call]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the loss."""
        self.losses[_stage(pl_module)].append(float(outputs["loss"]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stops listening."""
        while self._hooks:
            self._hooks.pop().remove()

    def _note(self, stage: str, name: str, gradient: Tensor) -> None:
        known = self.largest.get((stage, name), 0.0)
        largest = float(gradient.detach().abs().max()) if gradient.numel() else 0.0
        self.largest[stage, name] = largest if math.isnan(largest) else max(known, largest)


def _stage(method: L.LightningModule) -> str:
    assert isinstance(method, Method)
    assert method.stage is not None
    return method.stage.name


@dataclass
class Brief:
    """A method after a few steps of every stage."""

    method: Method
    datamodule: FashionDataModule
    watch: Watch
    memory_mb: float | None

    def batches(self, count: int) -> tuple[GalleryBatch, QueryBatch]:
        """The first pictures and requests of the validation split."""
        self.datamodule.validate_by("manipulation")
        queries, gallery = self.datamodule.val_dataloader()
        return self._first(gallery, count), self._first(queries, count)

    def _first(self, loader: Any, count: int) -> Any:
        batch = self.datamodule.on_after_batch_transfer(next(iter(loader)), 0)
        return type(batch)(*(part[:count] for part in batch))

    def embed(self, batch: GalleryBatch | QueryBatch) -> Tensor:
        """What the method makes of a batch, in evaluation mode."""
        with torch.no_grad():
            return self.method.eval().embed(batch).embedding


@dataclass
class Trial:
    """A method and a catalogue to try it on."""

    spec: str
    config: RunConfig
    dataset: Dataset
    folder: Path
    options: Sequence[str]

    @cached_property
    def first(self) -> Brief:
        """Trained for a few steps."""
        return self._brief(self.config, "first")

    @cached_property
    def again(self) -> Brief:
        """The same once more."""
        return self._brief(self.config, "again")

    @cached_property
    def larger(self) -> Brief:
        """With pictures of another size."""
        return self._brief(replace(self.config, loader=replace(self.config.loader, image_size=OTHER_SIZE)), "larger")

    def _brief(self, config: RunConfig, name: str) -> Brief:
        datamodule = data_module(config, self.dataset)
        datamodule.prepare_data()
        datamodule.setup("fit")
        watch = Watch()
        with peak_memory() as peak:
            method = build_method(config, datamodule)
            settings = config.trainer | {
                "max_epochs": 1,
                "limit_train_batches": STEPS,
                "enable_checkpointing": False,
                "callbacks": [watch],
            }
            runner = StageRunner(
                self.folder / name,
                config.seed,
                config.budget,
                config.stages,
                settings,
                "none",
                {},
                lambda _: None,
                shares=False,  # a stage that another method has trained would show neither losses nor gradients
            )
            runner.run(method, datamodule)
        return Brief(method, datamodule, watch, peak.above_mb)
