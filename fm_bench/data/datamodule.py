# SPDX-License-Identifier: MIT
"""The DataModule: training batches, validation requests, and, only when asked to predict, the test split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Dataset, Domain, Split, gallery_of
from fm_bench.data.batches import GalleryBatch, LabelledBatch, QueryBatch, TrainingBatch
from fm_bench.data.datasets import Gallery, Pictures, PlainImages, Queries, loader
from fm_bench.data.examples import Examples, examples, pairs, per_step
from fm_bench.data.images import cached_images
from fm_bench.data.instances import Instances
from fm_bench.data.pairs import PairedBy
from fm_bench.data.regions import Regions, regions_of
from fm_bench.data.requests import Requests, exclusions, join, mine, same_item
from fm_bench.data.samplers import DealtBatches, GlobalBatches
from fm_bench.data.transforms import normalise
from fm_bench.errors import UserError

Opened = TypeVar("Opened")

PROTOCOL_SEED = 0
"""Of what every run must share whatever its own seed is: gallery subsets and validation requests."""


class FashionDataModule(L.LightningDataModule):
    """Pictures of one data set as typed batches, uint8 in the loader and normalised on the device.

    Loaders share the work between processes on their own: give the Trainer ``use_distributed_sampler=False``. Every
    order, triplet and augmentation is a pure function of (seed, kind of batch, epoch, position).

    Args:
        dataset: catalogue and pictures, as a reader gives them.
        image_size: ``(height, width)`` in pixels.
        batch_size: training images or triplets per step, of all processes together.
        eval_batch_size: images per batch in validation and prediction.
        num_workers: loader processes; 0 loads in the training process. It changes no batch.
        seed: of all training batches.
        on_error: refuse unreadable pictures, or leave them out of every split before anything is drawn.
        gallery: search at most this many images of ``gallery_of(dataset)``; the smaller galleries are nested in the
            larger. What is searched is never fewer where a protocol has said exactly which (``Dataset.searched``).
        val_requests: at most this many validation requests.
        changes: how many attributes a training triplet or a validation request changes.
        cache: folder of decoded pictures; by default ``files.cache_dir()``.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        image_size: tuple[int, int],
        batch_size: int,
        eval_batch_size: int = 256,
        num_workers: int = 0,
        seed: int = 0,
        on_error: Literal["fail", "skip"] = "fail",
        gallery: int | None = None,
        val_requests: int = 500,
        changes: Sequence[int] = (1,),
        cache: Path | None = None,
    ) -> None:
        super().__init__()
        self._dataset = dataset
        self._options: dict[str, Any] = {"size": tuple(image_size), "on_error": on_error, "cache": cache}
        self._batch_size, self._eval_batch_size, self._num_workers = batch_size, eval_batch_size, num_workers
        self._seed, self._gallery_size, self._val_count, self._changes = seed, gallery, val_requests, tuple(changes)
        self._examples: Examples | None = None
        self._val_kind: Literal["manipulation", "query"] = "manipulation"
        self._labelled: NDArray[np.int64] | None = None
        self._per_step = batch_size
        self._train: Pictures | None = None
        self._val: Pictures | None = None
        self._test: Pictures | None = None
        self._val_requests: Requests | None = None
        self._to_predict: DataLoader[Any] | None = None

    @property
    def batch_size(self) -> int:
        """Training images or triplets per step, of all processes together."""
        return self._batch_size

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the pictures in pixels."""
        size: tuple[int, int] = self._options["size"]
        return size

    @property
    def dataset(self) -> Dataset:
        """Catalogue and pictures of all splits."""
        return self._dataset

    @property
    def domains(self) -> int:
        """How many domains, shop and street, the training split has."""
        catalog = self._dataset.catalog
        return len(np.unique(catalog.domain[catalog.rows(Split.TRAIN)]))

    @property
    def pairs(self) -> PairedBy:
        """What the pictures of a training pair have in common, see ``CrossDomainSampler``; after ``setup("fit")``."""
        try:
            return pairs(self._fit(self._train), self._seed).paired_by
        except UserError:  # nothing pairs up, which only methods that train on pairs mind
            return "labels"

    @property
    def schema(self) -> AttributeSchema:
        """The attributes."""
        return self._dataset.catalog.schema

    # ------------------------------------------------------------------ stages

    def use(
        self,
        batches: TrainingBatch,
        *,
        rows: NDArray[np.int64] | None = None,
        count: int | None = None,
        batch_size: int | None = None,
        instances: Instances = "items",
    ) -> None:
        """Chooses what ``train_dataloader`` gives, after ``setup("fit")``.

        Args:
            batches: the kind of batch.
            rows: labelled batches only: positions in ``train_labels`` to learn from, None for all. ``plain_dataloader``
                keeps to them in later stages, too.
            count: images, triplets or pairs per epoch; None for every image once, or once as a reference if it has a
                partner.
            batch_size: examples per step, see ``per_step``, of all processes together; None for the DataModule's own.
            instances: pairs of an instance only: what is taken for one.

        Raises:
            UserError: if triplets or pairs are asked for and no picture has a partner.
        """
        train = self._fit(self._train)
        if batches is LabelledBatch:
            self._labelled = rows
        self._per_step = per_step(batches, batch_size or self._batch_size)
        self._examples = examples(
            batches,
            train,
            self._plain,
            seed=self._seed,
            changes=self._changes,
            rows=rows,
            count=count,
            instances=instances,
        )

    def validate_by(self, kind: Literal["manipulation", "query"]) -> None:
        """Chooses the validation requests: with changes, or pictures alone, which look for their item (see ``val``)."""
        if kind != self._val_kind:
            self._val_kind, self._val_requests = kind, None

    def prepare_data(self) -> None:
        """Decodes the pictures of the training and validation splits, once; never those of the test split."""
        self._pictures(Split.TRAIN)
        self._pictures(Split.VAL)

    def setup(self, stage: str | None = None) -> None:
        """Opens what the stage needs: ``fit`` and ``validate`` the training side, ``predict`` the test split.

        Raises:
            UserError: if a split is empty or pictures are unreadable.
        """
        if stage in ("fit", "validate") and self._val is None:
            self._train, self._val = self._pictures(Split.TRAIN), self._pictures(Split.VAL)
        if stage == "predict" and self._test is None:
            self._test = self._pictures(Split.TEST)

    def _pictures(self, split: Split) -> Pictures:
        rows = self._choose_gallery() if split is Split.TEST else self._dataset.catalog.rows(split)
        pictures = self._cached(rows, split.name.lower())
        if not len(pictures):
            raise UserError(
                f"the {split.name.lower()} split has no readable image: give it images or choose another split."
            )
        return pictures

    def _cached(self, rows: NDArray[np.int64], label: str) -> Pictures:
        cache = cached_images(self._dataset, rows, label=f"{label} images", **self._options)
        return Pictures.readable(self._dataset.catalog, rows, cache)

    def _choose_gallery(self) -> NDArray[np.int64]:
        rows = gallery_of(self._dataset)
        if self._dataset.searched is not None or self._gallery_size is None or self._gallery_size >= len(rows):
            return rows
        chosen: NDArray[np.int64] = np.random.default_rng(PROTOCOL_SEED).permutation(rows)[: self._gallery_size]
        return np.sort(chosen)

    # ------------------------------------------------------------------ training

    @property
    def train_labels(self) -> NDArray[np.int16]:
        """``(N, A)`` labels of the readable training images, after ``setup("fit")``."""
        return self._fit(self._train).labels

    def train_dataloader(self) -> DataLoader[Any]:
        """Augmented batches of the kind chosen by ``use`` (labelled ones if none was)."""
        train = self._fit(self._train)
        chosen = self._examples or examples(LabelledBatch, train, train, seed=self._seed, changes=self._changes)
        batches = GlobalBatches(chosen.source, self._per_step, self._seed)
        # Where the CPU takes the steps, on all of its cores, a thread that augments would take one away in each step.
        return loader(chosen.dataset, batches, self._num_workers, ahead=torch.accelerator.is_available())

    def plain_dataloader(self) -> DataLoader[LabelledBatch]:
        """The images of the labelled stage as they are, in order; each process gets its share of the batches."""
        batches = DealtBatches(len(self._plain), self._eval_batch_size, even=False)
        return loader(PlainImages(self._plain), batches, self._num_workers)

    @property
    def _plain(self) -> Pictures:
        """The training images of the labelled stage, which later stages on features keep to."""
        train = self._fit(self._train)
        return train if self._labelled is None else train.select(self._labelled)

    # ------------------------------------------------------------------ validation

    @property
    def val_requests(self) -> Requests:
        """Requests on the validation split, by which checkpoints are chosen.

        Requests with changes are evenly of every number in ``changes``. Pictures alone are street photos that look for
        their item where there are such (``val_instance``), else shop photos that look for the same attributes.

        Raises:
            UserError: if none is feasible.
        """
        val, gallery = self._fit(self._val), self._val_gallery
        if self._val_requests is None:
            changes = self._changes if self._val_kind == "manipulation" else (0,)
            limit = -(-self._val_count // len(changes))
            parts, problems = [], []
            if self.val_instance:
                parts = [same_item(val.catalog, self._val_street, gallery.rows, limit=limit, seed=PROTOCOL_SEED)]
                changes = ()
            for n in changes:
                try:
                    parts.append(
                        mine(val.catalog, gallery.rows, gallery.rows, changes=n, limit=limit, seed=PROTOCOL_SEED)
                    )
                except UserError as error:
                    problems.append(error)
            if not parts:
                raise problems[0]
            self._val_requests = join(parts)
        return self._val_requests

    @property
    def val_instance(self) -> bool:
        """Whether validation requests are street photos that look for their item."""
        if self._val_kind == "manipulation":
            return False
        items = self._fit(self._val).catalog.item
        return bool(np.isin(items[self._val_street], items[self._val_gallery.rows]).any())

    @property
    def val_items(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items of the validation gallery ``(N,)`` and of the pictures asked about ``(R,)``."""
        items = self._fit(self._val).catalog.item
        return items[self._val_gallery.rows], items[self.val_requests.query]

    @property
    def _val_street(self) -> NDArray[np.int64]:
        val = self._fit(self._val)
        street: NDArray[np.int64] = val.rows[val.catalog.domain[val.rows] == Domain.STREET]
        return street

    @property
    def _val_gallery(self) -> Pictures:
        val = self._fit(self._val)
        return val.select(np.flatnonzero(val.catalog.domain[val.rows] == Domain.SHOP))

    @property
    def val_labels(self) -> NDArray[np.int16]:
        """``(N, A)`` labels of the validation gallery, the shop images of the validation split."""
        return self._val_gallery.labels

    @property
    def val_exclude(self) -> NDArray[np.int64]:
        """``(R,)`` position of each validation query's own image in the validation gallery."""
        return exclusions(self.val_requests, self._val_gallery.rows)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Two loaders: validation queries and validation gallery."""
        val = self._fit(self._val)
        place = np.searchsorted(val.rows, self.val_requests.query)
        return [self._queries(val.select(place), self.val_requests), self._gallery(self._val_gallery)]

    # ------------------------------------------------------------------ test

    @property
    def gallery_rows(self) -> NDArray[np.int64]:
        """``(N,)`` ascending catalogue rows of the searched images, see ``gallery_of``."""
        return self._predict().rows

    @property
    def gallery_labels(self) -> NDArray[np.int16]:
        """``(N, A)``."""
        return self._predict().labels

    @property
    def gallery_items(self) -> NDArray[np.int64]:
        """``(N,)`` item of each gallery image."""
        rows = self._predict().rows
        return self._dataset.catalog.item[rows]

    def gallery_dataloader(self) -> DataLoader[GalleryBatch]:
        """The gallery in order; each process gets its share of the batches."""
        return self._gallery(self._predict())

    def query_dataloader(self, requests: Requests, *, regions: bool = False) -> DataLoader[QueryBatch]:
        """The requests in order; each process gets its share of the batches.

        Args:
            requests: on pictures of the test split, in the gallery or not.
            regions: whether they are about parts of garments.

        Raises:
            ValueError: if a picture is of another split.
        """
        test = self._predict()
        if (self._dataset.catalog.split[requests.query] != Split.TEST).any():
            raise ValueError("requests to predict must be on pictures of the test split")
        place = exclusions(requests, test.rows)
        parts = self.regions if regions else None
        if (place >= 0).all():
            return self._queries(test.select(place), requests, parts)
        asked = self._cached(np.unique(requests.query), "query")
        place = exclusions(requests, asked.rows)
        if (place < 0).any():
            raise UserError(
                f"{(place < 0).sum()} requests are on unreadable pictures: ask about pictures that can be read."
            )
        return self._queries(asked.select(place), requests, parts)

    def readable(self, requests: Requests) -> Requests:
        """Those of ``requests`` whose pictures can be read; all, where an unreadable picture is an error anyway."""
        place = exclusions(requests, self._predict().rows)
        if self._options["on_error"] == "fail" or (place >= 0).all():
            return requests
        asked = self._cached(np.unique(requests.query), "query")
        return requests.select(np.flatnonzero(np.isin(requests.query, asked.rows)))

    @property
    def regions(self) -> Regions:
        """What is known of parts of garments. Raises UserError if nothing is."""
        return regions_of(self._dataset)

    def predict_with(self, dataloader: DataLoader[Any]) -> None:
        """Chooses what ``predict_dataloader`` gives: one of ``gallery_dataloader`` and ``query_dataloader``."""
        self._to_predict = dataloader

    def predict_dataloader(self) -> DataLoader[Any]:
        """What ``predict_with`` chose, the gallery if nothing was."""
        return self._to_predict or self.gallery_dataloader()

    # ------------------------------------------------------------------ common

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Normalises every field of pictures, on the device."""
        fields = (
            normalise(field) if isinstance(field, torch.Tensor) and field.dtype == torch.uint8 else field
            for field in batch
        )
        return type(batch)(*fields)

    def _gallery(self, pictures: Pictures) -> DataLoader[GalleryBatch]:
        return loader(
            Gallery(pictures), DealtBatches(len(pictures), self._eval_batch_size, even=True), self._num_workers
        )

    def _queries(
        self, pictures: Pictures, requests: Requests, regions: Regions | None = None
    ) -> DataLoader[QueryBatch]:
        batches = DealtBatches(len(requests), self._eval_batch_size, even=True)
        return loader(Queries(pictures, requests, regions), batches, self._num_workers)

    def _fit(self, opened: Opened | None) -> Opened:
        if opened is None:
            raise RuntimeError('the training data is opened by setup("fit"), which has not run')
        return opened

    def _predict(self) -> Pictures:
        if self._test is None:
            raise RuntimeError('the test split is opened by setup("predict") alone, which has not run')
        return self._test
