# SPDX-License-Identifier: MIT
"""The *Fashion Product Images* catalogue: 44,000 product photos with a table and one JSON per item.

Source: https://www.kaggle.com/datasets/paramaggarwal/fashion-product-images-dataset, as users download it::

    ROOT/styles.csv         id,gender,masterCategory,subCategory,articleType,baseColour,season,…,productDisplayName
    ROOT/images/ID.jpg
    ROOT/styles/ID.json     data.articleAttributes: {"Pattern": "Striped", "Sleeve Length": "Long Sleeves", "Neck": …}

or a copy on Hugging Face, ``ROOT/*.parquet`` or ``ROOT/data/*.parquet`` (see ``fashion_product_parquet``), which has
the table's columns and small pictures but not the JSON files.

What the files do, learnt from them: titles hold unquoted commas, so that a line is split at most nine times; missing
values are the text ``NA`` in both places, or an absent key in the JSON; some photos are the same file under several
ids, now and then with other labels, so that splits follow content and never ids.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_bench.catalog import Catalog, Dataset, Domain, ImageSource, check_splits
from fm_bench.data import downloads
from fm_bench.data.contents import content_digests, in_threads, read_bytes
from fm_bench.data.parquet import ParquetSource, parquet_contents
from fm_bench.data.readers.common import (
    OnError,
    check_attributes,
    clean,
    duplicates,
    encode,
    file_source,
    groups,
    names_of,
    nearest,
    shares_of,
    snake_case,
    split_by_content,
)
from fm_bench.data.readers.fashion_product_parquet import last_of_each, parquet_files, read_parquet
from fm_bench.data.sniff import HEAD, impostor, read_table_bytes
from fm_bench.errors import UserError
from fm_bench.files import digest, user_path
from fm_bench.wording import counted, form

COLUMNS = {
    "gender": "gender",
    "article_type": "articleType",
    "colour": "baseColour",
    "season": "season",
    "usage": "usage",
    "year": "year",
}
"""Attributes from the table, by our names; every other one is a key of ``articleAttributes`` in snake case."""

ALIASES = {"neck": "neckline"}

PART = "sub_category"
"""The column that says which items are topwear."""

REQUIRED = ("gender", "article_type", "colour", "pattern", "sleeve_length")
"""An image without one of these, where chosen, is no part of the task."""

DEFAULT = (*REQUIRED, "neckline")

TABLE_ONLY = ("gender", "article_type", "colour", "season", "usage")
"""The default where nothing but the table's columns is there."""

_SHOWN = 5

Row = dict[str, str]


