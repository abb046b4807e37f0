# SPDX-License-Identifier: MIT
"""From activation maps to boxes to crops of a feature map, for all attributes of a batch at once.

Boxes are ``(y1, x1, y2, x2)`` in shares of the grid: 0 is the centre of the first cell and 1 that of the last, as in
TensorFlow's ``crop_and_resize``. A box holds whole cells, so one cell is a box without area, and a valid one.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

_WITHIN_A_MAP = np.zeros((3, 3, 3), dtype=np.bool_)  # 8 neighbours in the same map of a stack, none in the next
_WITHIN_A_MAP[1] = True


def class_maps(features: Tensor, weights: Tensor) -> Tensor:
    """Sums of feature maps: ``M_n(i, j) = sum_k w_nk x_k(i, j)`` (FashionSearchNet Eq. 3).

    Args:
        features: ``(B, K, h, w)``.
        weights: ``(B, N, K)``, each image's own.

    Returns:
        ``(B, N, h, w)`` in float32: its sum over a map equals the sum-pooled logit of a classifier without bias.
    """
    with torch.autocast(features.device.type, enabled=False):
        maps = torch.bmm(weights.float(), features.float().flatten(2))
    return maps.reshape(*maps.shape[:2], *features.shape[2:])


def above(maps: Tensor, share: float, *, minmax: bool = False) -> Tensor:
    """Where ``maps (…, h, w)`` exceed ``share`` of their maximum; nowhere if the maximum is not positive.

    Args:
        maps: any real values.
        share: of the maximum, in [0, 1).
        minmax: measure from each map's minimum instead of zero.
    """
    low = maps.amin((-2, -1), keepdim=True) if minmax else torch.zeros_like(maps[..., :1, :1])
    high = maps.amax((-2, -1), keepdim=True)
    return (maps > low + share * (high - low)) & (high > low)


def component_boxes(masks: Tensor, maps: Tensor) -> Tensor:
    """Bounding boxes of the largest connected component of every mask.

    Eight neighbours connect; of components of one size the one with the larger sum of activation is taken. A mask
    without any cell gives the whole map. No gradient passes.

    Args:
        masks: ``(B, N, h, w)`` boolean.
        maps: ``(B, N, h, w)`` activations.

    Returns:
        ``(B, N, 4)`` float32 in shares of the grid.
    """
    height, width = masks.shape[-2:]
    stack = masks.detach().flatten(0, 1).cpu().numpy()
    values = maps.detach().flatten(0, 1).float().cpu().numpy()
    kept = _largest(stack, values)
    rows, columns = np.asarray(kept.any(2)), np.asarray(kept.any(1))
    corners = [rows.argmax(1), columns.argmax(1), height - 1 - rows[:, ::-1].argmax(1)]
    corners.append(width - 1 - columns[:, ::-1].argmax(1))
    grid = np.array([max(1, height - 1), max(1, width - 1)] * 2, dtype=np.float32)
    boxes = np.stack(corners, axis=1).astype(np.float32) / grid
    return torch.from_numpy(boxes).reshape(*masks.shape[:2], 4).to(masks.device)


def _largest(masks: NDArray[np.bool_], values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """``(n, h, w)``: the largest component of every mask, all of an empty one; one labelling for the whole stack."""
    labels, count = ndimage.label(masks, structure=_WITHIN_A_MAP)
    flat = labels.ravel()
    size = np.bincount(flat, minlength=count + 1)[1:]
    activation = np.bincount(flat, weights=values.ravel(), minlength=count + 1)[1:]
    place = np.flatnonzero(flat)
    owner = np.zeros(count, dtype=np.int64)
    owner[flat[place] - 1] = place // masks[0].size
    order = np.lexsort((activation, size, owner))  # within each map the best component comes last
    last = order[np.flatnonzero(np.diff(owner[order], append=len(masks)))]
    chosen = np.zeros(len(masks), dtype=np.int64)  # 0, the background, is all there is in an empty mask
    chosen[owner[last]] = last + 1
    kept: NDArray[np.bool_] = labels == chosen[:, None, None]
    return kept


def whole(maps: Tensor) -> Tensor:
    """Boxes ``(B, N, 4)`` of the whole map, for each of ``maps (B, N, h, w)``."""
    return torch.tensor([0.0, 0.0, 1.0, 1.0], device=maps.device).expand(*maps.shape[:2], 4)


def crop_and_resize(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Bilinear crops as TensorFlow's ``crop_and_resize`` takes them; the boxes get no gradient.

    Row i of a crop samples the feature map at ``y1 (h − 1) + i (y2 − y1) (h − 1) / (size − 1)``.

    Args:
        features: ``(B, K, h, w)``.
        boxes: ``(B, N, 4)`` in shares of the grid.
        size: side of the crops; 1 samples the middle of a box.

    Returns:
        ``(B, N, K, size, size)`` float32.
    """
    steps = torch.linspace(0, 1, size, device=boxes.device) if size > 1 else boxes.new_full((1,), 0.5)
    y1, x1, y2, x2 = boxes.detach().unsqueeze(-1).unbind(2)  # (B, N, 1) each
    y, x = y1 + (y2 - y1) * steps, x1 + (x2 - x1) * steps  # (B, N, size)
    shape = (*x.shape, size)
    places = torch.stack([x.unsqueeze(2).expand(shape), y.unsqueeze(3).expand(shape)], dim=-1)
    with torch.autocast(features.device.type, enabled=False):
        crops = F.grid_sample(features.float(), 2 * places.flatten(1, 2) - 1, align_corners=True)
    return crops.reshape(*crops.shape[:2], -1, size, size).transpose(1, 2)


def picture_boxes(boxes: Tensor, grid: tuple[int, int]) -> Tensor:
    """What the cells of boxes cover of the picture: ``(…, 4)`` left, top, right, bottom in shares of it.

    Args:
        boxes: ``(…, 4)`` in shares of the grid.
        grid: its height and width in cells.
    """
    height, width = grid
    y1, x1, y2, x2 = boxes.unbind(-1)
    left, right = x1 * (width - 1) / width, (x2 * (width - 1) + 1) / width
    return torch.stack([left, y1 * (height - 1) / height, right, (y2 * (height - 1) + 1) / height], dim=-1)
