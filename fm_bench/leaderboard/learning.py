# SPDX-License-Identifier: MIT
"""Learning curves as inline SVG: small charts that take their colours from the page, quick enough for hundreds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

from fm_bench.leaderboard.extras import Extras, Points
from fm_bench.leaderboard.record import Record

FIRST = ("train/loss", "val/accuracy@20")
"""Curves that are shown at once; others can be unfolded."""
NAMES = {"train/loss": "training loss", "val/accuracy@20": "validation accuracy@20"}
WIDTH, HEIGHT = 320, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 26
_DOTS = 12
"""Curves of so few points have a dot at each."""


class Line(NamedTuple):
    """One curve: what it is called, its CSS colour, and its points."""

    label: str
    colour: str
    points: Points


class Chart(NamedTuple):
    """One quantity while a stage was trained."""

    title: str
    svg: Markup
    first: bool


class Stage(NamedTuple):
    """The learning curves of a stage, or why there are none."""

    name: str
    charts: tuple[Chart, ...]
    reason: str


def stages_of(
    runs: Mapping[str, tuple[Record, Extras]], names: Mapping[str, str], colours: Mapping[str, str]
) -> tuple[Stage, ...]:
    """The curves of every stage that some run was trained in, or why there are none.

    Args:
        runs: fingerprint -> run and what it left for its page.
        names: fingerprint -> what the run is called.
        colours: fingerprint -> CSS colour.
    """
    every = dict.fromkeys(
        stage
        for run, extras in runs.values()
        for stage in [*run.config.get("stages", {}), *extras.without_curves, *extras.curves]
    )
    stages = []
    for stage in every:
        curves = {key: extras.curves.get(stage, {}) for key, (_, extras) in runs.items()}
        metrics = dict.fromkeys(name for of in curves.values() for name in of)
        ordered = [name for name in FIRST if name in metrics] + [name for name in metrics if name not in FIRST]
        charts = []
        for metric in ordered:
            found = {key: of.get(metric, ()) for key, of in curves.items()}
            lines = [Line(names[key], colours[key], points) for key, points in found.items() if points]
            if lines:
                title = NAMES.get(metric, metric)
                charts.append(Chart(title, chart(lines, f"{title} in stage {stage}"), metric in FIRST))
        without = [extras.without_curves for _, extras in runs.values()]
        reasons = dict.fromkeys(of[stage] for of in without if stage in of)
        if charts or reasons:
            stages.append(Stage(stage, tuple(charts), "; ".join(reasons)))
    return tuple(stages)


def chart(lines: Sequence[Line], title: str) -> Markup:
    """The curves of one quantity over epochs as an ``<svg>`` element, the same bytes for the same curves.

    Args:
        lines: at least one, each with at least one point.
        title: what is drawn, for those who do not see it.
    """
    values = [y for line in lines for _, y in line.points]
    ticks = _ticks(min(values), max(values))
    epochs = _ticks(0.0, max(x for line in lines for x, _ in line.points), whole=True)
    low, high = min(ticks[0], *values), max(ticks[-1], *values)
    last = max(epochs[-1], *(x for line in lines for x, _ in line.points))

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (WIDTH - _LEFT - _RIGHT) * x / last
        down = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (y - low) / (high - low)
        return round(across, 1), round(down, 1)

    ends = "; ".join(f"{line.label}: {_short(line.points[0][1])} to {_short(line.points[-1][1])}" for line in lines)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title} over epochs. {ends}")}">']
    for y in ticks:
        _, down = at(0, y)
        parts.append(f'<path class="grid" d="M{_LEFT} {down}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{down + 3.5}" text-anchor="end">{_short(y)}</text>')
    for x in epochs:
        across, _ = at(x, low)
        parts.append(f'<text x="{across}" y="{HEIGHT - 10}" text-anchor="middle">{_short(x)}</text>')
    for line in lines:
        places = [at(x, y) for x, y in line.points]
        parts.append(f'<g style="--c:{line.colour}">')
        if len(places) > 1:
            parts.append(f'<path class="curve" d="M{"L".join(f"{x} {y}" for x, y in places)}"/>')
        if len(places) <= _DOTS:
            for (x, y), (epoch, value) in zip(places, line.points, strict=True):
                told = escape(f"{line.label}, epoch {_short(epoch)}: {_short(value)}")
                parts.append(f'<circle cx="{x}" cy="{y}" r="2.6"><title>{told}</title></circle>')
        parts.append("</g>")
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 everything that is text was escaped


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers from ``low`` or below to ``high`` or above."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) / 2, low + (abs(low) or 1.0) / 2
    found = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    return [float(tick) for tick in found]


def _short(value: float) -> str:
    return f"{value:.4g}"
