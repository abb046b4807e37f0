# SPDX-License-Identifier: MIT
"""What the processes of a distributed run have to agree on: above all, that one of them failed.

An error on one process alone would leave the others waiting for it for ever. So whatever can fail on one process is
done inside ``agreed``: every process learns what happened, and all of them fail with the same sentence.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from torch import distributed

from fm_bench.errors import UserError

T = TypeVar("T")


def world() -> tuple[int, int]:
    """Number of this process, and how many there are; ``(0, 1)`` in a run of one process."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def is_rank_zero() -> bool:
    """Whether this is the process that writes and speaks; true in a run of one process."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")))) == 0


def gather(value: T) -> list[T]:
    """``value`` of every process, by number, on every process; it travels pickled, between our own processes only."""
    if world()[1] == 1:
        return [value]
    found: list[T | None] = [None] * world()[1]
    distributed.all_gather_object(found, value, group=_group())
    return found  # type: ignore[return-value]


@contextmanager
def agreed(what: str) -> Iterator[None]:
    """Lets every process finish the block before any goes on, or fail if it failed on any of them.

    Args:
        what: is done in the block, for the message: ``"searching the gallery"``.

    Raises:
        UserError: on the processes where nothing went wrong, naming the process where something did. The process that
            failed raises its own error.
    """
    error: BaseException | None = None
    try:
        yield
    except Exception as problem:
        error = problem
    told = gather(None if error is None else str(error) or type(error).__name__)
    if error is not None:
        raise error
    for number, message in enumerate(told):
        if message is not None:
            raise UserError(f"{what} failed on process {number}: {message}")


@cache
def _gloo(everyone: "distributed.ProcessGroup") -> "distributed.ProcessGroup":
    del everyone  # only a key: a later run in this process has a group of its own
    group: distributed.ProcessGroup = distributed.new_group(backend="gloo")
    return group


def _group() -> "distributed.ProcessGroup | None":
    """Gloo, whatever the GPUs talk with: it carries what lies in the processors' memory."""
    if distributed.get_backend() == "gloo":
        return None
    return _gloo(distributed.group.WORLD)
