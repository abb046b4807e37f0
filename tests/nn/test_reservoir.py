# SPDX-License-Identifier: MIT
"""A reservoir keeps a uniform sample, whatever the batches are."""

import pytest
import torch

from fm_bench.nn.reservoir import Reservoir


def sample(size: int, stream: torch.Tensor, batch: int, seed: int = 0) -> torch.Tensor:
    reservoir = Reservoir(size, seed)
    for rows in stream.split(batch):
        reservoir.add(rows)
    return reservoir.rows()


def test_a_short_stream_is_kept_whole_and_in_order() -> None:
    stream = torch.arange(14.0).reshape(7, 2)
    assert torch.equal(sample(10, stream, 3), stream)
    assert torch.equal(sample(7, stream, 2), stream)


def test_distinct_rows_are_kept_and_a_seed_repeats_them() -> None:
    stream = torch.arange(1000)
    kept = sample(100, stream, 64)
    assert len(kept.unique()) == 100
    assert torch.equal(kept, sample(100, stream, 64))
    assert not torch.equal(kept, sample(100, stream, 64, seed=1))
    assert torch.equal(kept.sort().values, sample(100, stream, 7).sort().values)  # the batches do not matter


def test_every_part_of_the_stream_is_equally_likely() -> None:
    counts = torch.zeros(10)
    for seed in range(50):
        counts += torch.histc(sample(100, torch.arange(1000.0), 90, seed), 10, 0, 1000)
    assert (counts / 500 - 1).abs().max() < 0.2  # five deviations


def test_an_empty_stream_has_no_sample() -> None:
    with pytest.raises(ValueError, match="empty"):
        Reservoir(3, 0).rows()
