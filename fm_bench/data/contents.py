# SPDX-License-Identifier: MIT
"""What many files hold, remembered: digests, which tell byte-identical pictures, and how large pictures are."""

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import ExifTags, Image
from rich.console import Console
from rich.progress import track

from fm_bench.data.images import FORMATS
from fm_bench.data.rooted import MAX_BYTES, PLAIN, all_bytes
from fm_bench.errors import UserError
from fm_bench.files import cache_dir, digest, replacing

_THREADS = 4
_CHUNK = 256  # small files handed to threads one by one take four times as long: they queue for the interpreter
_SLOW = 20_000
_QUICK = 1e-4  # seconds per file below which threads, which queue all the same, read fewer files than one

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

    def content(path: str) -> bytes | None:
        data = read_bytes(path)
        return hashlib.sha256(data).hexdigest().encode() if data else None

    def of_name(name: str) -> bytes:
        return hashlib.sha256(b"no content\0" + name.encode()).hexdigest().encode()

    found = _remembered(root, names, "contents", content)
    return np.array([found[name] or of_name(name) for name in names.tolist()], dtype="S64")


def picture_frames(root: Path, names: NDArray[np.str_]) -> NDArray[np.int32]:
    """Stored width and height of each picture, and how EXIF data turn it (1 to 8, 1 for not at all), ``(N, 3)``.

    Only headers are read. All three are 0 where there is no picture. They are remembered like digests, see
    ``content_digests``.

    Args:
        root: the folder.
        names: ``(N,)`` paths below it.
    """

    def frame(path: str) -> bytes | None:
        try:
            with Image.open(path, formats=FORMATS) as image:
                return f"{image.width}x{image.height}x{_orientation(image)}".encode()
        except Exception:  # decoders raise whatever hostile bytes lead them to
            return None

    found = _remembered(root, names, "frames", frame)
    frames = [(found[name] or b"0x0x0").split(b"x") for name in names.tolist()]
    return np.array(frames, dtype="S10").reshape(len(names), 3).astype(np.int32)


def _orientation(image: Image.Image) -> int:
    orientation = 1
    with contextlib.suppress(Exception):  # broken EXIF data turn nothing
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in range(1, 9) else 1


def _remembered(
    root: Path, names: NDArray[np.str_], kind: str, look: Callable[[str], bytes | None]
) -> dict[str, bytes | None]:
    """What ``look`` tells of each file below ``root``, None where it tells nothing; unchanged files are not reopened.

    Args:
        root: the folder.
        names: ``(N,)`` paths below it.
        kind: of what is told, by which it is remembered in the cache folder.
        look: takes a path; may raise OSError.
    """
    top = os.fspath(root)
    memory = cache_dir() / f"{kind}-{digest(str(root.resolve()))[:24]}.parquet"
    known = _recall(memory)

    def stamp_and_value(name: str) -> tuple[_Stamp, bytes] | None:
        path = os.path.join(top, name)  # noqa: PTH118  a Path costs as much as reading a small file
        try:
            status = os.stat(path)  # noqa: PTH116
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:  # a pipe would never end
                return None
            stamp = _Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            before = known.get(name)
            if before and before[0] == stamp:
                return before
            value = look(path)
        except (OSError, ValueError):  # a name with a NUL is no path
            return None
        return None if value is None else (stamp, value)

    unique = list(dict.fromkeys(names.tolist()))
    found = dict(zip(unique, in_threads(stamp_and_value, unique, "reading files"), strict=True))
    settled = {name: entry for name, entry in found.items() if entry}
    if any(known.get(name) != entry for name, entry in settled.items()):
        _remember(memory, known | settled)
    return {name: entry[1] if entry else None for name, entry in found.items()}


def in_threads(function: Callable[[_In], _Out], values: Sequence[_In], label: str) -> list[_Out]:
    """``function`` of every value, in order: where it takes long, files are read while others wait for the disk.

    Args:
        function: what to do with one value, such as reading a small file.
        values: its arguments.
        label: what the progress bar calls the work, shown where there are many.
    """
    console = Console(stderr=True)
    chunks = [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]
    quiet = not console.is_terminal or len(values) < _SLOW
    results = _by_chunks(function, chunks)
    shown = track(results, label, len(chunks), console=console, transient=True, disable=quiet)
    return [result for chunk in shown for result in chunk]


def _by_chunks(function: Callable[[_In], _Out], chunks: Sequence[Sequence[_In]]) -> Iterator[list[_Out]]:
    """One chunk after the other, and by threads what is left once a chunk has taken long."""

    def work(chunk: Sequence[_In]) -> list[_Out]:
        return [function(value) for value in chunk]

    for number, chunk in enumerate(chunks, 1):
        begun = time.perf_counter()
        yield work(chunk)
        if time.perf_counter() - begun > _QUICK * len(chunk):
            with ThreadPoolExecutor(_THREADS) as pool:
                yield from pool.map(work, chunks[number:])
            return


def read_bytes(path: str) -> bytes:
    """All bytes of one file, with as little overhead as Python allows. Raises OSError."""
    handle = os.open(path, PLAIN)
    try:
        return all_bytes(handle, os.fstat(handle).st_size)
    finally:
        os.close(handle)


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
