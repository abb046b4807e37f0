# SPDX-License-Identifier: MIT
"""From positions to typed batches: one read of the memory-mapped cache per batch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fm_bench.attributes import MISSING
from fm_bench.catalog import Catalog
from fm_bench.data.batches import (
    CrossDomainBatch,
    GalleryBatch,
    InstanceBatch,
    LabelledBatch,
    PositionsBatch,
    QuadrupletBatch,
    QueryBatch,
    TripletBatch,
    TripletPositionsBatch,
    UnlabelledPositionsBatch,
)
from fm_bench.data.images import ImageCache
from fm_bench.data.prefetch import PrefetchingLoader
from fm_bench.data.regions import Regions
from fm_bench.data.requests import Requests
from fm_bench.data.samplers import Draw
from fm_bench.data.transforms import Augment


@dataclass(frozen=True, eq=False)
class Pictures:
    """The readable pictures of some catalogue rows.

    Args:
        catalog: the catalogue.
        rows: ``(n,)`` catalogue rows.
        cache: where the decoded pictures are.
        place: ``(n,)`` their positions in the cache.
    """

    catalog: Catalog
    rows: NDArray[np.int64]
    cache: ImageCache
    place: NDArray[np.int64]

    @classmethod
    def readable(cls, catalog: Catalog, rows: NDArray[np.int64], cache: ImageCache) -> "Pictures":
        """Of ``rows``, which ``cache`` was built from, those whose picture could be read."""
        place = np.flatnonzero(cache.readable).astype(np.int64)
        return cls(catalog, rows[place], cache, place)

    def select(self, positions: NDArray[np.int64]) -> "Pictures":
        """The pictures at ``positions``, in that order."""
        return Pictures(self.catalog, self.rows[positions], self.cache, self.place[positions])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> NDArray[np.int16]:
        """``(n, A)``."""
        return self.catalog.labels[self.rows]

    def domain(self, rows: NDArray[np.int64]) -> Tensor:
        """``(B,)`` domains of catalogue rows."""
        return _int64(self.catalog.domain[rows])

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """``(B, H, W, 3)`` RGB of the pictures at ``positions (B,)``."""
        return self.cache.images[self.place[positions]]


class LabelledImages(Dataset[LabelledBatch]):
    """Training images with labels; augmented unless ``augment`` is None."""

    def __init__(self, pictures: Pictures, augment: Augment | None) -> None:
        self.pictures, self.augment, self.labels = pictures, augment, pictures.labels

    def __getitem__(self, draw: Draw) -> LabelledBatch:
        """The batch of a draw of ``(B, 1)`` pictures."""
        at = draw.pictures[:, 0]
        images = _shown(self.pictures, at, draw.key[:, 0], self.augment)
        rows = self.pictures.rows[at]
        return LabelledBatch(_image(images), _int64(self.labels[at]), _int64(rows), self.pictures.domain(rows))


class Triplets(Dataset[TripletBatch]):
    """Augmented training triplets."""

    def __init__(self, pictures: Pictures, augment: Augment | None) -> None:
        self.pictures, self.augment, self.labels = pictures, augment, pictures.labels

    def __getitem__(self, draw: Draw) -> TripletBatch:
        """The batch of a draw of ``(B, 3)`` pictures: references, positives, negatives."""
        # One read and one block of memory for all three roles, which then are views of it.
        shown = _shown(self.pictures, draw.pictures.T.ravel(), draw.key.T.ravel(), self.augment)
        reference, positive, negative = _image(shown).chunk(3)
        labels, target, negative_labels = (_int64(self.labels[at]) for at in draw.pictures.T)
        indicator = _indicator(self.pictures, labels, target)
        index = _int64(self.pictures.rows[draw.pictures[:, 0]])
        return TripletBatch(reference, positive, negative, indicator, target, negative_labels, index)


class CrossDomainPairs(Dataset[CrossDomainBatch]):
    """Augmented pairs of one item with a picture of another one."""

    def __init__(self, pictures: Pictures, augment: Augment | None) -> None:
        self.pictures, self.augment, self.labels = pictures, augment, pictures.labels

    def __getitem__(self, draw: Draw) -> CrossDomainBatch:
        """The batch of a draw of ``(B, 3)`` pictures: street, shop, other."""
        shown = _shown(self.pictures, draw.pictures.T.ravel(), draw.key.T.ravel(), self.augment)
        street, shop, other = _image(shown).chunk(3)
        labels = [_int64(self.labels[at]) for at in draw.pictures.T]
        rows = self.pictures.rows[draw.pictures[:, 0]]
        domain = self.pictures.domain(rows)
        return CrossDomainBatch(street, shop, other, labels[0], labels[1], labels[2], domain, _int64(rows))


class InstancePairs(Dataset[InstanceBatch]):
    """Augmented pairs of pictures of one instance.

    Args:
        pictures: of the training split.
        augment: makes two views even of one picture.
        instance: ``(N,)`` of each picture.
    """

    def __init__(self, pictures: Pictures, augment: Augment | None, instance: NDArray[np.int64]) -> None:
        self.pictures, self.augment, self.instance = pictures, augment, instance

    def __getitem__(self, draw: Draw) -> InstanceBatch:
        """The batch of a draw of ``(B, 2)`` pictures: anchors, partners."""
        at = draw.pictures.T.ravel()
        shown = _shown(self.pictures, at, draw.key.T.ravel(), self.augment)
        return InstanceBatch(_image(shown), _int64(self.instance[at]), _int64(self.pictures.rows[at]))


class Quadruplets(Dataset[QuadrupletBatch]):
    """Augmented triplets with a twin of the positive."""

    def __init__(self, pictures: Pictures, augment: Augment | None) -> None:
        self.pictures, self.augment, self.labels = pictures, augment, pictures.labels

    def __getitem__(self, draw: Draw) -> QuadrupletBatch:
        """The batch of a draw of ``(B, 4)`` pictures: references, targets, their twins, negatives."""
        shown = _shown(self.pictures, draw.pictures.T.ravel(), draw.key.T.ravel(), self.augment)
        reference, target, positive, negative = _image(shown).chunk(4)
        at_reference, at_target, at_positive, at_negative = draw.pictures.T
        labels, target_labels, negative_labels = (
            _int64(self.labels[at]) for at in (at_reference, at_target, at_negative)
        )
        return QuadrupletBatch(
            reference=reference,
            target=target,
            positive=positive,
            negative=negative,
            indicator=_indicator(self.pictures, labels, target_labels),
            reference_labels=labels,
            target_labels=target_labels,
            negative_labels=negative_labels,
            twin=torch.from_numpy(at_target != at_positive),
            index=_int64(self.pictures.rows[at_reference]),
        )


class Positions(Dataset[PositionsBatch]):
    """Training images without pictures."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures, self.labels = pictures, pictures.labels

    def __getitem__(self, draw: Draw) -> PositionsBatch:
        """The batch of a draw of ``(B, 1)`` positions."""
        at = draw.pictures[:, 0]
        return PositionsBatch(_int64(at), _int64(self.labels[at]), _int64(self.pictures.rows[at]))


