# SPDX-License-Identifier: MIT
"""Pictures of the same instance: what a network for instance retrieval learns from."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fm_bench.attributes import MISSING
from fm_bench.catalog import Catalog
from fm_bench.data.neighbours import unique_vectors
from fm_bench.data.samplers import Positions, _below, _generator

Instances = Literal["items", "labels", "views"]
"""What is taken for one instance: pictures of one item, pictures with equal label vectors, or views of one picture."""


def instances_of(catalog: Catalog, rows: NDArray[np.int64], kind: Instances) -> NDArray[np.int64]:
    """The instance of each picture, numbered by falling number of pictures.

    Args:
        catalog: the catalogue.
        rows: ``(N,)`` of the pictures.
        kind: what is one instance. By ``labels``, a picture without any label is an instance of its own.

    Returns:
        ``(N,)`` numbers from 0, the instance with most pictures; among equals, the one that comes first.
    """
    if kind == "views":
        return np.arange(len(rows))
    name = catalog.item[rows]
    if kind == "labels":
        name = unique_vectors(catalog.labels[rows])[1].astype(np.int64)
        blank = (catalog.labels[rows] == MISSING).all(axis=1)
        name[blank] = len(rows) + np.arange(blank.sum())
    _, first, number, count = np.unique(name, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(count), dtype=np.int64)
    rank[np.lexsort((first, -count))] = np.arange(len(count))
    return rank[number]


class InstanceSampler:
    """Pairs of pictures of one instance.

    Anchors come without repetition, as often over as it takes; their partners are drawn evenly among the other pictures
    of the instance. A picture that is alone is paired with itself: two augmentations of it differ.

    Args:
        instance: ``(N,)`` of each picture.
        seed: of all epochs.
        pairs: per epoch; None for as many as there are pictures.
    """

    name = "instances"

    def __init__(self, instance: NDArray[np.int64], seed: int, pairs: int | None = None) -> None:
        self.seed, self.pairs = seed, len(instance) if pairs is None else pairs
        self.order = np.argsort(instance, kind="stable")
        self.place = np.argsort(self.order)
        ranked = instance[self.order]
        self.start = np.searchsorted(ranked, instance, side="left")
        self.size = np.searchsorted(ranked, instance, side="right") - self.start

    def __len__(self) -> int:
        return self.pairs

    def table(self, epoch: int) -> Positions:
        """``(pairs, 2)`` positions of anchors and partners."""
        rng = _generator(self.seed, self.name, epoch)
        rounds = -(-self.pairs // len(self.order))
        anchor = np.concatenate([rng.permutation(len(self.order)) for _ in range(rounds)])[: self.pairs]
        start, size = self.start[anchor], self.size[anchor]
        partner = start + _below(np.maximum(size - 1, 1), rng)
        partner += (partner >= self.place[anchor]) & (size > 1)
        return np.stack([anchor, self.order[partner]], axis=1)
