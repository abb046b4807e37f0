# SPDX-License-Identifier: MIT
"""The fine annotations of DeepFashion: 20,000 images, 26 attributes in six groups, one value of each.

Their files have neither a count nor column names nor names of images; what is in the same place belongs together::

    Anno_fine/train.txt          img/…jpg
    Anno_fine/train_attr.txt     26 times 0 or 1
    Anno_fine/train_cate.txt     a category number from 1
    Anno_fine/train_bbox.txt     x_1 y_1 x_2 y_2 in pixels

A repack of a part of them lies in ``split/``, has a line of column names and six numbers from 0 instead of the 26.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fm_bench.catalog import Split
from fm_bench.data.readers.common import check_attributes, check_inside
from fm_bench.data.readers.deepfashion_files import (
    CORNERS,
    Annotated,
    attribute_list,
    category_list,
    category_numbers,
    corners,
    find,
    pictures,
    single,
    text,
)
from fm_bench.data.readers.lists import Rows, columns, integers, paths, read_rows
from fm_bench.errors import UserError

GROUPS = ("texture", "sleeve", "length", "neckline", "fabric", "fit")
"""Types 1 to 6 of the fine attributes."""

VALUES = (
    ("floral", "graphic", "striped", "embroidered", "pleated", "solid", "lattice"),
    ("long_sleeve", "short_sleeve", "sleeveless"),
    ("maxi_length", "mini_length", "no_dress"),
    ("crew_neckline", "v_neckline", "square_neckline", "no_neckline"),
    ("denim", "chiffon", "cotton", "leather", "faux", "knit"),
    ("tight", "loose", "conventional"),
)
"""Their values, for copies that come without ``list_attr_cloth.txt``."""

_FOLDERS = ("Anno_fine", "split")


def read_fine(root: Path, chosen: Sequence[str] | None) -> Annotated:
    """What the fine annotations say.

    Args:
        root: the data set's folder.
        chosen: attributes; None for the six groups, and for the category where it is known.

    Raises:
        UserError: if a file is missing, damaged or has not as many rows as its neighbour, or an attribute is unknown.
    """
    folder = next(root / name for name in _FOLDERS if (root / name).is_dir())
    names, group = _attributes(folder)
    has_category = _any(folder, "cate")
    known = [*(["category"] if has_category else []), *GROUPS]
    wanted = list(chosen or known)
    check_attributes(wanted, known, f"the fine annotations of {root}")
    lists = {split: _plain(folder / f"{split.name.lower()}.txt", "a list of images", _no_path) for split in Split}
    images = [paths(rows) for rows in lists.values()]
    for rows, held in zip(lists.values(), images, strict=True):
        check_inside(pictures(root), held, rows.path, unit="line", first=rows.first)
    image = np.concatenate(images)
    split = np.repeat(list(lists), [len(rows.text) for rows in lists.values()]).astype(np.int8)
    found, several = _values(folder, lists, names, group, wanted)
    if "category" in wanted:
        listed = find(root, "Anno_fine/list_category_cloth.txt", "Anno_coarse/list_category_cloth.txt")
        found["category"] = _categories(folder, lists, listed)
    has_boxes = _any(folder, "bbox")
    pixels = _stack(lists, "bbox", _box) if has_boxes else None
    notes = () if has_boxes else ("the annotations have no boxes",)
    return Annotated(image, split, {name: found[name] for name in wanted}, several, pixels, notes)


def _any(folder: Path, kind: str) -> bool:
    """Whether a file of this kind is there for some split, so that all splits must have theirs."""
    return any((folder / f"{split.name.lower()}_{kind}.txt").is_file() for split in Split)


def _attributes(folder: Path) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the values, and the group of each from 0."""
    path = folder / "list_attr_cloth.txt"
    if not path.is_file():
        sizes = [len(values) for values in VALUES]
        return [value for values in VALUES for value in values], np.repeat(np.arange(len(GROUPS)), sizes)
    rows = read_rows(path, "the list of fine attributes")
    names, kind = attribute_list(rows)
    if not np.array_equal(np.unique(kind), np.arange(1, len(GROUPS) + 1)):
        raise UserError(
            f"{path} has attributes of types {np.unique(kind).tolist()}, but the fine ones are of types 1 to 6: "
            "download it again."
        )
    return names, kind - 1


