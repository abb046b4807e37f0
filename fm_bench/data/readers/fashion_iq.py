# SPDX-License-Identifier: MIT
"""*Fashion IQ* (Wu et al., CVPR 2021): dresses, shirts and tops, with predicted attributes.

Source: https://github.com/XiaoxiaoGuo/fashion-iq, and what its README leads to::

    ROOT/image_splits/split.{dress,shirt,toptee}.{train,val,test}.json     [ASIN, …]
    ROOT/asin2attr.{dress,shirt,toptee}.{train,val,test}.json              {ASIN: [[tag, …], [tag, …], …]}
    ROOT/images/ASIN.jpg                                                   or below a folder for each category

The captions of the data set say in words how one picture differs from another; nothing here reads them.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fm_bench.catalog import Catalog, Dataset, Domain, Split, check_splits
from fm_bench.data import downloads
from fm_bench.data.contents import content_digests
from fm_bench.data.readers.common import (
    OnError,
    check_attributes,
    check_inside,
    duplicates,
    encode,
    file_source,
    groups,
    names_of,
    shares_of,
    split_by_content,
)
from fm_bench.data.sniff import read_table_bytes
from fm_bench.errors import UserError
from fm_bench.files import user_path
from fm_bench.wording import counted

CATEGORIES = ("dress", "shirt", "toptee")
CATEGORY = "category"
SPLITS = {Split.TEST: "test", Split.VAL: "val", Split.TRAIN: "train"}  # of a repeated picture, the first one stays

TAG_FOLDERS = ("", "tags", "attributes", "captions", "attr", "image_tag_dataset/tags")
"""Below the root, where attributes are looked for."""

IMAGE_FOLDERS = ("images", "image_data", "resized_images", "img", "")
"""Below the root, where photos are looked for, there or in a folder for each category."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")

Tags = dict[str, list[list[str]]]
Entry = tuple[str, str, Split]  # ASIN, category, split


@dataclass(frozen=True)
class FashionIqReader:
    """Fashion IQ's pictures with their category and one attribute for each list of predicted tags.

    Of the lists of tags the first is passed over, as the authors do; the others become ``tags_1``, ``tags_2``, …, since
    no file names them. A picture with several tags of one list has no label there: which one is right is not said.

    Args:
        root: folder that holds ``image_splits/``, the attribute files and the images.
        attributes: attribute names, as a list or comma text; by default all.
        min_count: tags on fewer images count as missing.
        val_share: where only train and val have attributes, val is the test split and this share of the training
            pictures validates.
        on_error: refuse pictures that cannot be read, or leave them out.
        split_seed: another seed, another choice of these.
    """

    name: ClassVar[str] = "fashion-iq"
    aspect: ClassVar[float] = 1.25

    root: str
    attributes: list[str] | str | None = None
    min_count: int = 20
    val_share: float = 0.06
    on_error: OnError = "fail"
    split_seed: int = 0

    def read(self) -> Dataset:
        """The catalogue and its pictures.

        Raises:
            UserError: if the folder or its files are missing, damaged or something else, an attribute is unknown, or
                nothing is left.
        """
        root = _base(user_path(self.root))
        tags, has_tags, notes = _tags(root)
        entries, repeated = _entries(root)
        notes += repeated
        if not has_tags(Split.TEST):
            entries = [(asin, category, split) for asin, category, split in entries if split != Split.TEST]
            notes.append("the test split has no attributes and is left out: val is searched instead")
        image = np.array(_images(root, entries), dtype=np.str_)
        check_inside(root, image, root / "image_splits", unit="picture")
        content = content_digests(root, image)
        item = groups(content)
        split = self._split(np.array([s for *_, s in entries], dtype=np.int8), content, item)
        columns, crowded = _columns(entries, tags)
        chosen = names_of(self.attributes)
        check_attributes(chosen or (), columns, str(root))
        columns = {name: columns[name] for name in chosen or columns}
        encoded = encode(columns, item, min_count=self.min_count, chosen=chosen is not None, where=str(root))
        domain = np.full(len(image), Domain.SHOP, dtype=np.int8)
        catalog = Catalog(encoded.schema, image, encoded.labels, item, split, domain)
        check_splits(catalog, str(root))
        notes += [
            f"{name}: {counted(crowded[name], 'image has', 'images have')} several tags and so no label"
            for name in columns
            if name in crowded
        ]
        notes += [*encoded.notes, *duplicates(item), "the captions are not used"]
        return Dataset(catalog, file_source(root, image, content), tuple(notes))

    def _split(self, split: NDArray[np.int8], content: NDArray[np.bytes_], item: NDArray[np.int64]) -> NDArray[np.int8]:
        """The authors' splits; without a test split, val is one and validation is cut from train."""
        if (split == Split.TEST).any():
            return split
        split = np.where(split == Split.VAL, Split.TEST, split).astype(np.int8)
        train = split == Split.TRAIN
        if train.any():
            shares = {Split.VAL: shares_of(self.val_share, 0.0)[Split.VAL]}
            split[train] = split_by_content(content[train], groups(item[train]), shares, self.split_seed)
        return split


def _base(root: Path) -> Path:
    """The folder that holds ``image_splits``: root, or the one that an archive of the annotations made in it."""
    if (root / "image_splits").is_dir():
        return root
    nested = next(iter(sorted(root.glob("*/image_splits"))), None) if root.is_dir() else None
    if nested:
        raise UserError(f"{root} has no folder image_splits/: pass --data.root {nested.parent}.")
    found = "has no folder image_splits/" if root.is_dir() else "is not a folder"
    raise UserError(f"{root} {found}: {downloads.where(FashionIqReader.name)}")


