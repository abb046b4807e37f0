# SPDX-License-Identifier: MIT
"""Prepares what the page of a method shows of a finished run."""

import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fm_bench import recipe
from fm_bench.activation_sheet import overlay
from fm_bench.catalog import Dataset
from fm_bench.config import RunConfig, configure
from fm_bench.data.garments import GarmentSource
from fm_bench.data.readers import READERS
from fm_bench.data.transforms import denormalise, normalise
from fm_bench.errors import UserError
from fm_bench.extras.examples import Drawn, choose, example, rates
from fm_bench.extras.learned import learning_curves
from fm_bench.extras.pictures import Pictures, may_be_shown
from fm_bench.leaderboard.extras import Example, Extras, Look, Map, extras_file, save_extras
from fm_bench.leaderboard.record import FILE, Record, load
from fm_bench.leaderboard.rows import flat
from fm_bench.methods import METHODS, Method
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.nn.localisation import picture_boxes
from fm_bench.questions import load_protocol
from fm_bench.results import MODEL, Found, load_found, load_model

FAVOURITE = "manipulate-1"
"""The protocol whose requests are shown, where it was asked; else the first that was."""
LOOKS = 2
"""Pictures in which a page shows where the method looks."""
_BOX = (209, 36, 47)


def prepare(folder: Path) -> Path:
    """Writes what the page shows of the finished run in ``folder``; returns the file.

    Raises:
        UserError: if the folder holds no finished run, its data are gone, or its files are not of one run.
    """
    from fm_bench.finished import load_run  # it runs benchmarks, which call this module

    run = load_run(folder)
    kind, method = METHODS[run.config.method], None
    if kind.draws or issubclass(kind, FashionSearchNet):
        with suppress(UserError):  # weights of before the method was changed: its page is without what it draws
            method = load_model(folder / MODEL, run.config.method)
    leave(folder, run.config, run.dataset, method)
    return extras_file(folder / FILE)


def leave(folder: Path, config: RunConfig, dataset: Dataset, method: Method | None) -> None:
    """Writes what the page shows of a run that was recorded in ``folder``, beside its record.

    Args:
        folder: of the run.
        config: of the run.
        dataset: that it ran on.
        method: trained, in evaluation mode; without it the page shows nothing that it draws, nor where it looks.

    Raises:
        UserError: if the files of the run do not fit its record.
    """
    record = load(folder / FILE)
    asked = [name for name in record.protocols if (folder / "requests" / f"{name}.npz").exists()]
    found = {name: _checked(record, name, load_found(folder, name, dataset)) for name in asked}
    curves, without = learning_curves(folder, list(config.stages))
    pictures = Pictures(dataset, config.image_size) if may_be_shown(dataset) else None
    shown = FAVOURITE if FAVOURITE in found else next(iter(found), "")
    examples: tuple[Example, ...] = ()
    looks: tuple[Look, ...] = ()
    if shown:
        examples = _examples(found[shown], shown, config, method, pictures)
        if pictures is not None and isinstance(method, FashionSearchNet):
            looks = _looks(method, [one.row for one in examples[:LOOKS]], config.image_size, pictures)
    sheet, content = (None, None) if pictures is None else pictures.sheet()
    extras = Extras(
        fingerprint=record.fingerprint,
        description=_description(config),
        about=_about(METHODS[config.method]),
        changed=_changed(config),
        curves=curves,
        without_curves=without,
        rates={name: rates(of) for name, of in found.items()},
        examples_of=shown,
        examples=examples,
        looks=looks,
        sheet=sheet,
    )
    save_extras(extras, content, folder / FILE)


def _checked(record: Record, protocol: str, found: Found) -> Found:
    """Raises UserError unless what was found has the accuracy that the record states."""
    kept = found.rows.shape[1]
    stated = record.metrics[protocol].get(f"accuracy@{kept}", {}).get("value")
    reached = float(found.hits.any(axis=1).mean())
    if stated is not None and abs(stated - reached) > 1e-4:
        raise UserError(
            f"what {record.label} found for {protocol} has accuracy@{kept} {reached:.4f}, but its record states "
            f"{stated:.4f}: the files in its folder are not of one run, so run it again."
        )
    return found


# ------------------------------------------------------------------------------------------------------ what it is


def _description(config: RunConfig) -> tuple[str, ...]:
    """One line about the method and one about its variant, as its recipe has them."""
    with suppress(UserError):  # a method without a recipe
        of = recipe.load("methods", config.method)
        lines = (of.get("description"), of.get("variants", {}).get(config.variant, {}).get("description"))
        return tuple(str(line) for line in lines if line)
    return ()


