# SPDX-License-Identifier: MIT
"""Necklines, collars and pockets, in garment coordinates."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fm_bench.data.garments.canvas import RGB, Canvas, Part, both, ellipse
from fm_bench.data.garments.silhouette import NECK_SIDE, NECK_TOP
from fm_bench.data.garments.tones import Tones, lift, seam

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Garment:
    """One garment while it is drawn."""

    value: dict[str, str]
    item: dict[str, float]
    tones: Tones
    torso: Floats  # (P, 2) outlines
    left: Floats
    right: Floats
    hood: Floats
    hem: float
    waist: float
    half_width: Floats  # (14,) from armpit to hem
    inside: RGB  # what the neck opening shows

    @property
    def side(self) -> float:
        """−1 or 1: which side carries what exists once."""
        return -1.0 if self.item["side"] < 0.5 else 1.0

    @property
    def neck_bottom(self) -> float:
        """Lowest y of the neck opening on the middle line."""
        depth = {"crew": 0.045, "V-neck": 0.14, "scoop": 0.115, "square": 0.095, "boat": 0.042, "sweetheart": 0.085}
        return NECK_TOP + depth.get(self.value["neckline"], 0.045) * self.item["neck"]


def neck_opening(g: Garment) -> Floats:
    """Outline ``(P, 2)`` of the neck opening, from the top left over the front edge."""
    k = g.item["neck"]
    t = np.linspace(0, np.pi, 15)

    def bowl(half: float, depth: float) -> Floats:
        front = np.stack(
            [-half * np.cos(t), shoulder(half) + (depth * k + NECK_TOP - shoulder(half)) * np.sin(t) ** 0.8], axis=-1
        )
        return closed(front)

    def shoulder(x: float) -> float:
        return float(np.interp(x, g.torso[:2, 0], g.torso[:2, 1])) - 0.004

    def closed(front: Floats) -> Floats:
        """The front edge, joined along the shoulders and the back of the neck."""
        back = NECK_TOP - 0.014
        return np.concatenate([front, [(NECK_SIDE, back), (-NECK_SIDE, back)]])

    shapes: dict[str, Callable[[], Floats]] = {
        "crew": lambda: bowl(0.058, 0.045),
        "scoop": lambda: bowl(0.082, 0.115),
        "boat": lambda: bowl(0.142, 0.042),
        "keyhole": lambda: bowl(0.058, 0.042),
        "V-neck": lambda: closed(
            np.array([(-0.072, shoulder(0.072)), (0, NECK_TOP + 0.14 * k), (0.072, shoulder(0.072))])
        ),
        "square": lambda: closed(
            np.array(
                [
                    (-0.082, shoulder(0.082)),
                    (-0.078, NECK_TOP + 0.095 * k),
                    (0.078, NECK_TOP + 0.095 * k),
                    (0.082, shoulder(0.082)),
                ]
            )
        ),
        "sweetheart": lambda: closed(
            np.stack(
                [
                    -0.098 * np.cos(t),
                    shoulder(0.098)
                    + k * (0.118 * np.abs(np.sin(2 * t)) ** 0.7 * (0.35 + 0.65 * np.sin(t)) + 0.07 * np.sin(t) ** 4),
                ],
                axis=-1,
            )
        ),
        "asymmetric": lambda: closed(
            np.array([(-0.07, shoulder(0.07)), (0.116, NECK_TOP + 0.17 * k), (0.136, shoulder(0.136))])
        ),
    }
    return shapes[g.value["neckline"]]()


def draw_neckline(c: Canvas, g: Garment) -> None:
    """The neck opening with its edge; a keyhole's hole below it."""
    edge = neck_opening(g)
    c.fill(edge, g.inside, Part.NECKLINE)
    c.line(edge[:-2], g.tones.seam, 0.012)
    if g.value["neckline"] == "keyhole":
        k = g.item["neck"]
        hole = ellipse(0, NECK_TOP + 0.108 * k, 0.03, 0.044 * k)
        c.fill(hole, g.inside, Part.NECKLINE)
        c.line(hole, g.tones.seam, 0.012, closed=True)
        c.dot(0, NECK_TOP + 0.05 * k, 0.012, g.tones.button)


