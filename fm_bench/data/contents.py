# SPDX-License-Identifier: MIT
"""Digests of many files' contents: what tells byte-identical pictures, whatever they are called."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from fm_bench.errors import UserError
from fm_bench.files import cache_dir, digest, replacing

_THREADS = 4
_CHUNK = 256  # small files handed to threads one by one take four times as long: they queue for the interpreter
_SLOW = 20_000

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_RACY_NS = 2_000_000_000
"""A file touched this recently may change again within one tick of the clock: its digest is not remembered."""


class _Stamp(NamedTuple):
    """What changes when a file's content does."""

    size: int
    modified: int
    changed: int


def content_digests(root: Path, names: NDArray[np.str_]) -> NDArray[np.bytes_]:
    """SHA-256 of each file's bytes, in hexadecimal, ``(N,)`` of ``S64``.

    A file that is missing, empty or unreadable has no content to share: it gets a digest of its name. Digests are
    remembered in the cache folder by size and times, so that only new or changed files are read again.

    Args:
        root: the folder.
        names: ``(N,)`` paths below it.
    """
    memory = cache_dir() / f"contents-{digest(str(root.resolve()))[:24]}.parquet"
    known = _recall(memory)

    def stamp_and_digest(name: str) -> tuple[_Stamp | None, bytes]:
        path = os.path.join(root, name)  # noqa: PTH118  a Path costs as much as reading a small file
        try:
            status = os.stat(path)  # noqa: PTH116
            stamp = _Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            before = known.get(name)
            if before and before[0] == stamp:
                return before
            data = read_bytes(path)
        except OSError:
            data = b""
        if not data:
            return None, hashlib.sha256(b"no content\0" + name.encode()).hexdigest().encode()
        return stamp, hashlib.sha256(data).hexdigest().encode()

    unique = list(dict.fromkeys(names.tolist()))
    found = dict(zip(unique, in_threads(stamp_and_digest, unique, "reading files"), strict=True))
    if any(stamp and known.get(name) != (stamp, value) for name, (stamp, value) in found.items()):
        _remember(memory, known | {name: (stamp, value) for name, (stamp, value) in found.items() if stamp})
    return np.array([found[name][1] for name in names.tolist()], dtype="S64")


def in_threads(function: Callable[[_In], _Out], values: Sequence[_In], label: str) -> list[_Out]:
    """``function`` of every value, in order: files are read while others wait for the disk.

    Args:
        function: what to do with one value, such as reading a small file.
        values: its arguments.
        label: what the progress bar calls the work, shown where there are many.
    """
    console = Console(stderr=True)
    chunks = [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        results = pool.map(lambda chunk: [function(value) for value in chunk], chunks)
        quiet = not console.is_terminal or len(values) < _SLOW
        shown = track(results, label, len(chunks), console=console, transient=True, disable=quiet)
        return [result for chunk in shown for result in chunk]


def read_bytes(path: str) -> bytes:
    """All bytes of one file, with as little overhead as Python allows. Raises OSError."""
    with open(path, "rb") as file:  # noqa: PTH123  as above
        return file.read()


def _recall(path: Path) -> dict[str, tuple[_Stamp, bytes]]:
    try:
        columns = pq.read_table(path).to_pydict()
        stamps = map(_Stamp, columns["size"], columns["modified"], columns["changed"])
        return dict(zip(columns["name"], zip(stamps, columns["digest"], strict=True), strict=True))
    except (OSError, pa.ArrowException, KeyError):
        return {}  # never written, or damaged: the files are simply read again


def _remember(path: Path, known: dict[str, tuple[_Stamp, bytes]]) -> None:
    latest = time.time_ns() - _RACY_NS
    settled = {name: entry for name, entry in known.items() if max(entry[0].modified, entry[0].changed) < latest}
    columns: dict[str, list[object]] = {"name": list(settled), "digest": [value for _, value in settled.values()]}
    columns |= {field: [getattr(stamp, field) for stamp, _ in settled.values()] for field in _Stamp._fields}
    with contextlib.suppress(UserError), replacing(path) as temporary:  # a full disk only costs the memory
        pq.write_table(pa.table(columns), temporary)
