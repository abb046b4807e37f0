# SPDX-License-Identifier: MIT
"""What stands in for a Trainer and for a backbone where a test builds a method by itself."""

from contextlib import contextmanager

import torch
from torch import nn

from fm_bench.data.batches import LabelledBatch


class Strategy:
    """Of one process."""

    @staticmethod
    def reduce(value, reduce_op):
        assert reduce_op == "sum"
        return value

    @staticmethod
    def broadcast(value):
        return value


class Trainer:
    """Of one process and ten steps."""

    strategy = Strategy()
    estimated_stepping_batches = 10
    world_size = 1


class Maps(nn.Module):
    """A backbone of one convolution, which shows its map: six channels of the picture's size."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, padding=1)

    def forward_features(self, images):
        return self.convolution(images).relu()

    def forward(self, images):
        return self.forward_features(images).mean((2, 3))


def labelled(images, labels):
    return LabelledBatch(images, labels, torch.arange(len(images)), torch.zeros(len(images)))


def watch_turns(monkeypatch, method, players):
    """A list that grows with every turn: whose it was, and of which of ``players(model)`` a weight has moved."""
    seen, original = [], method.turn

    @contextmanager
    def turn(self, position):
        before = [[value.detach().clone() for value in player.parameters()] for player in players(self)]
        with original(self, position) as descend:
            yield descend
        after = [list(player.parameters()) for player in players(self)]
        moved = [
            any(not torch.equal(a, b) for a, b in zip(old, new, strict=True))
            for old, new in zip(before, after, strict=True)
        ]
        seen.append((position, moved))

    monkeypatch.setattr(method, "turn", turn)
    return seen