class UnlabelledPositions(Dataset[UnlabelledPositionsBatch]):
    """Training images without pictures or labels."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, draw: Draw) -> UnlabelledPositionsBatch:
        """The batch of a draw of ``(B, 1)`` positions."""
        at = draw.pictures[:, 0]
        return UnlabelledPositionsBatch(_int64(at), _int64(self.pictures.rows[at]))


class TripletPositions(Dataset[TripletPositionsBatch]):
    """Training triplets without pictures."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures, self.labels = pictures, pictures.labels

    def __getitem__(self, draw: Draw) -> TripletPositionsBatch:
        """The batch of a draw of ``(B, 3)`` positions: references, positives, negatives."""
        labels, target, negative_labels = (_int64(self.labels[at]) for at in draw.pictures.T)
        indicator = _indicator(self.pictures, labels, target)
        index = _int64(self.pictures.rows[draw.pictures[:, 0]])
        reference, positive, negative = (_int64(at) for at in draw.pictures.T)
        return TripletPositionsBatch(reference, positive, negative, indicator, target, negative_labels, index)


class PlainImages(Dataset[LabelledBatch]):
    """Training images with labels, as they are."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, positions: NDArray[np.int64]) -> LabelledBatch:
        """The batch of the pictures at ``positions (B,)``."""
        rows = self.pictures.rows[positions]
        return LabelledBatch(
            _image(self.pictures.read(positions)),
            _int64(self.pictures.catalog.labels[rows]),
            _int64(rows),
            self.pictures.domain(rows),
        )


class Gallery(Dataset[GalleryBatch]):
    """Images to search."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, positions: NDArray[np.int64]) -> GalleryBatch:
        """The batch of the gallery positions ``(B,)``."""
        rows, catalog = self.pictures.rows[positions], self.pictures.catalog
        return GalleryBatch(
            image=_image(self.pictures.read(positions)),
            labels=_int64(catalog.labels[rows]),
            domain=_int64(catalog.domain[rows]),
            image_index=_int64(rows),
            index=_int64(positions),
        )


