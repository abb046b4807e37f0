# SPDX-License-Identifier: MIT
"""What the processes of a distributed run have to agree on: above all, that one of them failed.

An error on one process alone would leave the others waiting for it. So whatever can fail on one process is done inside
``agreed``: every process learns what happened, and all of them fail with the same sentence. A process that is killed
cannot tell; the others see its connections close, which ``together`` puts into words.
"""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from fm_bench.errors import UserError

T = TypeVar("T")

_PATIENCE = timedelta(days=1)
"""How long a process waits for the others. The first one judges, draws and writes alone for as long as it takes; one
that has ended is noticed at once and not by the clock, which is left for machines that vanish without a word."""


@atexit.register
def leave() -> None:
    """Takes this process out of a gloo group, at its end at the latest.

    Gloo's threads may hold tensors, and abort the process if Python is gone before them. Lightning does so for NCCL.
    """
    if distributed.is_available() and distributed.is_initialized() and distributed.get_backend() == "gloo":
        distributed.destroy_process_group()


def world() -> tuple[int, int]:
    """Number of this process, and how many there are; ``(0, 1)`` in a run of one process."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def is_rank_zero() -> bool:
    """Whether this is the process that writes and speaks; true in a run of one process."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    names = ("RANK",) if "RANK" in os.environ else ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(int(os.environ.get(name, "0")) == 0 for name in names)


def gather(value: T) -> list[T]:
    """``value`` of every process, by number, on every process; it travels pickled, between our own processes only.

    Raises:
        UserError: if another process failed in ``agreed``, or has ended.
    """
    return _exchange(None, value)


def gather_arrays(array: NDArray[Any]) -> list[NDArray[Any]]:
    """As ``gather``, for arrays of the same shape and type on every process, without pickling.

    Call it where nothing can fail in between on some of the processes: right after an ``agreed`` block.
    """
    if world()[1] == 1 or not array.size:
        return [array] * world()[1]
    whole = np.ascontiguousarray(array)
    mine = torch.from_numpy(whole.reshape(-1).view(np.uint8))
    parts = [torch.empty_like(mine) for _ in range(world()[1])]
    with together():
        distributed.all_gather(parts, mine, group=_group())
    return [part.numpy().view(whole.dtype).reshape(whole.shape) for part in parts]


def total(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum over all processes of arrays of the same shape. To be called like ``gather_arrays``."""
    if world()[1] == 1 or not counts.size:
        return counts
    summed = torch.from_numpy(counts.copy())
    with together():
        distributed.all_reduce(summed, group=_group())
    return np.asarray(summed.numpy())


@contextmanager
def agreed(what: str) -> Iterator[None]:
    """Lets every process finish the block before any goes on, or fail if it failed on any of them.

    Blocks may lie in each other: a process that fails outside the inner one is heard by those inside it.

    Args:
        what: is done in the block, for the message: ``"searching the gallery"``.

    Raises:
        UserError: on the processes where nothing went wrong, naming the process where something did. The process that
            failed raises its own error.
    """
    try:
        yield
    except Exception as error:
        tell(error, what)
        raise
    _exchange(None, None)


def tell(error: Exception, what: str) -> None:
    """Lets the other processes know of ``error``, in the ``agreed`` or ``gather`` that they come to next.

    Says nothing of an error that all of them have already: one that another process told, or that was told before.
    """
    if getattr(error, _TOLD, False) or _means_loss(error):
        return
    setattr(error, _TOLD, True)
    with suppress(UserError):  # others failed as well, or are gone: this process has an error of its own
        _exchange(f"{what} failed on process {world()[0]}: {str(error) or type(error).__name__}", None)


@contextmanager
def together() -> Iterator[None]:
    """Puts into words what happens in the block when another process of the run is killed.

    Raises:
        UserError: in place of the error of whatever was being exchanged.
    """
    try:
        yield
    except RuntimeError as error:
        if not _means_loss(error):
            raise
        raise _marked(
            UserError(
                "another process of this run has ended or cannot be reached, and this one cannot go on alone: "
                "see to what that process said, or what killed it, and run the same command again to continue."
            )
        ) from error


_TOLD = "_fm_bench_told"


def _exchange(failure: str | None, value: T) -> list[T]:
    """The values of all processes. Raises UserError if one of them gives a failure instead."""
    if world()[1] == 1:
        return [value]
    found: list[Any] = [None] * world()[1]
    with together():
        distributed.all_gather_object(found, (failure, value), group=_group())
    failures = [told for told, _ in found if told is not None]
    if failures:
        raise _marked(UserError(failures[0]))
    return [given for _, given in found]


def _means_loss(error: Exception) -> bool:
    """Whether this is how torch says that a connection to another process broke."""
    return world()[1] > 1 and (isinstance(error, distributed.DistError) or "gloo/transport" in str(error))


def _marked(error: UserError) -> UserError:
    setattr(error, _TOLD, True)
    return error


@cache
def _gloo(everyone: "distributed.ProcessGroup") -> "distributed.ProcessGroup":
    del everyone  # only a key: a later run in this process has a group of its own
    group: distributed.ProcessGroup = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    return group


def _group() -> "distributed.ProcessGroup":
    """Gloo, whatever the GPUs talk with, since it carries what lies in the processors' memory."""
    return _gloo(distributed.group.WORLD)
