# SPDX-License-Identifier: MIT
"""Any catalogue that is a CSV or Parquet file of image paths and attribute columns."""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fm_bench.catalog import Catalog, Dataset, Domain, Split, check_splits
from fm_bench.data.contents import content_digests
from fm_bench.data.readers.common import (
    OnError,
    check_inside,
    duplicates,
    encode,
    file_source,
    groups,
    names_of,
    nearest,
    shares_of,
    split_by_content,
    texts,
)
from fm_bench.data.sniff import read_table_bytes
from fm_bench.errors import UserError
from fm_bench.files import user_path
from fm_bench.wording import counted

MAX_DEFAULT_VALUES = 64
"""A column of at most this many distinct values, and at most half as many as rows, is an attribute by default."""

SPLIT_NAMES = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "val": Split.VAL,
    "valid": Split.VAL,
    "validation": Split.VAL,
    "dev": Split.VAL,
    "test": Split.TEST,
    "testing": Split.TEST,
}

_PARQUET = "a Parquet file"


@dataclass(frozen=True)
class TableReader:
    """Your own catalogue: a CSV or Parquet file with one row per picture.

    Empty cells, ``NA``, ``N/A``, ``NaN`` and ``null`` are missing labels. Byte-identical pictures count as one item
    unless an item column says more, and without a split column no item is in two splits.

    Args:
        root: folder that image paths are relative to; no path may leave it.
        table: the file, relative to root or to the current folder; CSV may be separated by comma, semicolon or tab.
        image: column of image paths.
        item: column that pictures of the same product share.
        split: column of train, val (cut from train if there is none) and test; by default splits are cut by content.
        attributes: attribute columns, as a list or comma text; by default every other column of 2 to 64 values.
        min_count: values on fewer images count as missing.
        val_share: share of the items for validation.
        test_share: share of the items for the test split.
        on_error: refuse pictures that cannot be read, or leave them out.
        split_seed: another seed, another split.
    """

    name: ClassVar[str] = "table"
    aspect: ClassVar[float] = 1.0

    root: str
    table: str
    image: str
    item: str | None = None
    split: str | None = None
    attributes: list[str] | str | None = None
    min_count: int = 5
    val_share: float = 0.06
    test_share: float = 0.37
    on_error: OnError = "fail"
    split_seed: int = 0

    def read(self) -> Dataset:
        """The catalogue and its pictures.

        Raises:
            UserError: if the folder or the table is missing, damaged or something else, a column is not there, a path
                leaves the folder, a split is unknown or empty, or no attribute is left.
        """
        root = user_path(self.root)
        if not root.is_dir():
            raise UserError(f"{root} is not a folder: pass the folder that the image paths start from as --data.root.")
        path = root / self.table if (root / self.table).is_file() else user_path(self.table)
        columns = _columns(path)
        asked = [name for name in (self.image, self.item, self.split) if name is not None]
        chosen = names_of(self.attributes)
        for name in (*asked, *(chosen or [])):
            if name not in columns:
                raise UserError(f"{path} has no column {name!r}: choose among {nearest(name, columns)}.")
        image = _paths(columns[self.image], path, self.image)
        check_inside(root, image, path)
        content = content_digests(root, image)
        same = groups(content)
        item, notes = self._items(columns, same)
        attributes, left_out = _attributes(columns, chosen, asked, path)
        encoded = encode(attributes, same, min_count=self.min_count, chosen=chosen is not None, where=str(path))
        split, cut = self._splits(columns, content, groups(item, same), path)
        domain = np.full(len(image), Domain.SHOP, dtype=np.int8)
        catalog = Catalog(encoded.schema, image, encoded.labels, item, split, domain)
        check_splits(catalog, str(path))
        notes = [counted(len(image), "row"), *notes, *cut, *left_out, *encoded.notes, *duplicates(same)]
        return Dataset(catalog, file_source(root, image, content), tuple(notes))

    def _items(self, columns: dict[str, pa.Array], same: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
        """Item numbers: the item column's values, and the content of the picture where there is none."""
        if self.item is None:
            return same, []
        named = columns[self.item].dictionary_encode().indices.fill_null(-1)
        number = np.asarray(named, dtype=np.int64)
        nameless = number < 0
        number = np.where(nameless, same + int(number.max(initial=-1)) + 1, number)
        rows = counted(int(nameless.sum()), "row has", "rows have")
        return groups(number), [f"{rows} no {self.item}"] if nameless.any() else []

    def _splits(
        self, columns: dict[str, pa.Array], content: NDArray[np.bytes_], together: NDArray[np.int64], path: Path
    ) -> tuple[NDArray[np.int8], list[str]]:
        """Splits by the split column, or by content where there is none."""
        shares = shares_of(self.val_share, self.test_share)
        if self.split is None:
            return split_by_content(content, together, shares, self.split_seed), []
        given = columns[self.split].fill_null("").to_pylist()
        unknown = Counter(name for name in given if name.lower() not in SPLIT_NAMES)
        if unknown:
            found, count = unknown.most_common(1)[0]
            raise UserError(
                f"column {self.split!r} of {path} holds {found[:40]!r} in {counted(count, 'row')}: "
                "write train, val or test."
            )
        split = np.array([SPLIT_NAMES[name.lower()] for name in given], dtype=np.int8)
        train = split == Split.TRAIN
        if (split == Split.VAL).any() or not train.any() or not self.val_share:
            return split, []
        part = {Split.VAL: self.val_share}
        split[train] = split_by_content(content[train], groups(together[train]), part, self.split_seed)
        return split, [f"column {self.split!r} has no val: {self.val_share:.0%} of the training items are taken for it"]


def _columns(path: Path) -> dict[str, pa.Array]:
    """Every column that can be written as text, cleaned."""
    data = read_table_bytes(path, "a CSV or Parquet table with one row per image", accept=_PARQUET)
    try:
        table = pq.read_table(io.BytesIO(data)) if data.startswith(b"PAR1") else _csv(data)
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a readable table ({reason}): mend or download it again.") from error
    if len(set(table.column_names)) != table.num_columns:
        twice = next(name for name, count in Counter(table.column_names).items() if count > 1)
        raise UserError(f"{path} has two columns named {twice!r}: rename one.")
    if not table.num_rows:
        raise UserError(f"{path} has a header but no row: give it one row per image.")
    return texts(table)


def _csv(data: bytes) -> pa.Table:
    """A CSV with every cell as text. Its separator is the one that its first line has most of.

    Raises csv.Error if a quote is not closed, which would swallow all rows after it.
    """
    first = re.split(rb"[\r\n]", data, maxsplit=1)[0].decode("utf-8-sig")
    separator = max(",;\t|", key=first.count)
    header = next(csv.reader([first], delimiter=separator), [])
    parse = pacsv.ParseOptions(delimiter=separator, newlines_in_values=True)
    convert = pacsv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False)
    table = pacsv.read_csv(io.BytesIO(data), parse_options=parse, convert_options=convert)
    last = table.column(table.num_columns - 1)[-1].as_py() if table.num_rows else None
    if isinstance(last, str) and re.search(r"[\r\n]", last) and not data.rstrip().endswith(b'"'):
        raise csv.Error(f"row {table.num_rows:,} opens a quote that is never closed")
    return table