@dataclass(frozen=True)
class FashionProductReader:
    """Topwear of *Fashion Product Images*: shirts, T-shirts, tops, kurtas and the like.

    Args:
        root: folder that holds ``styles.csv``, ``images/`` and ``styles/``, or Parquet files.
        attributes: attribute names, as a list or comma text; by default gender, article_type, colour, pattern,
            sleeve_length (images without one of these are left out) and neckline (where present). Also season, usage,
            year and every key of the JSON files' ``articleAttributes`` in snake case, such as fit or fabric. With
            Parquet files that lack the JSON files' part, by default gender, article_type, colour, season and usage.
        min_count: values on fewer images count as missing; the images stay.
        val_share: share of the distinct pictures for validation.
        test_share: share of the distinct pictures for the test split.
        on_error: refuse pictures or JSON files that cannot be read, or leave them out.
        split_seed: another seed, another split.
    """

    name: ClassVar[str] = "fashion-product"
    aspect: ClassVar[float] = 1.25

    root: str
    attributes: list[str] | str | None = None
    min_count: int = 20
    val_share: float = 0.06
    test_share: float = 0.37
    on_error: OnError = "fail"
    split_seed: int = 0

    def read(self) -> Dataset:
        """The catalogue and its pictures.

        Raises:
            UserError: if the folder, its table or its JSON files are missing, damaged or something else, an
                attribute is unknown, or nothing is left.
        """
        root = user_path(self.root)
        files = () if (root / "styles.csv").is_file() else parquet_files(root)
        return self._from_parquet(root, files) if files else self._from_folder(root)

    def _from_folder(self, root: Path) -> Dataset:
        wanted = names_of(self.attributes) or list(DEFAULT)
        rows, notes = _topwear(_rows(root), root)
        if not set(wanted) <= set(COLUMNS):
            rows, unread = self._add_details(rows, root, wanted)
            notes += unread
        image = np.array([f"images/{row['id']}.jpg" for row in rows], dtype=np.str_)
        columns = {name: clean(pa.array([row.get(name) for row in rows], pa.string())) for name in wanted}
        keep, dropped = _complete(columns, root)
        _check_images(root)
        content = content_digests(root, image[keep])
        source = file_source(root, image[keep], content)
        return self._dataset(root, columns, keep, content, image, source, [*notes, *dropped])

    def _from_parquet(self, root: Path, files: tuple[Path, ...]) -> Dataset:
        table = read_parquet(root, files, COLUMNS, ALIASES)
        chosen = names_of(self.attributes)
        full = set(REQUIRED) <= set(table.columns)
        wanted = chosen or [name for name in (DEFAULT if full else TABLE_ONLY) if name in table.columns]
        for name in (PART, *wanted):
            if name not in table.columns:
                raise UserError(f"{root} has no column for {name!r}: choose among {nearest(name, table.columns)}.")
        topwear = np.asarray(pc.fill_null(pc.equal(table.columns[PART], "Topwear"), False))
        if not topwear.any():
            raise UserError(
                f"{root} lists {counted(len(topwear), 'item')} but none of subCategory Topwear: pass all files."
            )
        notes = [_share(int(topwear.sum()), len(topwear))]
        if "id" in table.columns:
            last = last_of_each(table.columns["id"])
            if repeated := int((topwear & ~last).sum()):
                notes.append(
                    f"{counted(repeated, 'row repeats', 'rows repeat')} the id of a later one, which is taken instead"
                )
            topwear &= last
        columns = {name: table.columns[name].filter(pa.array(topwear)) for name in wanted}
        keep, dropped = _complete(columns, root)
        image = table.image[topwear]
        content = parquet_contents(root, image[keep])
        source = ParquetSource(root, digest(image[keep].tolist(), content))
        return self._dataset(root, columns, keep, content, image, source, [*notes, *dropped])

    def _dataset(
        self,
        root: Path,
        columns: dict[str, pa.Array],
        keep: NDArray[np.bool_],
        content: NDArray[np.bytes_],
        image: NDArray[np.str_],
        source: ImageSource,
        notes: list[str],
    ) -> Dataset:
        """The data set of the rows to keep; ``content`` is of those alone."""
        columns, image = {name: column.filter(pa.array(keep)) for name, column in columns.items()}, image[keep]
        item = groups(content)
        encoded = encode(columns, item, min_count=self.min_count, chosen=self.attributes is not None, where=str(root))
        split = split_by_content(content, item, shares_of(self.val_share, self.test_share), self.split_seed)
        domain = np.full(len(image), Domain.SHOP, dtype=np.int8)
        catalog = Catalog(encoded.schema, image, encoded.labels, item, split, domain)
        check_splits(catalog, str(root))
        return Dataset(catalog, source, (*notes, *encoded.notes, *duplicates(item)))

    def _add_details(self, rows: list[Row], root: Path, wanted: list[str]) -> tuple[list[Row], list[str]]:
        """Adds the wanted attributes of the JSON files; rows whose file cannot be read are refused or left out."""
        if not (root / "styles").is_dir():
            raise UserError(
                f"{root} has no folder styles/ with one JSON file per item, which {_listed(wanted)} come from: "
                f"add it from the full data set, or choose among --data.attributes {','.join(COLUMNS)}."
            )
        folder = str(root / "styles")
        details = in_threads(lambda row: _details(f"{folder}/{row['id']}.json"), rows, "reading item files")
        failed = [
            f"styles/{row['id']}.json: {found}"
            for row, found in zip(rows, details, strict=True)
            if isinstance(found, str)
        ]
        if failed and self.on_error == "fail":
            shown = "; ".join(failed[:_SHOWN]) + ("; …" if len(failed) > _SHOWN else "")
            raise UserError(
                f"{len(failed):,} of {len(rows):,} item files below {root} could not be read ({shown}): "
                "replace them, or leave their items out with --data.on_error skip."
            )
        read = [(row, found) for row, found in zip(rows, details, strict=True) if not isinstance(found, str)]
        known = Counter(key for _, found in read for key in found)
        check_attributes(wanted, [*COLUMNS, *known], str(root))
        are = counted(len(failed), "item is", "items are")
        notes = [f"{are} left out because the JSON file cannot be read"] if failed else []
        return [{**{name: found[name] for name in wanted if name in found}, **row} for row, found in read], notes


