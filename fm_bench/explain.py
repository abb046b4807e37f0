# SPDX-License-Identifier: MIT
"""Pictures of a run: what it found, each row a request and the best images, and where FashionSearchNet looks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fm_bench.activation_sheet import activation_sheet, part_iou
from fm_bench.bench import data_module
from fm_bench.data.garments import GarmentSource
from fm_bench.data.requests import Requests
from fm_bench.data.transforms import normalise
from fm_bench.errors import UserError
from fm_bench.files import replacing
from fm_bench.finished import FinishedRun, load_run
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.results import MODEL, load_found, load_model

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
    asked = load_answers(folder, protocol, rows, seed)
    source = asked.run.dataset.source
    height, width = (round(side * PIXELS / max(asked.run.config.image_size)) for side in asked.run.config.image_size)
    columns = min(columns, asked.found.shape[1])
    wishes = [asked.wish(i) for i in range(len(asked.found))]
    with drawing((1.3, *[1.0] * columns), height / width, wishes, out) as axes:
        for row, i in zip(axes, range(len(asked.found)), strict=True):
            show(row[0], source.read(asked.picture(i), (height, width)))
            row[0].set_title(wishes[i], loc="left", fontweight="bold")
            asked.show_found(row[1:], i, (height, width))
    return out


class Answers(NamedTuple):
    """Some requests of a finished run, and what it found for them."""

    run: FinishedRun
    requests: Requests
    found: NDArray[np.int64]
    """``(n, TOP)`` rows of the catalogue, best first; -1 where an approximate index found fewer."""
    hits: NDArray[np.bool_]
    """``(n, TOP)`` which of them are what was asked for."""

    def picture(self, i: int) -> str:
        """The name of request ``i``'s picture."""
        return str(self.run.dataset.catalog.image[self.requests.query[i]])

    def wish(self, i: int) -> str:
        """``colour: red, sleeve length: short``, or ``similar`` where nothing is to be changed."""
        wishes = [f"{name.replace('_', ' ')}: {value}" for name, value in self.changes(i).items()]
        return ",\n".join(wishes) or "similar"

    def changes(self, i: int) -> dict[str, str]:
        """The wanted value of each attribute that request ``i`` changes, by their names."""
        schema = self.requests.schema
        pairs = zip(self.requests.attribute[i], self.requests.value[i], strict=True)
        return {schema.names[m]: schema.values[m][v] for m, v in pairs if m >= 0}

    def show_found(self, axes: Sequence[Axes], i: int, size: tuple[int, int]) -> None:
        """Draws the first images found for request ``i``, as many as there are axes, hits in a green frame."""
        catalog, source = self.run.dataset.catalog, self.run.dataset.source
        for axis, image, hit in zip(axes, self.found[i], self.hits[i].tolist(), strict=False):
            if image < 0:
                axis.set_axis_off()
                continue
            show(axis, source.read(str(catalog.image[image]), size), hit)


def load_answers(folder: Path, protocol: str, rows: int, seed: int) -> Answers:
    """``rows`` requests of a finished run, drawn at random by ``seed``.

    Raises:
        UserError: if the run is not finished or was not asked by ``protocol``, or for an impossible number of rows.
    """
    check_rows(rows)
    run = load_run(folder)
    answers = load_found(folder, protocol, run.dataset)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(answers.requests))[:rows])
    return Answers(run, answers.requests.select(chosen), answers.rows[chosen], answers.hits[chosen])


@contextmanager
def drawing(widths: Sequence[float], aspect: float, titles: Sequence[str], out: Path) -> Iterator[NDArray[Any]]:
    """Axes ``(rows, columns)`` of a sheet that is written at the end.

    Args:
        widths: of the columns, 1 for a result.
        aspect: height of a picture by its width.
        titles: what will stand above each row, for the room that it takes.
        out: PNG to write.
    """
    mpl.rcParams["font.size"] = 8
    rows, lines = len(titles), 1 + max(title.count("\n") for title in titles)
    figure = Figure(figsize=(1.25 * sum(widths), (1.25 * aspect + 0.17 + 0.14 * lines) * rows), dpi=130)
    yield figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    figure.tight_layout()
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")


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


def show(axis: Axes, image: NDArray[np.uint8], hit: bool | None = None) -> None:
    """Draws ``image``, with a frame that tells whether it is a hit, and without one where that is no question."""
    axis.imshow(image)
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(hit is not None)
        spine.set_color(HIT if hit else MISS)
        spine.set_linewidth(3 if hit else 1)
