# SPDX-License-Identifier: MIT
"""DataModules of small catalogues, and a module that remembers what it is given, for tests of the data layer."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from catalogues import Noise, dataset

from fm_bench.catalog import Dataset
from fm_bench.data.batches import EmbeddingBatch
from fm_bench.data.datamodule import FashionDataModule

SIZE = (20, 16)


def data(cache: Path, given: Dataset | None = None, **options: Any) -> FashionDataModule:
    chosen = {"image_size": SIZE, "batch_size": 16, "eval_batch_size": 25, "cache": cache} | options
    return FashionDataModule(given or dataset(), **chosen)


def shows(images: torch.Tensor, rows: torch.Tensor) -> bool:
    """Whether uint8 ``images`` are the pictures of catalogue ``rows``."""
    expected = np.stack([Noise().read(str(row), SIZE) for row in rows.tolist()])
    return images.dtype == torch.uint8 and np.array_equal(images.permute(0, 2, 3, 1).numpy(), expected)


class Watcher(L.LightningModule):
    """Learns nothing; remembers every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[tuple[int, Any]] = []
        self.validated: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.batches.append((self.current_epoch, batch))
        return self.weight * 0

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validated.append((dataloader_idx, batch))

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> EmbeddingBatch:
        return EmbeddingBatch(batch.image.mean((2, 3)), batch.index)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, epochs: int = 1, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(max_epochs=epochs, default_root_dir=folder, use_distributed_sampler=False, **quiet | options)
