# SPDX-License-Identifier: MIT
"""How many attributes targets and images share, counted for 64 images at a time.

For each attribute and value one bit per image tells whether the image has it. What a target and an image share is then
a sum of bits, and the binary digits of all sums come from the logic of an adder, on words of 64 images: far less work
than comparing labels byte by byte. Targets that agree in three attributes share the sums of these.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.retrieval.distances import I64, blocks, in_threads

Words = NDArray[np.uint64]
WORD = 64
_PART = 256  # targets; with 256 words, a plane of bits is 512 KiB
_TOGETHER = 3  # attributes whose sums are made once for all targets that agree in them: two binary digits


class BitPlanes:
    """Targets and images, ready to be counted.

    Args:
        targets: ``(T, A)`` codes; a code that no image has matches nothing.
        images: ``(A, U)`` codes.
    """

    def __init__(self, targets: NDArray[np.integer[Any]], images: NDArray[np.integer[Any]]) -> None:
        self.images = images.shape[1]
        self.words = -(-images.shape[1] // WORD)
        """Words that hold a bit for every image; the bits past the last image are never set."""
        self._bits: list[Words] = []  # per attribute, a row for each value that a target has
        row = np.empty(targets.shape, np.int64)
        for m, codes in enumerate(images):
            values, row[:, m] = np.unique(targets[:, m], return_inverse=True)
            packed = np.zeros((len(values), self.words * WORD // 8), np.uint8)
            for bits, value in zip(packed, values, strict=True):
                some = np.packbits(codes == value, bitorder="little")
                bits[: len(some)] = some
            self._bits.append(packed.view(np.uint64))
        self._sets = [slice(m, m + _TOGETHER) for m in range(0, len(images), _TOGETHER)]
        agreeing = [np.unique(row[:, part], axis=0, return_inverse=True) for part in self._sets]
        self._rows = [rows for rows, _ in agreeing]  # (n, 3) rows of bits that occur together
        self._set = [which.ravel() for _, which in agreeing]  # (T,) which of these a target has

    def reaching(
        self,
        floor: I64,
        words: slice,
        take: Callable[[I64, I64, I64, I64], None],
        lacks: NDArray[np.int64] | None = None,
    ) -> None:
        """Finds, among the images of ``words``, those that share enough attributes.

        Args:
            floor: ``(T,)`` how many attributes an image must share with each target.
            words: of the images.
            take: gets targets ``(t,)`` and, for all of their pairs with images, the position among these targets, the
                image, ascending for every target, and the number of attributes; several threads call it.
            lacks: ``(T, A + 1)`` how many images, sharing so many attributes or more, raise a target's floor to that
                number.
        """
        sums, parts = self.sums(words), _alike(floor)

        def look(some: slice) -> None:
            for targets in parts[some]:
                digits, lowest = sums.of(targets), int(floor[targets[0]])
                mask = at_least(digits, lowest)
                if lacks is not None:
                    mask = _raised(mask, digits, lowest, lacks[targets])
                found = places(mask)
                row, image = np.divmod(found, mask.shape[1] * WORD)
                image += words.start * WORD
                level = numbers(digits, found)
                if words.stop == self.words:  # the last word may have room for more images than there are
                    there = image < self.images
                    row, image, level = row[there], image[there], level[there]
                take(targets, row, image, level)

        in_threads(look, len(parts), 1)

    def sums(self, words: slice) -> "Sums":
        """What all targets share with the images of ``words``, set by set."""
        digits: list[list[Words]] = [[] for _ in self._sets]

        def add(some: slice) -> None:
            for at in range(some.start, some.stop):
                rows = self._rows[at].T
                digits[at] = _bits(
                    *(bits[row, words] for bits, row in zip(self._bits[self._sets[at]], rows, strict=True))
                )

        in_threads(add, len(digits), 1)
        return Sums(digits, self._set, len(self._bits).bit_length())


class Sums(NamedTuple):
    """Sums over sets of attributes, of which a target has one in each."""

    digits: list[list[Words]]  # per set, lowest digit first, (n, w) each
    row: list[I64]  # per set, (T,)
    length: int  # digits of the largest possible sum

    def of(self, targets: I64) -> list[Words]:
        """The binary digits, lowest first, ``(t, w)`` each, of how many attributes ``t`` targets share with images."""
        rows = (row[targets] for row in self.row)
        of_sets = [[digit[at] for digit in digits] for digits, at in zip(self.digits, rows, strict=True)]
        return _total(of_sets)[: self.length]


def _alike(floor: I64) -> list[I64]:
    """Targets of equal ``floor (T,)``, in parts whose planes of bits stay in the cache."""
    order = np.argsort(floor, kind="stable")
    bounds = np.flatnonzero(np.diff(floor[order])) + 1
    return [same[part] for same in np.split(order, bounds) for part in blocks(len(same), _PART)]


def at_least(digits: list[Words], floor: int) -> Words:
    """Bits ``(t, w)`` of the images whose number, of ``digits``, is not below ``floor``."""
    mask: Words | None = None  # by the digits so far; None where they need none to be set
    for place, digit in enumerate(digits):
        if floor >> place & 1:
            mask = digit if mask is None else mask & digit
        elif mask is not None:
            mask = mask | digit
    return np.full_like(digits[0], ~np.uint64(0)) if mask is None else mask


def _raised(mask: Words, digits: list[Words], floor: int, lacks: I64) -> Words:
    """``mask (t, w)`` of what reaches ``floor``, or the highest level that images enough reach."""
    for level in range(floor + 1, lacks.shape[1]):
        higher = at_least(digits, level)
        enough = np.bitwise_count(higher).sum(axis=1, dtype=np.int64) >= lacks[:, level]
        if not enough.any():
            break
        mask = np.where(enough[:, None], higher, mask)
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


def _total(numbers: Sequence[list[Words]]) -> list[Words]:
    """Digits of the sum of numbers, of equal ones as long as there are."""
    while len(numbers) > 1:
        pairs = [_add(one, other) for one, other in zip(numbers[::2], numbers[1::2], strict=False)]
        numbers = pairs + list(numbers[2 * len(pairs) :])
    return numbers[0]


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
