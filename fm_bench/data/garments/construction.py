# SPDX-License-Identifier: MIT
"""How the garment is made: category marks, sleeve marks and fastenings, in garment coordinates."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from fm_bench.data.garments.canvas import RGB, Canvas, Part, both, ellipse
from fm_bench.data.garments.details import Floats, Garment
from fm_bench.data.garments.silhouette import ARMPIT, NECK_TOP
from fm_bench.data.garments.tones import lift

_T = np.linspace(0.0, 1.0, 14)


def half_width(g: Garment, y: float) -> float:
    """Half width of the torso at height ``y``."""
    return float(np.interp((y - ARMPIT) / max(g.hem - ARMPIT, 1e-3), _T, g.half_width))


def raglan_yokes(g: Garment) -> tuple[Floats, Floats]:
    """Where raglan sleeves continue over the torso up to the neck."""
    tip, w = g.torso[1].tolist(), half_width(g, ARMPIT)
    inner = [(w, ARMPIT + 0.045), (0.046, NECK_TOP + 0.05)]
    return both([(0.062, NECK_TOP - 0.005), (tip[0], tip[1]), (w, ARMPIT), *inner])


def draw_sleeve_marks(c: Canvas, g: Garment) -> None:
    """Seams, cuffs and cut-outs that tell sleeve shapes apart."""
    shape, edge = g.value["sleeve shape"], g.tones.seam
    for sleeve, side in ((g.left, -1.0), (g.right, 1.0)):
        outer, inner = sleeve[:18], sleeve[::-1][:18]
        long = float(np.hypot(*(outer[-1] - outer[0]))) > 0.15
        if shape == "raglan":
            c.line([(0.046 * side, NECK_TOP + 0.05), (half_width(g, ARMPIT) * side, ARMPIT + 0.045)], edge, 0.02)
        elif shape == "puff":
            for k in (2, 4, 6) if long else (5, 9, 13):
                c.line([outer[k], (outer[k] * 2 + inner[k]) / 3], edge, 0.009)
            if long:
                k = int(np.searchsorted(np.linspace(0, float(np.hypot(*(outer[-1] - outer[0]))), 18), 0.14))
                c.line([outer[k], inner[k]], edge, 0.014)
        elif shape == "ruffled":
            for k in range(3, 18, 3):
                c.line([outer[k], inner[k]], edge, 0.011)
        elif shape == "bell":
            for share in (0.3, 0.6):
                c.line(
                    [outer[-5] * share + inner[-5] * (1 - share), outer[-1] * share + inner[-1] * (1 - share)],
                    edge,
                    0.009,
                )
            c.line([outer[-1], inner[-1]], edge, 0.012)
        elif shape == "cold shoulder":
            centre = np.array([(abs(float(g.torso[1, 0])) + 0.004) * side, NECK_TOP + 0.066])
            hole = ellipse(float(centre[0]), float(centre[1]), 0.036, 0.05, turn=-0.5 * side)
            c.fill(hole, None, Part.NOTHING)
            c.line(hole, edge, 0.012, closed=True)
        elif shape == "batwing":
            c.line([outer[0], inner[8], inner[-1]], edge, 0.008)


def _band(c: Canvas, outer: Floats, inner: Floats, colour: RGB, part: Part) -> None:
    c.fill(np.concatenate([outer, inner[::-1]]), colour, part)


def _cuffs(c: Canvas, g: Garment, colour: RGB, count: int) -> None:
    """A band at the end of both sleeves, where there is a sleeve."""
    if g.value["sleeve length"] in ("sleeveless", "cap"):
        return
    for sleeve in (g.left, g.right):
        _band(c, sleeve[17 - count : 18], sleeve[::-1][17 - count : 18], colour, Part.TRIM)


def _hem_band(c: Canvas, g: Garment, colour: RGB, height: float) -> None:
    w0, w1 = half_width(g, g.hem - height), half_width(g, g.hem)
    c.fill([(-w0, g.hem - height), (w0, g.hem - height), (w1, g.hem), (-w1, g.hem)], colour, Part.TRIM)


def draw_category_marks(c: Canvas, g: Garment) -> None:
    """What makes a sweater a sweater: bands, belts, yokes, gathers."""
    draw = _CATEGORIES.get(g.value["category"])
    if draw is not None:
        draw(c, g)


def _t_shirt(c: Canvas, g: Garment) -> None:
    for up in (0.014, 0.03):
        w = half_width(g, g.hem - up)
        c.line([(-w, g.hem - up), (w, g.hem - up)], g.tones.seam, 0.006)


def _shirt(c: Canvas, g: Garment) -> None:
    y = NECK_TOP + 0.072
    w = abs(float(g.torso[1, 0]))
    c.line([(-w, y), (0, y - 0.012), (w, y)], g.tones.seam, 0.01)
    _cuffs(c, g, lift(g.tones.sleeves, 0.8, 34), 2)


def _sweater(c: Canvas, g: Garment) -> None:
    tone, line = lift(g.tones.torso, 0.78, 34), lift(g.tones.torso, 0.5, 70)
    _hem_band(c, g, tone, 0.052)
    w = half_width(g, g.hem)
    for x in np.linspace(-w, w, 13)[1:-1]:
        c.line([(float(x), g.hem - 0.048), (float(x), g.hem)], line, 0.008)
    _cuffs(c, g, lift(g.tones.sleeves, 0.7, 44), 3)


def _hoodie(c: Canvas, g: Garment) -> None:
    cord = (240, 238, 230) if sum(g.tones.torso) < 480 else (50, 48, 54)
    for side in (-1, 1):
        c.line([(0.032 * side, NECK_TOP + 0.035), (0.04 * side, NECK_TOP + 0.16)], cord, 0.015)
        c.dot(0.04 * side, NECK_TOP + 0.165, 0.013, cord)


def _bomber(c: Canvas, g: Garment) -> None:
    stripe = lift(g.tones.trim, 0.3, 150)
    _hem_band(c, g, g.tones.trim, 0.058)
    w = half_width(g, g.hem - 0.03)
    c.line([(-w, g.hem - 0.03), (w, g.hem - 0.03)], stripe, 0.012)
    _cuffs(c, g, g.tones.trim, 3)


def _trench(c: Canvas, g: Garment) -> None:
    w = half_width(g, g.waist) + 0.004
    y = g.waist
    c.fill([(-w, y - 0.02), (w, y - 0.02), (w, y + 0.02), (-w, y + 0.02)], g.tones.trim, Part.TRIM, g.tones.seam)
    c.line(
        [(-0.026, y - 0.026), (0.026, y - 0.026), (0.026, y + 0.026), (-0.026, y + 0.026)],
        (214, 180, 100),
        0.012,
        Part.TRIM,
        closed=True,
    )
    tip = abs(float(g.torso[1, 0]))
    for side in both(
        [
            (tip - 0.06, NECK_TOP + 0.01),
            (tip, NECK_TOP + 0.024),
            (tip, NECK_TOP + 0.05),
            (tip - 0.055, NECK_TOP + 0.034),
        ]
    ):
        c.fill(side, g.tones.trim, Part.TRIM)


def _dress(c: Canvas, g: Garment) -> None:
    y, w = g.waist, half_width(g, g.waist)
    c.line([(-w, y), (0, y + 0.008), (w, y)], g.tones.seam, 0.016)
    bottom, end = g.hem - 0.02, half_width(g, g.hem)
    for share in (-0.75, -0.45, -0.15, 0.15, 0.45, 0.75):
        c.line([(w * share * 0.9, y + 0.01), (end * share, y + (bottom - y) * 0.85)], g.tones.seam, 0.007)


def _peplum(c: Canvas, g: Garment) -> None:
    y = ARMPIT + 0.62 * (g.hem - ARMPIT)
    w, end = half_width(g, y), half_width(g, g.hem)
    c.line([(-w, y), (w, y)], g.tones.seam, 0.016)
    for share in (-0.8, -0.5, -0.17, 0.17, 0.5, 0.8):
        c.line([(w * share, y), (end * share, g.hem - 0.005)], g.tones.seam, 0.009)


def _tunic(c: Canvas, g: Garment) -> None:
    w, end = half_width(g, g.hem - 0.03), half_width(g, g.hem)
    drop = 0.1 * min(1.0, (g.hem - 0.26) / 0.25)
    c.line([(-w, g.hem - 0.02), (0, g.hem - drop - 0.022), (end, g.hem - 0.02)], g.tones.trim, 0.018)


def _jumpsuit(c: Canvas, g: Garment) -> None:
    y = min(0.56, g.hem - 0.1)
    w = half_width(g, g.waist)
    c.line([(-w, g.waist), (w, g.waist)], g.tones.seam, 0.018)
    c.line([(0, g.waist), (0, y)], g.tones.seam, 0.01)


def _waistcoat(c: Canvas, g: Garment) -> None:
    for side in both([(0.075, ARMPIT + 0.01), (0.06, (ARMPIT + g.hem) / 2), (0.075, g.hem - 0.02)]):
        c.line(side, g.tones.seam, 0.01)
    tip = abs(float(g.torso[1, 0]))
    for side in both(
        [(tip - 0.012, NECK_TOP + 0.03), (tip - 0.03, 0.21), (half_width(g, ARMPIT) - 0.012, ARMPIT + 0.012)]
    ):
        c.line(side, g.tones.trim, 0.022, Part.TRIM)


def _bodysuit(c: Canvas, g: Garment) -> None:
    w, high = half_width(g, g.hem - 0.1), 0.17 * min(1.0, (g.hem - 0.26) / 0.25)
    for side in both([(w, g.hem - high), (0.5 * w, g.hem - 0.55 * high), (0.2 * w, g.hem - 0.01)]):
        c.line(side, g.tones.seam, 0.018)


_CATEGORIES: dict[str, Callable[[Canvas, Garment], None]] = {
    "t-shirt": _t_shirt,
    "shirt": _shirt,
    "sweater": _sweater,
    "hoodie": _hoodie,
    "bomber jacket": _bomber,
    "trench coat": _trench,
    "dress": _dress,
    "peplum top": _peplum,
    "tunic": _tunic,
    "jumpsuit": _jumpsuit,
    "waistcoat": _waistcoat,
    "bodysuit": _bodysuit,
}


def draw_fastening(c: Canvas, g: Garment) -> None:
    """The fastening down the front; nothing for ``none``."""
    draw = _FASTENINGS.get(g.value["fastening"])
    if draw is not None:
        bottom = min(g.hem - 0.02, 0.72)
        if g.value["category"] == "jumpsuit":
            bottom = min(bottom, min(0.56, g.hem - 0.1) - 0.01)
        elif g.value["category"] == "tunic":
            bottom = min(bottom, g.hem - 0.1)
        draw(c, g, g.neck_bottom, bottom)


def _placket(c: Canvas, g: Garment, top: float, bottom: float, half: float) -> None:
    points = [(-half, top), (half, top), (half, bottom), (-half, bottom)]
    c.fill(points, lift(g.tones.torso, 0.86, 24), Part.FASTENING)
    c.line(points, g.tones.seam, 0.009, closed=True)


def _buttons(c: Canvas, g: Garment, top: float, bottom: float) -> None:
    _placket(c, g, top, bottom, 0.022)
    for y in np.linspace(top + 0.022, bottom - 0.02, max(3, round((bottom - top) / 0.062))):
        c.dot(0, float(y), 0.0145 * g.item["detail"], g.tones.button, Part.FASTENING)


def _half_placket(c: Canvas, g: Garment, top: float, bottom: float) -> None:
    end = min(top + 0.13, bottom)
    _placket(c, g, top - 0.005, end, 0.03)
    for y in np.linspace(top + 0.018, end - 0.022, 3):
        c.dot(0, float(y), 0.0125 * g.item["detail"], g.tones.button, Part.FASTENING)


def _double(c: Canvas, g: Garment, top: float, bottom: float) -> None:
    c.line([(0.085 * g.side, top + 0.01), (0.085 * g.side, bottom)], g.tones.seam, 0.012, Part.FASTENING)
    for y in np.linspace(max(top + 0.03, 0.25), min(bottom - 0.02, 0.52), 4):
        for x in (-0.048, 0.048):
            c.dot(x, float(y), 0.017 * g.item["detail"], g.tones.button, Part.FASTENING)


def _teeth(c: Canvas, g: Garment, points: list[tuple[float, float]]) -> None:
    c.line(points, (48, 48, 54), 0.03, Part.FASTENING)
    c.line(points, g.tones.metal, 0.014)
    x, y = points[0]
    c.fill(
        [(x - 0.014, y), (x + 0.014, y), (x + 0.014, y + 0.04), (x - 0.014, y + 0.04)],
        g.tones.metal,
        Part.FASTENING,
        (48, 48, 54),
    )


def _zip(c: Canvas, g: Garment, top: float, bottom: float) -> None:
    _teeth(c, g, [(0, top), (0, bottom)])


def _biker(c: Canvas, g: Garment, top: float, bottom: float) -> None:
    s = g.side
    _teeth(c, g, [(0.09 * s, max(NECK_TOP + 0.06, 0.2)), (-0.055 * s, bottom)])


def _open(c: Canvas, g: Garment, top: float, bottom: float) -> None:
    inner = (236, 236, 232) if sum(g.tones.torso) < 520 else (52, 54, 66)
    end = g.hem + 0.03 if g.value["category"] not in ("jumpsuit", "tunic", "waistcoat", "bodysuit") else bottom
    points = [(-0.02, top - 0.01), (0.02, top - 0.01), (0.062, end), (-0.062, end)]
    before = c.part > 0
    c.fill(points, inner, Part.FASTENING)
    c.part[~before] = 0
    for x0, x1 in ((-0.02, -0.062), (0.02, 0.062)):
        c.line([(x0, top - 0.01), (x1, end)], g.tones.seam, 0.012)


def _toggles(c: Canvas, g: Garment, top: float, bottom: float) -> None:
    c.line([(0, top), (0, bottom)], g.tones.seam, 0.01)
    wood = (146, 92, 44) if sum(g.tones.torso) > 330 or g.value["colour"] in ("navy", "black") else (232, 208, 160)
    for y in np.linspace(max(top + 0.03, 0.22), min(bottom - 0.025, 0.56), 4 if bottom > 0.5 else 3):
        c.line([(-0.062, float(y)), (0.062, float(y))], (236, 226, 204), 0.01)
        c.fill(ellipse(0, float(y), 0.038, 0.014), wood, Part.FASTENING, (60, 40, 24))


def _lacing(c: Canvas, g: Garment, top: float, bottom: float) -> None:
    end = min(top + 0.2, bottom)
    cord = (244, 240, 230) if sum(g.tones.torso) < 420 else (46, 36, 34)
    c.fill([(-0.012, top), (0.012, top), (0.012, end), (-0.012, end)], g.inside, Part.FASTENING)
    rows = np.linspace(top + 0.008, end, 5)
    for a, b in pairwise(rows.tolist()):
        for s in (-1, 1):
            c.line([(-0.04 * s, a), (0.04 * s, b)], cord, 0.012, Part.FASTENING)


_FASTENINGS: dict[str, Callable[[Canvas, Garment, float, float], None]] = {
    "buttons": _buttons,
    "half placket": _half_placket,
    "double-breasted": _double,
    "zip": _zip,
    "biker zip": _biker,
    "open": _open,
    "toggles": _toggles,
    "lacing": _lacing,
}
