# SPDX-License-Identifier: MIT
"""A loader that works ahead gives the same batches, reports failures where they belong, and leaves no thread behind."""

import threading
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from fm_bench.data.prefetch import PrefetchingLoader, ahead


class Squares(Dataset[torch.Tensor]):
    """Item i is i squared; item ``broken`` cannot be read."""

    def __init__(self, broken: int = -1) -> None:
        self.broken = broken

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.broken:
            raise OSError(f"item {index}")
        return torch.tensor(index**2)

    def __len__(self) -> int:
        return 7


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_the_same_batches_and_the_same_random_numbers_afterwards() -> None:
    runs = []
    for kind in (DataLoader, PrefetchingLoader):
        torch.manual_seed(3)
        loader = kind(Squares(), batch_size=None, shuffle=True)
        runs.append(([int(item) for _ in range(2) for item in loader], torch.rand(1).item()))
    assert runs[0] == runs[1]
    assert not prefetching()


def test_the_next_item_is_drawn_while_one_is_in_use() -> None:
    drawn = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for i in range(3):
            drawn.release()
            yield i

    source = ahead(items())
    assert next(source) == 0
    assert drawn.acquire(timeout=5), "the first item was drawn"
    assert drawn.acquire(timeout=5), "the second item was not drawn while the first was in use"
    assert not drawn.acquire(timeout=0.05), "no more than one item ahead"
    assert list(source) == [1, 2]


def test_a_failure_reaches_whoever_asks_for_its_item() -> None:
    batches = iter(PrefetchingLoader(Squares(broken=2), batch_size=None))
    assert [int(next(batches)) for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="item 2"):
        next(batches)
    assert not prefetching()


def test_an_abandoned_iteration_ends_its_thread() -> None:
    for item in PrefetchingLoader(Squares(), batch_size=None):
        assert prefetching()
        if int(item) == 4:
            break
    del item
    assert not prefetching()


def test_with_processes_there_is_no_thread() -> None:
    batches = iter(PrefetchingLoader(Squares(), batch_size=None, num_workers=1))
    assert int(next(batches)) == 0
    assert not prefetching()
    assert [int(item) for item in batches] == [i**2 for i in range(1, 7)]
