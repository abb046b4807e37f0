# SPDX-License-Identifier: MIT
import pytest
import torch

from fm_bench.nn.schedules import warmup_cosine


def test_rate_rises_then_falls_to_zero_and_groups_keep_their_peaks():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weights[0]], "lr": 0.1}, {"params": [weights[1]], "lr": 0.4}])
    schedule = warmup_cosine(optimizer, steps=100)
    rates = []
    for _ in range(100):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    first = [rate for rate, _ in rates]
    assert first[0] == pytest.approx(0.01)
    assert max(first) == pytest.approx(0.1)
    assert first.index(max(first)) == 9
    assert first[10:] == sorted(first[10:], reverse=True)
    assert first[-1] < 1e-4
    assert all(b == pytest.approx(4 * a) for a, b in rates)
