# SPDX-License-Identifier: MIT
"""*Shopping100k* (Ak et al., WACV 2018): 101,021 shop photos of garments without a person, with twelve attributes.

The photos come from their authors on request. The labels come either from the split files of ADDE-M, which hold
published requests as well (see ``adde``), or from a table of one's own::

    ROOT/Images/…                       photos, below ROOT or a folder of it
    ROOT/splits/Shopping100k/…          the split files; they may lie elsewhere
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Dataset, Domain, Split, check_splits
from fm_bench.data import downloads
from fm_bench.data.contents import content_digests
from fm_bench.data.readers import adde
from fm_bench.data.readers.common import (
    OnError,
    below,
    check_inside,
    duplicates,
    file_source,
    groups,
    shares_of,
    split_by_content,
)
from fm_bench.data.readers.table import TableReader
from fm_bench.errors import UserError
from fm_bench.files import user_path
from fm_bench.wording import counted

ATTRIBUTES = {
    "category": 16,
    "collar": 17,
    "colour": 19,
    "fabric": 14,
    "fastening": 10,
    "fit": 15,
    "gender": 2,
    "neckline": 11,
    "pattern": 16,
    "pocket": 7,
    "sleeve_length": 9,
    "sport": 15,
}
"""Attributes and how many values they have, in the order of the split files, which name none of them.

The sizes by name are those of papers on this data set. The release says that the first is category; in alphabetical
order, and in no other that is one of the names, all twelve sizes are those of its ``attr_num.txt``.
"""

FOLDERS = ("", "Images", "images", "img", "Img")
"""Below the root, where photos are looked for."""

_SPLITS = ("", "splits/Shopping100k", "Shopping100k", "splits")


@dataclass(frozen=True)
class Shopping100kReader:
    """Shopping100k with the split files of ADDE-M or with a table of labels; ADDE-M's DeepFashion reads the same way.

    With split files their test list is the test split, their requests are asked as they are, and validation is cut
    from their training list. Their values have no names; they are numbered from 1 in the order of the columns.

    Args:
        root: folder that the image paths start from, or whose folder ``Images`` they start from.
        splits: folder of the split files, relative to root or to the current folder; by default root, or
            ``splits/Shopping100k`` below it.
        table: instead of split files, a CSV or Parquet table with a row per image and a column per attribute.
        image: column of image paths of that table.
        attributes: attribute columns of that table; by default every column of 2 to 64 values.
        val_share: share of the distinct training pictures for validation; of all with a table.
        test_share: with a table, share of the distinct pictures for the test split.
        on_error: refuse pictures that cannot be read, or leave them out.
        split_seed: another seed, another choice of the pictures that are cut.
    """

    name: ClassVar[str] = "shopping100k"
    aspect: ClassVar[float] = 1.25

    root: str
    splits: str | None = None
    table: str | None = None
    image: str = "image"
    attributes: list[str] | str | None = None
    val_share: float = 0.1
    test_share: float = 0.218
    on_error: OnError = "fail"
    split_seed: int = 0

    def read(self) -> Dataset:
        """The catalogue, its pictures and, with split files, the published requests.

        Raises:
            UserError: if the folder or its files are missing, damaged or Git LFS pointers, both kinds of labels are
                named, or a line of a file is wrong; says which.
        """
        root = user_path(self.root)
        if self.splits and self.table:
            raise UserError("--data.splits and --data.table both name labels: give one of them.")
        if not root.is_dir():
            raise UserError(f"{root} is not a folder: {downloads.where(self.name)}")
        if self.table:
            return self._from_table(root)
        return self._from_splits(root, self._folder(root))

    def _from_table(self, root: Path) -> Dataset:
        return TableReader(
            str(root),
            str(self.table),
            self.image,
            attributes=self.attributes,
            min_count=1,
            val_share=self.val_share,
            test_share=self.test_share,
            on_error=self.on_error,
            split_seed=self.split_seed,
        ).read()

    def _folder(self, root: Path) -> Path:
        """Where the split files are."""
        candidates = [root / self.splits, user_path(self.splits)] if self.splits else [root / name for name in _SPLITS]
        found = next((folder for folder in candidates if (folder / adde.SIZES).is_file()), None)
        if found is None:
            looked = self.splits or f"{root} or splits/Shopping100k/ below it"
            raise UserError(
                f"no {adde.SIZES} of ADDE-M's split files is in {looked}: {downloads.where(self.name)} "
                "Or name a table of labels as --data.table."
            )
        return found

    def _from_splits(self, root: Path, folder: Path) -> Dataset:
        if self.attributes is not None:
            raise UserError("--data.attributes chooses columns of a table, but these are split files: leave it out.")
        sizes = adde.read_sizes(folder)
        schema = _schema(sizes)
        train, test = (adde.read_list(folder, which, sizes) for which in ("train", "test"))
        asked = adde.read_asked(folder, sizes, test)
        image = below(root, FOLDERS, np.concatenate([train.image, test.image]))
        for part, names in ((train, image[: len(train.image)]), (test, image[len(train.image) :])):
            check_inside(root, names, part.path, unit="line")
        content = content_digests(root, image)
        item = groups(content)
        split = self._split(content, item, len(train.image))
        domain = np.full(len(image), Domain.SHOP, dtype=np.int8)
        labels = np.concatenate([train.labels, test.labels])
        catalog = Catalog(schema, image, labels, item, split, domain)
        check_splits(catalog, str(folder))
        requests = asked.requests(schema, len(train.image)) if asked else None
        notes = [f"{len(train.image):,} training and {len(test.image):,} test images of {folder}", *duplicates(item)]
        notes += _across(item, len(train.image)) + _noted(asked)
        return Dataset(catalog, file_source(root, image, content), tuple(notes), requests=requests)

    def _split(self, content: NDArray[np.bytes_], item: NDArray[np.int64], train: int) -> NDArray[np.int8]:
        shares = {Split.VAL: shares_of(self.val_share, 0.0)[Split.VAL]}
        split = np.full(len(content), Split.TEST, dtype=np.int8)
        split[:train] = split_by_content(content[:train], groups(item[:train]), shares, self.split_seed)
        return split


def _schema(sizes: tuple[int, ...]) -> AttributeSchema:
    known = sizes == tuple(ATTRIBUTES.values())
    names = ATTRIBUTES if known else [f"attribute_{m + 1}" for m in range(len(sizes))]
    values = (map(str, range(1, size + 1)) for size in sizes)
    return AttributeSchema.from_dict(dict(zip(names, values, strict=True)))


def _across(item: NDArray[np.int64], train: int) -> list[str]:
    shared = np.intersect1d(item[:train], item[train:])
    are = counted(len(shared), "picture is", "pictures are")
    return [f"{are} in both lists, byte for byte: kept in both"] if len(shared) else []


def _noted(asked: adde.Asked | None) -> list[str]:
    if asked is None:
        return ["no published requests: ref_test.txt, indfull_test.txt and gt_test.txt are not there"]
    notes = [f"{len(asked.reference):,} published requests"]
    if asked.lacking:
        notes.append(f"{asked.lacking:,} of them add an attribute that their picture has no label of")
    if asked.beyond:
        notes.append(f"{asked.beyond:,} of them want another value of an attribute that they do not name")
    return notes
