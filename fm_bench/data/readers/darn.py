# SPDX-License-Identifier: MIT
"""*DARN* (Huang et al., ICCV 2015): photos of garments from shops and customers, with nine attributes.

The authors gave a list of addresses, many of which lead nowhere by now. Read here is what ASEN++ made of the reachable
ones (Dong et al., TIP 2021, https://github.com/Maryeon/asenpp), without a header in any file::

    ROOT/filenames_{train,valid,test}.txt        a path per line, pic/…
    ROOT/label_train.txt                         line of the picture from 0, then pairs of attribute and value, from 0
    ROOT/query_{valid,test}.txt                  line of the picture, attribute, value
    ROOT/candidate_{valid,test}.txt              the same, for pictures that are searched
    ROOT/pic/…

Nothing in these files says which photos are a customer's, or which show the same garment.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_bench.attributes import MISSING, AttributeSchema
from fm_bench.catalog import Catalog, Dataset, Domain, Split, check_splits
from fm_bench.data import downloads
from fm_bench.data.contents import content_digests
from fm_bench.data.readers.common import OnError, below, check_inside, duplicates, file_source, groups
from fm_bench.data.readers.lists import Rows, paths, read_rows
from fm_bench.errors import UserError
from fm_bench.files import user_path
from fm_bench.wording import counted

ATTRIBUTES = {
    "category": 20,
    "button": 13,
    "colour": 55,
    "length": 7,
    "pattern": 28,
    "shape": 11,
    "collar": 26,
    "sleeve_length": 8,
    "sleeve_shape": 17,
}
"""Attributes in the files' order and how many values they have there, which differs by one from the paper in eight."""

FOLDERS = ("", "pic")
"""Below the root, where photos are looked for."""

LISTS = {Split.TRAIN: "train", Split.VAL: "valid", Split.TEST: "test"}

_NESTED = ("DARN", "data/DARN")


class Facts(NamedTuple):
    """What one file says: this picture has this value of this attribute."""

    row: NDArray[np.int64]  # (n,) position in the list of pictures
    attribute: NDArray[np.int64]  # (n,)
    value: NDArray[np.int64]  # (n,)


@dataclass(frozen=True)
class DarnReader:
    """DARN as ASEN++ distributes it: nine attributes, its splits, its queries apart from what is searched.

    Training pictures have most labels; those of the other splits only what ASEN++ asks about. Values have no names but
    their numbers.

    Args:
        root: folder that holds the lists and ``pic/``.
        on_error: refuse pictures that cannot be read, or leave them out; some of the addresses no longer work.
    """

    name: ClassVar[str] = "darn"
    aspect: ClassVar[float] = 1.0

    root: str
    on_error: OnError = "fail"

    def read(self) -> Dataset:
        """The catalogue, its pictures and those that are only asked about.

        Raises:
            UserError: if the folder or its files are missing or damaged, only the list of addresses is there, or a
                line names what does not exist; says which.
        """
        root = user_path(self.root)
        _check_root(root)
        lists = {split: _pictures(root, name) for split, name in LISTS.items()}
        listed = np.concatenate([paths(rows) for rows in lists.values()])
        image = below(root, FOLDERS, listed)
        split = np.repeat(list(lists), [len(rows.text) for rows in lists.values()]).astype(np.int8)
        for part, rows in lists.items():
            check_inside(root, image[split == part], rows.path, unit="line")
        facts, queries = _facts(root, lists)
        labels, contradicted = _labels(facts, len(image))
        content = content_digests(root, image)
        item = groups(content)
        values = {name: [str(value) for value in range(size)] for name, size in ATTRIBUTES.items()}
        domain = np.full(len(image), Domain.SHOP, dtype=np.int8)
        catalog = Catalog(AttributeSchema.from_dict(values), image, labels, item, split, domain)
        check_splits(catalog, str(root))
        notes = ["the files do not tell street photos from shop photos: all count as shop photos", *duplicates(item)]
        if contradicted:
            labels_are = counted(contradicted, "label is", "labels are")
            notes.append(f"{labels_are} given twice with other values, which counts as missing")
        if unlabelled := int((labels == MISSING).all(axis=1).sum()):
            notes.append(f"{counted(unlabelled, 'listed picture has', 'listed pictures have')} no label")
        if len(queries):
            notes.append(
                f"{counted(len(queries), 'test picture is', 'test pictures are')} asked about and never searched"
            )
        return Dataset(catalog, file_source(root, image, content), tuple(notes), queries=queries)


