# SPDX-License-Identifier: MIT
"""A sample of bounded size from a stream of unknown length."""

import numpy as np
import torch
from torch import Tensor


class Reservoir:
    """A uniform sample of at most ``size`` rows; the same stream and seed give the same sample.

    Every row draws a random key, and the rows with the smallest keys stay.

    Args:
        size: most rows that are kept.
        seed: of the keys.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.generator = size, np.random.default_rng(seed)
        self.keys = np.empty(0)
        self.kept: Tensor | None = None

    def add(self, rows: Tensor) -> None:
        """Offers the next rows ``(n, …)`` of the stream."""
        keys = self.generator.random(len(rows))
        if self.kept is None:
            self.kept = torch.empty(self.size, *rows.shape[1:], dtype=rows.dtype)
        filled = len(self.keys)
        first = min(self.size - filled, len(rows))
        self.kept[filled : filled + first] = rows[:first].cpu()
        self.keys = np.concatenate([self.keys, keys[:first]])
        if first < len(rows):
            self._replace(rows[first:], keys[first:])

    def _replace(self, rows: Tensor, keys: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
        assert self.kept is not None, "rows are replaced where there are some"
        stays = np.zeros(self.size + len(rows), dtype=np.bool_)
        stays[np.argpartition(np.concatenate([self.keys, keys]), self.size - 1)[: self.size]] = True
        new, places = np.flatnonzero(stays[self.size :]), np.flatnonzero(~stays[: self.size])
        self.kept[torch.from_numpy(places)] = rows[torch.from_numpy(new).to(rows.device)].cpu()
        self.keys[places] = keys[new]

    def rows(self) -> Tensor:
        """The sample, ``(min(size, rows offered), …)``.

        Raises:
            ValueError: if the stream was empty.
        """
        if self.kept is None:
            raise ValueError("a sample was asked of an empty stream")
        return self.kept[: len(self.keys)]