def _rows(root: Path) -> list[Row]:
    """Every line of the table, by our names, ``NA`` included."""
    path = root / "styles.csv"
    if not path.is_file():
        nested = next(iter(sorted(root.glob("*/styles.csv"))), None) if root.is_dir() else None
        found = (
            "does not exist" if not root.exists() else "is not a folder" if not root.is_dir() else "has no styles.csv"
        )
        remedy = f"pass --data.root {nested.parent}." if nested else downloads.where("fashion-product")
        raise UserError(f"{root} {found}: {remedy}")
    try:
        text = read_table_bytes(path, "the catalogue's table").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): download it again.") from error
    lines = text.replace("\r\n", "\n").split("\n")
    header = [name.strip() for name in lines[0].split(",")]
    absent = [name for name in ("id", "subCategory", *COLUMNS.values()) if name not in header]
    if absent:
        raise UserError(
            f"{path} has no column {_listed(absent)} (its first line is {lines[0][:80]!r}): download it again."
        )
    at = {ours: header.index(theirs) for ours, theirs in (("id", "id"), (PART, "subCategory"), *COLUMNS.items())}
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = line.split(",", len(header) - 1)  # the title is last and holds commas of its own
        if len(cells) < len(header):
            raise UserError(
                f"{path} line {number} has {len(cells)} of {len(header)} columns: "
                "the file is cut or damaged, download it again."
            )
        row = {name: cells[i].strip() for name, i in at.items()}
        if not re.fullmatch("[0-9]+", row["id"]):
            raise UserError(
                f"{path} line {number} has the id {row['id'][:40]!r}, which is not a number: mend the line."
            )
        rows.append(row)
    return rows


def _share(topwear: int, items: int) -> str:
    return f"{topwear:,} of {counted(items, 'item')} {form(topwear, 'is', 'are')} topwear"


def _topwear(rows: list[Row], root: Path) -> tuple[list[Row], list[str]]:
    parts = Counter(row[PART] for row in rows)
    topwear = list({row["id"]: row for row in rows if row[PART] == "Topwear"}.values())
    if not topwear:
        raise UserError(
            f"{root / 'styles.csv'} lists {counted(len(rows), 'item')} but none of subCategory Topwear: "
            "pass the complete table."
        )
    notes = [_share(len(topwear), len(rows))]
    if repeated := parts["Topwear"] - len(topwear):
        notes.append(f"{counted(repeated, 'line repeats', 'lines repeat')} the id of an earlier one, which is replaced")
    return topwear, notes


def _details(path: str) -> dict[str, str] | str:
    """An item's ``articleAttributes`` by our names, or what is wrong with its file."""
    try:
        data = read_bytes(path)
        document: Any = json.loads(data)
        found = document["data"].get("articleAttributes")
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return str(error.strerror or error)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return impostor(data[:HEAD]) or (
            "truncated or no JSON" if not data.rstrip().endswith(b"}") else "JSON without data"
        )
    if not isinstance(found, dict):
        return {}
    named = {snake_case(str(key)): str(value) for key, value in found.items()}
    return {ALIASES.get(key, key): value for key, value in named.items()}


def _complete(columns: dict[str, pa.Array], root: Path) -> tuple[NDArray[np.bool_], list[str]]:
    """Which rows ``(N,)`` have every required attribute that is wanted, and at least one label."""
    required = [name for name in columns if name in REQUIRED]
    present = {name: column.is_valid().to_numpy(zero_copy_only=False) for name, column in columns.items()}
    keep: NDArray[np.bool_] = np.logical_or.reduce(list(present.values()))
    for name in required:
        keep &= present[name]
    if not keep.any():
        raise UserError(
            f"no topwear below {root} has {_listed(required or list(columns))}: "
            "check the JSON files or choose other --data.attributes."
        )
    left_out = int((~keep).sum())
    why = f"lack {' or '.join(required)}" if required else "have none of the attributes"
    return keep, [f"{left_out:,} of them are left out because they {why}"] if left_out else []


def _check_images(root: Path) -> None:
    if not (root / "images").is_dir():
        raise UserError(f"{root} has no folder images/ with ID.jpg files: unpack the pictures there.")


def _listed(names: list[str]) -> str:
    return ", ".join(names)
