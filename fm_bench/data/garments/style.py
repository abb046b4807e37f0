# SPDX-License-Identifier: MIT
"""Continuous style: named numbers of an item or a view, drawn in a fixed layout that no label can shift."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fm_bench.data.streams import uniforms

Style = dict[str, NDArray[np.float64]]
"""Named continuous numbers, ``(n,)`` each."""


def style(
    key: NDArray[np.uint64],
    ranges: dict[str, tuple[float, float]],
    other: dict[str, tuple[float, float]] | None = None,
    use_other: NDArray[np.bool_] | None = None,
) -> Style:
    """One uniform number per name and row, within the name's range; a name's slot is its position.

    Args:
        key: ``(n,)``.
        ranges: name to (low, high).
        other: ranges that replace some of these in the rows ``use_other``.
        use_other: ``(n,)``.
    """
    low, span = _bounds(tuple(ranges.values()))
    numbers = uniforms(key, len(ranges)) * span + low
    if other is not None and use_other is not None and use_other.any():
        low, span = _bounds(tuple((ranges | other).values()))
        numbers = np.where(use_other[:, None], uniforms(key, len(ranges)) * span + low, numbers)
    return dict(zip(ranges, numbers.T, strict=True))


@lru_cache(maxsize=8)
def _bounds(ranges: tuple[tuple[float, float], ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = np.array(ranges)
    return table[:, 0], table[:, 1] - table[:, 0]