def _check_root(root: Path) -> None:
    """Raises UserError, with what is there instead, unless the lists are below ``root``."""
    first = f"filenames_{LISTS[Split.TRAIN]}.txt"
    if (root / first).is_file():
        return
    nested = next((root / name for name in _NESTED if (root / name / first).is_file()), None)
    if nested:
        raise UserError(f"{root} has no {first}: pass --data.root {nested}.")
    addresses = next(iter(sorted(root.glob("*url*.txt"))), None) if root.is_dir() else None
    if addresses:
        raise UserError(
            f"{root} holds {addresses.name}, which lists addresses of images and no labels: "
            f"fetch the images into pic/, and {downloads.where('darn')}"
        )
    found = f"has no {first}" if root.is_dir() else "is not a folder"
    raise UserError(f"{root} {found}: {downloads.where('darn')}")


def _pictures(root: Path, name: str) -> Rows:
    return read_rows(root / f"filenames_{name}.txt", "a list of image paths", count=False, header=False)


def _facts(root: Path, lists: dict[Split, Rows]) -> tuple[Facts, NDArray[np.int64]]:
    """All labels by catalogue row, and the test rows that are only asked about."""
    count = {split: len(rows.text) for split, rows in lists.items()}
    parts = [read_facts(root / "label_train.txt", count[Split.TRAIN])]
    queries = np.empty(0, dtype=np.int64)
    first = count[Split.TRAIN]
    for split in (Split.VAL, Split.TEST):
        asked, searched = (
            read_facts(root / f"{kind}_{LISTS[split]}.txt", count[split]) for kind in ("query", "candidate")
        )
        parts += [facts._replace(row=facts.row + first) for facts in (asked, searched)]
        queries = np.setdiff1d(asked.row, searched.row) + first  # of the last one, the test split
        first += count[split]
    return Facts(*(np.concatenate(column) for column in zip(*parts, strict=True))), queries


def read_facts(path: Path, pictures: int) -> Facts:
    """Reads lines of a picture's number and pairs of attribute and value.

    Args:
        path: the file.
        pictures: how many there are in the list that the first number counts.

    Raises:
        UserError: if the file is missing or something else, or a line has no pairs or names a picture, attribute or
            value that does not exist.
    """
    rows = read_rows(path, "lines of a picture's number, attributes and values", count=False, header=False)
    cells = pc.utf8_split_whitespace(rows.text)
    length = np.asarray(pc.list_value_length(cells), dtype=np.int64)
    wrong = (length < 3) | (length % 2 == 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise rows.wrong(row, f"has {length[row]} cells, not a picture's number and pairs of attribute and value")
    line = np.repeat(np.arange(len(length)), length)
    flat = cells.flatten()
    fine = np.asarray(pc.match_substring_regex(flat, r"^[0-9]{1,9}$"), dtype=np.bool_)
    if not fine.all():
        cell = int((~fine).argmax())
        raise rows.wrong(int(line[cell]), f"has {flat[cell].as_py()[:40]!r}, which is no number from 0")
    number = np.asarray(pc.cast(flat, "int64"))
    start = np.cumsum(length) - length
    place = np.arange(len(number)) - start[line]  # 0 for the picture, then attributes at odd places
    attribute_at = np.flatnonzero(place % 2 == 1)
    row, attribute, value = number[start][line[attribute_at]], number[attribute_at], number[attribute_at + 1]
    sizes = np.array(list(ATTRIBUTES.values()))
    for bad, what in (
        (row >= pictures, f"a picture of which there are {pictures:,}"),
        (attribute >= len(sizes), f"an attribute of which there are {len(sizes)}"),
        (value >= sizes[attribute.clip(max=len(sizes) - 1)], "a value that its attribute does not have"),
    ):
        if bad.any():
            raise rows.wrong(
                int(line[attribute_at[int(bad.argmax())]]), f"names {what}", "take all files from one place"
            )
    return Facts(row, attribute, value)


def _labels(facts: Facts, pictures: int) -> tuple[NDArray[np.int16], int]:
    """Labels ``(N, 9)``, and how many were given twice with other values, which are missing."""
    labels = np.full((pictures, len(ATTRIBUTES)), MISSING, dtype=np.int16)
    labels[facts.row, facts.attribute] = facts.value
    differs = labels[facts.row, facts.attribute] != facts.value
    cells = np.unique(np.stack([facts.row[differs], facts.attribute[differs]]), axis=1)
    labels[cells[0], cells[1]] = MISSING
    return labels, cells.shape[1]
