# SPDX-License-Identifier: MIT
"""Retrieval quality during training, so that checkpoints are chosen by what the benchmark counts."""

from collections.abc import Iterator
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from numpy.typing import NDArray

from fm_bench.data.batches import EmbeddingBatch
from fm_bench.evaluation.metrics import RetrievalMetric
from fm_bench.evaluation.protocol import Protocol
from fm_bench.retrieval.reduced import searching_apart_from_gpus

_SIDES = ("query", "gallery")
Views = Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]


class RetrievalValidation(L.Callback):
    """Logs ``val/accuracy@20``, ``val/ndcg@20`` and ``val/mrr`` after every validation epoch.

    ``Method.validation_step`` embeds two loaders, requests first and gallery second, and returns an ``EmbeddingBatch``;
    the DataModule holds ``val_requests``, ``val_labels (N, A)``, ``val_exclude (R,)``, and ``val_items`` for requests
    that look for an item (``val_instance``). The requests are cut from the training split: no test image is seen. Under
    several processes all embeddings are gathered and every process computes, and logs, the same values. Where the
    gallery has fewer than 20 images to find, all of them count under the same names.
    """

    def __init__(self) -> None:
        self._metric: RetrievalMetric | None = None

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts afresh with the requests of the DataModule."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        requests, labels = data.val_requests, np.asarray(data.val_labels)
        hit: Literal["attributes", "instance"] = "instance" if data.val_instance else "attributes"
        gallery_items, query_items = data.val_items
        attribute, region = requests.attribute, np.full(len(requests.target), -1)

        def views(gallery: NDArray[np.float32], rows: NDArray[np.int64]) -> Views | None:
            found: Views | None = pl_module.views(gallery, attribute[rows], region[rows])  # type: ignore[operator]
            return found

        self._metric = RetrievalMetric(
            Protocol("validation", changes=int(hit == "attributes"), hit=hit, k=(20,), ndcg=(20,), mrr=(1000,)),
            np.asarray(requests.target),
            labels,
            exclude=np.asarray(data.val_exclude),
            gallery_items=gallery_items,
            query_items=query_items,
            views=views if hasattr(pl_module, "views") else None,
        ).to(pl_module.device)

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
        with searching_apart_from_gpus(pl_module.device.type == "cpu"):
            found = metric.compute()
        for name, value in found.items():
            if (kind := name.partition("@")[0]) in _NAMES:
                pl_module.log(_NAMES[kind], value.to(torch.float32), prog_bar=kind == "accuracy")


_NAMES = {"accuracy": "val/accuracy@20", "ndcg": "val/ndcg@20", "mrr": "val/mrr"}
