# SPDX-License-Identifier: MIT
"""From a trained method to embeddings on disk: ``Trainer.predict`` on one or many processes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from fm_bench.data.batches import EmbeddingBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.regions import WHOLE
from fm_bench.methods import Context, Method
from fm_bench.retrieval.store import EmbeddingStore, StoreWriter
from fm_bench.training import Progress, interruptible

Side = Literal["gallery", "queries"]


class StoreWriting(Callback):
    """Writes what ``predict_step`` returns into a store, by position; every process its own rows.

    Args:
        store: where to.
        n: vectors in all.
        key: digest of everything that can change them.
        of: what is embedded; a method may store a gallery in another form than it searches it in.
    """

    def __init__(self, store: EmbeddingStore, n: int, key: str, of: Side = "gallery") -> None:
        self.store, self.n, self.key, self.of = store, n, key, of
        self.writer: StoreWriter | None = None

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Creates the file on the first process, then lets the others join."""
        assert isinstance(pl_module, Method)
        dim = embedding_dim(pl_module, trainer.datamodule.image_size, self.of)  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            self.writer = self.store.create(self.n, dim, self.key, token=self.key[:16])
        trainer.strategy.barrier("store created")
        if not trainer.is_global_zero:
            self.writer = self.store.create(self.n, dim, self.key, token=self.key[:16])

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes one batch."""
        assert self.writer is not None
        vectors: EmbeddingBatch = outputs
        self.writer.write(vectors.index.cpu().numpy(), vectors.embedding.cpu().numpy())

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Completes the store once every process has written its share."""
        assert self.writer is not None
        trainer.strategy.barrier("store written")
        if trainer.is_global_zero:
            self.writer.finish()
        trainer.strategy.barrier("store finished")


def embedding_dim(method: Method, image_size: tuple[int, int], of: Side = "gallery") -> int:
    """Length of the vectors of ``method``: it embeds one blank picture, or one with an empty request."""
    nothing = torch.zeros(1, dtype=torch.long, device=method.device)
    labels = torch.zeros(1, method.schema.num_attributes, dtype=torch.long, device=method.device)
    blank = torch.zeros(1, 3, *image_size, device=method.device)
    training = method.training
    method.eval()
    context = Context(labels if method.needs_labels else None, nothing, nothing)
    with torch.no_grad():
        if of == "gallery":
            dim = method.embed_gallery(blank, context).shape[1]
        else:
            nowhere = torch.full_like(nothing, WHOLE)
            empty = torch.zeros(1, method.schema.num_values, device=method.device)
            dim = method.embed_query(blank, empty, context._replace(region=nowhere)).shape[1]
    method.train(training)
    return int(dim)


def embed_to_store(
    method: Method,
    datamodule: FashionDataModule,
    loader: DataLoader[Any],
    n: int,
    path: Path,
    key: str,
    trainer: Mapping[str, Any],
    of: Side = "gallery",
) -> NDArray[np.float32]:
    """The embeddings of everything in ``loader``, computed unless a store of this key is there already.

    Args:
        method: trained.
        datamodule: whose ``loader`` it is; normalises the batches.
        loader: of ``GalleryBatch`` or ``QueryBatch``.
        n: vectors in all.
        path: of the store, without suffix.
        key: digest of everything that can change the vectors.
        trainer: the user's keyword arguments for ``Trainer``.
        of: ``gallery`` or ``queries``, whichever ``loader`` gives.

    Returns:
        ``(n, D)`` float32, memory-mapped.

    Raises:
        UserError: if a vector is NaN or infinite, or the disk is full.
    """
    store = EmbeddingStore(path)
    if not store.ready(key):
        given = {name: value for name, value in trainer.items() if name in _FOR_PREDICTION and value is not None}
        callbacks: list[Callback] = [StoreWriting(store, n, key, of)]
        if given.get("enable_progress_bar", True):
            callbacks.append(Progress(leave=False))
        runner = L.Trainer(
            logger=False, enable_checkpointing=False, callbacks=callbacks, use_distributed_sampler=False, **given
        )
        datamodule.predict_with(loader)
        with interruptible(runner):
            runner.predict(method, datamodule=datamodule, return_predictions=False)
    return store.open(key)


_FOR_PREDICTION = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "precision",
    "enable_progress_bar",
    "plugins",
    "deterministic",
    "benchmark",
)
