# SPDX-License-Identifier: MIT
"""An attribute's embedding in the plane (t-SNE), of the same pictures before and after that attribute was changed."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE

from fm_bench.bench import computing_device, data_module
from fm_bench.data.requests import Requests, mine
from fm_bench.errors import UserError
from fm_bench.files import replacing
from fm_bench.finished import load_run
from fm_bench.methods.base import Method
from fm_bench.outcomes.trained import Trained
from fm_bench.outcomes.vectors import plain_vectors, vectors_of
from fm_bench.results import MODEL, load_model
from fm_bench.retrieval.distances import F32

PICTURES = 600
"""At most."""

# Okabe and Ito's colours, which colour-blind readers tell apart; a marker for each round of them.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#b8a800")
MARKERS = "o^sDvP*X"

_FEWEST = 5


def embedding_sheet(folder: Path, attribute: str, out: Path, seed: int = 0) -> Path:
    """Draws query pictures of a finished run by ``attribute``'s embedding, beside the same after it was changed.

    Methods that embed each attribute on its own (``attribute_embedding(attribute, vectors)``) are shown by that
    embedding, others by their vectors. Both panels are of one t-SNE and have the same axes. Colours are own values
    before, wanted values after: where manipulation works, a colour is in the same place in both.

    Args:
        folder: of the run.
        attribute: what is changed.
        out: PNG to write.
        seed: of the choice of requests and of t-SNE.

    Raises:
        UserError: if the run is not finished, the attribute is unknown or cannot be changed in these data, or the
            method has no one space.
    """
    run = load_run(folder)
    config, catalog = run.config, run.dataset.catalog
    m = catalog.schema.attribute(attribute)
    method = load_model(folder / MODEL, config.method).to(computing_device(config.trainer))
    if type(method).settings is not Method.settings:
        raise UserError(
            f"{folder} holds {config.label}, which searches each kind of request in a space of its own: "
            "give a run of a method with one space."
        )
    data = data_module(config, run.dataset)
    data.setup("predict")
    rows = data.gallery_rows
    requests = mine(catalog, rows, rows, changes=1, limit=PICTURES, cap=1, seed=seed, attributes=[m])
    if len(requests) < _FEWEST:
        raise UserError(f"only {len(requests)} pictures can be asked for another {attribute}: give a larger gallery.")
    trained = Trained(config, method, run.dataset, data, {}, folder)
    before, after, kind = embeddings(trained, requests, m)
    own, wanted = catalog.labels[requests.query, m], requests.value[:, 0]
    title = f"{config.label}: {kind} of {len(requests):,} pictures"
    names = [str(value) for value in catalog.schema.values[m]]
    with replacing(out) as temporary:
        draw(plane(before, after, seed), (own, wanted), names, attribute, title).savefig(temporary, format="png")
    return out


def embeddings(trained: Trained, requests: Requests, attribute: int) -> tuple[F32, F32, str]:
    """Embeddings ``(n, k)`` of the queries and of the requests, and what they are called."""
    method = trained.method
    before, after = vectors_of(
        trained,
        trained.datamodule.query_dataloader(requests),
        len(requests),
        lambda batch: plain_vectors(method, batch),
        lambda batch: method.embed(batch).embedding,
    )
    with torch.no_grad():
        parts = [method.attribute_embedding(attribute, torch.from_numpy(v).to(method.device)) for v in (before, after)]
    if parts[0] is None or parts[1] is None:
        return before, after, "vectors"
    name = method.schema.names[attribute].replace("_", " ")
    return parts[0].float().cpu().numpy(), parts[1].float().cpu().numpy(), f"embedding of {name}"


def plane(before: F32, after: F32, seed: int) -> NDArray[np.float32]:
    """Points ``(2, n, 2)`` of both, placed by one t-SNE of all."""
    everything = np.concatenate([before, after])
    perplexity = min(30.0, (len(everything) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(everything)
    placed: NDArray[np.float32] = points.reshape(2, len(before), 2).astype(np.float32)
    return placed


def draw(
    points: NDArray[np.float32],
    values: tuple[NDArray[np.int16], NDArray[np.int16]],
    names: list[str],
    attribute: str,
    title: str,
) -> Figure:
    """Two panels with the same axes, and a legend of the values that occur in either.

    Args:
        points: see ``plane``.
        values: ``(n,)`` of the points before and after.
        names: of the values.
        attribute: name of the attribute.
        title: above everything.
    """
    shown = sorted({int(value) for part in values for value in part})
    texts = [names[value].replace("_", " ") for value in shown]
    looks = _looks(texts)
    figure = Figure(figsize=(11, 4.9), dpi=130, layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    heads = (f"before, by own {attribute}", f"after, by wanted {attribute}")
    for axis, head, part, numbers in zip((left, right), heads, points, values, strict=True):
        axis.set_title(head.replace("_", " "), fontsize=10)
        _scatter(axis, part, numbers, shown, looks)
    handles = [left.scatter([], [], s=30, **look) for look in looks]
    figure.suptitle(title, fontsize=11)
    figure.legend(
        handles, texts, loc="outside right center", title=attribute.replace("_", " "), fontsize=9, frameon=False
    )
    return figure


def _scatter(
    axis: Axes, points: NDArray[np.float32], values: NDArray[np.int16], shown: list[int], looks: list[dict[str, Any]]
) -> None:
    for value, look in zip(shown, looks, strict=True):
        x, y = points[values == value].T
        axis.scatter(x, y, s=14, alpha=0.8, **look)
    axis.set_aspect("equal", adjustable="box")
    axis.set_xticks([])
    axis.set_yticks([])


def _looks(values: list[str]) -> list[dict[str, Any]]:
    """Colour and marker of each value: its own colour with a rim, if all of them are names of colours."""
    own = [f"xkcd:{value.lower()}" for value in values]  # matplotlib's longest list of names
    named = all(map(is_color_like, own))
    looks = []
    for number, value in enumerate(own):
        rounds, colour = divmod(number, len(COLOURS))
        fill: dict[str, Any] = {"color": value, "edgecolors": "#555555"} if named else {"color": COLOURS[colour]}
        looks.append(fill | {"marker": MARKERS[rounds % len(MARKERS)], "linewidths": 0.4 if named else 0})
    return looks
