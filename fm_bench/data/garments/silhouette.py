# SPDX-License-Identifier: MIT
"""Outlines of garments, for a whole table of them at once.

Garment coordinates: x grows to the right from the body's middle, y down from the picture's top, both in picture
heights. ``pose`` takes them to picture coordinates in [0, 1]. Shapes are looked up from small tables by label, so that
the boxes of 200,000 garments need no loop over rows.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.data.garments.style import Style
from fm_bench.data.garments.vocabulary import CATEGORY, COLLAR, FIT, LENGTH, SCHEMA, SHAPE, SLEEVE

Floats = NDArray[np.float64]

NECK_TOP = 0.135
"""Where the neck leaves the shoulders."""
NECK_SIDE = 0.06
ARMPIT = 0.25
_WIDEN, _HEIGHTEN, _CENTRE = 1.14, 1.05, 0.5  # how garment coordinates fill the picture
WAIST = 0.44

_T = np.linspace(0.0, 1.0, 14)  # from armpit to hem
_U = np.linspace(1.0, -1.0, 61)  # along the hem, from the wearer's left to right
_S = np.linspace(0.0, 1.0, 18)  # along a sleeve


def _names(attribute: int) -> list[str]:
    """An attribute's values as Python names: ``_`` for anything but letters."""
    return ["".join(c if c.isalnum() else "_" for c in value) for value in SCHEMA.values[attribute]]


def _table(attribute: int, **values: object) -> Floats:
    """A look-up table by label, from one entry for each value."""
    return np.array([values[name] for name in _names(attribute)], dtype=np.float64)


def _only(attribute: int, **values: float) -> Floats:
    """A look-up table by label that is zero but for the given values."""
    return _table(attribute, **(dict.fromkeys(_names(attribute), 0.0) | values))


_HEM = _table(LENGTH, cropped=0.405, waist=0.49, hip=0.585, thigh=0.69, knee=0.81, ankle=0.94)
_SHOULDER = _table(FIT, slim=0.138, regular=0.156, tailored=0.15, boxy=0.188, A_line=0.142, cocoon=0.156)
_WIDTH = _table(
    FIT,
    slim=np.interp(_T, [0, 0.5, 1], [0.126, 0.112, 0.128]),
    regular=np.interp(_T, [0, 0.5, 1], [0.158, 0.15, 0.162]),
    tailored=np.interp(_T, [0, 0.25, 0.5, 0.75, 1], [0.16, 0.128, 0.1, 0.148, 0.182]),
    boxy=np.interp(_T, [0, 1], [0.206, 0.21]),
    A_line=np.interp(_T, [0, 1], [0.14, 0.285]),
    cocoon=0.15 + 0.085 * np.sin(np.pi * np.clip(_T * 1.02, 0, 1)) ** 0.8 - 0.012 * _T,
)
"""Half width from armpit to hem by fit, ``(6, 14)``."""
_PLAIN = np.zeros_like(_T)
_FLARE = _table(
    CATEGORY,
    t_shirt=_PLAIN,
    shirt=_PLAIN,
    dress=0.07 * np.clip((_T - 0.4) / 0.6, 0, 1) - 0.022 * np.exp(-(((_T - 0.4) / 0.12) ** 2)),
    sweater=-0.02 * np.clip((_T - 0.88) / 0.06, 0, 1),
    hoodie=_PLAIN,
    bomber_jacket=0.014 * np.sin(np.pi * _T) - 0.024 * np.clip((_T - 0.86) / 0.06, 0, 1),
    trench_coat=0.03 * _T - 0.014 * np.exp(-(((_T - 0.5) / 0.1) ** 2)),
    peplum_top=np.where(_T > 0.62, 0.015 + 0.2 * (_T - 0.62), -0.008),
    tunic=0.02 * _T,
    jumpsuit=_PLAIN,
    waistcoat=-0.006 * _T,
    bodysuit=-0.01 * _T,
)
"""What the category adds to it, ``(12, 14)``."""
_A = np.abs(_U)
_LEVEL = np.zeros_like(_U)
_HEM_SHAPE = _table(
    CATEGORY,
    t_shirt=_LEVEL,
    shirt=-0.075 * np.clip((_A - 0.5) / 0.5, 0, 1) ** 1.3,
    dress=0.008 * np.cos(7 * np.pi * _U),
    sweater=_LEVEL,
    hoodie=_LEVEL,
    bomber_jacket=_LEVEL,
    trench_coat=-0.05 * np.clip(1 - _A / 0.1, 0, 1),
    peplum_top=0.018 * np.cos(6 * np.pi * _U),
    tunic=-0.1 * (1 - _A),
    jumpsuit=-1.0 * np.clip((0.15 - _A) / 0.1, 0, 1),
    waistcoat=0.02 - 0.075 * np.clip((_A - 0.3) / 0.7, 0, 1) - 0.055 * np.clip(1 - _A / 0.3, 0, 1),
    bodysuit=-0.17 * np.clip((_A - 0.2) / 0.8, 0, 1) ** 0.8,
)
"""Height of the hem beside its length (negative is higher), ``(12, 61)``; minus one reaches up to the crotch."""
_LEGS = _only(CATEGORY, jumpsuit=1.0)

