# SPDX-License-Identifier: MIT
"""Batches drawn one ahead by a thread, so that the step that learns from one does not wait for the next."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from torch.utils.data import DataLoader

Batch = TypeVar("Batch")

_END: Any = object()


class PrefetchingLoader(DataLoader[Any]):
    """A loader that works ahead without processes of its own, too; it changes no batch and no order.

    Reading, augmentation and PyTorch's arithmetic leave Python's lock while they work, so one thread is enough. With
    ``num_workers`` the processes work ahead already, and there is no thread.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # typed as its own iterator, which nobody asks for
        """The batches of an epoch; a failure reaches whoever asks for the batch that it belongs to."""
        batches = super().__iter__()  # draws from torch's generator, in the caller's turn and not in the thread's
        return batches if self.num_workers else ahead(batches)


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """What ``batches`` gives; while one is in use, a thread draws the next one. The thread ends with the iteration."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        coming = thread.submit(next, batches, _END)
        while (batch := coming.result()) is not _END:
            coming = thread.submit(next, batches, _END)
            yield batch
