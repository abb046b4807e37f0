# SPDX-License-Identifier: MIT
"""Pictures from Parquet files that hold their bytes in a column, as data sets on Hugging Face do."""

import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fm_bench.catalog import UnreadableImageError
from fm_bench.data.images import StoredPictures, show
from fm_bench.data.rooted import inside
from fm_bench.data.sniff import HEAD, refuse_impostor
from fm_bench.errors import UserError
from fm_bench.files import cache_dir, digest, replacing

COLUMN = "image"

MAX_GROUP = 4 << 30
"""Bytes of pictures that one row group may hold; a process has two groups in memory at most."""

_BATCH = 16  # rows decoded together: what a row expands to is known only when it has been
_KEPT = 2  # row groups, since pictures are read in the order of rows, now and then of two files at once
_PARQUET = "a Parquet file"


@dataclass(eq=False)
class ParquetSource(StoredPictures):
    """Pictures in the column ``image`` of Parquet files, as bytes or as a struct of ``bytes`` and ``path``.

    A picture is named ``FILE#ROW``, the file below the folder and the row from 0. A file is mapped into memory, and
    one row group at a time is decoded. For the arguments see ``StoredPictures``.
    """

    _files: dict[str, "_Groups"] = field(default_factory=dict, init=False, repr=False)

    def read(self, image: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """One picture, upright, as ``(height, width, 3)`` RGB, transparent parts white.

        Args:
            image: its name.
            size: wanted ``(height, width)``; see ``fit`` for pictures of another aspect.

        Raises:
            UnreadableImageError: if the row has no bytes, these are truncated, no picture or too large to decode, or it
                is left out.
        """
        self.refuse_left_out(image)
        name, _, row = image.rpartition("#")
        if not inside(name):
            raise UnreadableImageError("outside the data set's folder")
        try:
            if name not in self._files:
                self._files[name] = _Groups(self.root / name)
            data = self._files[name].bytes_of(int(row))
        except (OSError, pa.ArrowException, UserError, ValueError, IndexError) as error:
            raise UnreadableImageError(f"no readable row of a Parquet file, {' '.join(str(error).split())}") from error
        if not data:
            raise UnreadableImageError("no bytes in the column")
        return show(data, size)

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetSource, (self.root, self.contents, self.left_out)  # other processes open the files themselves


class _Groups:
    """The row groups of one file."""

    def __init__(self, path: Path) -> None:
        self.file = open_parquet(path)
        rows = [self.file.metadata.row_group(g).num_rows for g in range(self.file.metadata.num_row_groups)]
        self.first = np.cumsum([0, *rows])
        self.decoded: OrderedDict[int, pa.ChunkedArray] = OrderedDict()

    def bytes_of(self, row: int) -> bytes | None:
        if not 0 <= row < self.first[-1]:
            raise IndexError(f"row {row} of {self.first[-1]}")
        group = int(np.searchsorted(self.first, row, side="right")) - 1
        if group not in self.decoded:
            while len(self.decoded) >= _KEPT:
                self.decoded.popitem(last=False)
            self.decoded[group] = pa.chunked_array(list(_batches(self.file, group)))
        self.decoded.move_to_end(group)
        value: bytes | None = self.decoded[group][row - int(self.first[group])].as_py()
        return value


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file, mapped into memory, whose pictures fit it.

    Raises:
        UserError: if it cannot be read, is something else (a Git LFS pointer, say), has no column of pictures, or a row
            group is too large.
    """
    try:
        with path.open("rb") as head:
            refuse_impostor(path, head.read(HEAD), "a Parquet file of pictures", accept=_PARQUET)
        file = pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
        raise UserError(f"{path} is not a readable Parquet file ({reason}): download it again.") from error
    schema = file.schema_arrow
    kind = schema.field(COLUMN).type if schema.get_field_index(COLUMN) >= 0 else None
    held = kind if kind is None or not pa.types.is_struct(kind) else _field(kind, "bytes")
    if held is None or not (pa.types.is_binary(held) or pa.types.is_large_binary(held)):
        raise UserError(
            f"{path} has no column {COLUMN!r} of pictures' bytes (its columns are {', '.join(schema.names)[:200]}): "
            "take the Parquet files of the data set with its images."
        )
    for group in range(file.metadata.num_row_groups):
        if _bytes_in(file, group) > MAX_GROUP:
            raise UserError(f"{path} has more than {MAX_GROUP >> 30} GiB in row group {group}: write smaller groups.")
    return file


def _field(struct: pa.StructType, name: str) -> pa.DataType | None:
    place = struct.get_field_index(name)
    return struct.field(place).type if place >= 0 else None


def _bytes_in(file: pq.ParquetFile, group: int) -> int:
    """What the file says that the pictures of one row group take."""
    columns = file.metadata.row_group(group)
    chunks = [columns.column(i) for i in range(columns.num_columns)]
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == COLUMN)


def _batches(file: pq.ParquetFile, group: int) -> Iterator[pa.Array]:
    """The bytes of one row group, a few rows at a time; stops where they are more than a row group may hold."""
    total = 0
    # A short column of long values that repeat can expand to far more than the file says, so it is counted on the way.
    for batch in file.iter_batches(_BATCH, row_groups=[group], columns=[COLUMN]):
        column = batch.column(0)
        data = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
        total += data.nbytes
        if total > MAX_GROUP:
            raise UserError(f"row group {group} expands to more than {MAX_GROUP >> 30} GiB")
        yield data


def parquet_digests(path: Path) -> NDArray[np.bytes_]:
    """SHA-256 of each row's picture, in hexadecimal, ``(N,)`` of ``S64``; of file and row where there are no bytes.

    They are remembered in the cache folder by the file's size and times.

    Args:
        path: the file.

    Raises:
        UserError: as ``open_parquet``, or if its pictures cannot be decompressed.
    """
    file = open_parquet(path)
    status = path.stat()
    stamp = digest(str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    memory = cache_dir() / f"contents-{stamp[:24]}.npy"
    try:
        known: NDArray[np.bytes_] = np.load(memory, allow_pickle=False)
        if known.shape == (file.metadata.num_rows,) and known.dtype == "S64":
            return known
    except (OSError, ValueError):
        pass  # never written, or damaged
    found: list[bytes] = []
    try:
        for group in range(file.metadata.num_row_groups):
            for data in _batches(file, group):
                for value in data.to_pylist():
                    content = value or b"no content\0%s#%d" % (path.name.encode(), len(found))
                    found.append(hashlib.sha256(content).hexdigest().encode())
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} is damaged after row {len(found):,} ({' '.join(str(error).split())[:200]}): download it again."
        ) from error
    digests = np.array(found, dtype="S64")
    with contextlib.suppress(UserError), replacing(memory) as temporary:  # a full disk only costs the memory
        np.save(temporary, digests)
    return digests


def parquet_contents(root: Path, image: NDArray[np.str_]) -> NDArray[np.bytes_]:
    """``parquet_digests`` of pictures by their names, ``(N,)``, as ``content_digests`` gives those of files.

    Args:
        root: the folder.
        image: ``(N,)`` names for ``ParquetSource``.

    Raises:
        UserError: as ``parquet_digests``.
    """
    names, _, rows = np.strings.rpartition(image, "#")
    files, file = np.unique(names, return_inverse=True)
    found = np.empty(len(image), dtype="S64")
    for number, name in enumerate(files.tolist()):
        of = file == number
        found[of] = parquet_digests(root / name)[rows[of].astype(np.int64)]
    return found


def names_in(root: Path, path: Path, rows: int) -> pa.Array:
    """The names ``(rows,)`` of all pictures of a file below ``root``."""
    numbers = pc.cast(pa.array(np.arange(rows)), pa.string())
    return pc.binary_join_element_wise(f"{path.relative_to(root).as_posix()}#", numbers, "")