def _entries(root: Path) -> tuple[list[Entry], list[str]]:
    """Every picture once, in the order of test, val and train."""
    found: dict[str, Entry] = {}
    repeated = 0
    for split, name in SPLITS.items():
        for category in CATEGORIES:
            path = root / "image_splits" / f"split.{category}.{name}.json"
            asins = _json(path, "a list of ASINs")
            if not isinstance(asins, list):
                raise UserError(f"{path} should be a list of ASINs but is a {type(asins).__name__}: get it again.")
            for number, asin in enumerate(asins, 1):
                if not isinstance(asin, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", asin):
                    raise UserError(f"{path} entry {number} is {str(asin)[:40]!r}, which is no ASIN: mend the entry.")
                repeated += asin in found
                found.setdefault(asin, (asin, category, split))
    notes = [f"{repeated:,} entries of image_splits/ repeat a picture and are left out"] if repeated else []
    return list(found.values()), notes


def _tags(root: Path) -> tuple[dict[str, Tags], Any, list[str]]:
    """Tags by category, a function that says whether a split has any, and notes on files that a split lacks."""
    tags: dict[str, Tags] = {category: {} for category in CATEGORIES}
    with_tags, absent = set(), list[tuple[Split, str]]()
    for split, name in SPLITS.items():
        for category in CATEGORIES:
            path = next(_candidates(root, f"asin2attr.{category}.{name}"), None)
            if path is None:
                absent.append((split, f"asin2attr.{category}.{name}.json"))
                continue
            tags[category] |= _tag_lists(path)
            with_tags.add(split)
    if not {Split.TRAIN, Split.VAL} <= with_tags:
        raise UserError(
            f"{root} lacks asin2attr.*.train.json or asin2attr.*.val.json, without which no picture has a label "
            "(captions are not read): get the predicted attributes that the README of "
            "github.com/XiaoxiaoGuo/fashion-iq names, and put them there."
        )
    notes = [f"{name} is not there: its images have no tags" for split, name in absent if split in with_tags]
    return tags, with_tags.__contains__, notes


def _candidates(root: Path, stem: str) -> Iterator[Path]:
    for folder in TAG_FOLDERS:
        for name in (f"{stem}.json", f"{stem}.new.json"):
            if (root / folder / name).is_file():
                yield root / folder / name


def _tag_lists(path: Path) -> Tags:
    found = _json(path, "lists of tags by ASIN")
    if not isinstance(found, dict):
        raise UserError(f"{path} should hold lists of tags by ASIN but is a {type(found).__name__}: get it again.")
    for asin, lists in found.items():
        fine = isinstance(lists, list) and all(isinstance(each, list) for each in lists)
        if not fine or not all(isinstance(tag, str) for each in lists for tag in each):
            raise UserError(f"{path} has no lists of tags for {asin[:40]!r}: mend the entry or get the file again.")
    return found


def _json(path: Path, what: str) -> Any:
    try:
        return json.loads(read_table_bytes(path, what))
    except ValueError as error:  # also of text that is not UTF-8
        raise UserError(f"{path} is not whole JSON ({error}): get it again.") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply to be {what}: get it again.") from error


def _columns(entries: list[Entry], tags: dict[str, Tags]) -> tuple[dict[str, pa.Array], dict[str, int]]:
    """Text columns by attribute, null where missing; and how many images have several tags, by attribute."""
    lists = [tags[category].get(asin, []) for asin, category, _ in entries]
    columns: dict[str, pa.Array] = {CATEGORY: pa.array([category for _, category, _ in entries], pa.string())}
    crowded = {}
    for place in range(1, max(map(len, lists), default=0)):
        held = [dict.fromkeys(filter(None, map(str.strip, each[place]))) if len(each) > place else {} for each in lists]
        name = f"tags_{place}"
        columns[name] = pa.array([next(iter(each)) if len(each) == 1 else None for each in held], pa.string())
        if several := sum(len(each) > 1 for each in held):
            crowded[name] = several
    return columns, crowded


def _images(root: Path, entries: list[Entry]) -> list[str]:
    """Each picture's path; where there is none, the one that it should have."""
    there = _listed(root)
    if not there:
        raise UserError(
            f"{root} has no pictures in {', '.join(folder for folder in IMAGE_FOLDERS if folder)}: fetch them by the "
            "addresses that the README of github.com/XiaoxiaoGuo/fashion-iq leads to, as images/ASIN.jpg."
        )
    return [there.get(asin) or f"{IMAGE_FOLDERS[0]}/{asin}{SUFFIXES[0]}" for asin, *_ in entries]


def _listed(root: Path) -> dict[str, str]:
    """Paths of the pictures that are there by their names without suffix; one listing for each folder."""
    there: dict[str, str] = {}
    for folder in IMAGE_FOLDERS:
        for part in ("", *CATEGORIES):
            place = "/".join(filter(None, (folder, part)))
            if (root / place).is_dir():
                for name in sorted(os.listdir(root / place)):  # noqa: PTH208  a Path takes ten times as long
                    stem, suffix = os.path.splitext(name)  # noqa: PTH122
                    if suffix.lower() in SUFFIXES:
                        there.setdefault(stem, f"{place}/{name}" if place else name)
    return there
