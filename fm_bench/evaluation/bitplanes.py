# SPDX-License-Identifier: MIT
"""How many attributes targets and images share, counted for 64 images at a time.

For each attribute and value one bit per image tells whether the image has it. What a target and an image share is then
a sum of bits, and the binary digits of all sums come from the logic of an adder, on words of 64 images: a third of the
work of comparing labels byte by byte.
"""

from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.retrieval.distances import I64

Words = NDArray[np.uint64]
WORD = 64
_ALL = ~np.uint64(0)


class BitPlanes:
    """Targets and images, ready to be counted.

    Args:
        targets: ``(T, A)`` codes; a code that no image has matches nothing.
        images: ``(A, U)`` codes.
    """

    def __init__(self, targets: NDArray[np.integer[Any]], images: NDArray[np.integer[Any]]) -> None:
        self.words = -(-images.shape[1] // WORD)
        """Words that hold a bit for every image; the bits past the last image are never set."""
        self._bits: list[Words] = []  # per attribute, a row for each value that a target has
        self._row = np.empty(targets.shape, np.int64)
        for m, codes in enumerate(images):
            values, self._row[:, m] = np.unique(targets[:, m], return_inverse=True)
            packed = np.zeros((len(values), self.words * WORD // 8), np.uint8)
            for row, value in zip(packed, values, strict=True):
                bits = np.packbits(codes == value, bitorder="little")
                row[: len(bits)] = bits
            self._bits.append(packed.view(np.uint64))

    def shared(self, targets: slice | I64, words: slice) -> list[Words]:
        """The binary digits, lowest first, ``(t, w)`` each, of how many attributes ``t`` targets share with images."""
        count = len(self._bits)
        planes = (bits[row, words] for bits, row in zip(self._bits, self._row[targets].T, strict=True))
        return _sum(planes)[: count.bit_length()]


def at_least(digits: list[Words], floor: I64) -> Words:
    """Bits ``(t, w)`` of the images whose number, of ``digits``, is not below ``floor (t,)``."""
    lacks = [np.where(floor >> place & 1, np.uint64(0), _ALL)[:, None] for place in range(len(digits))]
    mask = digits[0] | lacks[0]
    for digit, lack in zip(digits[1:], lacks[1:], strict=True):  # the digit decides, or where it is equal, those below
        either = digit | mask
        either &= lack
        mask &= digit
        mask |= either
    return mask


def places(mask: Words) -> I64:
    """Where bits are set in ``mask (t, w)``, ascending, as ``row * 64 w + column``."""
    words = np.flatnonzero(mask.ravel() != 0)
    few = mask.ravel()[words].view(np.uint8)
    byte = np.flatnonzero(few != 0)
    bit = np.flatnonzero(np.unpackbits(few[byte], bitorder="little").view(bool))
    at = byte[bit >> 3]
    return np.asarray((words[at >> 3] << 6) + ((at & 7) << 3) + (bit & 7), np.int64)


def numbers(digits: list[Words], at: I64) -> I64:
    """The numbers, of ``digits``, at ``places``."""
    byte, bit = at >> 3, (at & 7).astype(np.uint8)
    number = np.zeros(len(at), np.int64)
    for place, digit in enumerate(digits):
        number |= (digit.view(np.uint8).ravel()[byte] >> bit & 1).astype(np.int64) << place
    return number


def _sum(planes: Iterator[Words]) -> list[Words]:
    """Digits of the sum of bits, added in threes and then in pairs of equal rank, so that few sums wait at any time."""
    waiting: list[tuple[int, list[Words]]] = []
    while three := tuple(islice(planes, 3)):
        digits, rank = _bits(*three), 0
        while waiting and waiting[-1][0] == rank:
            digits, rank = _add(waiting.pop()[1], digits), rank + 1
        waiting.append((rank, digits))
    total = waiting.pop()[1]
    while waiting:
        total = _add(waiting.pop()[1], total)
    return total


def _bits(a: Words, b: Words | None = None, c: Words | None = None) -> list[Words]:
    """All digits of the sum of up to three bits."""
    if b is None:
        return [a]
    one, both = a ^ b, a & b
    if c is None:
        return [one, both]
    low = one ^ c
    one &= c
    both |= one
    return [low, both]


def _add(a: list[Words], b: list[Words]) -> list[Words]:
    """Digits of the sum of two numbers."""
    total: list[Words] = []
    carry: list[Words] = []
    for digits in zip_longest(a, b):
        low, *carry = _bits(*(digit for digit in (*digits, *carry) if digit is not None))
        total.append(low)
    return total + carry
