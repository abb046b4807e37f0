# SPDX-License-Identifier: MIT
"""Pictures with true boxes, of one split."""

import numpy as np
from numpy.typing import NDArray

from fm_bench.catalog import Dataset, Split, UnreadableImageError
from fm_bench.errors import UserError


def boxed_rows(dataset: Dataset, split: Split) -> NDArray[np.int64]:
    """Catalogue rows of a split whose garment has a box. Raises UserError if there is none."""
    catalog = dataset.catalog
    rows = catalog.rows(split)
    if catalog.box is not None:
        box = catalog.box[rows]
        rows = rows[np.isfinite(box).all(axis=1) & (box[:, 2:] > box[:, :2]).all(axis=1)]
    if catalog.box is None or not len(rows):
        raise UserError(
            f"the {split.name.lower()} pictures come without boxes of the garments, which a detector learns and is "
            "judged by: choose data with boxes, such as garments-street."
        )
    return rows


def read_pictures(
    dataset: Dataset, rows: NDArray[np.int64], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The readable ones of ``rows``: pictures ``(m, height, width, 3)``, and their positions in ``rows``."""
    images, kept = [], []
    for position, name in enumerate(dataset.catalog.image[rows].tolist()):
        try:
            images.append(dataset.source.read(name, size))
        except UnreadableImageError:
            continue
        kept.append(position)
    if not images:
        raise UserError(f"none of {len(rows)} pictures with boxes could be read: check the data set's folder.")
    return np.stack(images), np.array(kept, np.int64)