def _plain(path: Path, what: str, is_header: Callable[[str], bool]) -> Rows:
    """Rows of a file without a count, and without the line of column names that some copies have."""
    rows = read_rows(path, what, count=False, header=False)
    first = rows.text[0].as_py()
    if not first or not is_header(first):
        return rows
    if len(rows.text) == 1:
        raise rows.wrong(0, "names columns and no row follows")
    return Rows(path, rows.text[1:], 2)


def _no_path(line: str) -> bool:
    return "/" not in line and "." not in line


def _no_number(line: str) -> bool:
    return not line[:1].isdigit() and not line.startswith("-")


def _beside(images: Rows, kind: str) -> Rows:
    """The file that says something of the images of a list, row by row."""
    path = images.path.with_name(f"{images.path.stem}_{kind}.txt")
    rows = _plain(path, f"what belongs to the rows of {images.path.name}", _no_number)
    if len(rows.text) != len(images.text):
        raise UserError(
            f"{path} has {len(rows.text):,} rows, but {images.path.name} names {len(images.text):,} images: "
            "take both files from the same download."
        )
    return rows


def _stack(lists: dict[Split, Rows], kind: str, read: Callable[[Rows], NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([read(_beside(images, kind)) for images in lists.values()])


def _box(rows: Rows) -> NDArray[np.int64]:
    return corners(rows, columns(rows, CORNERS))


def _numbers(rows: Rows) -> NDArray[np.int64]:
    """All cells of a file of numbers, as many columns as its first row has."""
    width = len(rows.text[0].as_py().split())
    cells = columns(rows, [f"column {i + 1}" for i in range(width)])
    return np.stack([integers(rows, column, name) for name, column in cells.items()], axis=1)


def _categories(folder: Path, lists: dict[Split, Rows], listed: Path | None) -> pa.StringArray:
    if listed is None:
        raise UserError(f"{folder} has no list_category_cloth.txt with the categories' names: download it again.")
    names = category_list(read_rows(listed, "the list of categories"))

    def number(rows: Rows) -> NDArray[np.int64]:
        return category_numbers(rows, rows.text, len(names))

    return text(names, _stack(lists, "cate", number) - 1)


def _values(
    folder: Path, lists: dict[Split, Rows], names: list[str], group: NDArray[np.int64], wanted: Sequence[str]
) -> tuple[dict[str, pa.StringArray], NDArray[np.bool_]]:
    """Each image's value of each wanted group, and which images have several of one."""
    sizes = np.bincount(group, minlength=len(GROUPS))

    def places(rows: Rows) -> NDArray[np.int64]:
        """The value of each group by its place, −1 for none, −2 for several."""
        table = _numbers(rows)
        if table.shape[1] not in (len(names), len(GROUPS)):
            raise rows.wrong(0, f"has {table.shape[1]} cells instead of {len(names)} or {len(GROUPS)}")
        highest = np.ones(len(names), dtype=np.int64) if table.shape[1] == len(names) else sizes - 1
        wrong = ((table < -1) | (table > highest)).any(axis=1)
        if wrong.any():
            raise rows.wrong(int(np.flatnonzero(wrong)[0]), "has a number that stands for no value")
        if table.shape[1] == len(GROUPS):
            return table
        found = []
        for g in range(len(GROUPS)):
            code, many = single(table[:, group == g].astype(np.int8))
            found.append(np.where(many, -2, code))
        return np.stack(found, axis=1)

    code = _stack(lists, "attr", places)
    columns_of = [GROUPS.index(name) for name in wanted if name in GROUPS]
    values = {GROUPS[g]: text([names[i] for i in np.flatnonzero(group == g)], code[:, g]) for g in columns_of}
    return values, (code[:, columns_of] == -2).any(axis=1)
