# SPDX-License-Identifier: MIT
"""Pictures that look the same although their files differ: saved again, at another size or quality.

A picture is told by 64 bits and a few colours. The bits say which of the 8 x 8 lowest frequencies of its brightness
are above their median, after C. Zauner, *Implementation and Benchmarking of Perceptual Image Hash Functions* (2010);
they hardly change when a picture is saved again. Catalogues show one garment in many colours under the same light,
which the bits do not tell apart; so the colours of 8 x 8 tiles must be close, too.
"""

import itertools
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fm_bench.data.neighbours import expand

FINGERPRINT = np.dtype([("hash", np.uint64), ("colours", np.uint8, (8, 8, 3))])

RADIUS = 3
"""Pictures look the same if at most this many of their 64 bits differ ..."""

COLOUR_DIFFERENCE = 8
"""... and no tile's colour differs by more than this of 255. Of small photos saved again at a quality of 50, nineteen
in twenty are within; by the average of all tiles, any two pairs of glasses on white would look the same."""

MAX_PAIRS = 1_000_000
"""More pairs are not looked for: then the pictures are mostly the same."""

_SIDE, _LOW = 32, 8
_BANDS, _EQUAL = 6, 3  # of six bands, a radius of three leaves at least three untouched
_BLOCK = 1 << 16  # pairs compared at once


def fingerprint(picture: NDArray[np.uint8]) -> tuple[int, NDArray[np.uint8]]:
    """What ``FINGERPRINT`` holds of a picture ``(h, w, 3)`` RGB."""
    small = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = cv2.dct(grey)[:_LOW, :_LOW].ravel()
    bits = np.packbits(low > np.median(low))
    colours = cv2.resize(small, (_LOW, _LOW), interpolation=cv2.INTER_AREA)
    return int.from_bytes(bits.tobytes(), "big"), np.asarray(colours, dtype=np.uint8)


def look_alikes(fingerprints: NDArray[Any], limit: int = MAX_PAIRS) -> NDArray[np.int64]:
    """Pairs of pictures that look the same, ``(P, 2)`` positions, the lower one first, in ascending order.

    Bits that differ in at most three places agree in at least three of six bands of them (the pigeonhole principle).
    So every choice of three bands is a key by which pictures are sorted, and only those with an equal key are
    compared: exact, without ever holding a table of all pairs.

    Args:
        fingerprints: ``(N,)`` of ``FINGERPRINT``.
        limit: stops soon after this many pairs.
    """
    found = np.empty(0, np.int64)
    if len(fingerprints) < 2:
        return found.reshape(0, 2)
    hashes, colours = fingerprints["hash"], fingerprints["colours"].reshape(len(fingerprints), -1).astype(np.int16)
    for bands in itertools.combinations(_bands(), _EQUAL):
        key = hashes & np.bitwise_or.reduce(np.array(bands, np.uint64))
        order = np.argsort(key, kind="stable")
        for first, second in _runs(key[order]):
            a, b = order[first], order[second]
            near = np.bitwise_count(hashes[a] ^ hashes[b]) <= RADIUS
            a, b = a[near], b[near]
            alike = np.abs(colours[a] - colours[b]).max(axis=1) <= COLOUR_DIFFERENCE
            low, high = np.minimum(a, b)[alike], np.maximum(a, b)[alike]
            found = np.union1d(found, low * len(hashes) + high)
            if len(found) >= limit:
                break
        if len(found) >= limit:
            break
    return np.stack(np.divmod(found, max(len(hashes), 1)), axis=1)


def _bands() -> list[int]:
    """Masks of six bands that cover 64 bits."""
    edges = [round(64 * band / _BANDS) for band in range(_BANDS + 1)]
    return [(1 << high) - (1 << low) for low, high in itertools.pairwise(edges)]


def _runs(key: NDArray[np.uint64]) -> Any:
    """All pairs of places with an equal key in the sorted ``key``, a block at a time."""
    begins = np.flatnonzero(np.diff(key, prepend=key[:1] + np.uint64(1)))
    ends = np.repeat(np.append(begins[1:], len(key)), np.diff(begins, append=len(key)))
    followers = ends - np.arange(len(key)) - 1
    places = np.flatnonzero(followers)
    total = np.cumsum(followers[places])
    begin = 0
    while begin < len(places):
        done = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, done + _BLOCK, side="right")))
        first = places[begin:end]
        yield np.repeat(first, followers[first]), expand(first + 1, followers[first])
        begin = end
