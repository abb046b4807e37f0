# SPDX-License-Identifier: MIT
"""Pictures cut to the boxes of their garments."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from fm_bench.catalog import Catalog, Dataset, ImageSource
from fm_bench.errors import UserError
from fm_bench.files import digest

_ENLARGED = 2  # a garment fills about half of its picture's side or more


@dataclass(eq=False)
class CroppedSource:
    """A source whose pictures are cut to boxes and stretched to the asked size.

    Args:
        source: of the whole pictures.
        boxes: left, top, right and bottom of each picture by name, as shares in [0, 1].
    """

    source: ImageSource
    boxes: dict[str, NDArray[np.float32]]
    digest: str = field(init=False)
    """Changes with any pixel of ``source`` and with any box."""

    def __post_init__(self) -> None:
        self.in_threads = getattr(self.source, "in_threads", False)
        self.digest = digest(self.source.digest, "cropped", np.stack(list(self.boxes.values())))

    def read(self, image: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The part of one picture inside its box, ``(height, width, 3)`` RGB; see ``ImageSource``."""
        whole = self.source.read(image, (_ENLARGED * size[0], _ENLARGED * size[1]))
        return crop(whole, self.boxes[image], size)


def crop(picture: NDArray[np.uint8], box: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The part of ``picture (h, w, 3)`` inside a box, stretched to ``size`` (height, width).

    Args:
        picture: RGB.
        box: left, top, right and bottom as shares in [0, 1]; at least one pixel of it is kept.
        size: of the result.
    """
    h, w = picture.shape[:2]
    left, top = (min(int(np.floor(share * side)), side - 1) for share, side in zip(box[:2], (w, h), strict=True))
    right, bottom = (int(np.ceil(share * side)) for share, side in zip(box[2:], (w, h), strict=True))
    inside = picture[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)]
    shrinks = inside.shape[0] > size[0] and inside.shape[1] > size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(inside, size[::-1], interpolation=how), dtype=np.uint8)


def cropped(dataset: Dataset) -> Dataset:
    """The data set with every picture cut to its box. Raises UserError if the data come without boxes."""
    catalog: Catalog = dataset.catalog
    if catalog.box is None:
        raise UserError("these data come without boxes of the garments: leave --loader.crop at full.")
    boxes = dict(zip(catalog.image.tolist(), catalog.box, strict=True))
    note = "pictures are cut to the garment's box that comes with the data"
    return dataset._replace(source=CroppedSource(dataset.source, boxes), notes=(*dataset.notes, note))