class Queries(Dataset[QueryBatch]):
    """Requests with their pictures.

    Args:
        pictures: one per request, in the order of ``requests``.
        requests: what is asked.
        regions: of the data set, where the requests are about parts of a garment.
    """

    def __init__(self, pictures: Pictures, requests: Requests, regions: Regions | None = None) -> None:
        self.pictures, self.requests, self.regions = pictures, requests, regions

    def __getitem__(self, positions: NDArray[np.int64]) -> QueryBatch:
        """The batch of the requests at ``positions (B,)``."""
        rows, catalog = self.pictures.rows[positions], self.pictures.catalog
        if self.regions is None:
            indicator, region = self.requests.indicator(positions), torch.full((len(positions),), -1)
        else:
            indicator, region = self.regions.asked(self.requests, positions)
        return QueryBatch(
            image=_image(self.pictures.read(positions)),
            indicator=indicator,
            labels=_int64(catalog.labels[rows]),
            domain=_int64(catalog.domain[rows]),
            image_index=_int64(rows),
            index=_int64(positions),
            region=region,
        )


def loader(dataset: Dataset[Any], batches: Sampler[Any], workers: int, *, ahead: bool = True) -> DataLoader[Any]:
    """A loader whose sampler yields whole batches, which ``dataset`` turns into tensors, one batch ``ahead`` or not."""
    kind = PrefetchingLoader if ahead else DataLoader
    return kind(
        dataset,
        batch_size=None,
        sampler=batches,
        num_workers=workers,
        collate_fn=_as_is,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_single_threaded,
    )


def _shown(
    pictures: Pictures, at: NDArray[np.int64], key: NDArray[np.uint64], augment: Augment | None
) -> NDArray[np.uint8]:
    images = pictures.read(at)
    return images if augment is None else augment(images, key)


def _indicator(pictures: Pictures, labels: Tensor, target: Tensor) -> Tensor:
    """Ones at the values in which ``target (B, A)`` differs from ``labels (B, A)``."""
    return pictures.catalog.schema.one_hot(target.masked_fill(labels == target, MISSING))


def _image(images: NDArray[np.uint8]) -> Tensor:
    """``(B, H, W, 3)`` as a tensor ``(B, 3, H, W)``, channels last, without a copy."""
    return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2)


def _int64(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def _as_is(batch: Any) -> Any:
    return batch


def _single_threaded(_worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # its thread pool does not survive a fork