def _about(kind: type[Method]) -> tuple[str, ...]:
    """The paragraphs of a method's docstring before its arguments: the paper, what is as there and what is not."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("\nArgs:")[0]
    return tuple(" ".join(part.split()) for part in text.split("\n\n") if part.strip())


def _changed(config: RunConfig) -> dict[str, tuple[str, str]]:
    """Setting -> (its default, what it is here) where these differ; the default is that of the method itself."""
    required = {
        name
        for name, parameter in inspect.signature(READERS[recipe.reader_name(config.data)].__init__).parameters.items()
        if parameter.default is inspect.Parameter.empty and name in config.reader
    }
    options = [text for name in sorted(required) for text in (f"--data.{name}", _option(config.reader[name]))]
    with suppress(UserError, KeyError):  # the recipe is gone, or is another one by now
        plain = configure(config.method, config.data, config.profile, config.mode, config.seed, options)
        ours, theirs = (flat(json.loads(json.dumps(of.numeric(), default=str))) for of in (config, plain))
        keys = [key for key in {**theirs, **ours} if ours.get(key) != theirs.get(key) and key != "variant"]
        return {key: (_setting(theirs, key), _setting(ours, key)) for key in keys}
    return {}


def _option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _setting(of: Mapping[str, Any], key: str) -> str:
    return str(of[key]) if key in of else "unset"


# ----------------------------------------------------------------------------------------------------- what it found


def _examples(
    found: Found, protocol: str, config: RunConfig, method: Method | None, pictures: Pictures | None
) -> tuple[Example, ...]:
    chosen = choose(found)
    same_item = load_protocol(protocol).hit == "instance"
    drawn = [Drawn()] * len(chosen)
    if pictures is not None and method is not None and method.draws and protocol == FAVOURITE:
        drawn = _drawn(found, [at for _, at in chosen], method, config.image_size, pictures)
    return tuple(
        example(found, kind, at, same_item, pictures, of) for (kind, at), of in zip(chosen, drawn, strict=True)
    )


def _drawn(
    found: Found, positions: Sequence[int], method: Method, size: tuple[int, int], pictures: Pictures
) -> list[Drawn]:
    """What the method draws for some requests, and the truth where it can be drawn."""
    requests = found.requests.select(np.asarray(positions))
    images = _images(pictures.dataset, requests.query.tolist(), size)[1].to(method.device)
    with torch.no_grad():
        prototypes = denormalise(method.draw(images, requests.indicator(np.arange(len(requests))).to(method.device)))
    cells = [pictures.add(prototype) for prototype in prototypes]
    source = pictures.dataset.source
    if not isinstance(source, GarmentSource):
        return [Drawn(cell) for cell in cells]
    schema, truths = requests.schema, []
    for query, attributes, values in zip(requests.query, requests.attribute, requests.value, strict=True):
        pairs = zip(attributes.tolist(), values.tolist(), strict=True)
        changes = {schema.names[m]: schema.values[m][v] for m, v in pairs if m >= 0}
        truths.append(pictures.add(source.redraw(int(query), changes, pictures.size)))
    return [Drawn(*pair) for pair in zip(cells, truths, strict=True)]


def _looks(
    method: FashionSearchNet, rows: Sequence[int], size: tuple[int, int], pictures: Pictures
) -> tuple[Look, ...]:
    """Where FashionSearchNet looks for each attribute: its map over the picture, with the box that is cut out."""
    shown, images = _images(pictures.dataset, rows, size)
    with torch.no_grad():
        maps, boxes, values = (part.cpu() for part in method.look(images.to(method.device)))
    places = picture_boxes(boxes, (maps.shape[2], maps.shape[3])).numpy()
    height, width = pictures.size
    looks = []
    for i, row in enumerate(rows):
        seen = []
        for m, name in enumerate(method.schema.names):
            heat = cv2.resize(overlay(shown[i], maps[i, m].float().numpy()), (width, height))
            left, top, right, bottom = np.rint(places[i, m] * [width - 1, height - 1, width - 1, height - 1]).tolist()
            marked = cv2.rectangle(np.ascontiguousarray(heat), (int(left), int(top)), (int(right), int(bottom)), _BOX)
            value = method.schema.values[m][int(values[i, m])]
            seen.append(Map(name, value, pictures.add(np.asarray(marked, np.uint8))))
        looks.append(Look(int(row), pictures.of(int(row)), tuple(seen)))
    return tuple(looks)


def _images(dataset: Dataset, rows: Sequence[int], size: tuple[int, int]) -> tuple[NDArray[np.uint8], torch.Tensor]:
    """Pictures ``(n, H, W, 3)``, and the same as methods see them, ``(n, 3, H, W)``."""
    names = dataset.catalog.image
    pictures = np.stack([dataset.source.read(str(names[row]), size) for row in rows])
    return pictures, normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2))
