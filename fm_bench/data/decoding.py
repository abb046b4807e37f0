# SPDX-License-Identifier: MIT
"""Reads many pictures, by several threads or, where that pays, processes.

Files are decoded by libraries that let go of Python's lock meanwhile, so that threads suffice, which start at once.
What draws its pictures in Python needs processes.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fm_bench.catalog import ImageSource, UnreadableImageError
from fm_bench.errors import UserError

CHUNK = 128
"""Pictures between two reports of progress."""

POOL_WORTH = 6.0
"""Seconds of remaining work for which processes, which take two or three to start, are called for help."""

_JUDGE_AFTER = 1.0  # seconds: the first pictures also pay for imports and cold files

Unreadable = list[tuple[int, str]]
"""Position and what was found there, ascending."""

Keep = Callable[[NDArray[np.uint8]], Any]
"""Makes of a picture, ``(height, width, 3)`` RGB, what is kept of it."""


def read_all(
    source: ImageSource,
    names: NDArray[np.str_],
    size: tuple[int, int],
    *,
    into: Path | None = None,
    keep: Keep | None = None,
    workers: int | None = None,
    label: str = "images",
) -> Unreadable:
    """Reads every picture, and returns which ones cannot be read and why.

    Args:
        source: where pictures come from; pickled once for each process.
        names: ``(n,)`` picture names.
        size: ``(height, width)``.
        into: a ``.npy`` file of ``(n, H, W, 3)`` uint8 to write to, unreadable ones white; by default nothing is kept.
        keep: what is written of a picture instead of its pixels, as an element of ``into``; a function of a module.
            Where a picture is unreadable, nothing is written.
        workers: processes or, if the source's ``in_threads`` says so, threads at most; by default one per usable core.
        label: what the progress bar calls the work.

    Raises:
        UserError: if a process was killed, by the system for want of memory for example.
    """
    limit = _usable_cores() if workers is None else workers
    pending = list(range(0, len(names), CHUNK))
    unreadable: Unreadable = []
    fill = _Filler(source, size, into, keep)
    started = time.perf_counter()
    with _progress(label, len(names)) as advance:
        if limit > 1 and len(pending) > 1 and getattr(source, "in_threads", False):
            return sorted(_by_threads(fill, names, pending, limit, advance))
        while pending:
            done, elapsed = pending[0], time.perf_counter() - started
            if _pool_pays(limit, elapsed, done, len(names)):
                unreadable += _by_processes(fill, names, pending, limit, advance)
                break
            part = names[done : done + CHUNK]
            unreadable += fill(pending.pop(0), part)
            advance(len(part))
    return sorted(unreadable)


def _pool_pays(limit: int, elapsed: float, done: int, total: int) -> bool:
    if limit < 2 or not done or elapsed < _JUDGE_AFTER or multiprocessing.current_process().daemon:
        return False
    return elapsed / done * (total - done) > POOL_WORTH


class _Filler:
    """Reads one chunk into its place."""

    def __init__(self, source: ImageSource, size: tuple[int, int], into: Path | None, keep: Keep | None) -> None:
        self.source, self.size, self.into, self.keep = source, size, into, keep

    def __call__(self, start: int, names: NDArray[np.str_]) -> Unreadable:
        images = None if self.into is None else np.lib.format.open_memmap(self.into, mode="r+")
        unreadable: Unreadable = []
        for position, name in enumerate(names.tolist(), start):
            try:
                picture = self.source.read(name, self.size)
            except UnreadableImageError as error:
                unreadable.append((position, str(error)))
                if self.keep is not None:
                    continue
                picture = np.uint8(255)  # type: ignore[assignment]  # white
            if images is not None:
                images[position] = picture if self.keep is None else self.keep(picture)
        return unreadable


def _by_threads(
    fill: _Filler, names: NDArray[np.str_], starts: list[int], limit: int, advance: Callable[[int], None]
) -> Unreadable:
    """Whole chunks at a time: pictures handed over one by one would mostly wait for the interpreter."""
    unreadable: Unreadable = []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    pool = ThreadPoolExecutor(min(limit, len(starts)))
    try:
        futures = {pool.submit(fill, start, names[start : start + CHUNK]): start for start in starts}
        for future in as_completed(futures):
            unreadable += future.result()
            advance(min(CHUNK, len(names) - futures[future]))
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)
    return unreadable


def _by_processes(
    fill: _Filler, names: NDArray[np.str_], starts: list[int], limit: int, advance: Callable[[int], None]
) -> Unreadable:
    # Threads (of torch, OpenCV, the progress bar) are about, and a forked child may wait for them for ever.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload([__name__])  # imported once, not once per process
    pool = ProcessPoolExecutor(min(limit, len(starts)), context, _begin, (fill,))
    unreadable: Unreadable = []
    try:
        with _hidden_main(fill.source):
            futures = {pool.submit(_chunk, start, names[start : start + CHUNK]): start for start in starts}
        for future in as_completed(futures):
            unreadable += future.result()
            advance(min(CHUNK, len(names) - futures[future]))
    except BrokenProcessPool as error:
        raise UserError(
            "a process that reads pictures was killed, perhaps for want of memory: free some and run again."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return unreadable


@contextlib.contextmanager
def _hidden_main(source: ImageSource) -> Iterator[None]:
    """Lets processes start without importing the main script, which takes seconds, or runs a script without a guard.

    Not if the source's class is defined there.
    """
    main = sys.modules["__main__"]
    if type(source).__module__ != "__main__":
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


_fill: _Filler | None = None


def _begin(fill: _Filler) -> None:
    global _fill
    _fill = fill
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # it was killed and cannot say that there is nothing left to do


def _chunk(start: int, names: NDArray[np.str_]) -> Unreadable:
    return [] if _fill is None else _fill(start, names)


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"preparing {label}", total=total)
        yield lambda count: progress.advance(task, count)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
