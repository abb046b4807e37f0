# SPDX-License-Identifier: MIT
"""Average precision of detections, one garment per picture, with an interval over pictures."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench.detection.boxes import Boxes, aligned_iou
from fm_bench.evaluation.significance import Estimate

F64 = NDArray[np.float64]

_BLOCK = 1 << 22  # weights held at once


class Detections(NamedTuple):
    """Boxes found in some pictures; of one picture the best comes first."""

    picture: NDArray[np.int64]  # (n,) position of the picture
    box: Boxes  # (n, 4)
    score: NDArray[np.float32]  # (n,)

    def best(self, pictures: int) -> Boxes:
        """The best box of every picture, ``(pictures, 4)``; the whole picture where nothing was found."""
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (pictures, 1))
        found, first = np.unique(self.picture, return_index=True)
        boxes[found] = self.box[first]
        return boxes


def correct(detections: Detections, truth: Boxes, overlap: float) -> NDArray[np.bool_]:
    """``(n,)`` which detections are right: the best of its picture that overlaps the garment by at least this.

    A second one that overlaps it as well is a duplicate, and wrong (PASCAL VOC). Of equal scores within a picture the
    earlier detection is the better.
    """
    matches = aligned_iou(detections.box, truth[detections.picture]) >= overlap
    order = np.lexsort((np.arange(len(matches)), -detections.score, detections.picture))
    order = order[matches[order]]
    _, first = np.unique(detections.picture[order], return_index=True)
    right = np.zeros(len(matches), np.bool_)
    right[order[first]] = True
    return right


def average_precision(detections: Detections, right: NDArray[np.bool_], weights: NDArray[np.floating[Any]]) -> F64:
    """Area under precision over recall, at all points (PASCAL VOC since 2010).

    Detections with equal scores enter together, so that their order decides nothing.

    Args:
        detections: of ``m`` pictures, each of which shows one garment.
        right: ``(n,)`` which of them are, see ``correct``.
        weights: ``(b, m)`` how often each picture counts; one average precision is computed per row.

    Returns:
        ``(b,)``; 0 where no picture counts.
    """
    order = np.argsort(-detections.score, kind="stable")
    score, picture, right = detections.score[order], detections.picture[order], right[order]
    last = np.append(score[1:] != score[:-1], True)[: len(score)]
    out = np.zeros(len(weights))
    step = max(1, _BLOCK // max(1, len(score)))
    for begin in range(0, len(weights), step):
        part = np.asarray(weights[begin : begin + step], np.float64)
        counted, total = part[:, picture], part.sum(axis=1, keepdims=True)
        hits = np.cumsum(counted * right, axis=1)[:, last]
        shown = np.cumsum(counted, axis=1)[:, last]
        precision = np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
        out[begin : begin + step] = (np.diff(recall, axis=1, prepend=0.0) * envelope).sum(axis=1)
    return out


def precision_interval(
    detections: Detections, truth: Boxes, overlap: float, *, resamples: int = 2000, seed: int = 0
) -> tuple[Estimate, F64]:
    """Average precision with its 95 % percentile interval over resampled pictures.

    Returns:
        The estimate, and ``(m,)`` one number per picture whose mean it is: by how much the average precision would
        fall without the picture, times the number of pictures (the jackknife's pseudo-values, moved to that mean).
        Two detectors on the same pictures are compared by the paired differences of these.
    """
    pictures = len(truth)
    right = correct(detections, truth, overlap)
    (value,) = average_precision(detections, right, np.ones((1, pictures)))
    without = average_precision(detections, right, 1 - np.eye(pictures))
    influence = value + (pictures - 1) * (without.mean() - without)
    if resamples == 0 or pictures < 2:
        return Estimate(float(value), float(value), float(value)), influence
    drawn = np.random.default_rng(seed).integers(0, pictures, (resamples, pictures))
    drawn += np.arange(resamples)[:, None] * pictures
    counts = np.bincount(drawn.ravel(), minlength=resamples * pictures).reshape(resamples, pictures).astype(np.float64)
    low, high = np.quantile(average_precision(detections, right, counts), (0.025, 0.975))
    return Estimate(float(value), float(min(low, value)), float(max(high, value))), influence
