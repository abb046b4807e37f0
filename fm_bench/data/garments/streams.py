# SPDX-License-Identifier: MIT
"""Random numbers that are a pure function of what they are for.

A counter-based generator (splitmix64 finaliser) instead of a stateful one: number ``slot`` of picture ``view`` of item
``item`` never depends on how many others were drawn before it, on the size of the catalogue, or on any label.
"""

import zlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(seed: int, purpose: str, *numbers: NDArray[np.integer[Any]] | int) -> NDArray[np.uint64]:
    """One 64-bit key per row.

    Args:
        seed: the catalogue's seed.
        purpose: a name; different names give unrelated numbers.
        numbers: ``(n,)`` counters (or single ones) that tell rows apart.
    """
    key = _root(seed, purpose)
    for number in numbers:
        key = _mix((key ^ np.asarray(number, dtype=np.int64).astype(np.uint64)) * _GOLDEN + _GOLDEN)
    return key


@lru_cache(maxsize=64)
def _root(seed: int, purpose: str) -> NDArray[np.uint64]:
    key = np.array([seed], dtype=np.int64).astype(np.uint64) + np.uint64(zlib.crc32(purpose.encode()))
    return _mix(key * _GOLDEN + _GOLDEN)


def uniforms(key: NDArray[np.uint64], slots: int) -> NDArray[np.float64]:
    """``(n, slots)`` numbers in [0, 1) from ``(n,)`` keys."""
    counter = (np.arange(1, slots + 1, dtype=np.uint64) * _GOLDEN)[None]
    bits: NDArray[np.uint64] = _mix(key[:, None] + counter) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


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
