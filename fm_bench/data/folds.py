# SPDX-License-Identifier: MIT
"""5-fold cross-validation: five splits of the same data whose test parts do not overlap.

All pictures, whatever the reader's own split says of them, are dealt to ten chunks of equal size. Fold ``i`` of 0 to 4
is tested on chunk ``2i``, validated on chunk ``2i + 1`` and trained on the other eight, so that 80 % train, 10 %
validate and the five tests are disjoint tenths.
"""

import hashlib
import heapq
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.catalog import Catalog, Dataset, Split
from fm_bench.data.contents import content_digests
from fm_bench.data.images import FileSource
from fm_bench.data.readers.common import groups
from fm_bench.errors import UserError
from fm_bench.files import digest

FOLDS = 5
CHUNKS = 2 * FOLDS  # a test and a validation chunk for every fold

NOTE = (
    "5-fold cross-validation: in every fold a tenth of all pictures is the test, another tenth validates and eight "
    "tenths train; the data's own split is not used"
)


def folded(dataset: Dataset, fold: int) -> Dataset:
    """The data set with the split of one fold; the order of its rows and what is searched stay.

    Queries and requests that came with the data speak of their own split, and are left out.

    Args:
        dataset: as a reader gives it, before its pictures are cropped.
        fold: 0 to 4.

    Raises:
        UserError: if there is no such fold, or there are fewer than ten groups of pictures that belong together.
    """
    if fold not in range(FOLDS):
        raise UserError(f"fold {fold} does not exist: give 0 to {FOLDS - 1}.")
    chunk = chunks(dataset.catalog.image, together(dataset))
    split = np.full(len(chunk), Split.TRAIN, dtype=np.int8)
    split[chunk == 2 * fold] = Split.TEST
    split[chunk == 2 * fold + 1] = Split.VAL
    catalog = replace(dataset.catalog, split=split)
    return dataset._replace(catalog=catalog, notes=(*dataset.notes, NOTE), queries=None, requests=None)


def chunks(image: NDArray[np.str_], group: NDArray[np.int64]) -> NDArray[np.int8]:
    """Deals whole groups to ten chunks of equal size, ``(N,)`` of 0 to 9, whatever the order of the rows.

    Large groups are dealt first, each to the chunk that is smallest by then, and groups of one size in an order that
    is drawn from the pictures' names: it is the same for every method and every seed of a run.

    Args:
        image: ``(N,)`` names of the pictures.
        group: ``(N,)`` numbers from 0 of pictures that must stay together.

    Raises:
        UserError: if there are fewer than ten groups.
    """
    size = np.bincount(group)
    if len(size) < CHUNKS:
        raise UserError(
            f"the data have {len(size)} groups of pictures that belong together, but {FOLDS} folds need at least "
            f"{CHUNKS}: add pictures or leave --folds out."
        )
    drawn = lots("folds", image, group)
    smallest = [(0, number) for number in range(CHUNKS)]  # pictures and number of every chunk, as a heap
    of_group = np.empty(len(size), dtype=np.int8)
    for number in sorted(range(len(size)), key=lambda number: (-size[number], drawn[number])):
        held, chunk = smallest[0]
        of_group[number] = chunk
        heapq.heapreplace(smallest, (held + int(size[number]), chunk))
    return of_group[group]


def lots(purpose: str, image: NDArray[np.str_], group: NDArray[np.int64]) -> list[bytes]:
    """What each group draws: as good as random, and the same in whatever order the rows are.

    Args:
        purpose: a name; draws for different purposes have nothing to do with each other.
        image: ``(N,)`` names of the pictures.
        group: ``(N,)`` numbers from 0 of the groups that they belong to.
    """
    order = np.argsort(image, kind="stable")
    first = image[order[np.unique(group[order], return_index=True)[1]]]  # each group's lowest name
    return [hashlib.sha256(f"{purpose} {name}".encode()).digest() for name in first.tolist()]


def whole_digest(dataset: Dataset) -> str:
    """Changes with any label or pixel and not with the split: all folds of the same data have the same."""
    catalog: Catalog = dataset.catalog
    return digest(replace(catalog, split=np.zeros_like(catalog.split)).digest, dataset.source.digest)


def together(dataset: Dataset) -> NDArray[np.int64]:
    """Numbers from 0 of pictures that no split may part: those of one item, and files that are byte-identical."""
    catalog, source = dataset.catalog, dataset.source
    same: list[NDArray[Any]] = [catalog.item]
    if isinstance(source, FileSource):  # the reader has digested the files, and the digests are remembered
        same.append(content_digests(source.root, catalog.image))
    return groups(*same)
