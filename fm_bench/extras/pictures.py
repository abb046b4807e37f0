# SPDX-License-Identifier: MIT
"""A sheet of small pictures in one file, of rendered garments alone: other pictures are not ours to publish."""

import hashlib
import io
import math

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fm_bench.catalog import Dataset
from fm_bench.data.crops import CroppedSource
from fm_bench.data.garments import GarmentSource
from fm_bench.leaderboard.extras import Sheet

WIDTH = 72
BYTES = 60_000
"""A sheet has at most about so many."""
COLUMNS = 12
_QUALITIES = (75, 60, 45, 30, 20)


def may_be_shown(dataset: Dataset) -> bool:
    """Whether pictures of these data may stand on a page: those of garments that we drew ourselves."""
    source = dataset.source
    return isinstance(source.source if isinstance(source, CroppedSource) else source, GarmentSource)


class Pictures:
    """Collects small pictures and writes them as one.

    Args:
        dataset: whose pictures are shown.
        size: height and width as the run saw its pictures, whose shape is kept.
    """

    def __init__(self, dataset: Dataset, size: tuple[int, int]) -> None:
        self.dataset = dataset
        self.size = (max(1, round(WIDTH * size[0] / size[1])), WIDTH)
        self._cells: list[NDArray[np.uint8]] = []
        self._of_row: dict[int, int] = {}

    def of(self, row: int) -> int:
        """The cell with the picture of a catalogue row, which is there once."""
        if row not in self._of_row:
            picture = self.dataset.source.read(str(self.dataset.catalog.image[row]), self.size)
            self._of_row[row] = self.add(picture)
        return self._of_row[row]

    def add(self, picture: NDArray[np.uint8]) -> int:
        """The cell of a further picture ``(h, w, 3)``, which is made to fit."""
        height, width = self.size
        if picture.shape[:2] != self.size:
            how = cv2.INTER_AREA if picture.shape[1] > width else cv2.INTER_CUBIC
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)
        self._cells.append(picture)
        return len(self._cells) - 1

    def sheet(self) -> tuple[Sheet, bytes] | tuple[None, None]:
        """All cells, twelve in a row, as WebP of a quality that fits into ``BYTES``; nothing where there are none."""
        if not self._cells:
            return None, None
        height, width = self.size
        columns = min(COLUMNS, len(self._cells))
        rows = math.ceil(len(self._cells) / columns)
        whole = np.full((rows * height, columns * width, 3), 255, np.uint8)
        for at, cell in enumerate(self._cells):
            top, left = at // columns * height, at % columns * width
            whole[top : top + height, left : left + width] = cell
        content = b""
        for quality in _QUALITIES:
            file = io.BytesIO()
            Image.fromarray(whole).save(file, "WEBP", quality=quality)
            content = file.getvalue()
            if len(content) <= BYTES:
                break
        return Sheet(hashlib.sha256(content).hexdigest(), columns, rows, width, height), content
