# SPDX-License-Identifier: MIT
"""Curves and scatter plots as inline SVG that take their colours and font from the page.

Every line and point has a label beside it, a marker and a dash of its own, so that none is known by its colour alone.
Coordinates are rounded to a tenth of a pixel: the same numbers give the same bytes on any machine.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

COLOURS = 8  # --s0 … --s7 of the style sheet, in light and in dark
MARKERS = (
    "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",  # circle
    "M-2.7 -2.7h5.4v5.4h-5.4z",  # square
    "M0 -3.6L3.4 2.6H-3.4z",  # triangle
    "M0 -3.8L3.8 0L0 3.8L-3.8 0z",  # diamond
    "M0 3.6L3.4 -2.6H-3.4z",  # triangle on its tip
)
DASHES = ("", "7 2", "2 2")
LABELLED = 16
"""With more rows than this, variants are thin lines and small points without a label."""

_WIDTH, _HEIGHT = 640, 340
_LEFT, _TOP, _BOTTOM = 46, 12, 296  # of the frame
_RIGHT = 446  # of the frame of lines, whose labels stand right of it; points have theirs inside
_WIDE = 630  # of the frame of points
_LINE = 13.5  # height of a label
_LETTER = 6.8  # its width, for each letter


class Axes(NamedTuple):
    """What a picture is called, and its axes."""

    title: str
    x: str
    y: str


class Mark(NamedTuple):
    """A row in a picture.

    Attributes:
        label: its name.
        x, y: its points; a scatter plot shows the first.
        kind: ``method``, ``variant``, ``floor`` or ``ceiling``.
        low, high: ends of the interval of y in a scatter plot.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    kind: str = "method"
    low: float | None = None
    high: float | None = None


class _Style(NamedTuple):
    """How a row is drawn: class, dash and marker; ``named`` if it has a label beside it."""

    classes: str
    dash: str
    marker: str
    named: bool


def lines(marks: Sequence[Mark], axes: Axes) -> Markup:
    """Every row as a line over a logarithmic x, its label at its right end."""
    frame = _Frame(marks, axes)
    chosen = _styles(marks)
    parts = []
    ends = [frame.y(mark.y[-1]) for mark, style in zip(marks, chosen, strict=True) if style.named]
    places = iter(_spread(ends, _TOP, _BOTTOM))
    for mark, style in zip(marks, chosen, strict=True):
        points = [(frame.x(x), frame.y(y)) for x, y in zip(mark.x, mark.y, strict=True)]
        path = "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        dash = f' stroke-dasharray="{style.dash}"' if style.dash else ""
        body = f'<path class="line" d="{path}"{dash}/>'
        if style.named:
            (x, y), place = points[-1], next(places)
            body += "".join(_marker(style, *point) for point in points)
            body += f'<path class="lead" d="M{_n(x + 4)} {_n(y)}L{_RIGHT + 14} {_n(place)}"/>'
            body += _text(_RIGHT + 18, place + 4, mark.label)
        parts.append(_group(mark, style, body))
    return frame.picture(parts)


def scatter(marks: Sequence[Mark], axes: Axes) -> Markup:
    """Every row as a point with its interval over a logarithmic x, its label where it is free."""
    frame = _Frame(marks, axes)
    chosen = _styles(marks)
    spots = [(frame.x(mark.x[0]), frame.y(mark.y[0])) for mark in marks]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    parts = []
    for mark, style, (x, y) in zip(marks, chosen, spots, strict=True):
        body = ""
        if mark.low is not None and mark.high is not None:
            body += f'<path class="line" d="M{_n(x)} {_n(frame.y(mark.low))}V{_n(frame.y(mark.high))}"/>'
        body += _marker(style, x, y)
        if style.named:
            left, base = _free(x, y, _LETTER * len(mark.label), taken)
            taken.append((left, base - 10, left + _LETTER * len(mark.label), base + 3))
            if abs(base - 4 - y) > 16:
                body += f'<path class="lead" d="M{_n(x)} {_n(y)}L{_n(left)} {_n(base - 4)}"/>'
            body += _text(left, base, mark.label)
        parts.append(_group(mark, style, body))
    return frame.picture(parts)


