# SPDX-License-Identifier: MIT
"""Pictures of a run: what it found, each row a request and the best images, and where FashionSearchNet looks."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fm_bench.activation_sheet import activation_sheet, part_iou
from fm_bench.bench import data_module, load_run
from fm_bench.data.garments import GarmentSource
from fm_bench.data.requests import Requests
from fm_bench.data.transforms import normalise
from fm_bench.errors import UserError
from fm_bench.files import replacing
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.questions import gallery_labels, load_protocol
from fm_bench.results import FOUND, MODEL, TOP, load_model

Overlaps = dict[str, dict[str, float]]
OVERLAP_PICTURES = 500
MOST_ROWS = 100
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
    check_rows(rows)
    run = load_run(folder)
    path = folder / "requests" / f"{protocol}.npz"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.npz"))) or "none"
        raise UserError(f"{folder} was not asked by protocol {protocol!r}: its protocols are {known}.")
    requests = Requests.load(path)
    with np.load(folder / FOUND, allow_pickle=False) as arrays:
        found = arrays[protocol]
    catalog, source = run.dataset.catalog, run.dataset.source
    asked = load_protocol(protocol)
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
        labels = gallery_labels(run.dataset, found[position], asked)
        hits = ((labels == target) | (target < 0)).all(axis=1)
        if asked.hit == "instance":
            hits = catalog.item[found[position]] == catalog.item[requests.query[position]]
        for axis, image, hit in zip(row[1:], found[position], hits.tolist(), strict=False):
            _show(axis, source.read(str(catalog.image[image]), (height, width)), hit)
    figure.tight_layout()
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")
    return out


def check_rows(rows: int) -> None:
    """Raises UserError unless a picture of so many rows can be drawn."""
    if not 1 <= rows <= MOST_ROWS:
        raise UserError(f"--requests is {rows}: give 1 to {MOST_ROWS}.")


def maps_sheet(folder: Path, rows: int, out: Path, *, attributes: Sequence[str] = (), seed: int = 0) -> Overlaps:
    """Draws where a finished run of FashionSearchNet looks in ``rows`` gallery pictures.

    Args:
        folder: of the run.
        rows: how many pictures, drawn at random.
        out: PNG to write.
        attributes: whose maps are shown; none for all.
        seed: of the draw.

    Returns:
        Where the data know the parts of their garments: overlap of the boxes with the true ones over up to
        ``OVERLAP_PICTURES`` gallery pictures, see ``part_iou``; else nothing.

    Raises:
        UserError: if the run is not finished, or of another method.
    """
    check_rows(rows)
    run = load_run(folder)
    method = load_model(folder / MODEL, run.config.method)
    if not isinstance(method, FashionSearchNet):
        raise UserError(
            f"{folder} holds {run.config.method}, which has no activation maps: give a fashionsearchnet run."
        )
    catalog, source, size = run.dataset.catalog, run.dataset.source, run.config.image_size
    datamodule = data_module(run.config, run.dataset)
    datamodule.setup("predict")  # knows which pictures can be read
    chosen = np.random.default_rng(seed).permutation(datamodule.gallery_rows)[:OVERLAP_PICTURES]
    pictures = np.stack([source.read(str(name), size) for name in catalog.image[chosen]])
    images = normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    activation_sheet(method, pictures[:rows], images[:rows], attributes or method.schema.names, out)
    if not isinstance(source, GarmentSource):
        return {}
    parts = [source.parts(str(name), size) for name in catalog.image[chosen]]
    return part_iou(method, images, {name: np.stack([part[name] for part in parts]) for name in parts[0]})


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
