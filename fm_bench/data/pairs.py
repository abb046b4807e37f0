# SPDX-License-Identifier: MIT
"""Pictures of one item across domains, with a picture of another item: what a cross-domain ranking loss learns from."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fm_bench.attributes import MISSING
from fm_bench.catalog import Domain
from fm_bench.data.neighbours import unique_vectors
from fm_bench.data.samplers import Positions, _below, _generator
from fm_bench.errors import UserError

PairedBy = Literal["domains", "items", "labels"]
"""What two pictures of a pair have in common: their item in both domains, their item, or only their labels."""

USUAL = 0.5
"""From this share of pictures on that have a partner, items make pairs."""


class CrossDomainSampler:
    """A street picture, a shop picture of the same item, and a shop picture of another item (DARN, Sec. 3.3).

    Street pictures whose item has a shop picture come without repetition, as often over as it takes; the shop picture
    is drawn evenly among the item's, the third evenly among those of all other items. All are drawn anew in every
    epoch. As in the paper the third only shows another *item*: all its attributes may be the same.

    Where no item has pictures of both domains, two different shop pictures of one item are paired instead (any two
    where there are no shop pictures); where items usually have one picture, pictures with equal label vectors, missing
    labels included, stand in as the same item. A catalogue that lists a few files twice is such a case.

    Args:
        labels: ``(N, A)`` of the training split, −1 where missing.
        item: ``(N,)`` item of each picture.
        domain: ``(N,)`` of ``Domain``.
        seed: of all epochs.
        pairs: per epoch; None for as many as there are pictures with a partner.

    Raises:
        UserError: if no picture has a partner, or all show one item.
    """

    name = "pairs"

    def __init__(
        self,
        labels: NDArray[np.int16],
        item: NDArray[np.int64],
        domain: NDArray[np.int8],
        *,
        seed: int,
        pairs: int | None = None,
    ) -> None:
        shop = np.flatnonzero(domain == Domain.SHOP)
        street = np.flatnonzero(domain == Domain.STREET)
        self.seed = seed
        self.item = item
        self._pool(shop)
        self.anchors = street[self.size[street] > 0]
        self.across = bool(len(self.anchors))
        self.paired_by: PairedBy = "domains"
        if not self.across:
            self._pair_within(labels, shop if len(shop) else street)
        if int(self.size[self.anchors[0]]) == len(self.order):
            raise UserError(
                f"all {len(self.order)} training images that could be paired show one item: "
                "a ranking loss needs images of at least two."
            )
        self.pairs = len(self.anchors) if pairs is None else pairs

    def _pool(self, pool: Positions) -> None:
        """Sorts the pictures that are drawn from by item; for every picture, where its item begins and how many."""
        self.order = pool[np.argsort(self.item[pool], kind="stable")]
        sorted_items = self.item[self.order]
        self.start = np.searchsorted(sorted_items, self.item, side="left")
        self.size = np.searchsorted(sorted_items, self.item, side="right") - self.start
        self.place = np.full(len(self.item), -1, dtype=np.int64)  # of a picture in `order`
        self.place[self.order] = np.arange(len(self.order))

    def _pair_within(self, labels: NDArray[np.int16], pool: Positions) -> None:
        self._pool(pool)
        self.paired_by = "items"
        if not (self.size[pool] > 1).mean() > USUAL:
            self.paired_by = "labels"
            self.item = unique_vectors(labels)[1]
            self._pool(pool[(labels[pool] != MISSING).any(axis=1)])
            pool = self.order
        self.anchors = np.sort(pool[self.size[pool] > 1])
        if not len(self.anchors):
            raise UserError(
                f"none of the {len(labels)} training images shares its item or its full label vector with another: "
                "give several images of an item, or fewer attributes, so that label vectors repeat."
            )

    def __len__(self) -> int:
        return self.pairs

    def table(self, epoch: int) -> Positions:
        """``(pairs, 3)`` positions of street, shop and other."""
        rng = _generator(self.seed, self.name, epoch)
        rounds = -(-self.pairs // len(self.anchors))
        street = np.concatenate([rng.permutation(self.anchors) for _ in range(rounds)])[: self.pairs]
        start, size = self.start[street], self.size[street]
        if self.across:
            shop = start + _below(size, rng)
        else:  # any one of the item but the picture itself
            shop = start + _below(size - 1, rng)
            shop += shop >= self.place[street]
        # An even draw over all other items: what drawing again until the item differs ends with.
        other = _below(len(self.order) - size, rng)
        other += np.where(other >= start, size, 0)
        return np.stack([street, self.order[shop], self.order[other]], axis=1)
