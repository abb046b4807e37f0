# SPDX-License-Identifier: MIT
"""From labels and style to a picture: cloth, construction, details, scene."""

import math
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from fm_bench.data.garments import construction, details, scene, silhouette
from fm_bench.data.garments.canvas import RGB, Canvas, Part
from fm_bench.data.garments.details import Garment
from fm_bench.data.garments.textures import GRAPHICS, PLACED, level_of, tile
from fm_bench.data.garments.tones import Tones, lift, tones
from fm_bench.data.garments.vocabulary import SCHEMA

RENDERER = 2
"""Raise it whenever a pixel changes, so that cached pictures are drawn anew."""

_FOLDS = {"jersey": 0.75, "denim": 0.6, "leather": 1.0, "pleated": 0.5, "cable knit": 0.5, "quilted": 0.5, "mesh": 0.6}


class Subject(NamedTuple):
    """All that a picture follows from."""

    labels: NDArray[np.int16]  # (1, A) true labels
    item: dict[str, NDArray[np.float64]]  # (1,) each
    view: dict[str, NDArray[np.float64]]
    street: bool
    clutter: NDArray[np.uint64]  # (1,)


class Drawing(NamedTuple):
    """A picture and what is where in it."""

    picture: NDArray[np.uint8]  # (H, W, 3)
    part: NDArray[np.uint8]  # (S, S) of Part, at drawing resolution
    tones: Tones


