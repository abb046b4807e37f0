# SPDX-License-Identifier: MIT
"""Which pictures make a batch: seeded, aware of the epoch, and the same however many processes share the work.

A source draws the table of one epoch, ``(n, k)`` positions of training pictures: k = 1 for labelled images, 3 for
triplets, and so on. ``GlobalBatches`` cuts it into batches. Everything is a pure function of (seed, epoch), so that a
run resumed at an epoch boundary goes on as if it had not stopped.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler

from fm_bench.attributes import MISSING
from fm_bench.data.neighbours import counting, groups, unique_vectors
from fm_bench.data.streams import keys
from fm_bench.errors import UserError

Positions = NDArray[np.int64]

NEGATIVE_DRAWS = 32
"""Negatives are redrawn this often; what equals the target even then is replaced by the reference."""


class Draw(NamedTuple):
    """One batch, or this process's share of it."""

    pictures: Positions  # (B, k) positions in the training split
    key: NDArray[np.uint64]  # (B, k) of the augmentation


class Source(Protocol):
    """What is drawn in an epoch."""

    name: str

    def __len__(self) -> int: ...

    def table(self, epoch: int) -> Positions:
        """``(len(self), k)`` positions in the training split."""
        ...


class LabelledSampler:
    """Pictures without repetition, as often over as it takes, in another order in each epoch.

    Args:
        rows: ``(n,)`` positions in the training split.
        seed: of all epochs.
        count: pictures per epoch; None for every one once.
    """

    name = "labelled"

    def __init__(self, rows: Positions, seed: int, count: int | None = None) -> None:
        self.rows, self.seed, self.count = rows, seed, len(rows) if count is None else count

    def __len__(self) -> int:
        return self.count

    def table(self, epoch: int) -> Positions:
        """``(count, 1)`` positions."""
        rng = _generator(self.seed, self.name, epoch)
        rounds = -(-self.count // len(self.rows))
        return np.concatenate([rng.permutation(self.rows) for _ in range(rounds)])[: self.count, None]


class TripletSampler:
    """Manipulation triplets: the positive carries the reference's whole label vector with the request applied.

    References are drawn without repetition, as often over as it takes, from the pictures that have a partner: one with
    the same attributes labelled and exactly n of them different. For each, n is drawn evenly among those of ``changes``
    that it has partners for, then the set of changed attributes evenly among the possible ones, then the target vector
    evenly among the existing ones, then a picture that carries it: rare changes are practised as much as frequent ones.
    The same labelled set is asked for because with a label missing on either side nobody could say what the request
    should have been. The negative is any picture that is known to differ from the target in at least one labelled
    attribute (AMNet says "randomly sampled" and "dissimilar").

    Where a request may change nothing (0 among ``changes``), the positive is another picture with exactly the
    reference's vector, and the set of changed attributes, the empty one included, is drawn evenly among all possible
    ones: over 0 and 1 this goes through "nothing" and every attribute alike (FashionSearchNet Eq. 8).

    Args:
        labels: ``(N, A)`` of the training split, −1 where missing.
        changes: how many attributes a request may change: 0, 1 or 2.
        seed: of all epochs.
        triplets: per epoch; None for as many as there are pictures with a partner.

    Raises:
        UserError: if no picture has a partner.
        ValueError: if ``changes`` holds anything but 0, 1 and 2.
    """

    name = "triplets"

    def __init__(
        self, labels: NDArray[np.int16], *, changes: Sequence[int] = (1,), seed: int, triplets: int | None = None
    ) -> None:
        if not changes or not set(changes) <= {0, 1, 2}:
            raise ValueError(f"triplets change 0, 1 or 2 attributes, not {tuple(changes)}")
        self.labels, self.seed = labels, seed
        self.vectors, self.vector, self.carriers = unique_vectors(labels)
        self.by_vector = np.argsort(self.vector, kind="stable")
        self.first = np.cumsum(self.carriers) - self.carriers
        singles: dict[tuple[int, ...], _Wildcard] = {
            (m,): _Wildcard(self.vectors, (m,)) for m in range(labels.shape[1])
        }
        self.wildcards: list[list[_Wildcard]] = []
        for n in sorted(set(changes) - {0}):
            sets = itertools.combinations(range(labels.shape[1]), n)
            self.wildcards.append([singles[free] if n == 1 else _Wildcard(self.vectors, free) for free in sets])
        self.partners = [_partners(len(self.vectors), wildcards, singles) for wildcards in self.wildcards]
        self.keeps = 0 in changes
        if self.keeps:  # the empty set comes first
            self.partners.insert(0, ((self.carriers > 1) & _has_opposite(self.vectors))[:, None])
        self.usable = np.flatnonzero(np.any([p.any(axis=1) for p in self.partners], axis=0)[self.vector])
        if not len(self.usable):
            raise UserError(
                f"none of the {len(labels)} training images has a partner that differs from it in exactly "
                f"{' or '.join(map(str, changes))} of the same labelled attributes: "
                "give more images or fewer attributes, so that labels repeat."
            )
        self.triplets = len(self.usable) if triplets is None else triplets

    def __len__(self) -> int:
        return self.triplets

    def table(self, epoch: int) -> Positions:
        """``(triplets, 3)`` positions of references, positives and negatives."""
        rng = _generator(self.seed, self.name, epoch)
        rounds = -(-self.triplets // len(self.usable))
        reference = np.concatenate([rng.permutation(self.usable) for _ in range(rounds)])[: self.triplets]
        target = self._targets(self.vector[reference], rng)
        positive = self.by_vector[self.first[target] + _below(self.carriers[target], rng)]
        pending = np.flatnonzero(positive == reference)  # nothing is changed: any other picture of the vector
        while len(pending):
            drawn = target[pending]
            positive[pending] = self.by_vector[self.first[drawn] + _below(self.carriers[drawn], rng)]
            pending = pending[positive[pending] == reference[pending]]
        return np.stack([reference, positive, self._negatives(reference, positive, rng)], axis=1)

    def _targets(self, vector: Positions, rng: np.random.Generator) -> Positions:
        """For each vector one that differs in a set of attributes drawn as the class describes."""
        target = vector.copy()
        has = np.stack([partners.sum(axis=1) for partners in self.partners], axis=1)
        size = _any_column(has[vector] > 0, rng) if not self.keeps else _weighted_column(has[vector], rng)
        for i, wildcards in enumerate(self.wildcards, start=int(self.keeps)):
            members = np.flatnonzero(size == i)
            if not len(members):
                continue
            choice = _any_column(self.partners[i][vector[members]], rng)
            for j, wildcard in enumerate(wildcards):
                pending = members[choice == j]
                while len(pending):  # ends: every one of them has a partner in its group
                    other = wildcard.member(vector[pending], rng)
                    free = list(wildcard.free)
                    good = (self.vectors[other][:, free] != self.vectors[vector[pending]][:, free]).all(axis=1)
                    target[pending[good]] = other[good]
                    pending = pending[~good]
        return target

    def _negatives(self, reference: Positions, positive: Positions, rng: np.random.Generator) -> Positions:
        negative = reference.copy()  # it differs from the target in what was asked
        pending = np.arange(len(reference))
        for _ in range(NEGATIVE_DRAWS):
            drawn = rng.integers(len(self.labels), size=len(pending))
            wanted, found = self.labels[positive[pending]], self.labels[drawn]
            differs = ((wanted != found) & (wanted != MISSING) & (found != MISSING)).any(axis=1)
            negative[pending[differs]] = drawn[differs]
            pending = pending[~differs]
        unchanged = pending[self.vector[reference[pending]] == self.vector[positive[pending]]]
        for vector in np.unique(self.vector[reference[unchanged]]):  # here the reference is no negative: look for all
            rows = unchanged[self.vector[reference[unchanged]] == vector]
            wanted = self.vectors[vector]
            differs = ((self.labels != wanted) & (self.labels != MISSING) & (wanted != MISSING)).any(axis=1)
            negative[rows] = rng.choice(np.flatnonzero(differs), size=len(rows))
        return negative


class QuadrupletSampler(TripletSampler):
    """Triplets with a twin: a picture with exactly the positive's label vector, evenly among all but the positive.

    Where there is none, the positive takes its place: two augmentations of one picture differ, too.
    """

    name = "quadruplets"

    def table(self, epoch: int) -> Positions:
        """``(triplets, 4)`` positions of references, positives, their twins and negatives."""
        reference, positive, negative = super().table(epoch).T
        vector = self.vector[positive]
        place = self.place[positive] - self.first[vector]
        twin = _below(np.maximum(self.carriers[vector] - 1, 1), _generator(self.seed, "twins", epoch))
        twin += (twin >= place) & (self.carriers[vector] > 1)
        return np.stack([reference, positive, self.by_vector[self.first[vector] + twin], negative], axis=1)

    @cached_property
    def place(self) -> Positions:
        """Where each picture stands in ``by_vector``."""
        place: Positions = np.argsort(self.by_vector)
        return place


class _Wildcard:
    """Label vectors grouped by all attributes but the free ones, which must be labelled."""

    def __init__(self, vectors: NDArray[np.int16], free: tuple[int, ...]) -> None:
        self.free = free
        complete = np.flatnonzero((vectors[:, free] != MISSING).all(axis=1))
        grouped = groups(vectors[complete], free)
        self.order = complete[grouped.order].astype(np.int32)
        self.start, self.size = (np.zeros(len(vectors), dtype=np.int32) for _ in range(2))
        self.start[complete], self.size[complete] = grouped.start, grouped.size

    def member(self, vector: Positions, rng: np.random.Generator) -> Positions:
        """For each vector any one of its group, itself included."""
        members: Positions = self.order[self.start[vector] + _below(self.size[vector], rng)].astype(np.int64)
        return members


def _partners(count: int, wildcards: list[_Wildcard], singles: dict[tuple[int, ...], _Wildcard]) -> NDArray[np.bool_]:
    """``(U, sets)``: whether a vector has one that differs from it in all free attributes of a set and in no other."""
    found = np.zeros((count, len(wildcards)), dtype=np.bool_)
    for column, wildcard in enumerate(wildcards):
        partners = wildcard.size - 1  # all of the group but itself …
        if len(wildcard.free) == 2:  # … and but those that differ in only one of the two
            partners = partners - sum(np.maximum(singles[m,].size - 1, 0) for m in wildcard.free)
        found[:, column] = partners > 0
    return found


def _has_opposite(vectors: NDArray[np.int16]) -> NDArray[np.bool_]:
    """``(U,)``: whether some vector is known to differ, i.e. an attribute is labelled that takes several values."""
    varies = [len(np.unique(column[column != MISSING])) > 1 for column in vectors.T]
    found: NDArray[np.bool_] = (vectors[:, varies] != MISSING).any(axis=1)
    return found


def per_value_rows(labels: NDArray[np.int16], per_value: int, seed: int) -> Positions:
    """Up to ``per_value`` images of every value, each image at most once in the result (AMNet's stage 1, A-12).

    Args:
        labels: ``(N, A)``, −1 where missing.
        per_value: images per attribute value; one image may serve several values.
        seed: of the choice.

    Returns:
        Ascending positions in ``labels``.
    """
    order = _generator(seed, "per value", per_value).permutation(len(labels))
    chosen = np.zeros(len(labels), dtype=np.bool_)
    for column in labels.T:
        shuffled = order[np.argsort(column[order], kind="stable")]
        values, run = np.unique(column, return_counts=True)
        keep = (counting(run) < per_value) & (np.repeat(values, run) != MISSING)
        chosen[shuffled[keep]] = True
    return np.flatnonzero(chosen)


class GlobalBatches(Sampler[Draw]):
    """Cuts an epoch into batches; each process takes its slice of every batch.

    The last, smaller batch is left out if there is a full one.

    Args:
        source: what is drawn.
        batch_size: of all processes together.
        seed: of the augmentation.
    """

    def __init__(self, source: Source, batch_size: int, seed: int) -> None:
        self.source, self.batch_size, self.seed = source, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the beginning of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, len(self.source) // self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        table = self.source.table(self.epoch)
        place = np.indices(table.shape)
        key = keys(self.seed, self.source.name, self.epoch, place[0], place[1])
        rank, world = processes()
        for begin in range(0, len(self) * self.batch_size, self.batch_size):
            share = np.array_split(np.arange(begin, min(begin + self.batch_size, len(table))), world)[rank]
            yield Draw(table[share], key[share])


class DealtBatches(Sampler[Positions]):
    """Fixed batches of consecutive positions, dealt out to the processes in turn.

    What is in a batch never depends on the number of processes, and so neither does the last bit of an embedding.

    Args:
        count: positions in all.
        batch_size: positions per batch.
        even: give every process as many batches as any other, by dealing the first ones out again. Under DDP each
            batch of a validation epoch is a rendezvous, so a process that had fewer would keep the others waiting;
            whoever collects the results goes by position and sees no difference.
    """

    def __init__(self, count: int, batch_size: int, *, even: bool) -> None:
        self.count, self.batch_size, self.even = count, batch_size, even

    def _batches(self) -> Sequence[int]:
        rank, world = processes()
        batches = -(-self.count // self.batch_size)
        rounds = -(-batches // world) * world if self.even else batches
        return [number % batches for number in range(rank, rounds, world)]

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[Positions]:
        for number in self._batches():
            begin = number * self.batch_size
            yield np.arange(begin, min(begin + self.batch_size, self.count))


def processes() -> tuple[int, int]:
    """Rank of this process and number of processes of the run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _generator(seed: int, name: str, epoch: int) -> np.random.Generator:
    return np.random.default_rng(int(keys(seed, name, epoch)[0]))


def _below(bounds: NDArray[np.signedinteger[Any]], rng: np.random.Generator) -> Positions:
    """One integer in [0, bound) per positive bound."""
    return rng.integers(0, bounds, dtype=np.int64)


def _any_column(mask: NDArray[np.bool_], rng: np.random.Generator) -> Positions:
    """For each row of ``mask (n, k)`` one of its True columns, each equally likely; every row has one."""
    nth = _below(mask.sum(axis=1), rng)
    column: Positions = (mask.cumsum(axis=1) > nth[:, None]).argmax(axis=1)
    return column


def _weighted_column(weights: NDArray[np.integer[Any]], rng: np.random.Generator) -> Positions:
    """For each row of counts ``(n, k)`` one column, as likely as its count; every row has a positive one."""
    ends = weights.cumsum(axis=1)
    column: Positions = (ends > _below(ends[:, -1], rng)[:, None]).argmax(axis=1)
    return column
