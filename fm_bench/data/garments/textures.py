# SPDX-License-Identifier: MIT
"""Patterns and fabrics as tiles of one picture height, drawn once per process and level of detail.

Pattern tiles hold 0 where the garment's colour shows, 128 for the second and 255 for the third colour. Fabric tiles
hold brightness around 128. Periodic tiles repeat; placed ones (colour block, ombre, tie-dye, prints) lie once on the
garment.
"""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Tile = NDArray[np.uint8]
_MASTER = 512
REPEATS = 4
"""A periodic tile is stored this many times in both directions, so that no look-up leaves it."""
PLACED = frozenset({"colour block", "ombre", "tie-dye", "graphic print"})
GRAPHICS = 6


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axis = (np.arange(_MASTER) + 0.5) / _MASTER
    return np.meshgrid(axis, axis)


def _bytes(values: NDArray[np.float64]) -> Tile:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def noise(sigma: float | tuple[float, float], seed: int) -> NDArray[np.float64]:
    """Periodic smooth noise of unit variance on the master grid; ``sigma`` is its grain in picture heights (x, y)."""
    sx, sy = sigma if isinstance(sigma, tuple) else (sigma, sigma)
    frequency = np.fft.fftfreq(_MASTER, 1 / _MASTER)
    fx, fy = np.meshgrid(frequency, frequency)
    low_pass = np.exp(-2 * np.pi**2 * ((fx * sx) ** 2 + (fy * sy) ** 2))
    low_pass[0, 0] = 0
    white = np.random.default_rng(seed).standard_normal((_MASTER, _MASTER))
    field = np.fft.ifft2(np.fft.fft2(white) * low_pass).real
    return np.asarray(field / field.std())


def _scattered(count: int, seed: int, draw: Callable[[Tile, tuple[int, int], np.random.Generator], None]) -> Tile:
    """Calls ``draw`` at ``count`` well-spread places of a periodic tile."""
    rng = np.random.default_rng(seed)
    big = np.zeros((3 * _MASTER, 3 * _MASTER), np.uint8)
    places: list[NDArray[np.float64]] = []
    while len(places) < count:
        candidates = rng.random((24, 2))
        if places:
            gap = np.abs(candidates[:, None] - np.array(places)[None])
            gap = np.minimum(gap, 1 - gap)
            candidates = candidates[np.argsort(-(gap**2).sum(-1).min(1))]
        places.append(candidates[0])
    states = [int(rng.integers(1 << 30)) for _ in places]
    for place, state in zip(places, states, strict=True):
        for dy in range(3):
            for dx in range(3):
                centre = (int((place[0] + dx) * _MASTER), int((place[1] + dy) * _MASTER))
                draw(big, centre, np.random.default_rng(state))
    return big[_MASTER : 2 * _MASTER, _MASTER : 2 * _MASTER].copy()


def _flower(canvas: Tile, centre: tuple[int, int], rng: np.random.Generator) -> None:
    radius, start = rng.uniform(0.026, 0.036) * _MASTER, rng.uniform(0, 6.28)
    for k in range(5):
        angle = start + k * 2 * np.pi / 5
        petal = (int(centre[0] + radius * np.cos(angle)), int(centre[1] + radius * np.sin(angle)))
        cv2.circle(canvas, petal, int(radius * 0.72), 128, -1, cv2.LINE_AA)
    cv2.circle(canvas, centre, int(radius * 0.55), 255, -1, cv2.LINE_AA)