def _paths(column: pa.Array, path: Path, name: str) -> NDArray[np.str_]:
    if column.null_count:
        row = int(np.flatnonzero(~np.asarray(column.is_valid()))[0]) + 1
        raise UserError(
            f"column {name!r} of {path} is empty in {counted(column.null_count, 'row')} (first in row {row}): "
            "fill or remove them."
        )
    return np.array(column.to_pylist(), dtype=np.str_)


def _attributes(
    columns: dict[str, pa.Array], chosen: list[str] | None, asked: list[str], path: Path
) -> tuple[dict[str, pa.Array], list[str]]:
    """The chosen columns, or every one of few distinct values, with a note on the others."""
    if chosen is not None:
        return {name: columns[name] for name in chosen}, []
    others = {name: column for name, column in columns.items() if name not in asked}
    distinct = {name: pc.count_distinct(column, mode="only_valid").as_py() for name, column in others.items()}
    few = {
        name: others[name] for name, n in distinct.items() if 2 <= n <= min(MAX_DEFAULT_VALUES, len(others[name]) // 2)
    }
    if not few:
        raise UserError(
            f"{path} has no column of 2 to {MAX_DEFAULT_VALUES} distinct values beside {', '.join(asked)}: "
            "name the attributes with --data.attributes a,b,c."
        )
    notes = [
        f"column {name!r} of {distinct[name]:,} values is not taken as an attribute"
        for name in others
        if name not in few
    ]
    return few, notes
