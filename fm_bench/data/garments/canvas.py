# SPDX-License-Identifier: MIT
"""A colour picture and, pixel for pixel, the part of the garment that lies on top."""

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]
Points = NDArray[np.float64] | Sequence[tuple[float, float]]
_SHIFT = 4  # OpenCV's fixed-point coordinates: sixteenths of a pixel


class Part(IntEnum):
    """What a pixel shows."""

    NOTHING = 0
    TORSO = 1
    SLEEVES = 2
    COLLAR = 3
    HOOD = 4
    POCKETS = 5
    TRIM = 6
    NECKLINE = 7
    FASTENING = 8


class Canvas:
    """Shapes in garment coordinates, drawn at any resolution.

    Args:
        side: width and height in pixels.
        matrix: ``(2, 3)`` map from garment to picture coordinates.
    """

    def __init__(self, side: int, matrix: NDArray[np.float64]) -> None:
        self.side = side
        self.colour: NDArray[np.uint8] = np.zeros((side, side, 3), np.uint8)
        self.part: NDArray[np.uint8] = np.zeros((side, side), np.uint8)
        (a, b, tx), (d, e, ty) = matrix.tolist()
        det = a * e - b * d
        self.inverse = ((e / det, -b / det, (b * ty - e * tx) / det), (-d / det, a / det, (d * tx - a * ty) / det))
        """Map from picture to garment coordinates, two rows of three."""
        self.matrix = matrix
        unit = side * (1 << _SHIFT)
        # Fixed-point pixel centres lie at integers, hence half a pixel less.
        self._linear = np.ascontiguousarray(matrix[:, :2].T) * unit
        self._shift = matrix[:, 2] * unit - (1 << (_SHIFT - 1)) + 0.5  # rounds to the nearest
        self._unit = unit * abs(det) ** 0.5

    def pixels(self, points: Points) -> NDArray[np.int32]:
        """Fixed-point pixel coordinates ``(P, 2)``."""
        return (np.asarray(points) @ self._linear + self._shift).astype(np.int32)

    def fill(self, points: Points, colour: RGB | None, part: Part | None = None, outline: RGB | None = None) -> None:
        """A polygon; without ``colour`` only its part is noted, without ``part`` only its colour is drawn."""
        pixels = self.pixels(points)
        if colour is not None:
            cv2.fillPoly(self.colour, [pixels], colour, cv2.LINE_AA, _SHIFT)
        if part is not None:
            cv2.fillPoly(self.part, [pixels], int(part), cv2.LINE_8, _SHIFT)
        if outline is not None:
            cv2.polylines(self.colour, [pixels], True, outline, self.thickness(0.008), cv2.LINE_AA, _SHIFT)

    def fill_each(self, shapes: Sequence[Points], colour: RGB) -> None:
        """Polygons of equal numbers of corners that do not overlap, in one call; no part is noted."""
        if len(shapes):
            cv2.fillPoly(self.colour, list(self.pixels(np.asarray(shapes))), colour, cv2.LINE_AA, _SHIFT)

    def line(
        self, points: Points, colour: RGB, width: float = 0.008, part: Part | None = None, closed: bool = False
    ) -> None:
        """An open or closed line of the given width."""
        pixels, thickness = [self.pixels(points)], self.thickness(width)
        cv2.polylines(self.colour, pixels, closed, colour, thickness, cv2.LINE_AA, _SHIFT)
        if part is not None:
            cv2.polylines(self.part, pixels, closed, int(part), thickness, cv2.LINE_8, _SHIFT)

    def dot(self, x: float, y: float, radius: float, colour: RGB, part: Part | None = None) -> None:
        """A filled circle."""
        (a, b), (d, e) = self._linear.tolist()
        tx, ty = self._shift.tolist()
        centre = (round(x * a + y * d + tx), round(x * b + y * e + ty))
        r = max(1, round(radius * self._unit))
        cv2.circle(self.colour, centre, r, colour, -1, cv2.LINE_AA, _SHIFT)
        if part is not None:
            cv2.circle(self.part, centre, r, int(part), -1, cv2.LINE_8, _SHIFT)

    def thickness(self, width: float) -> int:
        """Line width in whole pixels, at least one."""
        return max(1, round(width * self.side))


def ellipse(x: float, y: float, rx: float, ry: float, count: int = 20, turn: float = 0.0) -> NDArray[np.float64]:
    """Corner points ``(count, 2)`` of an ellipse, turned by ``turn`` radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    matrix = np.array([[rx * cos, rx * sin], [-ry * sin, ry * cos]])
    return np.asarray(_circle(count) @ matrix + (x, y))


@lru_cache(maxsize=16)
def _circle(count: int) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def both(points: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The points and their mirror image about the body's middle."""
    array = np.asarray(points, dtype=np.float64)
    return array, array * np.array([-1.0, 1.0])
