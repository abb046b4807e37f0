# SPDX-License-Identifier: MIT
"""Everything around the garment: backgrounds, the person in a street picture, light, noise, occluders."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fm_bench.data.garments.canvas import RGB, Canvas, ellipse
from fm_bench.data.garments.textures import level_of, tile
from fm_bench.data.streams import uniforms

Picture = NDArray[np.uint8]

_SKINS: tuple[RGB, ...] = ((244, 208, 182), (226, 178, 142), (190, 136, 98), (140, 92, 62), (96, 62, 44))
_HAIR: tuple[RGB, ...] = ((34, 28, 26), (86, 56, 36), (150, 106, 60), (206, 172, 110), (120, 46, 30))
_TROUSERS: tuple[RGB, ...] = ((44, 58, 92), (38, 38, 42), (120, 112, 98), (84, 100, 130), (196, 190, 178))
_CLUTTER: tuple[RGB, ...] = (
    (176, 170, 160), (120, 124, 132), (150, 110, 84), (92, 110, 92), (186, 196, 204),
    (110, 96, 120), (204, 176, 128), (70, 76, 88), (168, 78, 66), (84, 128, 156), (216, 212, 204), (60, 84, 66),
)  # fmt: skip


class Scene(NamedTuple):
    """The numbers of one picture (``looks.VIEW``) and whether it was taken in the street."""

    view: dict[str, float]
    street: bool
    clutter: NDArray[np.uint64]  # (1,) key of the things that stand around

    @property
    def skin(self) -> RGB:
        """The person's skin."""
        return _SKINS[int(self.view["skin"] * len(_SKINS))]


def background(scene: Scene, side: int) -> Picture:
    """What lies behind the garment, ``(side, side, 3)``."""
    return _street(scene, side) if scene.street else _studio(scene, side)


