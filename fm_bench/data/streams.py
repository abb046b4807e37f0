# SPDX-License-Identifier: MIT
"""Random numbers that are a pure function of what they are for: no choice depends on how the work was divided.

The generator is counter-based: number ``slot`` of a key never depends on how many others were drawn before it.
"""

import zlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keys(seed: int, purpose: str, *numbers: NDArray[np.integer[Any]] | int) -> NDArray[np.uint64]:
    """One 64-bit key per row, as good as random (counter-based, with the finaliser of SplitMix64).

    Args:
        seed: of the run or the catalogue.
        purpose: a name; different names give unrelated keys.
        numbers: integer counters that tell rows apart, arrays that broadcast or single ones.
    """
    key = _root(seed, purpose)
    for number in numbers:
        key = _mix((key ^ np.asarray(number, dtype=np.int64).astype(np.uint64)) * _GOLDEN + _GOLDEN)
    return key


def uniforms(key: NDArray[np.uint64], slots: int) -> NDArray[np.float64]:
    """``(n, slots)`` numbers in [0, 1) from ``(n,)`` keys."""
    counter = (np.arange(1, slots + 1, dtype=np.uint64) * _GOLDEN)[None]
    bits: NDArray[np.uint64] = _mix(key[:, None] + counter) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


@lru_cache(maxsize=64)
def _root(seed: int, purpose: str) -> NDArray[np.uint64]:
    key = np.array([seed], dtype=np.int64).astype(np.uint64) + np.uint64(zlib.crc32(purpose.encode()))
    return _mix(key * _GOLDEN + _GOLDEN)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
