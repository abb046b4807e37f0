# SPDX-License-Identifier: MIT
"""A picture of what a run found: each row a request, then the best images, those that fulfil it framed."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fm_bench.bench import load_run
from fm_bench.data.requests import Requests
from fm_bench.errors import UserError
from fm_bench.files import replacing
from fm_bench.results import FOUND, TOP

HIT, MISS = "#1a7f37", "#d0d7de"
PIXELS = 128


def results_sheet(folder: Path, protocol: str, rows: int, out: Path, *, columns: int = 8, seed: int = 0) -> Path:
    """Draws ``rows`` requests of a finished run with their first ``columns`` results.

    Args:
        folder: of the run.
        protocol: whose requests are shown.
        rows: how many requests, drawn at random.
        out: PNG to write.
        columns: results per request, at most ``TOP``.
        seed: of the draw.

    Raises:
        UserError: if the run is not finished or was not asked by ``protocol``.
    """
    run = load_run(folder)
    path = folder / "requests" / f"{protocol}.npz"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.npz"))) or "none"
        raise UserError(f"{folder} was not asked by protocol {protocol!r}: its protocols are {known}.")
    requests = Requests.load(path)
    with np.load(folder / FOUND, allow_pickle=False) as arrays:
        found = arrays[protocol]
    catalog, source = run.dataset.catalog, run.dataset.source
    height, width = (round(side * PIXELS / max(run.config.image_size)) for side in run.config.image_size)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(requests))[:rows])
    columns = min(columns, TOP, found.shape[1])
    mpl.rcParams["font.size"] = 8
    figure = Figure(figsize=(1.25 * (columns + 1.3), 1.25 * height / width * len(chosen) + 0.35 * len(chosen)), dpi=130)
    axes = figure.subplots(len(chosen), columns + 1, squeeze=False, width_ratios=[1.3] + [1] * columns)
    for row, position in zip(axes, chosen, strict=True):
        _show(row[0], source.read(str(catalog.image[requests.query[position]]), (height, width)), None)
        row[0].set_title(_wish(requests, int(position)), loc="left", fontweight="bold")
        target = requests.target[position]
        for axis, image in zip(row[1:], found[position], strict=False):
            hit = bool(((catalog.labels[image] == target) | (target < 0)).all())
            _show(axis, source.read(str(catalog.image[image]), (height, width)), hit)
    figure.tight_layout()
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")
    return out


def _wish(requests: Requests, position: int) -> str:
    """``colour: red, sleeve length: short``, or ``similar`` where nothing is to be changed."""
    schema = requests.schema
    pairs = zip(requests.attribute[position], requests.value[position], strict=True)
    wishes = [f"{schema.names[m].replace('_', ' ')}: {schema.values[m][v]}" for m, v in pairs if m >= 0]
    return ",\n".join(wishes) or "similar"


def _show(axis: Axes, image: NDArray[np.uint8], hit: bool | None) -> None:
    axis.imshow(image)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(hit is not None)
        spine.set_color(HIT if hit else MISS)
        spine.set_linewidth(3 if hit else 1)
