# SPDX-License-Identifier: MIT
"""Which colours a garment shows: its own, the pattern's, the contrasting parts', buttons and seams."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fm_bench.data.garments.canvas import RGB
from fm_bench.data.garments.vocabulary import COLOURS, PALETTE

_CONTRASTS = ("white", "black", "navy", "red", "beige", "grey", "yellow", "turquoise")
_METALS: tuple[RGB, ...] = ((206, 208, 214), (216, 178, 92), (150, 150, 158))
SLEEVE_SHARE, COLLAR_SHARE = 0.16, 0.35
"""Share of items whose sleeves or collar have another colour than the torso."""


class Tones(NamedTuple):
    """Colours of one garment."""

    torso: RGB
    second: RGB
    third: RGB
    sleeves: RGB
    collar: RGB
    seam: RGB
    inside: RGB
    metal: RGB
    button: RGB
    trim: RGB
    sleeves_name: str
    collar_name: str


def tones(colour: str, pattern: str, shape: str, item: Mapping[str, float]) -> Tones:
    """The colours that follow from the labels and the item's style.

    Args:
        colour: the torso's colour class.
        pattern: decides what the second and third colours may be.
        shape: raglan sleeves are of another tone even where they have no other colour.
        item: the style's numbers, named as ``looks.ITEM``.
    """
    shade = np.array([item["red"], item["green"], item["blue"]])
    torso = _rgb((np.array(COLOURS[colour], dtype=float) + shade) * item["depth"])
    second, third = _pattern_colours(torso, pattern, item)
    names = list(COLOURS)
    sleeves_name, collar_name = (names[int(code)] for code in part_colours(names.index(colour), item))
    same = lift(torso, 0.58, 62) if shape == "raglan" else torso
    sleeves = same if sleeves_name == colour else COLOURS[sleeves_name]
    collar = lift(torso, 0.84, 26) if collar_name == colour else COLOURS[collar_name]
    dark = luminance(torso) < 90
    plain, fancy = ((244, 240, 228), (226, 196, 120)) if dark else ((36, 30, 30), (98, 60, 34))
    contrast: RGB = (226, 224, 220) if dark else (44, 42, 52)
    return Tones(
        torso=torso,
        second=second,
        third=third,
        sleeves=sleeves,
        collar=collar,
        seam=seam(torso),
        inside=lift(torso, 0.45, 48),
        metal=_METALS[int(item["metal"] * len(_METALS))],
        button=plain if item["buttons"] < 0.7 else fancy,
        trim=lift(torso, 0.5, 62) if item["trim"] < 0.7 else contrast,
        sleeves_name=sleeves_name,
        collar_name=collar_name,
    )


def part_colours(colour: ArrayLike, item: Mapping[str, Any]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Colour labels of sleeves and collar, whether the garment has such parts or not; of one garment or of many.

    Args:
        colour: ``(...)`` labels of the torso's colour.
        item: the style's numbers, ``(...)`` each.
    """
    torso = np.asarray(colour, dtype=np.int16)
    sleeves, collar = (_contrast(torso, item[f"{part} colour"]) for part in ("sleeve", "collar"))
    return (
        np.where(item["contrast sleeves"] < SLEEVE_SHARE, sleeves, torso).astype(np.int16),
        np.where(item["contrast collar"] < COLLAR_SHARE, collar, torso).astype(np.int16),
    )


def luminance(colour: RGB) -> float:
    """Perceived brightness in [0, 255]."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def lift(colour: RGB, factor: float, offset: float) -> RGB:
    """A darker tone of a light colour, or a lighter one of a dark colour, so that it always stands out."""
    if luminance(colour) < 75:
        return _rgb(np.array(colour) + offset)
    return _rgb(np.array(colour) * factor)


def seam(colour: RGB) -> RGB:
    """The colour of seams and outlines on ``colour``."""
    return lift(colour, 0.55, 52)


def _rgb(values: NDArray[np.float64]) -> RGB:
    r, g, b = np.clip(values, 6, 250).tolist()
    return round(r), round(g), round(b)


def _contrast(colour: NDArray[np.int16], u: NDArray[np.float64]) -> NDArray[np.int16]:
    table, count = _contrasts()
    chosen: NDArray[np.int16] = table[colour, (u * count[colour]).astype(np.intp)]
    return chosen


@lru_cache(maxsize=1)
def _contrasts() -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Which colours stand out from each colour, ``(colours, most)``, and how many these are."""
    labels = np.array([list(COLOURS).index(name) for name in _CONTRASTS], dtype=np.int16)
    far = np.abs(PALETTE[:, None] - PALETTE[labels]).sum(axis=2) > 150
    first = np.argsort(~far, axis=1, kind="stable")  # those that stand out, in their order
    return labels[first], far.sum(axis=1)


def _pattern_colours(torso: RGB, pattern: str, item: Mapping[str, float]) -> tuple[RGB, RGB]:
    base = np.array(torso, dtype=float)
    dark = luminance(torso) < 110
    if pattern == "camouflage":
        if dark:
            return _rgb(base + np.array([48, 46, 30])), _rgb(base + np.array([92, 84, 60]))
        return _rgb(base * 0.66), _rgb(base * 0.4)
    if pattern == "leopard":
        return (_rgb(base + 105), _rgb(base + 45)) if dark else ((34, 26, 22), _rgb(base * 0.72))
    light = [(246, 244, 238), (250, 224, 120), (190, 214, 236), (244, 190, 190)]
    deep = [(30, 30, 40), (32, 44, 96), (130, 24, 44), (30, 84, 60)]
    pool, other = (light, deep) if dark else (deep, light)
    if pattern in ("gingham", "ombre", "tie-dye"):
        second = (246, 244, 240) if luminance(torso) < 120 else deep[int(item["accent"] * 4)]
        return (_rgb((base + second) / 2), second) if pattern == "gingham" else (second, second)
    second = pool[int(item["accent"] ** 1.7 * 4)]
    third = (
        other[int(item["accent 2"] * 4)] if pattern in ("floral", "graphic print") else light[int(item["accent 2"] * 4)]
    )
    if pattern == "argyle":
        third = pool[(int(item["accent"] ** 1.7 * 4) + 1) % 4]
    return second, third
