# SPDX-License-Identifier: MIT
"""Decoded once: the pictures of a data set as one memory-mapped uint8 file, so that no epoch decodes them again."""

import contextlib
import json
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rich.console import Console

from fm_bench.data.decoding import read_all
from fm_bench.errors import UserError
from fm_bench.files import cache_dir, digest, replacing, write_json

if TYPE_CHECKING:
    from fm_bench.catalog import Dataset

CACHE_VERSION, OBLONG_VERSION = 1, 2
"""To be raised whenever the same file would decode to other pixels; the second one is of sizes that are not square."""

_SHOWN = 5


class ImageCache:
    """Decoded pictures, memory-mapped.

    Args:
        path: the ``.npy`` file of ``(n, H, W, 3)`` uint8 RGB.
        readable: ``(n,)``, False where a white picture stands for one that could not be read.
    """

    def __init__(self, path: Path, readable: NDArray[np.bool_]) -> None:
        self.path = path
        self.readable = readable

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """``(n, H, W, 3)`` uint8, read-only; position i belongs to ``rows[i]`` of ``cached_images``."""
        return np.lib.format.open_memmap(self.path, mode="r")

    def __len__(self) -> int:
        return len(self.readable)

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageCache, (self.path, self.readable)  # workers map the file again instead of receiving a copy


def cached_images(
    dataset: "Dataset",
    rows: NDArray[np.int64],
    size: tuple[int, int],
    *,
    on_error: Literal["fail", "skip"] = "fail",
    workers: int | None = None,
    cache: Path | None = None,
    label: str = "images",
) -> ImageCache:
    """The pictures of some catalogue rows at one size, decoded at the first call and mapped at every later one.

    The file's name is a digest of the source, the pictures' names and the size, so that changed files are decoded
    anew. Of several processes that ask at once, one builds and the others wait; a process that is killed leaves
    nothing that a later one would take for a finished cache.

    Args:
        dataset: catalogue and source.
        rows: catalogue rows, in the wanted order.
        size: ``(height, width)`` in pixels.
        on_error: refuse unreadable pictures, or replace them by white ones and say so in ``readable``.
        workers: processes at most; by default one per usable core. Short work is done without any.
        cache: folder; by default ``files.cache_dir()``.
        label: what the progress bar calls the work.

    Raises:
        UserError: on unreadable pictures with ``on_error="fail"`` (how many, the first few and what was found in
            them), or if the file system refuses, for want of space for example.
    """
    names = dataset.catalog.image[rows]
    shape = (len(names), *size, 3)
    version = CACHE_VERSION if size[0] == size[1] else OBLONG_VERSION
    key = digest(dataset.source.digest, names.tolist(), list(size), version)
    path = (cache or cache_dir()) / f"images-{key[:32]}.npy"
    if found := _open(path, shape):
        return _checked(found, names, on_error)
    with _locked(path, label):
        if found := _open(path, shape):
            return _checked(found, names, on_error)
        path.with_suffix(".json").unlink(missing_ok=True)
        with replacing(path) as temporary:
            _reserve(temporary, path, shape)
            unreadable = read_all(dataset.source, names, size, into=temporary, workers=workers, label=label)
            if on_error == "fail":
                refuse_unreadable(unreadable, names)
        write_json(path.with_suffix(".json"), {"shape": shape, "unreadable": unreadable})
    return _cache(path, len(names), unreadable)


def refuse_unreadable(unreadable: list[tuple[int, str]], names: NDArray[np.str_]) -> None:
    """Raises UserError with how many of ``names`` are unreadable, the first few and what was found in them."""
    if not unreadable:
        return
    shown = "; ".join(f"{names[position]}: {reason}" for position, reason in unreadable[:_SHOWN])
    more = "; …" if len(unreadable) > _SHOWN else ""
    raise UserError(
        f"{len(unreadable):,} of {len(names):,} pictures could not be read ({shown}{more}): "
        "replace them, or leave them out with --data.on_error skip."
    )


def _checked(found: tuple[ImageCache, list[tuple[int, str]]], names: NDArray[np.str_], on_error: str) -> ImageCache:
    cache, unreadable = found
    if on_error == "fail":
        refuse_unreadable(unreadable, names)
    return cache


def _cache(path: Path, count: int, unreadable: list[tuple[int, str]]) -> ImageCache:
    readable = np.ones(count, dtype=np.bool_)
    readable[[position for position, _ in unreadable]] = False
    return ImageCache(path, readable)


def _open(path: Path, shape: tuple[int, ...]) -> tuple[ImageCache, list[tuple[int, str]]] | None:
    """A finished cache, or None if there is none or it is damaged."""
    try:
        marker = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        unreadable = [(int(position), str(reason)) for position, reason in marker["unreadable"]]
        cache = _cache(path, shape[0], unreadable)
        whole = tuple(marker["shape"]) == cache.images.shape == shape and cache.images.dtype == np.uint8
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return (cache, unreadable) if whole else None


@contextlib.contextmanager
def _locked(path: Path, label: str) -> Iterator[None]:
    """Keeps other processes from building the same file, and clears what a killed one left of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0.5)
        except Timeout:
            Console(stderr=True).print(f"another process is preparing the {label}: waiting for it", style="dim")
            lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"the image cache {path.parent} is not usable ({reason}): set FM_BENCH_CACHE to another folder."
        ) from error
    try:
        for left in path.parent.glob(f".{path.stem}-*"):
            left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _reserve(temporary: Path, path: Path, shape: tuple[int, ...]) -> None:
    """Makes an array file with all its blocks allocated: on a full disk, writing through a map kills the process."""
    try:
        np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with temporary.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
    except OSError as error:
        size = int(np.prod(shape)) / 1e9
        raise UserError(
            f"{shape[0]:,} decoded pictures need {size:.2f} GB in {path.parent} ({error.strerror or error}): "
            "free space there or set FM_BENCH_CACHE to another folder."
        ) from error