def draw_collar(c: Canvas, g: Garment) -> None:
    """The collar around the neck opening; nothing for ``none``."""
    draw = _COLLARS.get(g.value["collar"])
    if draw is not None:
        draw(c, g, g.tones.collar, seam(g.tones.collar))


def _leaf(c: Canvas, points: Floats | list[tuple[float, float]], fill: RGB, edge: RGB) -> None:
    for side in both(points):
        c.fill(side, fill, Part.COLLAR, edge)


def _scaled(g: Garment, points: list[tuple[float, float]]) -> Floats:
    """Points enlarged by the item's detail size about the collar's root."""
    return (np.array(points) - (0, NECK_TOP)) * g.item["detail"] + (0, NECK_TOP)


def _shirt(c: Canvas, g: Garment, fill: RGB, edge: RGB) -> None:
    _leaf(
        c,
        _scaled(g, [(0.03, 0.085), (0.062, 0.115), (0.108, 0.17), (0.07, 0.232), (0.004, 0.178), (0.045, 0.135)]),
        fill,
        edge,
    )


def _peter_pan(c: Canvas, g: Garment, fill: RGB, edge: RGB) -> None:
    r = g.item["detail"]
    _leaf(c, ellipse(0.064, 0.172, 0.066 * r, 0.043 * r, turn=-0.45), fill, edge)


def _band(c: Canvas, g: Garment, fill: RGB, edge: RGB) -> None:
    _leaf(c, [(0.0, 0.09), (0.058, 0.08), (0.07, 0.128), (0.05, 0.165), (0.006, 0.178), (0.012, 0.14)], fill, edge)
    c.fill(ellipse(0, 0.088, 0.05, 0.013), g.inside, Part.NECKLINE)


def _funnel(c: Canvas, g: Garment, fill: RGB, edge: RGB) -> None:
    c.fill([(-0.066, 0.035), (0.066, 0.035), (0.076, 0.138), (0.0, 0.15), (-0.076, 0.138)], fill, Part.COLLAR, edge)
    for y in (0.07, 0.1, 0.13):
        c.line([(-0.068, y), (0, y + 0.012), (0.068, y)], edge, 0.01)
    c.fill(ellipse(0, 0.038, 0.06, 0.014), g.inside, Part.NECKLINE, edge)


def _lapel(c: Canvas, g: Garment, fill: RGB, edge: RGB) -> None:
    points = [
        (0.05, 0.1),
        (0.072, 0.115),
        (0.128, 0.178),
        (0.1, 0.2),
        (0.092, 0.215),
        (0.145, 0.232),
        (0.012, 0.372),
        (0.0, 0.345),
    ]
    _leaf(c, _scaled(g, points), fill, edge)


def _shawl(c: Canvas, g: Garment, fill: RGB, edge: RGB) -> None:
    t = np.linspace(0, 1, 9)
    outer = np.stack([0.066 + 0.088 * np.sin(np.pi * t) ** 0.9 - 0.05 * t, 0.085 + 0.29 * t], axis=-1)
    inner = np.stack([0.04 * (1 - t[::-1]), 0.085 + 0.27 * t[::-1]], axis=-1)
    _leaf(c, np.concatenate([outer, inner]), fill, edge)


def _ruffle(c: Canvas, g: Garment, fill: RGB, edge: RGB) -> None:
    other = lift(fill, 0.8, 38)
    for i, angle in enumerate(np.linspace(-0.25, np.pi + 0.25, 11)):
        x, y = 0.098 * np.cos(angle), NECK_TOP + 0.012 + 0.08 * np.sin(angle)
        c.dot(x, y, 0.027 * g.item["detail"], edge, Part.COLLAR)
        c.dot(x, y, 0.021 * g.item["detail"], fill if i % 2 else other, Part.COLLAR)