_ARM = _table(SLEEVE, sleeveless=0.02, cap=0.1, short=0.18, elbow=0.265, three_quarter=0.355, long=0.455)
_STUB = _only(SHAPE, puff=0.055, bell=0.06, batwing=0.045, ruffled=0.05)
"""What a sleeveless garment still shows of its sleeve's shape."""
_PUFF = _only(SHAPE, puff=0.055)
_BELL = _only(SHAPE, bell=0.075, ruffled=0.012)
_WING = _only(SHAPE, puff=-0.008, bell=-0.008, batwing=0.125)
_FRILL = _only(SHAPE, ruffled=0.02)
_CROWN = _table(
    COLLAR,
    none=(0.06, 0.121),
    shirt=(0.036, 0.078),
    lapel=(0.05, 0.1),
    band=(0.058, 0.074),
    funnel=(0.066, 0.024),
    shawl=(0.066, 0.083),
    peter_pan=(0.08, 0.12),
    bow=(0.06, 0.121),
    ruffle=(0.122, 0.085),
    sailor=(0.05, 0.113),
)
"""Half width and y of the collar's upper edge."""
_BATWING = SCHEMA.value("sleeve shape", "batwing")
_ARM_WIDTH = _table(FIT, slim=0.86, regular=1.0, tailored=0.94, boxy=1.14, A_line=1.0, cocoon=1.08)


_ANGLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_HOOD = np.stack([0.118 * np.cos(_ANGLE), 0.105 + 0.078 * np.sin(_ANGLE)], axis=-1)


class Silhouette(NamedTuple):
    """Closed outlines in garment coordinates; ``n`` garments, ``P`` points each (a different ``P`` per part)."""

    torso: Floats  # (n, P, 2)
    left: Floats  # (n, 2 * 18, 2): outer edge downwards, then inner edge upwards
    right: Floats
    hood: Floats
    hem: Floats  # (n,) lowest y of a level hem
    waist: Floats  # (n,) y of the waist
    half_width: Floats  # (n, 14) from armpit to hem


def silhouettes(labels: NDArray[np.int16], item: Style, view: Style) -> Silhouette:
    """Outlines of garments.

    Args:
        labels: true labels ``(n, A)``.
        item: continuous style ``(n,)`` of each item, named as ``looks.ITEM``.
        view: numbers of each picture, named as ``looks.VIEW``.
    """
    category, fit = labels[:, CATEGORY], labels[:, FIT]
    hem = _HEM[labels[:, LENGTH]] + item["hem"]
    width = _WIDTH[fit] * item["width"][:, None] + _FLARE[category] * ((hem - 0.1) / 0.45).clip(0.75, 1.25)[:, None]
    shoulder = _SHOULDER[fit] * item["width"]
    legs = _LEGS[category] * (hem - np.minimum(0.56, hem - 0.1))
    offset = _HEM_SHAPE[category] * np.where(_LEGS[category] > 0, legs, np.minimum(1.0, (hem - 0.26) / 0.25))[:, None]
    bottom = hem[:, None] + offset

    side_y = ARMPIT + (bottom[:, :1] - ARMPIT) * _T
    hem_x = width[:, -1:] * _U
    n = len(hem)
    k = 2 + len(_T)
    torso = np.empty((n, 2 * k + len(_U) - 2, 2))
    torso[:, 0] = NECK_SIDE, NECK_TOP - 0.008
    torso[:, 1, 0], torso[:, 1, 1] = shoulder, NECK_TOP + 0.03
    torso[:, 2:k, 0], torso[:, 2:k, 1] = width, side_y
    torso[:, k:-k, 0], torso[:, k:-k, 1] = hem_x[:, 1:-1], bottom[:, 1:-1]
    torso[:, -k:, 0], torso[:, -k:, 1] = -torso[:, k - 1 :: -1, 0], torso[:, k - 1 :: -1, 1]

    left, right = _sleeves(labels, item, view, shoulder, width[:, 0])
    waist = np.minimum(WAIST, ARMPIT + 0.5 * (hem - ARMPIT) + 0.02)
    return Silhouette(torso, left, right, np.broadcast_to(_HOOD, (n, *_HOOD.shape)), hem, waist, width)


