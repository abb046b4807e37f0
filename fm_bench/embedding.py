# SPDX-License-Identifier: MIT
"""From a trained method to embeddings on disk: ``Trainer.predict`` on one or many processes.

Embeddings are keyed by what they are computed from, and by nothing else (``Embedder``): trained weights, method,
pictures and which of them in what order, their size, cut and normalisation, precision, and the code between pixels and
vectors.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from fm_bench.data.batches import EmbeddingBatch
from fm_bench.data.datamodule import FashionDataModule
from fm_bench.data.regions import WHOLE
from fm_bench.data.requests import Requests
from fm_bench.data.transforms import MEAN, STD
from fm_bench.environment import code_to_vectors, made_with
from fm_bench.errors import UserError
from fm_bench.files import digest
from fm_bench.methods import Context, Method
from fm_bench.processes import agreed, gather, tell
from fm_bench.progress import Progress
from fm_bench.retrieval.store import EmbeddingStore, StoreWriter
from fm_bench.reuse import recall, remember
from fm_bench.third_party import source_digest
from fm_bench.training import interruptible

Side = Literal["gallery", "queries"]


class Stored(NamedTuple):
    """Embeddings, and what they cost."""

    vectors: NDArray[np.float32]
    """``(n, D)``, memory-mapped."""
    seconds: float
    """Of computing them, whoever did it and when."""


@dataclass(frozen=True)
class Embedder:
    """Embeds with a trained method, unless the same has been done before by this run or another one.

    Args:
        method: trained.
        datamodule: of the pictures, set up for ``predict``.
        trainer: the user's keyword arguments for ``Trainer``.
        run: fingerprint of the run.
        say: prints a line for the user.
    """

    method: Method
    datamodule: FashionDataModule
    trainer: Mapping[str, Any]
    run: str
    say: Callable[[str], None]

    def gallery(self, path: Path) -> Stored:
        """The gallery in order, ``(N, D)``, stored at ``path``. Raises as ``embed_to_store``."""
        rows = self.datamodule.gallery_rows
        key = digest(self.made_of, "gallery", rows)
        return self._stored(lambda: self.datamodule.gallery_dataloader(), len(rows), path, key, "gallery")

    def queries(self, requests: Requests, path: Path, *, regions: bool) -> Stored:
        """The requests in order, ``(R, D)``, stored at ``path``. Raises as ``embed_to_store``.

        Args:
            requests: on pictures of the test split.
            path: of the store, without suffix.
            regions: whether they are about parts of garments.
        """
        key = digest(self.made_of, "queries", requests.digest, regions)
        return self._stored(
            lambda: self.datamodule.query_dataloader(requests, regions=regions), len(requests), path, key, "queries"
        )

    @cached_property
    def made_of(self) -> str:
        """Digest of all that every vector depends on. Batch size and devices are not in it, nor is what is asked.

        Machines of one run may differ: that of the first process counts for all.
        """
        dataset, plugins = self.datamodule.dataset, self.trainer.get("plugins") or []
        return digest(
            weights_digest(self.method),
            dataset.catalog.digest,
            dataset.source.digest,  # that of a cut source, where pictures are cut
            list(self.datamodule.image_size),
            [MEAN, STD],
            [str(self.trainer.get(name)) for name in ("precision", "deterministic", "benchmark")],
            gather(made_with(self.trainer.get("accelerator")))[0],
            [type(plugin).__name__ for plugin in plugins] if isinstance(plugins, list | tuple) else str(plugins),
            code_to_vectors(),
        )

    def _stored(self, loader: Callable[[], DataLoader[Any]], n: int, path: Path, key: str, of: Side) -> Stored:
        store = EmbeddingStore(path)
        with agreed("looking for embeddings"):  # the first process may bring them, and the others wait to see them
            self._find(store, key)
        vectors = embed_to_store(self.method, self.datamodule, loader(), n, path, key, self.trainer, of)
        with agreed("noting where the embeddings are"):
            facts = store.facts()
            if not facts.get("adopted"):  # what another run computed stays that run's
                remember("embeddings", key, path, self.run)
        return Stored(vectors, float(facts.get("seconds", 0.0)))

    def _find(self, store: EmbeddingStore, key: str) -> None:
        """Takes over what another run computed, unless vectors of this key are here."""
        if store.ready(key):
            return
        if damage := store.damage():
            self.say(f"{damage.split(': run again')[0]}: computed anew")
        found = recall("embeddings", key, store.path, self.run)
        if found is not None and EmbeddingStore(found).ready(key):
            try:
                store.adopt(EmbeddingStore(found))
            except (UserError, OSError) as error:  # without it they are computed
                self.say(f"{str(error).rsplit(': ', 1)[0]}: computed anew")


def weights_digest(method: Method) -> str:
    """Digest of a trained method: its class, version, source, hyper-parameters and every byte of its state."""
    hasher = hashlib.sha256()
    # What the first weights were read from is left out, since a trained method is loaded without them.
    hyper = {name: value for name, value in method.hparams.items() if name != "weights"}
    hasher.update(digest(type(method).__name__, method.version, source_digest(type(method)), hyper).encode())
    for name, value in sorted(method.state_dict().items()):
        hasher.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        hasher.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


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
        self._started = time.perf_counter()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Creates the file on the first process, then lets the others join."""
        assert isinstance(pl_module, Method)
        size = trainer.datamodule.image_size  # type: ignore[attr-defined]
        with agreed("making room for the embeddings"):
            dim = embedding_dim(pl_module, size, self.of)
            if trainer.is_global_zero:
                self.writer = self.store.create(self.n, dim, self.key)
        token = gather(self.writer.token if self.writer else "")[0]
        with agreed("opening the embeddings"):
            self.writer = self.writer or self.store.join(self.n, dim, self.key, token)

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
        with agreed("embedding"):
            self.writer.flush()
        with agreed("completing the embeddings"):
            if trainer.is_global_zero:
                self.writer.finish(time.perf_counter() - self._started)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Tells the other processes, which wait in ``on_predict_end``, and leaves no unfinished file behind."""
        if isinstance(exception, Exception) and self.writer is not None:  # without it they are not there yet
            tell(exception, "embedding")
        if trainer.is_global_zero and self.writer is not None:
            self.writer.discard()


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
    if not all(gather(store.ready(key))):  # a process that is late must not think that nothing is to be done
        given = {name: value for name, value in trainer.items() if name in _FOR_PREDICTION and value is not None}
        callbacks: list[Callback] = [StoreWriting(store, n, key, of)]
        if given.get("enable_progress_bar", True):
            callbacks.append(Progress(f"embedding the {of}"))
        runner = L.Trainer(
            logger=False, enable_checkpointing=False, callbacks=callbacks, use_distributed_sampler=False, **given
        )
        datamodule.predict_with(loader)
        with interruptible(runner):
            runner.predict(method, datamodule=datamodule, return_predictions=False)
    with agreed("opening the embeddings"):
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
