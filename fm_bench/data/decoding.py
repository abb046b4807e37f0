# SPDX-License-Identifier: MIT
"""Reads many pictures, by several threads or, where that pays, processes.

Files are decoded by libraries that let go of Python's lock meanwhile, so that threads suffice, which start at once.
Thumbnails are decoded so fast that threads would mostly wait for that lock, and what draws its pictures in Python never
lets go of it: these need processes. Nothing heavy such as PyTorch is imported here, so that processes start soon.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fm_bench.data.opencv import one_thread
from fm_bench.errors import UnreadableImageError, UserError

if TYPE_CHECKING:
    from fm_bench.catalog import ImageSource

CHUNK = 128
"""Pictures between two reports of progress."""

POOL_WORTH, LIGHT_WORTH = 6.0, 0.8
"""Seconds of remaining work for which processes, which take two or three to start, are called for help; the second one
is of sources that are ``light``, for which they take a third."""

QUICK = 2e-4
"""Seconds of the processor per picture below which threads mostly wait for each other."""

_JUDGE_AFTER = 1.0  # seconds: the first pictures also pay for imports and cold files
_TRIAL = 32  # pictures of the first two chunks, the first of which warms up and the second of which is timed

Unreadable = list[tuple[int, str]]
"""Position and what was found there, ascending."""

_Chunk = tuple[int, NDArray[np.str_]]  # the first position and the names

Keep = Callable[[NDArray[np.uint8]], Any]
"""Makes of a picture, ``(height, width, 3)`` RGB, what is kept of it."""


def read_all(
    source: "ImageSource",
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
        workers: threads, if the source's ``in_threads`` says that it gains by them, or processes at most, this one
            included; by default one per usable core. A source is ``light`` if its module imports little.
        label: what the progress bar calls the work.

    Raises:
        UserError: if a process was killed, by the system for want of memory for example.
    """
    limit = _usable_cores() if workers is None else workers
    bounds = [*range(0, 2 * _TRIAL, _TRIAL), *range(2 * _TRIAL, len(names), CHUNK)]
    pending = [(start, names[start:stop]) for start, stop in itertools.pairwise([*bounds, len(names)]) if start < stop]
    unreadable: Unreadable = []
    fill = _Filler(source, size, into, keep)
    started = time.perf_counter()
    with _progress(label, len(names)) as advance:
        while pending:
            start, part = pending.pop(0)
            begun = time.thread_time()
            unreadable += fill(start, part)
            advance(len(part))
            done, took = start + len(part), time.thread_time() - begun
            if limit < 2 or not start or not pending:
                continue
            if getattr(source, "in_threads", False) and took > QUICK * len(part):
                unreadable += _by_threads(fill, pending, limit, advance)
                break
            if _pool_pays(source, time.perf_counter() - started, done, len(names)):
                unreadable += _by_processes(fill, pending, limit, advance)
                break
    return sorted(unreadable)


def _pool_pays(source: "ImageSource", elapsed: float, done: int, total: int) -> bool:
    light = getattr(source, "light", False)
    if multiprocessing.current_process().daemon or (elapsed < _JUDGE_AFTER and not light):
        return False
    return elapsed / done * (total - done) > (LIGHT_WORTH if light else POOL_WORTH)


class _Filler:
    """Reads one chunk into its place."""

    def __init__(self, source: "ImageSource", size: tuple[int, int], into: Path | None, keep: Keep | None) -> None:
        self.source, self.size, self.into, self.keep = source, size, into, keep

    def __call__(self, start: int, names: NDArray[np.str_]) -> Unreadable:
        images = None if self.into is None else np.lib.format.open_memmap(self.into, mode="r")
        block = None if images is None else self._block(images[start : start + len(names)])
        unreadable: Unreadable = []
        for place, name in enumerate(names.tolist()):
            try:
                picture = self.source.read(name, self.size)
            except UnreadableImageError as error:
                unreadable.append((start + place, str(error)))
                if self.keep is not None:
                    continue
                picture = np.uint8(255)  # type: ignore[assignment]  # white
            if block is not None:
                block[place] = picture if self.keep is None else self.keep(picture)
        if block is not None and images is not None and self.into is not None:
            with self.into.open("r+b") as file:  # a sixth of the time that writing through a map takes
                file.seek(images.offset + start * images[:1].nbytes)
                file.write(block.data)
        return unreadable

    def _block(self, place: NDArray[Any]) -> NDArray[Any]:
        """What will be written to a place of the file."""
        return np.empty_like(place, subok=False) if self.keep is None else np.array(place)


def _by_threads(fill: _Filler, chunks: list[_Chunk], limit: int, advance: Callable[[int], None]) -> Unreadable:
    """Whole chunks at a time: pictures handed over one by one would mostly wait for the interpreter."""
    unreadable: Unreadable = []
    with one_thread():
        pool = ThreadPoolExecutor(min(limit, len(chunks)))
        try:
            futures = {pool.submit(fill, *chunk): len(chunk[1]) for chunk in chunks}
            for future in as_completed(futures):
                unreadable += future.result()
                advance(futures[future])
        finally:
            pool.shutdown(cancel_futures=True)
    return unreadable


def _by_processes(fill: _Filler, pending: list[_Chunk], limit: int, advance: Callable[[int], None]) -> Unreadable:
    """This process goes on with one chunk after the other, while others start and then take their share."""
    # Threads (of torch, OpenCV, the progress bar) are about, and a forked child may wait for them for ever. A server
    # that forks imports once for all of them, but this process would wait for that.
    served = "forkserver" in multiprocessing.get_all_start_methods() and not getattr(fill.source, "light", False)
    context = multiprocessing.get_context("forkserver" if served else "spawn")
    if served and hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload([__name__, type(fill.source).__module__])  # imported once, not by each process
    others = min(limit - 1, len(pending))
    pool = ProcessPoolExecutor(others, context, _begin, (fill,))
    unreadable: Unreadable = []
    running: dict[Future[Unreadable], int] = {}
    try:
        while pending or running:
            with _hidden_main(fill.source), _interrupts_held():
                while pending and len(running) < 2 * others:  # each has its next chunk before it ends one
                    chunk = pending.pop(0)
                    running[pool.submit(_chunk, *chunk)] = len(chunk[1])
            if pending:
                chunk = pending.pop(0)
                unreadable += fill(*chunk)
                advance(len(chunk[1]))
            else:
                wait(running, return_when=FIRST_COMPLETED)
            for future in [future for future in running if future.done()]:
                unreadable += future.result()
                advance(running.pop(future))
    except BrokenProcessPool as error:
        raise UserError(
            "a process that reads pictures was killed, perhaps for want of memory: free some and run again."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
    return unreadable


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back for a moment, and for ever from processes that start meanwhile: this one answers and ends them.

    Otherwise each would say where it was interrupted.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _hidden_main(source: "ImageSource") -> Iterator[None]:
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
