# SPDX-License-Identifier: MIT
"""What the benchmarks of DeepFashion (Liu et al., CVPR 2016) share: where files lie, boxes, labels of many values.

Every one of them comes as ``Anno/``, ``Eval/`` and ``Img/img.zip``, whose paths begin with ``img/``; users unpack the
pictures beside the archive or one folder above.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_bench.attributes import MISSING
from fm_bench.data import downloads
from fm_bench.data.contents import picture_frames
from fm_bench.data.readers.lists import Rows, codes, columns, integers, places, read_rows
from fm_bench.errors import UserError
from fm_bench.wording import counted

CORNERS = ("x_1", "y_1", "x_2", "y_2")
"""Columns of a box, in pixels."""

CLOTHES = ("upper_body", "lower_body", "full_body")
"""What ``clothes_type`` 1, 2 and 3 are."""

MERGED = {"Cape": "Dress", "Nightdress": "Dress", "Shirtdress": "Dress", "Sundress": "Dress"}
"""Listed categories that the authors merged into another one."""

Multiple = Literal["drop", "missing"]
"""What becomes of an image with several values of one attribute: it is left out, or the label counts as missing."""


class Annotated(NamedTuple):
    """What the files say of ``N`` images."""

    image: NDArray[np.str_]  # (N,)
    split: NDArray[np.int8]  # (N,)
    columns: dict[str, pa.StringArray]  # for each attribute (N,), null where it has no value or several
    several: NDArray[np.bool_]  # (N,) images with several values of one attribute
    pixels: NDArray[np.int64] | None  # (N, 4) boxes
    notes: tuple[str, ...] = ()


def check_root(root: Path, reader: str, *places: str) -> None:
    """Raises UserError, with what is there instead, unless one of ``places`` is below ``root``."""
    if any((root / place).exists() for place in places):
        return
    if not root.is_dir():
        raise UserError(f"{root} {'is not a folder' if root.exists() else 'does not exist'}: {downloads.where(reader)}")
    for place in places:
        nested = next(iter(sorted(root.glob(f"*/{place}"))), None)
        if nested:
            raise UserError(f"{root} has no {place}: pass --data.root {nested.parents[place.count('/')]}.")
    raise UserError(f"{root} has no {' or '.join(places)}: {downloads.where(reader)}")


def find(root: Path, *places: str) -> Path | None:
    """The first of ``places`` below ``root`` that is a file, None if none is."""
    return next((root / place for place in places if (root / place).is_file()), None)


def need(root: Path, reader: str, *places: str) -> Path:
    """As ``find``. Raises UserError if there is none."""
    path = find(root, *places)
    if path is None:
        raise UserError(f"{root} has no {' or '.join(places)}: {downloads.where(reader)}")
    return path


def pictures(root: Path) -> Path:
    """The folder that the paths of lists start from. Raises UserError if no picture was unpacked."""
    for folder in (root / "Img", root):
        if (folder / "img").is_dir() and any((folder / "img").iterdir()):  # unpacking may have left it empty
            return folder
    raise UserError(f"{root} has no folder img/ or Img/img/ with the pictures: unpack img.zip there.")


def corners(rows: Rows, cells: dict[str, pa.StringArray]) -> NDArray[np.int64]:
    """Boxes in pixels ``(N, 4)`` from the columns of a list. Raises UserError if a cell is no number."""
    return np.stack([integers(rows, cells[name], name) for name in CORNERS], axis=1)


class Listed(NamedTuple):
    """A list of boxes and types, as far as it is about given images."""

    pixels: NDArray[np.int64]  # (N, 4), all 0 where the image is not listed
    types: dict[str, pa.StringArray]  # by column (N,), null where the image is not listed

    @classmethod
    def read(cls, path: Path, image: NDArray[np.str_], types: Mapping[str, Sequence[str]]) -> "Listed | None":
        """A list of images, types and boxes; None if there is none.

        Args:
            path: the list.
            image: ``(N,)`` images that something is wanted of.
            types: the names of the types 1, 2 and so on in each column between image and box.

        Raises:
            UserError: if it is damaged or has a type that is not known; names file and line.
        """
        if not path.is_file():
            return None
        rows = read_rows(path, "the list of boxes")
        cells = columns(rows, ("image_name", *types, *CORNERS))
        place = places(rows, cells["image_name"], image)
        absent = place < 0
        found = {}
        for name, values in types.items():
            known = [str(i + 1) for i in range(len(values))]
            found[name] = text(list(values), np.where(absent, MISSING, codes(rows, cells[name], known, name)[place]))
        return cls(np.where(absent[:, None], 0, corners(rows, cells)[place]), found)


def without_boxes(listed: Listed | None) -> list[str]:
    """A note where there is no list of boxes."""
    return [] if listed is not None else ["the annotations have no boxes"]


def check_items(path: Path, rows: Rows, item: pa.StringArray) -> None:
    """Raises UserError if the items of ``rows`` are not all in the list of items, where there is one."""
    if not path.is_file():
        return
    listed = read_rows(path, "the list of items", header=False)
    unknown = np.asarray(pc.invert(pc.is_in(item, listed.text)))
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise rows.wrong(
            row, f"has the item {item[row].as_py()!r}, which {path} does not list", "take both from the same download"
        )


def path_part(image: NDArray[np.str_], place: int) -> pa.StringArray:
    """A folder of each path ``(N,)``, counted from 0; null where it is the file itself."""
    parts = (name.split("/")[:-1] for name in image.tolist())
    return pa.array([folders[place] if len(folders) > place else None for folders in parts], pa.string())


def boxes(folder: Path, image: NDArray[np.str_], pixels: NDArray[np.int64]) -> tuple[NDArray[np.float32], list[str]]:
    """Boxes as shares of pictures whose sizes are read from their headers.

    Args:
        folder: that the paths start from.
        image: ``(N,)`` paths.
        pixels: ``(N, 4)`` left, top, right and bottom, in the picture as it is stored; where EXIF data turn the
            picture, the box turns with it.

    Returns:
        ``(N, 4)`` in [0, 1], the whole picture where the box is empty or the picture cannot be read; and notes on how
        many these are.
    """
    frame = picture_frames(folder, image)
    size, orientation = frame[:, :2], frame[:, 2]
    unread = (size == 0).any(axis=1)
    box = pixels / np.tile(np.maximum(size, 1), 2)
    beyond = ~unread & ((box < 0) | (box > 1)).any(axis=1)
    box = box.clip(0, 1)
    empty = ~unread & ((box[:, 2:] <= box[:, :2]).any(axis=1))
    box[unread | empty] = (0, 0, 1, 1)
    box = _turned(box, orientation)
    told = (
        (unread, "picture is", "pictures are", "missing, or cannot be read"),
        (beyond, "box reaches", "boxes reach", "beyond the picture: cut to it"),
        (empty, "box is", "boxes are", "empty or not listed: the whole picture stands in"),
    )
    notes = [f"{counted(int(which.sum()), one, several)} {what}" for which, one, several, what in told if which.any()]
    return box.astype(np.float32), notes


def _turned(box: NDArray[np.float64], orientation: NDArray[np.int32]) -> NDArray[np.float64]:
    """Boxes ``(N, 4)`` of pictures as they are stored, in the pictures upright, by EXIF orientation ``(N,)``."""
    box = np.where((orientation >= 5)[:, None], box[:, [1, 0, 3, 2]], box)  # width and height change places
    for side, mirrored in ((0, (2, 3, 6, 7)), (1, (3, 4, 7, 8))):
        rows = np.isin(orientation, mirrored)
        box[rows, side], box[rows, side + 2] = 1 - box[rows, side + 2], 1 - box[rows, side]
    return box


def attribute_list(rows: Rows) -> tuple[list[str], NDArray[np.int64]]:
    """Names, which may hold spaces, and types of the attributes of a list. Raises UserError if it is another list."""
    cells = columns(rows, ("attribute_name", "attribute_type"), spaces="first")
    return cells["attribute_name"].to_pylist(), integers(rows, cells["attribute_type"], "attribute_type")


def category_list(rows: Rows) -> list[str]:
    """Names of the categories, whose numbers are their places from 1. Raises UserError if it is another list."""
    names = columns(rows, ("category_name", "category_type"), spaces="first")["category_name"].to_pylist()
    return [MERGED.get(name, name) for name in names]


def category_numbers(rows: Rows, column: pa.StringArray, categories: int) -> NDArray[np.int64]:
    """Numbers of categories, from 1. Raises UserError if a line has another one."""
    number = integers(rows, column, "category_label")
    wrong = (number < 1) | (number > categories)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise rows.wrong(row, f"has the category {number[row]}, but there are 1 to {categories}", "mend the line")
    return number


def single(sign: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The one value of an attribute that each row has.

    Args:
        sign: ``(N, C)`` of the attribute's values, positive where the row has it; 0 and −1 both mean that it was not
            seen there.

    Returns:
        ``(N,)`` position of the value, −1 where there is none or more than one; and ``(N,)`` which have several.
    """
    has = sign > 0
    count = has.sum(axis=1)
    return np.where(count == 1, has.argmax(axis=1), MISSING).astype(np.int64), count > 1


def text(values: list[str], code: NDArray[np.int64]) -> pa.StringArray:
    """Values by position ``(N,)``, null where that is negative."""
    return pa.array(values, pa.string()).take(pa.array(code, mask=code < 0))
