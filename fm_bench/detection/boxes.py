# SPDX-License-Identifier: MIT
"""Boxes as left, top, right, bottom in shares of the picture: overlap, refinement, suppression, cropping."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou, nms

from fm_bench.data.crops import crop as crop_one

Boxes = NDArray[np.float32]
"""``(n, 4)`` left, top, right, bottom."""

_FARTHEST = float(np.log(4.0))  # a refinement scales a side by at most a factor of 4


def iou(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """Intersection over union of every box of ``first (n, 4)`` with every one of ``second (m, 4)``: ``(n, m)``."""
    overlap = box_iou(_tensor(first), _tensor(second)).numpy()
    return np.asarray(np.nan_to_num(overlap))  # boxes without area overlap nothing


def aligned_iou(first: Boxes, second: Boxes) -> NDArray[np.float32]:
    """Intersection over union of box i of ``first (n, 4)`` with box i of ``second (n, 4)``: ``(n,)``."""
    inner = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    shared = inner.clip(min=0).prod(axis=1)
    union = (first[:, 2:] - first[:, :2]).prod(axis=1) + (second[:, 2:] - second[:, :2]).prod(axis=1) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0), np.float32)


def offsets(boxes: Boxes, truth: Boxes) -> NDArray[np.float32]:
    """What turns ``boxes (n, 4)`` into ``truth (n, 4)``: ``(n, 4)`` dx, dy, dw, dh (Girshick et al. 2014, App. C).

    Centres move in units of the box's own sides, sides scale by ``exp``.
    """
    centre, side = _centre_and_side(boxes)
    true_centre, true_side = _centre_and_side(truth)
    return np.asarray(np.hstack([(true_centre - centre) / side, np.log(true_side / side)]), np.float32)


def refine(boxes: Boxes, offset: NDArray[np.floating[Any]]) -> Boxes:
    """Applies ``offset (n, 4)`` of the kind that ``offsets`` gives; the result stays inside the picture."""
    centre, side = _centre_and_side(boxes)
    centre = centre + side * offset[:, :2]
    side = side * np.exp(np.clip(offset[:, 2:], -_FARTHEST, _FARTHEST))
    return np.asarray(np.hstack([centre - side / 2, centre + side / 2]).clip(0, 1), np.float32)


def suppress(boxes: Boxes, scores: NDArray[np.float32], overlap: float) -> NDArray[np.int64]:
    """Positions of the boxes kept, best first: each one suppresses lower ones that it overlaps by more than this.

    Of equal scores the earlier box counts as higher.
    """
    order = np.argsort(-scores, kind="stable")
    falling = torch.arange(len(order), 0, -1, dtype=torch.float32)  # torchvision leaves the order of ties open
    kept = nms(_tensor(boxes[order]), falling, overlap).numpy()
    return np.asarray(order[kept], np.int64)


def mirror(boxes: Boxes) -> Boxes:
    """The boxes in the mirrored picture."""
    return np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)


def crop(
    images: NDArray[np.uint8], boxes: Boxes, size: tuple[int, int], which: NDArray[np.int64] | None = None
) -> NDArray[np.uint8]:
    """Cuts boxes out of pictures and stretches each to ``size``, as R-CNN warps its regions.

    Args:
        images: ``(m, H, W, 3)``.
        boxes: ``(n, 4)``; of each at least one pixel is kept.
        size: ``(height, width)`` of the results.
        which: ``(n,)`` the picture of each box; by default box i is of picture i.

    Returns:
        ``(n, height, width, 3)``.
    """
    pictures = range(len(boxes)) if which is None else which.tolist()
    out = np.empty((len(boxes), *size, 3), np.uint8)
    for i, picture in enumerate(pictures):
        out[i] = crop_one(images[picture], boxes[i], size)
    return out


def with_context(images: NDArray[np.uint8], boxes: Boxes, factor: float) -> tuple[NDArray[np.uint8], Boxes]:
    """Boxes ``factor`` times as wide and high, in pictures with a rim, where their own edge goes on, to hold them.

    Args:
        images: ``(m, H, W, 3)``.
        boxes: ``(n, 4)`` in shares of these.
        factor: 1 or more.

    Returns:
        The pictures with their rim, and the boxes in shares of those.
    """
    height, width = images.shape[1:3]
    rim = int(np.ceil((factor - 1) / 2 * max(height, width)))
    centre, side = _centre_and_side(boxes)
    grown = np.hstack([centre - factor * side / 2, centre + factor * side / 2])
    scale = np.array([width, height, width, height])
    rimmed = np.pad(images, ((0, 0), (rim, rim), (rim, rim), (0, 0)), mode="edge")
    return rimmed, np.clip((grown * scale + rim) / (scale + 2 * rim), 0, 1).astype(np.float32)


def _centre_and_side(boxes: Boxes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    return (low + high) / 2, np.maximum(high - low, 1e-6)


def _tensor(boxes: Boxes) -> torch.Tensor:
    return torch.from_numpy(np.array(boxes, np.float32))  # a copy: catalogues are read-only
