# SPDX-License-Identifier: MIT
"""How many attributes targets and images share, counted for 64 images at a time.

For each attribute and value one bit per image tells whether the image has it. What a target and an image share is then
a sum of bits, and the binary digits of all sums come from the logic of an adder, on words of 64 images: far less work
than comparing labels byte by byte. Targets that agree in three attributes share the sums of these.

Planes of bits are int64 tensors, since PyTorch shares the work on each among a few cores. Once floors have risen, what
is left to look at after that is little, and NumPy's.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.retrieval.distances import I64, blocks

Words = NDArray[np.uint64]
Bits = TypeVar("Bits", Tensor, Words)
WORD = 64
_ROOM = 1 << 20  # words of the planes of one part of the targets: 8 MiB
_SUMS = 1 << 23  # words of the sums of all targets: 64 MiB
_TOGETHER = 3  # attributes whose sums are made once for all targets that agree in them: two binary digits


class BitPlanes:
    """Targets and images, ready to be counted.

    Args:
        targets: ``(T, A)`` codes; a code that no image has matches nothing.
        images: ``(A, U)`` codes.
        copies: ``(U,)`` how often each image counts, from 1. Default: once.
    """

    def __init__(
        self, targets: NDArray[np.integer[Any]], images: NDArray[np.integer[Any]], copies: I64 | None = None
    ) -> None:
        self.attributes = len(images)
        self.words = -(-images.shape[1] // WORD)
        """Words that hold a bit for every image; the bits past the last image are never set."""
        self._bits: list[Words] = []  # per attribute, a row for each value that a target has
        row = np.empty(targets.shape, np.int64)
        for m, codes in enumerate(images):
            values, row[:, m] = np.unique(targets[:, m], return_inverse=True)
            self._bits.append(self._packed(len(values), (codes == value for value in values)))
        self._sets = [slice(m, m + _TOGETHER) for m in range(0, len(images), _TOGETHER)]
        self._rows: list[tuple[I64, ...]] = []  # (n,) rows of bits that occur together, an array per attribute
        self._set: list[I64] = []  # (T,) which of these a target has
        for part in self._sets:
            sizes = [len(bits) for bits in self._bits[part]]
            together, which = np.unique(np.ravel_multi_index(tuple(row[:, part].T), sizes), return_inverse=True)
            self._rows.append(np.unravel_index(together, sizes))
            self._set.append(which)
        self.most = max(1, _SUMS // (2 * sum(len(rows[0]) for rows in self._rows)))
        """How many words to count at a time: all targets' sums take 64 MiB at most, unless one word needs more."""
        self._room = torch.empty(0, dtype=torch.int64, device="cpu")
        copies = np.ones(images.shape[1], np.int64) if copies is None else copies
        digits = int(copies.max(initial=1)).bit_length()
        # (digits, words), lowest first
        self._copies = self._packed(digits, (copies >> place & 1 for place in range(digits)))

    def _packed(self, count: int, rows: Iterable[NDArray[Any]]) -> Words:
        """Bits ``(count, words)`` of ``rows (U,)``."""
        packed = np.zeros((count, self.words * WORD // 8), np.uint8)
        for bits, row in zip(packed, rows, strict=True):
            some = np.packbits(row, bitorder="little")
            bits[: len(some)] = some
        return packed.view(np.uint64)

    def reaching(self, floor: I64, wanted: I64, words: slice, take: Callable[[I64, I64, I64, I64], None]) -> None:
        """Counts the images of ``words`` that share enough attributes, and finds those that share all that are wanted.

        Args:
            floor: ``(T,)`` how many attributes an image must share with each target to be counted.
            wanted: ``(T,)`` at least ``floor``; no image may share more.
            words: of the images, ``most`` at most.
            take: gets a part of the targets ``(t,)``; how many images, by their copies, share at least 0, 1, … A
                attributes with each of them, ``(t, A + 1)``, and 0 below the floor; and two arrays ``(pairs,)``,
                ascending, of all pairs that share what is wanted: the position among these targets, and the image.
        """
        sums = self.sums(words)
        width = words.stop - words.start
        planes = 2 * len(self._sets) + 2  # the digits of all sets, one to add in, and a mask
        for targets in _alike(floor, wanted, max(1, _ROOM // planes // width)):
            free = list(self._planes(planes, len(targets), width))
            levels = range(int(floor[targets[0]]), int(wanted[targets[0]]) + 1)
            digits = sums.of(targets, free)
            mask = _words(at_least(digits, levels[0], free.pop()))
            if levels[0] == 0:  # the last word may have room for more images
                mask = mask & np.bitwise_or.reduce(self._copies[:, words])
            take(targets, *self._found([_words(digit) for digit in digits], mask, words, levels))

    def _planes(self, *shape: int) -> Tensor:
        """Room to write to, the same again and again: the first use of a page takes its time."""
        if len(self._room) < math.prod(shape):
            self._room = torch.empty(math.prod(shape), dtype=torch.int64, device="cpu")
        return self._room[: math.prod(shape)].view(shape)

    def _found(self, digits: list[Words], mask: Words, words: slice, levels: range) -> tuple[I64, I64, I64]:
        """What ``take`` of ``reaching`` gets.

        Args:
            digits: ``(t, w)`` each, of how many attributes targets and images share.
            mask: ``(t, w)`` images at the first of the levels.
            words: of the images.
            levels: from the floor to what is wanted.
        """
        targets, width = mask.shape
        at = np.flatnonzero(mask.ravel() != 0)  # few words have a bit: what follows looks at these alone
        digits, here = [digit.ravel()[at] for digit in digits], mask.ravel()[at]
        begin = np.searchsorted(at, width * np.arange(targets + 1))
        copies = self._copies[:, words]
        copies = copies[:, at % width] if copies[1:].any() else copies[:0]  # one each needs no looking at
        reached = np.zeros((targets, self.attributes + 1), np.int64)
        total = np.zeros(len(at) + 1, np.int64)
        for level in levels:
            if level > levels[0]:
                here = at_least(digits, level)
            count = _weighted(here, copies) if len(copies) else np.bitwise_count(here)
            np.cumsum(count, out=total[1:])
            reached[:, level] = np.diff(total[begin])
            if not total[-1]:
                break
        bit = places(here)
        row, word = np.divmod(at[bit // WORD], width)
        return reached, row, (words.start + word) * WORD + bit % WORD

    def sums(self, words: slice) -> "Sums":
        """What all targets share with the images of ``words``, set by set."""
        digits = []
        for rows, part in zip(self._rows, self._sets, strict=True):
            bits = [
                _plane(whole[:, words].take(row, axis=0)) for whole, row in zip(self._bits[part], rows, strict=True)
            ]
            digits.append(_added([torch.empty_like(bits[0])], *bits))
        return Sums(digits, self._set, self.attributes.bit_length())


class Sums(NamedTuple):
    """Sums over sets of attributes, of which a target has one in each."""

    digits: list[list[Tensor]]  # per set, lowest digit first, (n, w) each
    row: list[I64]  # per set, (T,)
    length: int  # digits of the largest possible sum

    def of(self, targets: I64, free: list[Tensor]) -> list[Tensor]:
        """The binary digits, lowest first, ``(t, w)`` each, of how many attributes ``t`` targets share with images.

        Args:
            targets: positions.
            free: planes ``(t, w)`` that may be written; those that are left remain.
        """
        of_sets = [
            [torch.index_select(digit, 0, torch.from_numpy(row[targets]), out=free.pop()) for digit in digits]
            for digits, row in zip(self.digits, self.row, strict=True)
        ]
        return _total(free, of_sets)[: self.length]


def _alike(floor: I64, wanted: I64, most: int) -> list[I64]:
    """Targets of equal ``floor (T,)`` and ``wanted (T,)``, ``most`` at a time at most."""
    both = floor * (int(wanted.max(initial=0)) + 1) + wanted
    order = np.argsort(both, kind="stable")
    bounds = np.flatnonzero(np.diff(both[order])) + 1
    return [same[part] for same in np.split(order, bounds) for part in blocks(len(same), most)]


def _plane(words: Words) -> Tensor:
    return torch.from_numpy(words.view(np.int64))


def _words(plane: Tensor) -> Words:
    return np.asarray(plane.numpy().view(np.uint64))


def at_least(digits: list[Bits], floor: int, free: Bits | None = None) -> Bits:
    """Bits ``(t, w)`` of the images whose number is not below ``floor``; do not write to them: they may be a digit's.

    Args:
        digits: of the numbers, lowest first, ``(t, w)`` each.
        floor: from 0 to the largest number that has as many digits.
        free: ``(t, w)``, none of the digits: where new bits are written to. Default: new memory.
    """
    logic: Any = np if isinstance(digits[0], np.ndarray) else torch
    mask: Bits | None = None  # by the digits so far; None where they need none to be set
    for place, digit in enumerate(digits):
        if floor >> place & 1:
            mask = digit if mask is None else logic.bitwise_and(mask, digit, out=free)
        elif mask is not None:
            mask = logic.bitwise_or(mask, digit, out=free)
    return digits[0] | ~digits[0] if mask is None else mask


def _weighted(mask: Words, digits: Words) -> I64:
    """The sum, for each word of ``mask (n,)``, of its images' numbers with ``digits (d, n)``, lowest first."""
    count = np.zeros(len(mask), np.int64)
    for place, digit in enumerate(digits):
        count += np.bitwise_count(mask & digit).astype(np.int64) << place
    return count


def places(mask: Words) -> I64:
    """Where bits are set in ``mask (n,)``, ascending, as ``64 * word + bit``."""
    words = np.flatnonzero(mask != 0)
    row, bit = np.divmod(np.flatnonzero(np.unpackbits(mask[words].view(np.uint8), bitorder="little")), WORD)
    return np.asarray(words[row] * WORD + bit, np.int64)


def _total(free: list[Tensor], numbers: Sequence[list[Tensor]]) -> list[Tensor]:
    """Digits ``(t, w)`` of the sum of numbers, lowest first; the planes of ``numbers`` are written over, or free."""
    total: list[Tensor] = []
    carried: list[Tensor] = []
    for digits in zip_longest(*numbers):
        carried = _column(free, [*carried, *(digit for digit in digits if digit is not None)], total)
    while carried:
        carried = _column(free, carried, total)
    return total


def _column(free: list[Tensor], digits: list[Tensor], total: list[Tensor]) -> list[Tensor]:
    """Adds up digits of one place, appends the sum's to ``total``, and gives what is carried to the next place."""
    carried: list[Tensor] = []
    while len(digits) > 1:
        low, high = _added(free, *digits[:3])
        digits = [*digits[3:], low]
        carried.append(high)
    total += digits
    return carried


def _added(free: list[Tensor], a: Tensor, b: Tensor | None = None, c: Tensor | None = None) -> list[Tensor]:
    """All digits of the sum of up to three bits; their planes become digits, or free."""
    if b is None:
        return [a]
    low = torch.bitwise_xor(a, b, out=free.pop())
    high = torch.bitwise_and(a, b, out=a)
    if c is not None:
        high |= torch.bitwise_and(low, c, out=b)
        low ^= c
        free.append(c)
    free.append(b)
    return [low, high]