def _rosette(canvas: Tile, centre: tuple[int, int], rng: np.random.Generator) -> None:
    a, b, angle = rng.uniform(0.02, 0.03) * _MASTER, rng.uniform(0.016, 0.022) * _MASTER, rng.uniform(0, 180)
    start = rng.uniform(0, 360)
    cv2.ellipse(canvas, centre, (int(a), int(b)), angle, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.ellipse(canvas, centre, (int(a), int(b)), angle, start, start + 260, 128, 9, cv2.LINE_AA)


def _stripes(phase: NDArray[np.float64], duty: float) -> NDArray[np.float64]:
    return np.where(phase % 1.0 < duty, 128.0, 0.0)


def _gingham(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    bars = [np.where((axis * 9) % 1 < 0.5, 1.0, 0.0) for axis in (x, y)]
    return np.where(bars[0] + bars[1] == 2, 255.0, np.where(bars[0] + bars[1] == 1, 128.0, 0.0))


def _dots(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    row = np.floor(y * 10)
    dx, dy = (x * 8 + 0.5 * (row % 2)) % 1 - 0.5, (y * 10) % 1 - 0.5
    return np.where((dx / 8) ** 2 + (dy / 10) ** 2 < 0.031**2, 128.0, 0.0)


def _camouflage() -> NDArray[np.float64]:
    a, b = noise((0.035, 0.024), 3), noise((0.035, 0.024), 4)
    return np.where(b > 0.75, 255.0, np.where(a > 0.3, 128.0, 0.0))


def _argyle(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    u, v = (x * 6) % 1 - 0.5, (y * 4) % 1 - 0.5
    lines = np.minimum(np.abs(np.abs(u) - np.abs(v)), 1.0) < 0.05
    return np.where(lines, 255.0, np.where(np.abs(u) + np.abs(v) < 0.46, 128.0, 0.0))


def _zigzag(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    wave = np.abs((x * 8) % 1 - 0.5) * 2
    return _stripes(y * 9 + 0.62 * wave, 0.45)


def _tie_dye(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    dx, dy = x - 0.5, y - 0.36
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    swirl = np.sin(2 * np.pi * (radius * 7 + 0.06 * noise(0.03, 5)) + 3 * angle)
    return np.asarray(np.clip(swirl * 1.3 + 0.35, 0, 1) * 128)


def _graphic(kind: int) -> Tile:
    tile = np.zeros((_MASTER, _MASTER), np.uint8)
    cx, cy, r = _MASTER / 2, 0.36 * _MASTER, 0.115 * _MASTER
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    t = np.linspace(0, 2 * np.pi, 60)
    shapes = {
        1: np.stack([np.cos(angle), np.sin(angle)], -1) * np.where(np.arange(10) % 2, 0.48, 1.15)[:, None],
        2: np.stack(
            [16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))], -1
        )
        / 15,
        3: np.array([[0, -1], [1.05, 0.9], [-1.05, 0.9]]),
        4: np.array([[0.35, -1.2], [-0.75, 0.2], [-0.08, 0.2], [-0.4, 1.2], [0.75, -0.25], [0.1, -0.25]]),
    }
    if kind in shapes:
        cv2.fillPoly(tile, [(shapes[kind] * r + [cx, cy]).astype(np.int32)], 128, cv2.LINE_AA)
    elif kind == 0:
        cv2.circle(tile, (int(cx), int(cy)), int(r), 128, -1, cv2.LINE_AA)
        cv2.circle(tile, (int(cx), int(cy)), int(0.55 * r), 255, -1, cv2.LINE_AA)
    else:
        for row in (-1, 0, 1):
            y = cy + row * 0.75 * r
            cv2.rectangle(
                tile,
                (int(cx - 1.1 * r), int(y - 0.22 * r)),
                (int(cx + 1.1 * r), int(y + 0.22 * r)),
                128 if row else 255,
                -1,
            )
    return tile


def _pattern_master(name: str) -> Tile:
    x, y = _grid()
    if name.startswith("graphic print"):
        return _graphic(int(name.rsplit(" ", 1)[1]))
    if name == "floral":
        return _scattered(40, 1, _flower)
    if name == "leopard":
        return _scattered(120, 2, _rosette)
    makers: dict[str, Callable[[], NDArray[np.float64]]] = {
        "plain": lambda: np.zeros_like(x),
        "horizontal stripes": lambda: _stripes(y * 9, 0.42),
        "vertical stripes": lambda: _stripes(x * 12, 0.36),
        "diagonal stripes": lambda: _stripes((x + y) * 8, 0.42),
        "gingham": lambda: _gingham(x, y),
        "grid": lambda: np.maximum(_stripes(x * 8, 0.17), _stripes(y * 8, 0.17)),
        "polka dots": lambda: _dots(x, y),
        "camouflage": _camouflage,
        "argyle": lambda: _argyle(x, y),
        "zigzag": lambda: _zigzag(x, y),
        "colour block": lambda: np.where(y > 0.33, 128.0, 0.0),
        "ombre": lambda: 128 * np.clip((y - 0.2) / 0.36, 0, 1),
        "tie-dye": lambda: _tie_dye(x, y),
    }
    return _bytes(makers[name]())


def _cable(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    column = (x * 7) % 1 - 0.5
    wave = 0.2 * np.sin(2 * np.pi * y * 9)
    # Two strands that cross each other twice a period; whichever comes from the left lies on top.
    strands = [np.exp(-(((column - side * wave) / 0.11) ** 2)) for side in (1, -1)]
    top = np.where(np.cos(2 * np.pi * y * 9) > 0, strands[0], strands[1])
    yarn = 70 + 96 * np.maximum(top, 0.7 * np.maximum(*strands)) + 40 * np.exp(-((np.abs(column) - 0.5) ** 2) / 0.004)
    return np.asarray(yarn)


def _quilted(y: NDArray[np.float64]) -> NDArray[np.float64]:
    band = (y * 10) % 1
    return np.asarray(96 + 62 * np.sin(np.pi * band) ** 0.7 - 60 * np.exp(-(np.minimum(band, 1 - band) ** 2) / 0.004))


def _sequins(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    cells = np.random.default_rng(9).random((36, 36)) ** 4
    value = cells[np.floor(y * 36).astype(int) % 36, np.floor(x * 36).astype(int) % 36]
    dx, dy = (x * 36) % 1 - 0.5, (y * 36) % 1 - 0.5
    return np.asarray(84 + (np.hypot(dx, dy) < 0.5) * (24 + 200 * value))


def _leather() -> NDArray[np.float64]:
    ridge = 1 - np.abs(noise((0.05, 0.1), 11)) * 1.6
    return 88 + 15 * noise(0.09, 12) + 165 * np.clip(ridge - 0.35, 0, 1) ** 1.5


def _mesh(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    u, v = (x * 15 + y * 15) % 1 - 0.5, (x * 15 - y * 15) % 1 - 0.5
    return np.where(np.maximum(np.abs(u), np.abs(v)) < 0.31, 255.0, 0.0)


def _fabric_master(name: str) -> Tile:
    x, y = _grid()
    makers: dict[str, Callable[[], NDArray[np.float64]]] = {
        "jersey": lambda: np.full_like(x, 128),
        "rib knit": lambda: 128 + 44 * np.cos(2 * np.pi * x * 22),
        "denim": lambda: 128 + 12 * noise(0.006, 6) + 8 * noise((0.02, 0.06), 7),
        "leather": _leather,
        "cable knit": lambda: _cable(x, y),
        "quilted": lambda: _quilted(y),
        "pleated": lambda: 74 + 100 * ((x * 11) % 1) ** 1.2,
        "faux fur": lambda: 124 + 26 * noise((0.005, 0.014), 8) + 20 * noise((0.012, 0.03), 10),
        "sequins": lambda: _sequins(x, y),
        "mesh": lambda: _mesh(x, y),
        "folds": lambda: 128 + 17 * noise((0.035, 0.1), 13) + 9 * noise((0.09, 0.05), 14),
        "grain": lambda: 128 + 20 * noise(0.002, 15),
        "shag": lambda: 128 + 45 * noise((0.009, 0.013), 16),
    }
    return _bytes(makers[name]())


@lru_cache(maxsize=128)
def tile(kind: str, name: str, level: int) -> Tile:
    """A tile at ``level`` pixels per picture height, repeated ``REPEATS`` times unless it is a placed one.

    Args:
        kind: ``"pattern"`` or ``"fabric"``.
        name: a value of that attribute, a graphic print followed by its number, or ``folds``, ``grain``, ``shag``.
        level: a power of two, at least 32.
    """
    master = _pattern_master(name) if kind == "pattern" else _fabric_master(name)
    if level != _MASTER:
        how = cv2.INTER_AREA if level < _MASTER else cv2.INTER_LINEAR
        master = np.asarray(cv2.resize(master, (level, level), interpolation=how), dtype=np.uint8)
    placed = kind == "pattern" and (name in PLACED or name.startswith("graphic print"))
    return master if placed else np.tile(master, (REPEATS, REPEATS))


def level_of(side: int) -> int:
    """The tile level for a canvas of ``side`` pixels: the next power of two, at least 32, at most 1024."""
    return int(min(1024, max(32, 1 << (side - 1).bit_length())))
