# SPDX-License-Identifier: MIT
"""A sheet of pictures with their labels, to look at a catalogue before anything is trained on it."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fm_bench.attributes import MISSING
from fm_bench.catalog import Catalog, Dataset, Domain, UnreadableImageError
from fm_bench.data.garments import GarmentSource
from fm_bench.errors import printable
from fm_bench.files import replacing

_COLUMNS = 6
_PIXELS = 192  # width of a picture as it is read
_LINE = 0.115  # height of a line of text, inches


def contact_sheet(dataset: Dataset, out: Path, *, count: int = 24, seed: int = 0, aspect: float = 1.0) -> None:
    """Writes a picture of ``count`` random catalogue rows with their labels beneath.

    Rows come from both domains where the catalogue has both. Below garments there is one more row: a garment and five
    times the same picture with one attribute changed.

    Args:
        dataset: any catalogue with its pictures; one that cannot be read is shown as an empty frame saying so.
        out: the PNG to write.
        count: number of pictures.
        seed: which rows.
        aspect: height / width at which pictures are shown.

    Raises:
        UserError: if ``out`` cannot be written.
    """
    catalog, rng = dataset.catalog, np.random.default_rng(seed)
    rows = _sample(catalog, count, rng)
    redrawn = isinstance(dataset.source, GarmentSource)
    lines = catalog.schema.num_attributes + 1
    cell = (1.75, 1.75 * aspect + _LINE * (lines + 1))
    high = -(-len(rows) // _COLUMNS)
    extra = 1.75 * aspect + 0.1 if redrawn else 0.0
    gap = 0.5 if redrawn else 0.0  # for the redraws' titles
    figure = Figure(figsize=(cell[0] * _COLUMNS, cell[1] * high + gap + extra), dpi=120)
    FigureCanvasAgg(figure)
    size = (round(_PIXELS * aspect), _PIXELS)
    heights = [cell[1]] * high + ([gap, extra] if redrawn else [])
    grid = figure.add_gridspec(len(heights), _COLUMNS, height_ratios=heights)
    grid.update(left=0.01, right=0.99, top=1, bottom=0.0, wspace=0.06, hspace=0.0)
    for place, row in enumerate(rows.tolist()):
        axes = figure.add_subplot(grid[place // _COLUMNS, place % _COLUMNS])
        _show(axes, _picture(dataset, row, size))
        axes.text(0, -0.02, _caption(catalog, row), transform=axes.transAxes, va="top", fontsize=6.2, linespacing=1.25)
    if isinstance(dataset.source, GarmentSource):
        reference = dataset.source.index(str(catalog.image[rows[0]]))
        for place, (title, picture) in enumerate(_redraws(dataset.source, reference, size, rng)):
            axes = figure.add_subplot(grid[high + 1, place])
            _show(axes, picture)
            axes.set_title(title, fontsize=7)
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")


def _sample(catalog: Catalog, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Distinct rows, half of them from each domain where both exist."""
    domains = [np.flatnonzero(catalog.domain == domain) for domain in Domain]
    present = [rng.permutation(rows) for rows in domains if len(rows)]
    share = -(-count // max(1, len(present)))
    picked = [rows[:share] for rows in present]
    return np.concatenate(picked or [np.empty(0, np.int64)])[:count]


def _picture(dataset: Dataset, row: int, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    try:
        return dataset.source.read(str(dataset.catalog.image[row]), size)
    except UnreadableImageError:
        return None


def _show(axes: Axes, picture: NDArray[np.uint8] | None) -> None:
    axes.set_anchor("N")
    axes.set_xticks([])
    axes.set_yticks([])
    if picture is None:
        axes.text(0.5, 0.5, "unreadable", ha="center", va="center", fontsize=8)
    else:
        axes.imshow(picture)


def _caption(catalog: Catalog, row: int) -> str:
    schema, labels = catalog.schema, catalog.labels[row].tolist()
    lines = [f"{catalog.image[row]} ({Domain(int(catalog.domain[row])).name.lower()})".replace("$", r"\$")]
    for name, values, label in zip(schema.names, schema.values, labels, strict=True):
        lines.append(f"{name}: {'missing' if label == MISSING else values[label]}".replace("$", r"\$"))
    return printable("\n".join(lines))


def _redraws(
    source: GarmentSource, index: int, size: tuple[int, int], rng: np.random.Generator
) -> list[tuple[str, NDArray[np.uint8]]]:
    """The picture and five others that differ from it in one attribute each, with titles."""
    schema, labels = source.schema, source.true_labels[index].tolist()
    result = [("reference", source.redraw(index, {}, size))]
    for m in sorted(rng.permutation(schema.num_attributes)[: _COLUMNS - 1].tolist()):
        other = (labels[m] + 1 + int(rng.integers(schema.sizes[m] - 1))) % schema.sizes[m]
        value = schema.values[m][other]
        result.append(
            (
                f"{schema.names[m]}:\n{schema.values[m][labels[m]]} → {value}",
                source.redraw(index, {schema.names[m]: value}, size),
            )
        )
    return result
