# SPDX-License-Identifier: MIT
"""The regions from which a detector learns: proposals, the true boxes, boxes around these, and mirrored copies."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.data.streams import keys, uniforms
from fm_bench.detection.boxes import Boxes, iou, mirror, refine

MIRRORED = 0.5
"""Regions that overlap the garment by at least this are shown mirrored, too."""

_SHIFT, _STRETCH = 0.25, 0.35  # of boxes around a true one: in its own sides, and as a logarithm


class Regions(NamedTuple):
    """``n`` regions of ``m`` pictures and of their mirror images: picture ``m + i`` mirrors picture ``i``."""

    box: Boxes  # (n, 4)
    picture: NDArray[np.int64]  # (n,)
    truth: Boxes  # (n, 4) the true box there
    overlap: NDArray[np.float32]  # (n,)


def training_regions(proposals: Sequence[Boxes], truth: Boxes, *, jitter: int, seed: int) -> Regions:
    """What there is to learn from.

    The paper's negatives are photos without people; pictures of garments have none to offer, so proposals on the
    background are the negatives.

    Args:
        proposals: of ``m`` pictures.
        truth: ``(m, 4)`` their true boxes.
        jitter: boxes drawn around each true box, so that there is something between the proposals and the truth.
        seed: of that draw.
    """
    parts = []
    for i, (proposed, box) in enumerate(zip(proposals, truth, strict=True)):
        own = box[None]
        drawn = uniforms(keys(seed, "jitter", np.arange(jitter), i), 4) * 2 - 1 if jitter else np.zeros((0, 4))
        around = refine(np.repeat(own, len(drawn), axis=0), drawn * [_SHIFT, _SHIFT, _STRETCH, _STRETCH])
        boxes = np.concatenate([own, around, proposed])
        overlap = iou(boxes, own)[:, 0]
        overlap[0] = 1.0  # the true box itself, whatever rounding says
        plain = Regions(boxes, np.full(len(boxes), i), np.repeat(own, len(boxes), axis=0), overlap)
        near = overlap >= MIRRORED
        parts.append(plain)
        parts.append(
            Regions(mirror(boxes[near]), plain.picture[near] + len(truth), mirror(plain.truth[near]), overlap[near])
        )
    return Regions(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def with_mirrored(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``(2m, H, W, 3)``: the pictures ``(m, H, W, 3)``, then their mirror images."""
    return np.concatenate([images, images[:, :, ::-1]])
