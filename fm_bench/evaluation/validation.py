# SPDX-License-Identifier: MIT
"""Retrieval quality during training, so that checkpoints are chosen by what the benchmark counts."""

from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT

from fm_bench.data.batches import EmbeddingBatch
from fm_bench.evaluation.metrics import RetrievalMetric
from fm_bench.evaluation.protocol import Protocol

_SIDES = ("query", "gallery")


class RetrievalValidation(L.Callback):
    """Logs ``val/accuracy@20``, ``val/ndcg@20`` and ``val/mrr`` after every validation epoch.

    ``Method.validation_step`` embeds two loaders, requests first and gallery second, and returns an ``EmbeddingBatch``;
    the DataModule holds ``val_requests``, ``val_labels (N, A)`` and ``val_exclude (R,)``. The requests are cut from the
    training split: no test image is seen. Under several processes all embeddings are gathered and every process
    computes, and logs, the same values. Where the gallery has fewer than 20 images to find, all of them count under
    the same names.
    """

    def __init__(self) -> None:
        self._metric: RetrievalMetric | None = None

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts afresh with the requests of the DataModule."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        protocol = Protocol("validation", changes=1, k=(20,), ndcg=(20,), mrr=(1000,))
        targets, labels = np.asarray(data.val_requests.target), np.asarray(data.val_labels)
        self._metric = RetrievalMetric(protocol, targets, labels, exclude=np.asarray(data.val_exclude)).to(
            pl_module.device
        )

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Takes the embeddings of one batch."""
        if self._metric is not None and isinstance(outputs, EmbeddingBatch):
            with torch.no_grad():
                self._metric.update(outputs.embedding, outputs.index, _SIDES[dataloader_idx])

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluates and logs; nothing is logged for the few batches of Lightning's sanity check."""
        metric, self._metric = self._metric, None
        if metric is None or trainer.sanity_checking:
            return
        for name, value in metric.compute().items():
            if (kind := name.partition("@")[0]) in _NAMES:
                pl_module.log(_NAMES[kind], value.to(torch.float32), prog_bar=kind == "accuracy")


_NAMES = {"accuracy": "val/accuracy@20", "ndcg": "val/ndcg@20", "mrr": "val/mrr"}