def _sailor(c: Canvas, g: Garment, fill: RGB, edge: RGB) -> None:
    stripe = lift(fill, 0.35, 170)
    panel = np.array(
        [
            (0.05, 0.115),
            (0.1, 0.13),
            (0.166, 0.165),
            (0.16, 0.262),
            (0.058, 0.262),
            (0.0, 0.315),
            (0.0, 0.27),
            (0.045, 0.2),
        ]
    )
    _leaf(c, panel, fill, edge)
    for side in both([(0.143, 0.165), (0.138, 0.242), (0.05, 0.242), (0.012, 0.277)]):
        c.line(side, stripe, 0.012)


def _bow(c: Canvas, g: Garment, fill: RGB, edge: RGB) -> None:
    y = 0.2
    for side in both([(0.006, y + 0.005), (0.05, y + 0.14), (0.078, y + 0.118), (0.022, y)]):
        c.fill(side, fill, Part.COLLAR, edge)
    for side in both([(0, y), (0.085, y - 0.052), (0.1, y - 0.01), (0.085, y + 0.045)]):
        c.fill(side * (1, 1), fill, Part.COLLAR, edge)
    c.fill(ellipse(0, y, 0.022, 0.024), lift(fill, 0.75, 40), Part.COLLAR, edge)


_COLLARS: dict[str, Callable[[Canvas, Garment, RGB, RGB], None]] = {
    "shirt": _shirt,
    "peter pan": _peter_pan,
    "band": _band,
    "funnel": _funnel,
    "lapel": _lapel,
    "shawl": _shawl,
    "ruffle": _ruffle,
    "sailor": _sailor,
    "bow": _bow,
}


def draw_pockets(c: Canvas, g: Garment) -> None:
    """The pockets; those at the hem keep above it however short the garment is."""
    kind, size = g.value["pocket"], g.item["detail"]
    low = min(0.5, g.hem - 0.075)
    chest = 0.282
    inner = min(1.0, float(g.half_width.min()) / 0.12)
    if kind == "chest":
        _patch(c, g, 0.07 * g.side * inner, chest, 0.045 * size, 0.038 * size, flap=False)
    if kind in ("flap pair", "four pockets"):
        for side in (-1, 1):
            _patch(c, g, 0.078 * side * inner, chest, 0.044 * size, 0.038 * size, flap=True)
    if kind in ("patch pair", "four pockets"):
        for side in (-1, 1):
            _patch(c, g, 0.07 * side * inner, low, 0.045 * size * inner, 0.046 * size, flap=False)
    if kind == "slanted":
        welt = [(0.05 * inner, -0.05), (0.075 * inner, -0.055), (0.118 * inner, 0.04), (0.093 * inner, 0.045)]
        for pocket in both([(x, low + y) for x, y in welt]):
            c.fill(pocket, lift(g.tones.torso, 0.42, 80), Part.POCKETS, g.tones.seam)
    if kind == "kangaroo":
        points = [
            (-0.06, low - 0.065),
            (0.06, low - 0.065),
            (0.115, low + 0.02),
            (0.115, low + 0.055),
            (-0.115, low + 0.055),
            (-0.115, low + 0.02),
        ]
        c.fill(np.array(points) * (inner, 1), _cloth(g), Part.POCKETS, None)
        c.line(np.array(points) * (inner, 1), lift(g.tones.torso, 0.42, 80), 0.014, closed=True)


def _cloth(g: Garment) -> RGB:
    return lift(g.tones.torso, 0.86, 22)


def _patch(c: Canvas, g: Garment, x: float, y: float, half: float, height: float, *, flap: bool) -> None:
    dark = lift(g.tones.torso, 0.42, 80)
    bottom = y + height
    outline = [
        (x - half, y - height),
        (x + half, y - height),
        (x + half, bottom - 0.012),
        (x, bottom),
        (x - half, bottom - 0.012),
    ]
    c.fill(outline, _cloth(g), Part.POCKETS)
    c.line(outline, dark, 0.012, closed=True)
    if flap:
        top = y - height - 0.006
        c.fill(
            [
                (x - half - 0.006, top),
                (x + half + 0.006, top),
                (x + half + 0.006, top + 0.02),
                (x, top + 0.038),
                (x - half - 0.006, top + 0.02),
            ],
            dark,
            Part.POCKETS,
        )
        c.dot(x, top + 0.022, 0.009, g.tones.button)
