# SPDX-License-Identifier: MIT
"""Learning curves of a run, stage by stage, from what its CSV logger wrote."""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fm_bench.files import write_json
from fm_bench.leaderboard.extras import Points

CURVES = "curves.json"
MOST = 200
"""Points of a curve that are kept."""
SHOWN = ("train/", "val/")
_DIGITS = 6


def learning_curves(run: Path, stages: Sequence[str]) -> tuple[dict[str, dict[str, Points]], dict[str, str]]:
    """The curves of every finished stage, and why a stage has none.

    Args:
        run: the run's folder.
        stages: names of the stages, in order.

    Returns:
        Stage -> metric -> (epochs, value), at most ``MOST`` of them, where a value that an epoch was averaged into
        stands at its end; and stage -> reason.
    """
    found, without = {}, {}
    for stage in stages:
        folder = run / "stages" / stage
        if not (folder / "done.json").exists():  # left out by this variant
            continue
        result = json.loads((folder / "done.json").read_text())
        if (folder / CURVES).exists():
            kept = json.loads((folder / CURVES).read_text())
            curves = {name: tuple((x, y) for x, y in points) for name, points in kept.items()}
        else:  # of runs from before stages kept their own
            curves = _logged(run / "logs", stage)
        if curves:
            found[stage] = curves
        elif result["reused"]:
            without[stage] = "trained once by an equal run, which kept no curves"
        else:
            without[stage] = "no curves were logged as CSV" if result["epochs"] else "computed, not learned in epochs"
    return found, without


def keep_curves(logs: Path, stage: str, folder: Path) -> None:
    """Puts the curves of a stage beside its weights, so that whoever takes those over has the curves too."""
    if curves := _logged(logs, stage):
        write_json(folder / CURVES, curves)


def thinned(points: Points, most: int = MOST) -> Points:
    """At most ``most`` of the points, evenly, the first and the last among them; values to six digits."""
    count = len(points)
    kept = range(count) if count <= most else [round(i * (count - 1) / (most - 1)) for i in range(most)]
    return tuple((round(points[i][0], _DIGITS), float(f"{points[i][1]:.{_DIGITS}g}")) for i in kept)


def _logged(logs: Path, stage: str) -> dict[str, Points]:
    """What all attempts at a stage logged; an epoch that was begun again counts as it was the last time."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for file in _attempts(logs, stage):
        values = list(_values(file))
        begin = min((epoch for _, epoch, _ in values), default=math.inf)
        curves = {name: [point for point in points if point[0] < begin] for name, points in curves.items()}
        for name, epoch, value in values:
            curves.setdefault(name, []).append((epoch, value))
    return {name: thinned(_in_epochs(points)) for name, points in sorted(curves.items()) if points}


def _attempts(logs: Path, stage: str) -> list[Path]:
    """``STAGE/metrics.csv``, then ``STAGE-2/metrics.csv`` of the attempt after an interruption, and so on."""
    numbered = []
    for file in logs.glob(f"{stage}*/metrics.csv"):
        if attempt := re.fullmatch(re.escape(stage) + r"(?:-(\d+))?", file.parent.name):
            numbered.append((int(attempt[1] or 1), file))
    return [file for _, file in sorted(numbered)]


def _values(file: Path) -> Iterator[tuple[str, int, float]]:
    """Every (name, epoch, value) of a log, in order; a line that a kill cut short is left out."""
    with file.open(newline="") as lines:
        for line in csv.DictReader(lines):
            for name, text in line.items():
                try:
                    epoch, value = int(line["epoch"]), float(text)
                except (TypeError, ValueError):
                    continue
                if name and name.startswith(SHOWN) and math.isfinite(value):
                    yield name, epoch, value


def _in_epochs(points: Sequence[tuple[int, float]]) -> Points:
    """Values of one epoch are spread over it; one alone is of its end."""
    of_epoch: dict[int, list[float]] = {}
    for epoch, value in points:
        of_epoch.setdefault(epoch, []).append(value)
    return tuple(
        (epoch + (i + 1) / len(values), value)
        for epoch, values in sorted(of_epoch.items())
        for i, value in enumerate(values)
    )
