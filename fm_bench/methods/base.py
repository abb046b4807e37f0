# SPDX-License-Identifier: MIT
"""The contract of a method: two encoders into one space, trained in stages."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog
from fm_bench.data.batches import EmbeddingBatch, GalleryBatch, LabelledBatch, QueryBatch, TrainingBatch
from fm_bench.data.instances import Instances
from fm_bench.nn.schedules import warmup_cosine

VIEW_BLOCK = 4096
"""Stored vectors that are turned into a view of the gallery at once."""


class Context(NamedTuple):
    """What else is known of the pictures being embedded."""

    labels: Tensor | None  # (B, A); only for methods with ``needs_labels``, i.e. the oracle
    domain: Tensor  # (B,)
    image_index: Tensor  # (B,) row of the catalogue
    region: Tensor | None = None  # (B,) of requests: position in ``REGIONS``, −1 for the whole garment


@dataclass(frozen=True)
class Stage:
    """One ``Trainer.fit`` with its own optimiser, sampler, checkpoint and done-marker.

    Args:
        name: calls ``<name>_step(batch)``, and ``on_<name>_start(batches)`` and ``cache_<name>(batches)`` where the
            method has them.
        batches: what ``<name>_step`` receives.
        monitor: validation metric by which the stage's checkpoint is chosen; None keeps the last epoch.
        shared: runs of several methods whose ``stage_config`` is equal train this stage once and share the result.
        trained: False for a stage without gradients, all of whose work ``on_<name>_start`` does (a PCA, a codebook).
        manual: ``<name>_step`` takes the steps itself, by ``Method.turn``, and ``<name>_optimizer`` gives a list: for
            networks that play against each other.
    """

    name: str
    batches: TrainingBatch
    monitor: str | None = None
    shared: bool = False
    trained: bool = True
    manual: bool = False


class Method(L.LightningModule, ABC):
    """Two encoders into one space; everything else is the method's own business.

    Subclasses define the encoders, and per stage ``<stage>_step(batch) -> {"loss name": (weight, value)}`` and
    ``<stage>_optimizer()``. Distances in the space are Euclidean. Hyper-parameters are plain values, so that
    checkpoints load with ``weights_only=True``.

    Args:
        attributes: the schema as ``AttributeSchema.to_dict`` gives it.
    """

    stages: ClassVar[tuple[Stage, ...]] = ()
    version: ClassVar[int] = 1  # raised with every change that moves a number of this method
    validates: ClassVar[Literal["manipulation", "query"]] = "manipulation"
    """By which requests checkpoints are chosen: those that change attributes, or those that only show a picture."""
    needs_labels: bool = False
    answers_regions: ClassVar[bool] = True
    """Whether requests about parts of a garment mean anything to the method; ignoring the part is an answer, too."""
    draws: ClassVar[bool] = False
    """Whether the method draws what is asked for, see ``draw``."""

    def __init__(self, attributes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.schema = AttributeSchema.from_dict(attributes)
        self.stage: Stage | None = None
        self.stage_seed = 0

    @classmethod
    def obstacle(cls, catalog: Catalog, hyper: Mapping[str, Any]) -> str | None:
        """A sentence that says why ``catalog`` and the settings ``hyper`` do not go together, or None.

        It is asked before any picture is read.
        """
        return None

    # ------------------------------------------------------------------ the space

    @abstractmethod
    def embed_gallery(self, images: Tensor, context: Context | None = None) -> Tensor:
        """Vectors ``(B, D)`` of catalogue images ``(B, 3, H, W)``."""

    @abstractmethod
    def embed_query(self, images: Tensor, indicator: Tensor, context: Context | None = None) -> Tensor:
        """Vectors ``(B, D)`` of pictures with requests; ``indicator (B, C)`` has ones at the wanted values."""

    def draw(self, images: Tensor, indicator: Tensor) -> Tensor:
        """Prototypes ``(B, 3, H, W)``: pictures of what is asked for, normalised like the input.

        Raises:
            NotImplementedError: if the method ``draws`` nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} draws no pictures")

    def attribute_embedding(self, attribute: int, vectors: Tensor) -> Tensor | None:
        """What the method sees of one attribute in vectors of its space, for pictures of it.

        Args:
            attribute: position in the schema.
            vectors: ``(B, D)`` as ``embed_gallery`` and ``embed_query`` give them.

        Returns:
            ``(B, k)``, or None if the method embeds no attribute on its own.
        """
        return None

    @property
    def row_notes(self) -> list[str]:
        """Sentences that readers of this row must know, e.g. what was done otherwise on these data."""
        return []

    # ------------------------------------------------------------------ galleries that depend on the request

    def settings(self, attribute: NDArray[np.integer[Any]], region: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Which view of the gallery each request is searched in.

        Args:
            attribute: ``(R, 2)`` changed attributes, −1 where there is none.
            region: ``(R,)`` position in ``REGIONS``, −1 for the whole garment.

        Returns:
            ``(R,)`` numbers for ``gallery_view``; one and the same for methods with one space for everything.
        """
        return np.zeros(len(attribute), dtype=np.int64)

    def gallery_view(self, stored: Tensor, setting: int) -> Tensor:
        """The gallery ``(n, D)`` that requests of ``setting`` search, from what ``embed_gallery`` gave, ``(n, S)``."""
        return stored

    def views(
        self, stored: NDArray[np.float32], attribute: NDArray[np.integer[Any]], region: NDArray[np.integer[Any]]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]] | None:
        """Groups of requests with the gallery that each group searches, built one at a time when it is its turn.

        Args:
            stored: ``(N, S)`` what ``embed_gallery`` gave.
            attribute: see ``settings``.
            region: see ``settings``.

        Returns:
            Pairs of positions ``(r,)`` among the requests and vectors ``(N, D)``; None if the method has one space.
        """
        if type(self).settings is Method.settings:
            return None
        return self._views(stored, self.settings(attribute, region))

    def _views(
        self, stored: NDArray[np.float32], settings: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for setting in np.unique(settings).tolist():
            view: NDArray[np.float32] | None = None
            for begin in range(0, len(stored), VIEW_BLOCK):
                block = torch.from_numpy(np.array(stored[begin : begin + VIEW_BLOCK])).to(self.device)
                with torch.no_grad():
                    vectors = self.gallery_view(block, setting).float().cpu().numpy()
                if view is None:
                    view = np.empty((len(stored), vectors.shape[1]), np.float32)
                view[begin : begin + len(vectors)] = vectors
            assert view is not None, "an empty gallery has no views"
            yield np.flatnonzero(settings == setting), view

    # ------------------------------------------------------------------ stages

    def begin(self, stage: Stage, seed: int) -> None:
        """Enters a stage: only what it leaves behind (``stage_state``) is trained from now on."""
        self.stage, self.stage_seed = stage, seed
        self.automatic_optimization = not stage.manual
        if not stage.trained:
            return
        trained = self.stage_state(stage)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in trained)  # DDP waits for every parameter that asks for a gradient

    def skips(self, stage: Stage) -> bool:
        """Whether this configuration does without ``stage``."""
        return False

    @property
    def instances(self) -> Instances:
        """What a stage on ``InstanceBatch`` takes for one instance."""
        return "items"

    def stage_config(self, stage: Stage) -> dict[str, Any]:
        """The hyper-parameters that ``stage`` depends on; equal ones make its result exchangeable between methods."""
        return {"method": type(self).__name__, "version": self.version, **self.hparams}

    def stage_rows(self, stage: Stage, labels: NDArray[np.int16]) -> NDArray[np.int64] | None:
        """Which training images (positions in ``labels (N, A)``) the stage learns from; None for all."""
        return None

    def stage_state(self, stage: Stage) -> dict[str, Tensor]:
        """The tensors that ``stage`` leaves behind."""
        return self.state_dict()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Weighted sum of the stage's losses; each is logged unweighted as ``train/<name>``."""
        assert self.stage is not None, "call begin(stage) first"
        losses: dict[str, tuple[float, Tensor]] = getattr(self, f"{self.stage.name}_step")(batch)
        total = weighted_sum(losses)
        values = {f"train/{name}": value.detach() for name, (_, value) in losses.items()}
        self.log_dict(
            values | {"train/loss": total.detach()}, on_step=False, on_epoch=True, batch_size=len(batch.index)
        )
        if self.stage.manual:
            self._step_schedules()
            return total.detach()
        return total

    @contextmanager
    def turn(self, position: int) -> Iterator[Callable[[Tensor], None]]:
        """The turn of one of several players, under manual optimisation: nobody else's parameters ask for gradients.

        Args:
            position: of its optimiser in the list of ``<stage>_optimizer``.

        Yields:
            A function that takes one step down a loss, to be called once.
        """
        optimizers = self.optimizers()
        optimizer = (optimizers if isinstance(optimizers, list) else [optimizers])[position]

        def descend(loss: Tensor) -> None:
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            torch.clear_autocast_cache()  # it holds the weights of before the step, for the rest of the batch

        with self.toggled_optimizer(optimizer):
            yield descend

    def _step_schedules(self) -> None:
        schedules = self.lr_schedulers()
        for schedule in schedules if isinstance(schedules, list) else [schedules]:
            if schedule is not None:
                schedule.step()

    def on_fit_start(self) -> None:
        """Runs ``on_<stage>_start`` and ``cache_<stage>`` in evaluation mode.

        A checkpoint has already been through the first; what the second keeps is in no checkpoint.
        """
        assert self.stage is not None, "call begin(stage) first"
        hooks = [getattr(self, f"on_{self.stage.name}_start", None)] if self.trainer.ckpt_path is None else []
        hooks.append(getattr(self, f"cache_{self.stage.name}", None))
        self.eval()
        with torch.no_grad():
            for hook in hooks:
                if hook is not None:
                    hook(self._training_images())
        self.train()

    def _training_images(self) -> Iterator[LabelledBatch]:
        """The previous stage's training images, as they are and in order; each process gets its share."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        for batch in datamodule.plain_dataloader():
            moved = datamodule.transfer_batch_to_device(batch, self.device, 0)
            yield datamodule.on_after_batch_transfer(moved, 0)

    def on_train_epoch_start(self) -> None:
        """Seeds dropout and the like by (run, stage, epoch): resumed or not, an epoch is the same."""
        torch.manual_seed((self.stage_seed * 1_000_003 + self.current_epoch * 7919 + self.global_rank) % 2**63)

    def configure_optimizers(self) -> Any:
        """The stage's own optimiser and schedule."""
        assert self.stage is not None, "call begin(stage) first"
        return getattr(self, f"{self.stage.name}_optimizer")() if self.stage.trained else None

    def scheduled(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimiser with a warm-up and cosine schedule over the stage's steps."""
        schedule = warmup_cosine(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # ------------------------------------------------------------------ embedding

    def validation_step(  # type: ignore[override]  # Lightning passes outputs on to callbacks, whatever they are
        self, batch: QueryBatch | GalleryBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> EmbeddingBatch:
        """Embeds; ``RetrievalValidation`` scores the whole epoch."""
        return self.embed(batch)

    def predict_step(self, batch: QueryBatch | GalleryBatch, batch_idx: int, dataloader_idx: int = 0) -> EmbeddingBatch:
        """Embeds, never scores: every method is judged by the one evaluator."""
        return self.embed(batch)

    def embed(self, batch: QueryBatch | GalleryBatch) -> EmbeddingBatch:
        """Vectors of a batch with their positions; true labels reach only methods that declare the need."""
        labels = batch.labels if self.needs_labels else None
        context = Context(labels, batch.domain, batch.image_index)
        if isinstance(batch, QueryBatch):
            vectors = self.embed_query(batch.image, batch.indicator, context._replace(region=batch.region))
        else:
            vectors = self.embed_gallery(batch.image, context)
        return EmbeddingBatch(vectors.float(), batch.index)


def weighted_sum(losses: Mapping[str, tuple[float, Tensor]]) -> Tensor:
    """What is descended: the sum of ``{"loss name": (weight, value)}``."""
    return torch.stack([weight * value for weight, value in losses.values()]).sum()