class _Frame:
    """Axes with their ticks, and where values lie on them."""

    def __init__(self, marks: Sequence[Mark], axes: Axes) -> None:
        self._axes = axes
        every = sorted({x for mark in marks for x in mark.x})
        self._low, self._high = math.log(every[0]), math.log(every[-1])
        if any(len(mark.x) > 1 for mark in marks):
            self._right, self._ticks = _RIGHT, _thinned(every)
        else:  # room around the points of a scatter plot
            room = 0.06 * (self._high - self._low) + 0.1
            self._low, self._high = self._low - room, self._high + room
            self._right = _WIDE
            self._ticks = _ticks(math.exp(self._low), math.exp(self._high))
        self._bottom, self._top = 0.0, _ceiling(max(max(mark.y) for mark in marks))
        if self._right == _WIDE:  # points that lie close together are looked at closely
            ends = [end for mark in marks for end in (mark.y[0], mark.low, mark.high) if end is not None]
            step = _ceiling((max(ends) - min(ends)) / 4)
            self._bottom = step * math.floor(min(ends) / step)
            self._top = self._bottom + 5 * step
            if self._top > 1:  # there are no shares above
                self._bottom, self._top = max(0.0, 1 - 5 * step), 1.0

    def x(self, value: float) -> float:
        """The pixel of ``value`` on the x axis."""
        return _LEFT + (self._right - _LEFT) * (math.log(value) - self._low) / ((self._high - self._low) or 1.0)

    def y(self, value: float) -> float:
        """The pixel of ``value`` on the y axis."""
        return _BOTTOM - (_BOTTOM - _TOP) * (value - self._bottom) / (self._top - self._bottom)

    def picture(self, parts: Sequence[str]) -> Markup:
        """The whole ``<svg>`` with what is drawn in the frame, the last row at the bottom of the pile."""
        grid = []
        for step in range(6):
            value = self._bottom + (self._top - self._bottom) * step / 5
            y = _n(self.y(value))
            grid.append(f'<path class="grid" d="M{_LEFT} {y}H{self._right}"/>')
            grid.append(f'<text x="{_LEFT - 6}" y="{y}" dy="4" text-anchor="end">{value:.3g}</text>')
        for tick in self._ticks:
            x = _n(self.x(tick))
            grid.append(f'<path class="grid" d="M{x} {_TOP}V{_BOTTOM}"/>')
            grid.append(f'<text x="{x}" y="{_BOTTOM + 16}" text-anchor="middle">{tick:,.6g}</text>')
        middle = (_LEFT + self._right) // 2
        grid.append(f'<text x="{middle}" y="{_BOTTOM + 38}" text-anchor="middle">{escape(self._axes.x)}</text>')
        height = (_TOP + _BOTTOM) // 2
        grid.append(f'<text transform="translate(11 {height})rotate(-90)" text-anchor="middle">{escape(self._axes.y)}')
        body = "".join(grid) + "</text>" + "".join(reversed(parts))
        return Markup(f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}">{body}</svg>')  # noqa: S704 escaped above


def _styles(marks: Sequence[Mark]) -> list[_Style]:
    """Colours for those that compete, grey dashes for floors and ceilings, thin lines for variants among many."""
    crowded = len(marks) > LABELLED
    numbers, greys = itertools.count(), itertools.count()
    result = []
    for mark in marks:
        if mark.kind in ("floor", "ceiling"):
            n = next(greys)
            result.append(_Style("mark yardstick", ("1 3", "8 3", "8 3 1 3", "4 4")[n % 4], MARKERS[n % 5], True))
        elif crowded and mark.kind == "variant":
            result.append(_Style("mark minor", "", "M-2 0a2 2 0 1 0 4 0a2 2 0 1 0 -4 0z", False))
        else:
            n = next(numbers)
            result.append(_Style(f"mark s{n % COLOURS}", DASHES[n // COLOURS % 3], MARKERS[n % 5], True))
    return result


def _group(mark: Mark, style: _Style, body: str) -> str:
    kind, label = escape(mark.kind), escape(mark.label)
    return f'<g class="{style.classes}" data-row="{label}" data-kind="{kind}"><title>{label}</title>{body}</g>'


def _marker(style: _Style, x: float, y: float) -> str:
    return f'<path class="dot" transform="translate({_n(x)} {_n(y)})" d="{style.marker}"/>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}">{escape(text)}</text>'


def _spread(wanted: Sequence[float], low: float, high: float) -> list[float]:
    """Heights at least a line apart, as near to ``wanted`` as fits between ``low`` and ``high``."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    line = min(_LINE, (high - low) / max(1, len(wanted) - 1))
    blocks: list[tuple[float, list[int]]] = []  # centre of labels that touch, and the labels
    for number in order:
        centre, members = wanted[number], [number]
        while True:
            half = line * (len(members) - 1) / 2
            centre = min(max(centre, low + half), high - half)
            if not blocks or blocks[-1][0] + line * (len(blocks[-1][1]) - 1) / 2 + line <= centre - half + 1e-9:
                break
            members = blocks.pop()[1] + members
            centre = sum(wanted[m] for m in members) / len(members)
        blocks.append((centre, members))
    result = [0.0] * len(wanted)
    for centre, members in blocks:
        for n, number in enumerate(members):
            result[number] = centre + line * (n - (len(members) - 1) / 2)
    return result


def _free(x: float, y: float, width: float, taken: Sequence[tuple[float, float, float, float]]) -> tuple[float, float]:
    """Left end and base line of a label of ``width`` near ``(x, y)`` that covers no other, if there is such a place."""
    shifts = [0, -12, 12, -24, 24, -38, 38, -52, 52, -66, 66]
    places = [(left, y + 4 + shift) for shift in shifts for left in (x + 8, x - 8 - width)]
    for left, base in places:
        inside = left >= _LEFT and left + width <= _WIDTH and base - 10 >= _TOP - 8 and base <= _BOTTOM
        box = (left, base - 10, left + width, base + 3)
        if inside and not any(a < box[2] and box[0] < c and b < box[3] and box[1] < d for a, b, c, d in taken):
            return left, base
    return places[0]


def _thinned(ticks: Sequence[float]) -> list[float]:
    """Ticks at least 1.3 times the one before, so that their numbers do not touch."""
    kept: list[float] = []
    for k in ticks:
        if not kept or k >= kept[-1] * 1.3:
            kept.append(k)
    return kept


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between ``low`` and ``high``: at least three, unless they lie very close."""
    found: list[float] = []
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)):
        found = [tick for power in range(-3, 6) for digit in digits if low <= (tick := digit * 10.0**power) <= high]
        if len(found) > 2:
            break
    return found


def _ceiling(value: float) -> float:
    """The least round number that is not below ``value``, of those whose fifths are round as well."""
    ends = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
    return next((end for end in ends if value <= end), value)


def _n(value: float) -> str:
    """A coordinate, to a tenth: ``12`` or ``12.3``."""
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 0.05 else "0"
