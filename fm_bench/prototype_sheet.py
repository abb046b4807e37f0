# SPDX-License-Identifier: MIT
"""What a run drew: each row a picture with a request, the prototype drawn for it, the truth, and what was found."""

from pathlib import Path

import numpy as np
import torch

from fm_bench.data.garments import GarmentSource
from fm_bench.data.transforms import denormalise, normalise
from fm_bench.errors import UserError
from fm_bench.explain import drawing, load_answers, show
from fm_bench.results import MODEL, load_model


def prototype_sheet(folder: Path, protocol: str, rows: int, out: Path, *, columns: int = 6, seed: int = 0) -> Path:
    """Draws ``rows`` requests of a finished run, with the prototype of each and the first results.

    Where the data can draw the same garment with the change, this truth stands beside the prototype. All pictures are
    as small as the run saw them.

    Args:
        folder: of the run, of a method that draws.
        protocol: whose requests are shown.
        rows: how many requests, drawn at random.
        out: PNG to write.
        columns: results per request.
        seed: of the draw.

    Raises:
        UserError: if the run is not finished, its method draws nothing, or it was not asked by ``protocol``.
    """
    asked = load_answers(folder, protocol, rows, seed)
    config, source = asked.run.config, asked.run.dataset.source
    method = load_model(folder / MODEL, config.method)
    if not method.draws:
        raise UserError(
            f"{folder} holds {config.label}, which draws no prototypes: give a run of amgan-p, amgan-t, cgan-p or "
            "cgan-t."
        )
    if (asked.requests.attribute >= method.schema.num_attributes).any():
        raise UserError(
            f"{protocol!r} asks about parts of garments, which no prototype knows: give another --protocol."
        )
    size = config.image_size
    pictures = np.stack([source.read(asked.picture(i), size) for i in range(len(asked.found))])
    images = normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    with torch.no_grad():
        prototypes = denormalise(method.draw(images, asked.requests.indicator(np.arange(len(pictures)))))
    redrawn = isinstance(source, GarmentSource)
    columns = min(columns, asked.found.shape[1])
    wishes = ["+ " + asked.wish(i).replace(": ", ":\n") for i in range(len(pictures))]
    with drawing([1.0] * (2 + redrawn + columns), size[0] / size[1], wishes, out) as axes:
        for i, row in enumerate(axes):
            show(row[0], pictures[i])
            row[0].set_title(wishes[i], loc="left", fontweight="bold")
            show(row[1], prototypes[i])
            row[1].set_title("= prototype", loc="left")
            if isinstance(source, GarmentSource):
                show(row[2], source.redraw(asked.picture(i), asked.changes(i), size))
                row[2].set_title("truth", loc="left")
            asked.show_found(row[-columns:], i, size)
            row[-columns].set_title("found", loc="left")
    return out
