# SPDX-License-Identifier: MIT
"""The split files of ADDE-M (Hou et al., ICCV 2021): images, labels and published requests on them.

Source: https://github.com/amzn/fashion-attribute-disentanglement, folders ``splits/Shopping100k`` and
``splits/DeepFashion``, which Git LFS keeps. None of the files has a header; all are aligned by line::

    attr_num.txt                      values of each attribute: 16 17 19 …
    imgs_train.txt, imgs_test.txt     a path per line
    labels_train.txt, labels_test.txt one-hot codes of all attributes beside each other; a group of zeros is missing
    ref_test.txt                      for each request the line, from 0, of its picture in imgs_test.txt
    indfull_test.txt                  for each request 1 at added values, -1 at removed ones, 0 elsewhere
    gt_test.txt                       for each request the one-hot codes that an answer must have
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_bench.attributes import MISSING, AttributeSchema
from fm_bench.data.readers.lists import Rows, columns, integers, paths, read_rows, read_signs
from fm_bench.data.requests import MAX_CHANGES, Requests
from fm_bench.errors import UserError

SIZES = "attr_num.txt"
"""The file by which a folder of splits is told."""

REQUESTS = ("ref_test.txt", "indfull_test.txt", "gt_test.txt")

_MAX_VALUES = 1 << 20  # more columns than this are no label file


class Listed(NamedTuple):
    """One list of pictures."""

    path: Path
    image: NDArray[np.str_]  # (N,)
    labels: NDArray[np.int16]  # (N, A), −1 where missing


class Asked(NamedTuple):
    """The published requests, on pictures of the test list."""

    reference: NDArray[np.int64]  # (R,) positions in the test list
    attribute: NDArray[np.int16]  # (R, 2) changed attributes in ascending order, −1 where there is none
    value: NDArray[np.int16]  # (R, 2) wanted values, −1 where there is none
    target: NDArray[np.int16]  # (R, A), −1 where missing
    lacking: int  # requests that add an attribute which their picture has no label of
    beyond: int  # requests whose target differs from the picture in an attribute that they do not name

    def requests(self, schema: AttributeSchema, first: int) -> Requests:
        """As requests on a catalogue whose row ``first`` is the first picture of the test list."""
        return Requests(schema, self.reference + first, self.attribute, self.value, self.target)


def read_sizes(folder: Path) -> tuple[int, ...]:
    """How many values each attribute has.

    Raises:
        UserError: if the file is missing, a Git LFS pointer, or holds anything but positive numbers.
    """
    rows = read_rows(folder / SIZES, "the number of values of each attribute", count=False, header=False)
    cells = pc.utf8_split_whitespace(rows.text).flatten()
    sizes = integers(rows, cells, "a number of values") if len(rows.text) == len(cells) else _in_a_line(rows)
    if (sizes < 1).any() or sizes.sum() > _MAX_VALUES:
        raise UserError(
            f"{rows.path} holds {sizes.tolist()[:20]}, but every attribute has a value: get the file again."
        )
    return tuple(sizes.tolist())


def _in_a_line(rows: Rows) -> NDArray[np.int64]:
    words = " ".join(rows.text.to_pylist()).split()
    if not all(word.isascii() and word.isdigit() and len(word) < 8 for word in words):
        raise rows.wrong(0, f"has {' '.join(words)[:80]!r}, which are not all whole numbers", "get the file again")
    return np.array([int(word) for word in words], dtype=np.int64)


def read_list(folder: Path, which: str, sizes: tuple[int, ...]) -> Listed:
    """The pictures of ``which`` list, ``train`` or ``test``, and their labels.

    Raises:
        UserError: if a file is missing, a Git LFS pointer or damaged, the two differ in length, or a picture has two
            values of one attribute; says which line.
    """
    path, labels = folder / f"imgs_{which}.txt", folder / f"labels_{which}.txt"
    image = paths(read_rows(path, "a list of image paths", count=False, header=False))
    codes = one_hot(labels, "one-hot labels, one line per image", sizes)
    if len(codes) != len(image):
        raise UserError(
            f"{labels} has {len(codes):,} lines but {path} {len(image):,}: they belong line by line, get both again."
        )
    return Listed(path, image, codes)


def one_hot(path: Path, what: str, sizes: tuple[int, ...]) -> NDArray[np.int16]:
    """Labels ``(N, A)`` of a file of one-hot codes; a group of zeros is missing, −1.

    Raises:
        UserError: if a line holds -1, or two values of one attribute; says which line.
    """
    sign = _read(path, what, sizes)
    if (sign < 0).any():
        line = int((sign < 0).any(axis=1).argmax()) + 1
        raise UserError(
            f"{path} line {line} holds a -1, but labels are 0 or 1: this may be another file, check its name."
        )
    label, crowded = _per_attribute(sign, sizes)
    if len(crowded):
        row, m = crowded[0].tolist()
        raise UserError(
            f"{path} line {row + 1} has {int(_block(sign, sizes, m)[row].sum())} ones among the {sizes[m]} values of "
            f"attribute {m + 1} ({len(crowded):,} such groups in all): an attribute has one value, mend the lines."
        )
    return label


def read_asked(folder: Path, sizes: tuple[int, ...], test: Listed) -> Asked | None:
    """The published requests; None where none of their files is there.

    Raises:
        UserError: if only some of the files are there, one is damaged, they differ in length, or a line asks for what
            cannot be: no picture of the test list, no or too many added values, a target without a wanted value.
    """
    paths = [folder / name for name in REQUESTS]
    there = [path.is_file() for path in paths]
    if not any(there):
        return None
    if not all(there):
        raise UserError(
            f"{folder} lacks {', '.join(name for name, found in zip(REQUESTS, there, strict=True) if not found)}: "
            "requests need all three files, get them again or remove the others."
        )
    rows = read_rows(paths[0], "the line of each request's picture", count=False, header=False)
    reference = integers(rows, columns(rows, ["line"])["line"], "the line of a picture")
    sign = _read(paths[1], "an indicator of each request", sizes)
    target = one_hot(paths[2], "the one-hot target of each request", sizes)
    if not len(reference) == len(sign) == len(target):
        raise UserError(
            f"{folder} has {len(reference):,} lines in {REQUESTS[0]}, {len(sign):,} in {REQUESTS[1]} and "
            f"{len(target):,} in {REQUESTS[2]}: they belong line by line, get all three again."
        )
    outside = (reference < 0) | (reference >= len(test.image))
    if outside.any():
        wrong = int(outside.argmax())
        raise rows.wrong(
            wrong,
            f"names picture {reference[wrong]} of the {len(test.image):,} in {test.path.name}",
            "get both files again, from one place",
        )
    attribute, value = _changes(sign, sizes, paths[1])
    _check_wanted(attribute, value, target, paths[1], paths[2])
    before = test.labels[reference]
    row, change = np.nonzero(attribute >= 0)
    named = np.zeros(target.shape, dtype=np.bool_)
    named[row, attribute[row, change]] = True
    lacking = (named & (before == MISSING)).any(axis=1)
    beyond = (~named & (before != target)).any(axis=1)
    return Asked(reference, attribute, value, target, int(lacking.sum()), int(beyond.sum()))


def _changes(sign: NDArray[np.int8], sizes: tuple[int, ...], path: Path) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Changed attributes and their wanted values, ``(R, 2)`` each."""
    wanted, crowded = _per_attribute(np.maximum(sign, 0), sizes)
    if len(crowded):
        row, m = crowded[0].tolist()
        raise UserError(
            f"{path} line {row + 1} adds two values of attribute {m + 1}: a request wants one, mend the line."
        )
    count = (wanted >= 0).sum(axis=1)
    wrong = (count < 1) | (count > MAX_CHANGES)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{path} line {row + 1} adds {count[row]} values, but a request changes one or {MAX_CHANGES} attributes: "
            "remove the line here and in the other files of requests."
        )
    row, m = np.nonzero(wanted >= 0)  # row by row, attributes ascending
    second = np.append(False, row[1:] == row[:-1]).astype(np.int64)
    attribute, value = np.full((2, len(sign), MAX_CHANGES), MISSING, dtype=np.int16)
    attribute[row, second], value[row, second] = m, wanted[row, m]
    return attribute, value


