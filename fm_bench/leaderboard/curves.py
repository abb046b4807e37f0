# SPDX-License-Identifier: MIT
"""Accuracy over k, or over the gallery's size, as inline SVG that takes its colours and font from the page."""

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

COLOURS = 8  # --s0 … --s7 of the style sheet, in light and in dark
DASHES = ("", "6 2", "2 2")  # with the colours, 24 rows that can be told apart
INK, RULE = "#010203", "#010204"  # stand-ins that become CSS colours below
_STAND_IN = {INK: "currentColor", RULE: "var(--rule)"}


class Axes(NamedTuple):
    """What a picture is called, and its axes."""

    title: str
    x: str
    y: str


LOOKED_AT = Axes("Top-k accuracy", "k (images looked at)", "accuracy@k")
IMAGES = Axes("Accuracy in growing galleries", "gallery (images)", "accuracy@20")


class Curve(NamedTuple):
    """One line: what it is called, its points, and whether it is a floor or ceiling (grey) or a method."""

    label: str
    x: Sequence[float]
    accuracy: Sequence[float]
    competes: bool = True


class Style(NamedTuple):
    """A line's CSS colour and dash pattern, for the picture and for its legend."""

    colour: str
    dash: str


def styles(curves: Sequence[Curve]) -> list[Style]:
    """A style for every curve: colours for those that compete, grey dashes for the others."""
    result, methods, marks = [], 0, 0
    for curve in curves:
        if curve.competes:
            result.append(Style(f"var(--s{methods % COLOURS})", DASHES[methods // COLOURS % len(DASHES)]))
            methods += 1
        else:
            result.append(Style("var(--muted)", ("1 3", "8 3", "8 3 1 3", "4 4")[marks % 4]))
            marks += 1
    return result


def picture(curves: Sequence[Curve], chosen: Sequence[Style], salt: str, axes: Axes = LOOKED_AT) -> str:
    """The curves as an ``<svg>`` element without fixed colours, the same bytes for the same curves.

    Args:
        curves: what to draw.
        chosen: their styles.
        salt: makes the ids inside unlike those of the other pictures on the page.
        axes: what they are about.
    """
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": salt, "font.family": "sans-serif", "font.size": 9.5}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(5.2, 3.3), layout="constrained")
        FigureCanvasSVG(figure)
        plot = figure.add_subplot()
        for number, (curve, style) in enumerate(zip(curves, chosen, strict=True)):
            (line,) = plot.plot(curve.x, curve.accuracy, color=_code(number), linewidth=1.8 if curve.competes else 1.3)
            if style.dash:
                on_off = [float(part) for part in style.dash.split()]
                line.set_linestyle((0, tuple(part / line.get_linewidth() for part in on_off)))
            if len(curve.x) == 1:
                line.set_marker("o")
        ticks = sorted({x for curve in curves for x in curve.x})
        plot.set_xscale("log")
        plot.xaxis.set_minor_locator(NullLocator())
        plot.set_xticks(_thinned(ticks), [f"{x:,.0f}" for x in _thinned(ticks)])
        plot.set_ylim(0, 1.02)
        plot.set_xlabel(axes.x, color=INK)
        plot.set_ylabel(axes.y, color=INK)
        plot.tick_params(colors=INK, length=0)
        plot.grid(color=RULE, linewidth=0.8)
        plot.set_axisbelow(True)
        for spine in plot.spines.values():
            spine.set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True)
    return _inline(buffer.getvalue(), chosen)


def _thinned(ticks: Sequence[float]) -> list[float]:
    """Ticks at least 1.3 times the one before, so that their numbers do not touch."""
    kept: list[float] = []
    for k in ticks:
        if not kept or k >= kept[-1] * 1.3:
            kept.append(k)
    return kept


def _code(number: int) -> str:
    return f"#02{number:04x}"


def _inline(svg: str, chosen: Sequence[Style]) -> str:
    """The bare ``<svg>`` element: no prologue, no metadata, no ids that others use, colours and font from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<g id=\"[^\"]*\"", "<g", svg)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r" (width|height)=\"[\d.]+pt\"", "", svg, count=2)
    replaced = _STAND_IN | {_code(number): style.colour for number, style in enumerate(chosen)}
    for code, colour in replaced.items():
        svg = svg.replace(code, colour)
    return re.sub(r"\n\s*", "\n", svg).strip()
