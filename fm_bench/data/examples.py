# SPDX-License-Identifier: MIT
"""What a stage learns from: which examples an epoch draws, and how they become tensors, for every kind of batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fm_bench.data.batches import (
    CrossDomainBatch,
    InstanceBatch,
    LabelledBatch,
    PositionsBatch,
    QuadrupletBatch,
    TrainingBatch,
    TripletBatch,
    TripletPositionsBatch,
)
from fm_bench.data.datasets import (
    CrossDomainPairs,
    InstancePairs,
    LabelledImages,
    Pictures,
    Positions,
    Quadruplets,
    TripletPositions,
    Triplets,
    UnlabelledPositions,
)
from fm_bench.data.instances import Instances, InstanceSampler, instances_of
from fm_bench.data.pairs import CrossDomainSampler
from fm_bench.data.samplers import LabelledSampler, QuadrupletSampler, Source, TripletSampler
from fm_bench.data.transforms import Augment


@dataclass(frozen=True)
class Examples:
    """The training examples of a stage.

    Args:
        source: draws an epoch.
        dataset: turns a drawn batch into tensors.
    """

    source: Source
    dataset: Dataset[Any]


def per_step(batches: TrainingBatch, batch_size: int) -> int:
    """Examples that make a batch of ``batch_size``; pairs of an instance are counted by their images."""
    return max(1, batch_size // 2) if batches is InstanceBatch else batch_size


def examples(
    batches: TrainingBatch,
    train: Pictures,
    plain: Pictures,
    *,
    seed: int,
    changes: Sequence[int],
    rows: NDArray[np.int64] | None = None,
    count: int | None = None,
    instances: Instances = "items",
) -> Examples:
    """The examples of one kind of batch.

    Args:
        batches: the kind.
        train: pictures of the training split.
        plain: those of the labelled stage, whose positions stages on features count.
        seed: of all epochs.
        changes: how many attributes a triplet changes.
        rows: labelled batches only: positions in ``train`` to learn from, None for all.
        count: examples per epoch; None for every picture once, or once as a reference if it has a partner.
        instances: pairs of an instance only: what is taken for one.

    Raises:
        UserError: if triplets or pairs are asked for and no picture has a partner.
    """
    if batches is LabelledBatch:
        drawn = np.arange(len(train)) if rows is None else rows
        return Examples(LabelledSampler(drawn, seed, count), LabelledImages(train, Augment()))
    if batches is TripletBatch:
        triplets = TripletSampler(train.labels, changes=changes, seed=seed, triplets=count)
        return Examples(triplets, Triplets(train, Augment()))
    if batches is QuadrupletBatch:
        quadruplets = QuadrupletSampler(train.labels, changes=changes, seed=seed, triplets=count)
        return Examples(quadruplets, Quadruplets(train, Augment()))
    if batches is CrossDomainBatch:
        return Examples(pairs(train, seed, count), CrossDomainPairs(train, Augment()))
    if batches is InstanceBatch:
        instance = instances_of(train.catalog, train.rows, instances)
        return Examples(InstanceSampler(instance, seed, count), InstancePairs(train, Augment(), instance))
    if batches is TripletPositionsBatch:
        kept_too = TripletSampler(train.labels, changes=(0, 1), seed=seed, triplets=count)
        return Examples(kept_too, TripletPositions(train))
    positions = Positions(plain) if batches is PositionsBatch else UnlabelledPositions(plain)
    return Examples(LabelledSampler(np.arange(len(plain)), seed, count), positions)


def pairs(train: Pictures, seed: int, count: int | None = None) -> CrossDomainSampler:
    """Pairs across domains. Raises UserError if no picture has a partner."""
    item, domain = train.catalog.item[train.rows], train.catalog.domain[train.rows]
    return CrossDomainSampler(train.labels, item, domain, seed=seed, pairs=count)