def draw(subject: Subject, size: tuple[int, int]) -> Drawing:
    """Draws at twice the asked resolution and averages down.

    Args:
        subject: labels and style of one picture.
        size: ``(height, width)`` in pixels.
    """
    side = 2 * max(size)
    matrix = silhouette.pose(subject.view)[0]
    garment = _garment(subject)
    setting = scene.Scene({k: float(v[0]) for k, v in subject.view.items()}, subject.street, subject.clutter)
    canvas = Canvas(side, matrix)
    _silhouette(canvas, garment)
    canvas.colour = _cloth(canvas, garment, setting)
    _marks(canvas, garment)
    picture = _compose(canvas, garment, setting)
    small = np.asarray(cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return Drawing(scene.light(small, setting), canvas.part, garment.tones)


def colours(subject: Subject) -> Tones:
    """The colours that a picture's garment has."""
    return _garment(subject).tones


def _garment(subject: Subject) -> Garment:
    value = {
        name: SCHEMA.values[m][label]
        for m, (name, label) in enumerate(zip(SCHEMA.names, subject.labels[0].tolist(), strict=True))
    }
    item = {name: float(number[0]) for name, number in subject.item.items()}
    shape = silhouette.silhouettes(subject.labels, subject.item, subject.view)
    colours = tones(value["colour"], value["pattern"], value["sleeve shape"], item)
    skin = scene.Scene({"skin": float(subject.view["skin"][0])}, subject.street, subject.clutter).skin
    return Garment(
        value=value,
        item=item,
        tones=colours,
        torso=shape.torso[0],
        left=shape.left[0],
        right=shape.right[0],
        hood=shape.hood[0],
        hem=float(shape.hem[0]),
        waist=float(shape.waist[0]),
        half_width=shape.half_width[0],
        inside=skin if subject.street else colours.inside,
    )


def _silhouette(c: Canvas, g: Garment) -> None:
    """Notes which part each pixel belongs to, before any colour."""
    if g.value["category"] == "hoodie":
        c.fill(g.hood, None, Part.HOOD)
    c.fill(g.left, None, Part.SLEEVES)
    c.fill(g.right, None, Part.SLEEVES)
    c.fill(g.torso, None, Part.TORSO)
    if g.value["sleeve shape"] == "raglan":
        for yoke in construction.raglan_yokes(g):
            c.fill(yoke, None, Part.SLEEVES)


def _lookup(base: RGB, t: Tones) -> NDArray[np.uint8]:
    """Colour of every pattern level: 0 the cloth, 128 the second, 255 the third colour."""
    level = np.arange(256)
    anchors = np.array([base, t.second, t.third], dtype=float)
    table = np.stack([np.interp(level, [0, 128, 255], anchors[:, k]) for k in range(3)], axis=-1)
    return np.asarray(np.rint(table), dtype=np.uint8).reshape(256, 1, 3)


def _warp(
    c: Canvas, kind: str, name: str, scale: float, angle: float, x: float, y: float, placed: bool = False
) -> NDArray[np.uint8]:
    """A texture as it lies on the posed garment, ``(S, S)``."""
    level = level_of(c.side)
    (a, b, tx), (d, e, ty) = c.inverse
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    # Periodic tiles are entered in their middle, since garment coordinates are negative on the left.
    x0, y0 = (0.5 + (x - 0.5) * 0.02, (y - 0.5) * 0.06) if placed else (x + 1.4, y + 1.0)
    zoom = level / c.side
    matrix = np.array(
        [
            [(cos * a + sin * d) * zoom, (cos * b + sin * e) * zoom, (cos * tx + sin * ty + x0) * level],
            [(cos * d - sin * a) * zoom, (cos * e - sin * b) * zoom, (cos * ty - sin * tx + y0) * level],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    source = tile(kind, name, level)
    warped = cv2.warpAffine(source, matrix, (c.side, c.side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, dtype=np.uint8)


def _shade(colour: NDArray[np.uint8], shade: NDArray[np.uint8], offset: int = 26) -> NDArray[np.uint8]:
    """Brightens and darkens by ``shade / 128``; the offset lets black cloth show it as well."""
    scalar: Any = (offset, offset, offset, 0)  # OpenCV's stubs know no scalars
    shaded = cv2.multiply(cv2.add(colour, scalar), cv2.cvtColor(shade, cv2.COLOR_GRAY2RGB), scale=1 / 128)
    return np.asarray(cv2.subtract(shaded, scalar), dtype=np.uint8)


def _cloth(c: Canvas, g: Garment, setting: scene.Scene) -> NDArray[np.uint8]:
    """Pattern and fabric all over the canvas, ``(S, S, 3)``."""
    item, pattern, fabric = g.item, g.value["pattern"], g.value["fabric"]
    sleeves = c.part == Part.SLEEVES
    if pattern == "plain":
        cloth = np.empty_like(c.colour)
        cloth[:] = g.tones.torso
        if g.tones.sleeves != g.tones.torso:
            cloth[sleeves] = g.tones.sleeves
    else:
        name = f"graphic print {int(item['pattern kind'] * GRAPHICS)}" if pattern == "graphic print" else pattern
        placed = pattern in PLACED
        angle = 0.0 if placed else item["pattern angle"]
        scale = 1.0 if placed else item["pattern scale"]
        levels = _warp(c, "pattern", name, scale, angle, item["pattern x"], item["pattern y"], placed)
        cloth = np.asarray(cv2.applyColorMap(levels, _lookup(g.tones.torso, g.tones)), dtype=np.uint8)
        if g.tones.sleeves != g.tones.torso:
            cloth = np.where(sleeves[..., None], cv2.applyColorMap(levels, _lookup(g.tones.sleeves, g.tones)), cloth)
    if fabric != "jersey":
        texture = _warp(c, "fabric", fabric, item["fabric scale"], 0.0, item["fabric x"], item["fabric y"])
        if fabric == "mesh":
            under = np.empty_like(cloth)
            under[:] = setting.skin if setting.street else (228, 196, 172)
            cv2.copyTo(cv2.addWeighted(cloth, 0.3, under, 0.7, 0), texture, cloth)
        else:
            cloth = _shade(cloth, texture, 40)
    return cloth


def _marks(c: Canvas, g: Garment) -> None:
    """Seams, construction and details on the cloth, from the back to the front."""
    if g.value["category"] == "hoodie":
        c.fill(g.hood * (0.72, 0.72) + (0, 0.04), lift(g.tones.torso, 0.4, 30))
        c.line(g.hood, g.tones.seam, 0.012, closed=True)
    whole = c.colour.copy()
    for outline in (g.left, g.right):
        c.line(outline, g.tones.seam, 0.009, closed=True)
    cv2.copyTo(whole, (c.part == Part.TORSO).view(np.uint8), c.colour)  # the sleeves go on behind the torso
    c.line(g.torso, g.tones.seam, 0.009, closed=True)
    construction.draw_sleeve_marks(c, g)
    construction.draw_category_marks(c, g)
    if g.value["fabric"] == "denim":
        _stitches(c, g)
    construction.draw_fastening(c, g)
    details.draw_neckline(c, g)
    details.draw_pockets(c, g)
    details.draw_collar(c, g)


def _stitches(c: Canvas, g: Garment) -> None:
    """Denim's contrasting double seams."""
    thread: RGB = (236, 168, 76) if g.value["colour"] not in ("orange", "yellow", "beige") else (70, 84, 130)
    for x in (-0.55, 0.55):
        ends = [(x * construction.half_width(g, y), y) for y in (0.2, 0.25, (0.25 + g.hem) / 2, g.hem - 0.02)]
        c.line(ends, thread, 0.009)
    for sleeve in (g.left, g.right):
        outer, inner = sleeve[:18], sleeve[::-1][:18]
        c.line([outer[-2], inner[-2]], thread, 0.009)
        c.line(outer * 0.88 + inner * 0.12, thread, 0.009)


def _compose(c: Canvas, g: Garment, setting: scene.Scene) -> NDArray[np.uint8]:
    """The garment with its folds in front of the background, behind what covers it; ``(S, S, 3)``."""
    behind = scene.background(setting, c.side)
    if setting.street:
        canvas = Canvas(c.side, c.matrix)
        canvas.colour = behind
        scene.draw_person(canvas, setting)
    folds = _warp(c, "fabric", "folds", 1.0, 0.0, setting.view["fold x"], setting.view["fold y"])
    strength = setting.view["folds"] * _FOLDS.get(g.value["fabric"], 0.6)
    folds = np.asarray(cv2.addWeighted(folds, strength, folds, 0, 128 * (1 - strength)), dtype=np.uint8)
    mask = (c.part > 0).astype(np.uint8) * 255
    if g.value["fabric"] == "faux fur":
        mask = _shaggy(c, g, mask)
        c.part[mask == 0] = 0
    cv2.copyTo(_shade(c.colour, folds), mask, behind)
    front = scene.occluder(setting)
    if front is not None:
        points, colour = front
        flat = Canvas(c.side, np.array([[1.0, 0, 0], [0, 1.0, 0]]))
        flat.colour, flat.part = behind, c.part
        flat.fill(points, colour, Part.NOTHING)
    return behind


def _shaggy(c: Canvas, g: Garment, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A mask with a frayed edge, inside the smooth one."""
    width = max(3, 2 * (c.side // 44) + 1)
    soft = cv2.blur(mask, (width, width))
    shag = _warp(c, "fabric", "shag", 1.0, 0.0, g.item["fabric x"], g.item["fabric y"])
    frayed = cv2.addWeighted(soft, 1.0, shag, 0.8, -102)  # at 153 or more in the middle, however dark the shag
    return np.where(np.asarray(frayed) > 150, mask, 0).astype(np.uint8)