def _check_wanted(
    attribute: NDArray[np.int16], value: NDArray[np.int16], target: NDArray[np.int16], asked: Path, answers: Path
) -> None:
    row, change = np.nonzero(attribute >= 0)
    differs = target[row, attribute[row, change]] != value[row, change]
    if differs.any():
        line = int(row[int(differs.argmax())]) + 1
        raise UserError(
            f"{asked} line {line} adds a value that line {line} of {answers.name} lacks ({differs.sum():,} such values "
            "in all): 1 must stand for added and -1 for removed values, and both files must be of one release."
        )


def _read(path: Path, what: str, sizes: tuple[int, ...]) -> NDArray[np.int8]:
    width = sum(sizes)
    return read_signs(path, what, width, np.arange(width), named=False, count=False, header=False).sign


def _per_attribute(sign: NDArray[np.int8], sizes: tuple[int, ...]) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """The value ``(N, A)`` that each group of columns marks, −1 for none; and where one marks several, ``(n, 2)``."""
    label = np.full((len(sign), len(sizes)), MISSING, dtype=np.int16)
    crowded = np.zeros(label.shape, dtype=np.bool_)
    for m in range(len(sizes)):
        block = _block(sign, sizes, m)
        count = block.sum(axis=1, dtype=np.int32)
        label[:, m] = np.where(count > 0, block.argmax(axis=1), MISSING)
        crowded[:, m] = count > 1
    return label, np.argwhere(crowded)


def _block(sign: NDArray[np.int8], sizes: tuple[int, ...], m: int) -> NDArray[np.int8]:
    start = sum(sizes[:m])
    return sign[:, start : start + sizes[m]]
