# SPDX-License-Identifier: MIT
"""Where FashionSearchNet looks: activation maps and boxes over pictures, and how they meet a garment's true parts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.data.regions import REGIONS
from fm_bench.errors import UserError
from fm_bench.files import replacing
from fm_bench.methods.fashionsearchnet import FashionSearchNet
from fm_bench.nn.localisation import component_boxes, picture_boxes
from fm_bench.nn.regions import LINKS

BOX = "#d1242f"
WHOLE_PICTURE = "whole picture"
REGION = "region"
_BATCH = 64


def activation_sheet(
    method: FashionSearchNet,
    pictures: NDArray[np.uint8],
    images: Tensor,
    attributes: Sequence[str],
    out: Path,
) -> Path:
    """Draws one row per picture: the picture, then for each attribute its map, its box and the value it stands for.

    Args:
        method: trained.
        pictures: ``(n, H, W, 3)`` RGB.
        images: the same pictures, normalised, ``(n, 3, H, W)``.
        attributes: names of those that are shown.
        out: PNG to write.

    Raises:
        UserError: if an attribute is unknown, or none is named.
    """
    columns = [method.schema.attribute(name) for name in attributes]
    if not columns or not len(pictures):
        raise UserError("there is nothing to draw: name at least one attribute and one picture.")
    maps, boxes, labels = _look(method, images)
    places = picture_boxes(boxes, (maps.shape[2], maps.shape[3])).numpy()
    mpl.rcParams["font.size"] = 8
    height, width = pictures.shape[1:3]
    size = (1.3 * (len(columns) + 1), (1.3 * height / width + 0.3) * len(pictures))
    figure = Figure(figsize=size, dpi=130)
    axes = figure.subplots(len(pictures), len(columns) + 1, squeeze=False)
    for i, row in enumerate(axes):
        _show(row[0], pictures[i])
        for axis, m in zip(row[1:], columns, strict=True):
            _show(axis, overlay(pictures[i], maps[i, m].numpy()))
            left, top, right, bottom = places[i, m] * [width, height, width, height]
            axis.add_patch(
                Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=BOX, linewidth=1.5)
            )
            name = method.schema.names[m].replace("_", " ")
            axis.set_title(f"{name}:\n{method.schema.values[m][labels[i, m]]}", fontsize=7)
    figure.tight_layout()
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png")
    return out


def overlay(picture: NDArray[np.uint8], activation: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``picture (H, W, 3)`` under the positive part of ``activation (h, w)``, in colours from blue to red."""
    height, width = picture.shape[:2]
    heat = np.maximum(activation, 0) / max(float(activation.max()), 1e-12)
    large = cv2.resize((255 * heat).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.cvtColor(cv2.applyColorMap(large, cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    mixed: NDArray[np.uint8] = cv2.addWeighted(picture, 0.55, colours, 0.45, 0).astype(np.uint8)
    return mixed


def part_iou(
    method: FashionSearchNet, images: Tensor, masks: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, float]]:
    """Overlap of attributes' boxes with the true boxes of the parts that they tell of, as ``LINKS`` has it.

    Args:
        method: trained.
        images: ``(n, 3, H, W)``, normalised.
        masks: part name to ``(n, H, W)``, where the part is seen; garments' ``parts`` gives those of one picture.

    Returns:
        For every part among torso, sleeves and collar: for every attribute linked to it the mean intersection over
        union over the pictures that show the part; under ``region`` that of the box which region awareness crops; and
        under ``whole picture`` what a box of everything reaches.
        A part that no picture shows is left out.
    """
    maps, boxes, _ = _look(method, images)
    found = picture_boxes(boxes, (maps.shape[2], maps.shape[3])).numpy()
    regions = picture_boxes(_regions(method, images), (maps.shape[2], maps.shape[3])).numpy()
    result: dict[str, dict[str, float]] = {}
    for part, linked in LINKS.items():
        if part not in masks:
            continue
        shown = np.asarray(masks[part].any((1, 2)))
        if not shown.any():
            continue
        true = _mask_boxes(masks[part][shown])
        columns = [m for m, name in enumerate(method.schema.names) if name.replace("_", " ") in linked]
        scores = {method.schema.names[m]: float(_iou(found[shown, m], true).mean()) for m in columns}
        scores[REGION] = float(_iou(regions[shown, REGIONS.index(part)], true).mean())
        everything = np.broadcast_to(np.array([0.0, 0.0, 1.0, 1.0], np.float32), true.shape)
        result[part] = scores | {WHOLE_PICTURE: float(_iou(everything, true).mean())}
    return result


def _look(method: FashionSearchNet, images: Tensor) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    """Maps ``(n, A, h, w)``, boxes ``(n, A, 4)`` and the value ``(n, A)`` that each map belongs to."""
    parts = [method.look(batch) for batch in _batches(method, images)]
    maps, boxes, values = (torch.cat(column).cpu() for column in zip(*parts, strict=True))
    return maps, boxes, values.numpy()


def _regions(method: FashionSearchNet, images: Tensor) -> Tensor:
    """Boxes ``(n, 3, 4)`` of torso, sleeves and collar."""
    parts = []
    for batch in _batches(method, images):
        _, conv7 = method.convolve(batch)
        parts.append(component_boxes(*method.region_masks(conv7, method.classify(conv7))))
    return torch.cat(parts).cpu()


def _batches(method: FashionSearchNet, images: Tensor) -> Iterator[Tensor]:
    """Some of ``images`` at a time, on the method's device; until the last, it is in evaluation mode."""
    training = method.training
    method.eval()
    with torch.no_grad():
        yield from (batch.to(method.device) for batch in torch.split(images, _BATCH))
    method.train(training)


def _mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Left, top, right, bottom ``(n, 4)`` of masks ``(n, H, W)`` with at least one pixel, in shares of the picture."""
    _, height, width = masks.shape
    rows, columns = np.asarray(masks.any(2)), np.asarray(masks.any(1))
    left, top = columns.argmax(1) / width, rows.argmax(1) / height
    right, bottom = 1 - columns[:, ::-1].argmax(1) / width, 1 - rows[:, ::-1].argmax(1) / height
    return np.stack([left, top, right, bottom], axis=1).astype(np.float32)


def _iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of boxes ``(n, 4)``, pair by pair."""
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    shared = (high - low).clip(min=0).prod(axis=1)
    areas = [(box[:, 2:] - box[:, :2]).prod(axis=1) for box in (one, other)]
    overlap: NDArray[np.float32] = shared / (areas[0] + areas[1] - shared)
    return overlap


def _show(axis: Axes, image: NDArray[np.uint8]) -> None:
    axis.imshow(image)
    axis.set_axis_off()
