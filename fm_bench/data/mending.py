# SPDX-License-Identifier: MIT
"""What ``fm-bench data validate --fix`` mends: a list of pictures to leave out, kept with our cache.

Nothing of the user's is written or changed. The list counts for exactly the data that it was made of: where a file, a
label or a split has changed, it is not found. It is used where ``--data.on_error skip`` asks for it.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fm_bench.catalog import Dataset
from fm_bench.data.images import StoredPictures
from fm_bench.errors import UserError
from fm_bench.files import cache_dir, digest, write_json
from fm_bench.wording import counted


def leave_out(dataset: Dataset, pictures: Iterable[str]) -> Path:
    """Lists pictures that later commands leave out, beside those listed before; returns the list's file.

    Args:
        dataset: with pictures from files, their own or Parquet files.
        pictures: their names.

    Raises:
        UserError: if pictures are in no files, or the list cannot be written.
    """
    source = dataset.source
    if not isinstance(source, StoredPictures):
        raise UserError("these pictures are in no files, so that --fix has none to leave out: leave it away.")
    path = _path(dataset, source)
    write_json(path, {"left_out": sorted(source.left_out.union(pictures))})
    return path


def mended(dataset: Dataset) -> Dataset:
    """The data set whose listed pictures count as unreadable, and say so in a note; itself if none is listed.

    What is left out of it already stays so.
    """
    source = dataset.source
    if not isinstance(source, StoredPictures):
        return dataset
    try:
        listed = json.loads(_path(dataset, source).read_text(encoding="utf-8"))["left_out"]
        names = frozenset(str(name) for name in listed)
    except (OSError, ValueError, KeyError, TypeError):
        return dataset
    if not names:
        return dataset
    note = f"{counted(len(names), 'picture is', 'pictures are')} left out, as `fm-bench data validate --fix` listed"
    left_out = replace(source, digest=source.contents, left_out=source.left_out | names)
    return dataset._replace(source=left_out, notes=(*dataset.notes, note))


def _path(dataset: Dataset, source: StoredPictures) -> Path:
    return cache_dir() / f"left-out-{digest(dataset.catalog.digest, source.contents)[:32]}.json"