def _sleeves(
    labels: NDArray[np.int16], item: Style, view: Style, shoulder: Floats, chest: Floats
) -> tuple[Floats, Floats]:
    """Outlines ``(n, 36, 2)`` of the sleeves on the left and the right of the picture."""
    shape, kind = labels[:, SHAPE], labels[:, SLEEVE]
    length = np.maximum(_ARM[kind] + np.where(_ARM[kind] > 0.05, item["sleeve"], 0), _STUB[shape])
    d = length[:, None] * _S
    base = (0.052 - 0.03 * d) * (item["sleeve width"] * _ARM_WIDTH[labels[:, FIT]])[:, None]
    puff = _PUFF[shape][:, None] * np.sin(np.pi * np.minimum(d / 0.15, 1)) ** 0.7
    bell = _BELL[shape][:, None] * _S**2 * (0.75 + 0.55 * length[:, None])
    frill = _FRILL[shape][:, None] * np.abs(np.sin(np.pi / 0.075 * d)) ** 0.6
    wing = _WING[shape][:, None] * np.maximum(1 - d / 0.4, 0) ** 0.8
    outer = base * np.sqrt(np.minimum((d + 0.006) / 0.03, 1)) + puff + bell + frill
    inner = base + 0.35 * puff + bell + 0.5 * frill + wing

    # Both arms at once: (2, n, …), the left one mirrored at the end.
    angle = np.stack([view["left arm"], view["right arm"]]) + 0.12 * (shape == _BATWING)
    bend = np.stack([view["left bend"], view["right bend"]])[..., None] * (d / 0.45) ** 2
    sin, cos = np.sin(angle)[..., None], np.cos(angle)[..., None]
    x = np.maximum(shoulder - 0.034, chest - 0.05)[:, None] + d * sin
    y = NECK_TOP + 0.062 + d * cos
    points = np.empty((2, len(d), 2 * len(_S), 2))
    points[..., : len(_S), 0] = x + (bend + outer) * cos
    points[..., : len(_S), 1] = y - (bend + outer) * sin
    points[..., len(_S) :, 0] = (x + (bend - inner) * cos)[..., ::-1]
    points[..., len(_S) :, 1] = (y - (bend - inner) * sin)[..., ::-1]
    points[0, ..., 0] *= -1
    return points[0], points[1]


def pose(view: Style) -> Floats:
    """Affine maps ``(n, 2, 3)`` from garment to picture coordinates."""
    cos, sin = view["scale"] * np.cos(view["rotation"]), view["scale"] * np.sin(view["rotation"])
    turn = _WIDEN * view["turn"]
    matrix = np.empty((len(cos), 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 1] = turn * cos, -_HEIGHTEN * sin
    matrix[:, 1, 0], matrix[:, 1, 1] = turn * sin, _HEIGHTEN * cos
    matrix[:, 0, 2] = 0.5 + view["x"] - matrix[:, 0, 1] * _CENTRE
    matrix[:, 1, 2] = 0.5 + view["y"] - matrix[:, 1, 1] * _CENTRE
    return matrix


def apply(matrix: Floats, points: Floats) -> Floats:
    """``(n, 2, 3)`` maps on ``(n, P, 2)`` points."""
    return points @ matrix[:, :, :2].transpose(0, 2, 1) + matrix[:, None, :, 2]


def boxes(labels: NDArray[np.int16], item: Style, view: Style) -> NDArray[np.float32]:
    """True bounding boxes ``(n, 4)``: left, top, right, bottom as shares of the picture."""
    shape, matrix = silhouettes(labels, item, view), pose(view)
    hooded = labels[:, CATEGORY] == SCHEMA.value("category", "hoodie")
    hood = np.where(hooded[:, None, None], shape.hood, shape.torso[:, :1])
    crown = _CROWN[labels[:, COLLAR]][:, None] * np.array([[[1.0, 1.0], [-1.0, 1.0]]])
    points = np.concatenate(
        [apply(matrix, part) for part in (shape.torso, shape.left, shape.right, hood, crown)], axis=1
    )
    return np.concatenate([points.min(1), points.max(1)], axis=1).clip(0, 1).astype(np.float32)
