# SPDX-License-Identifier: MIT
"""The table of *Fashion Product Images* from the Parquet files of a copy on Hugging Face.

Each row is an item, with its picture's bytes in the column ``image`` and the columns of ``styles.csv`` beside it. What
the JSON files of the full data set say (pattern, sleeve length, …) is there only if columns of that name are.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fm_bench.data.parquet import COLUMN, names_in, open_parquet
from fm_bench.data.readers.common import snake_case, texts
from fm_bench.errors import UserError

FOLDERS = ("", "data")
"""Below the root, where Parquet files are looked for."""


class ParquetTable(NamedTuple):
    """All rows of all files, one after the other."""

    columns: dict[str, pa.Array]  # by our names, cleaned, (N,) each
    image: NDArray[np.str_]  # (N,) names for ``ParquetSource``


def parquet_files(root: Path) -> tuple[Path, ...]:
    """The Parquet files of a folder, in order; none if it has a folder or file of another kind in their place."""
    for folder in FOLDERS:
        if found := tuple(path for path in sorted((root / folder).glob("[!.]*.parquet")) if path.is_file()):
            return found
    return ()


def read_parquet(
    root: Path, files: Iterable[Path], theirs: Mapping[str, str], aliases: Mapping[str, str]
) -> ParquetTable:
    """Reads every flat column.

    Args:
        root: the data set's folder.
        files: below it, all with the same columns.
        theirs: column by our name, where it is not our name's words joined in another way.
        aliases: our name by column in snake case.

    Raises:
        UserError: if a file is damaged, something else, has no pictures, lacks columns of the first one, or has two for
            one name of ours.
    """
    files = tuple(files)
    ours = {name: own for own, name in theirs.items()}
    first: list[str] = []
    parts: list[dict[str, pa.Array]] = []
    names: list[pa.Array] = []
    for path in files:
        file = open_parquet(path)
        flat = [column.name for column in file.schema_arrow if not pa.types.is_nested(column.type)]
        if twice := next((name for name in flat if flat.count(name) > 1), None):
            raise UserError(f"{path} has two columns named {twice!r}: rename one.")
        try:
            table = file.read([name for name in flat if name != COLUMN])
        except (OSError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is not a readable table ({reason}): download it again.") from error
        first = first or table.column_names
        if table.column_names != first:
            raise UserError(f"{path} has other columns than {files[0]}: take all files of one data set.")
        parts.append(texts(table))
        names.append(names_in(root, path, file.metadata.num_rows))
    columns: dict[str, pa.Array] = {}
    for name in [name for name in first if all(name in part for part in parts)]:
        own = ours.get(name) or snake_case(name)
        own = aliases.get(own, own)
        if own and own in columns:
            raise UserError(f"{root} has two columns that are {own!r}, the second of which is {name!r}: rename one.")
        columns[own] = pa.concat_arrays([part[name] for part in parts])
    return ParquetTable(columns, np.array(pa.concat_arrays(names).to_pylist(), dtype=np.str_))


def last_of_each(column: pa.Array) -> NDArray[np.bool_]:
    """``(N,)``, False where a later row has the same value."""
    numbers = np.asarray(pc.fill_null(column.dictionary_encode().indices, -1), dtype=np.int64)
    last = len(numbers) - 1 - np.unique(numbers[::-1], return_index=True)[1]
    keep = numbers < 0
    keep[last] = True
    return np.asarray(keep)