def _studio(scene: Scene, side: int) -> Picture:
    level = 212 + 38 * scene.view["background"]
    tint = np.array([scene.view["background 2"] * 8 - 4, 0, 4 - scene.view["background 2"] * 8])
    floor = 1 - 0.09 * scene.view["shadow"] * ((np.arange(side) + 0.5) / side)[:, None, None] ** 2
    column = np.minimum((level + tint) * floor, 255).astype(np.uint8)
    return np.asarray(cv2.resize(column, (side, side), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)


def _street(scene: Scene, side: int) -> Picture:
    u = uniforms(scene.clutter, 110)[0].tolist()
    canvas = Canvas(side, np.array([[1.0, 0, 0], [0, 1.0, 0]]))
    canvas.colour[:] = _CLUTTER[int(u[0] * len(_CLUTTER))]
    horizon = 0.55 + 0.3 * u[1]
    for k in range(7):
        a, b, w, h, pick = u[2 + 5 * k : 7 + 5 * k]
        width, height = 0.08 + 0.22 * w, 0.2 + 0.6 * h
        x = a * 1.1 - 0.1
        colour = _CLUTTER[int(pick * len(_CLUTTER))]
        top = horizon - height
        canvas.fill([(x, top), (x + width, top), (x + width, horizon), (x, horizon)], colour)
        if b > 0.45:
            dark: RGB = (colour[0] // 2, colour[1] // 2, colour[2] // 2 + 20)
            x0, x1 = x + 0.02, x + width - 0.02
            rows = np.arange(top + 0.04, horizon - 0.04, 0.1).tolist()
            canvas.fill_each([[(x0, y), (x1, y), (x1, y + 0.045), (x0, y + 0.045)] for y in rows], dark)
    ground = _CLUTTER[int(u[40] * len(_CLUTTER))]
    canvas.fill(
        [(0, horizon), (1, horizon), (1, 1), (0, 1)], (ground[0] * 3 // 4, ground[1] * 3 // 4, ground[2] * 3 // 4)
    )
    for k in range(9):
        a, b, w, h, pick = u[42 + 5 * k : 47 + 5 * k]
        canvas.fill(ellipse(a, b, 0.02 + 0.07 * w, 0.02 + 0.07 * h, 10), _CLUTTER[int(pick * len(_CLUTTER))])
    return np.asarray(cv2.blur(canvas.colour, (2 * (side // 100) + 1,) * 2), dtype=np.uint8)


def draw_person(canvas: Canvas, scene: Scene) -> None:
    """Head, neck, arms and legs behind the garment, in its coordinates; the same whatever the garment is."""
    skin, hair = scene.skin, _HAIR[int(scene.view["hair"] * len(_HAIR))]
    trousers = _TROUSERS[int(scene.view["trousers"] * len(_TROUSERS))]
    shade: RGB = (trousers[0] * 2 // 3, trousers[1] * 2 // 3, trousers[2] * 2 // 3)
    canvas.fill(
        [(-0.12, 0.36), (0.12, 0.36), (0.13, 1.2), (0.01, 1.2), (0, 0.62), (-0.01, 1.2), (-0.13, 1.2)],
        trousers,
        outline=shade,
    )
    for side, name in ((-1, "left arm"), (1, "right arm")):
        x, y = 0.125, 0.2
        wrist = (side * (x + 0.46 * np.sin(scene.view[name])), y + 0.46 * np.cos(scene.view[name]))
        canvas.line([(side * x, y), wrist], skin, 0.06)
    canvas.fill(ellipse(0, 0.012, 0.085, 0.1), hair)
    canvas.fill([(-0.04, 0.05), (0.04, 0.05), (0.045, 0.15), (0.12, 0.175), (-0.12, 0.175), (-0.045, 0.15)], skin)
    canvas.fill([(-0.11, 0.17), (0.11, 0.17), (0.12, 0.4), (-0.12, 0.4)], skin)
    canvas.fill(ellipse(0, 0.02, 0.058, 0.08), skin)


def occluder(scene: Scene) -> tuple[NDArray[np.float64], RGB] | None:
    """What covers part of the garment in half of the street pictures: outline in picture coordinates, colour."""
    v = scene.view
    if not scene.street or v["occluder"] > 0.55:
        return None
    colour = _CLUTTER[int(v["occluder colour"] * len(_CLUTTER))]
    x, y = 0.2 + 0.6 * v["occluder x"], 0.35 + 0.5 * v["occluder y"]
    if v["occluder"] < 0.2:  # a pole or a bag's strap
        tilt = 0.3 * (v["occluder y"] - 0.5)
        return np.array([(x - tilt, 0.0), (x - tilt + 0.045, 0.0), (x + tilt + 0.045, 1.0), (x + tilt, 1.0)]), colour
    return ellipse(x, y, 0.07 + 0.06 * v["occluder x"], 0.09, 16), colour


def light(picture: Picture, scene: Scene) -> Picture:
    """Exposure, colour of the light, its gradient across the picture, and sensor noise; same shape as ``picture``."""
    v = scene.view
    height, width = picture.shape[:2]
    gain = v["light"] * np.array([1 + v["warmth"], 1.0, 1 - v["warmth"]])
    x = 1 + v["light x"] * (np.arange(width) + 0.5 - width / 2) / width
    y = 1 + v["light y"] * (np.arange(height) + 0.5 - height / 2) / height
    row = (x[:, None] * gain).astype(np.float32)
    lit = cv2.multiply(picture, y.astype(np.float32)[:, None, None] * row[None], dtype=cv2.CV_8U)
    grain = _grain(scene, height, width)
    amount = 0.16 * v["noise"]
    return np.asarray(cv2.addWeighted(lit, 1.0, grain, amount, -128 * amount), dtype=np.uint8)


def _grain(scene: Scene, height: int, width: int) -> Picture:
    level = level_of(max(height, width))
    source = tile("fabric", "grain", level)
    top, left = int(scene.view["noise y"] * level), int(scene.view["noise x"] * level)
    return np.asarray(cv2.cvtColor(source[top : top + height, left : left + width], cv2.COLOR_GRAY2RGB), dtype=np.uint8)
