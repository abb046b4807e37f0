# SPDX-License-Identifier: MIT
"""Selective search (Uijlings et al., IJCV 2013) on scikit-image's over-segmentation.

A picture is cut into small regions of one colour (Felzenszwalb and Huttenlocher), then the two most similar
neighbours are merged until one region is left. The boxes of all regions met on the way are the proposals. Similarity
adds up colour, texture, size and fill; several starting points and similarities give the variety.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb

from fm_bench.detection.boxes import Boxes, suppress

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

_COLOUR_BINS = 25
_TEXTURE_BINS = 10
_DIRECTIONS = 8


@dataclass(frozen=True)
class SelectiveSearch:
    """What is searched, and which boxes are kept; the same picture always gives the same boxes.

    Args:
        scales: of the over-segmentations: larger values, larger regions.
        sigma: of the smoothing before it, in pixels.
        smallest: regions of fewer pixels are joined to a neighbour at once.
        measures: similarities by which regions are merged, letters of **c**olour, **t**exture, **s**ize and **f**ill.
        area: least and largest share of the picture that a proposal covers.
        aspect: a proposal is at most this many times as wide as high, or as high as wide (in pixels).
        same: of boxes that overlap by more than this, only the first is kept.
        limit: proposals per picture, at most; the latest merges first, alternating between the searches.
    """

    scales: tuple[float, ...] = (150.0, 1500.0, 5000.0)
    sigma: float = 0.8
    smallest: int = 30
    measures: tuple[str, ...] = ("ctsf", "c")
    area: tuple[float, float] = (0.09, 0.95)
    aspect: float = 3.0
    same: float = 0.9
    limit: int = 60

    def __call__(self, image: NDArray[np.uint8]) -> Boxes:
        """Proposals ``(n, 4)`` of a picture ``(H, W, 3)``; at least one: the whole picture where nothing is left."""
        lab = rgb2lab(image).astype(np.float32)
        bins = _colour(image), _texture(image)
        parts = []
        for scale in self.scales:
            segments = felzenszwalb(lab, scale=scale, sigma=self.sigma, min_size=self.smallest)
            regions = describe(segments, *bins)
            parts += [_latest_first(merge(regions, measure)) for measure in self.measures]
        return self.choose(_alternate(parts), image.shape[:2])

    def choose(self, corners: I64, size: tuple[int, ...]) -> Boxes:
        """Of boxes ``(n, 4)`` in pixels the first ``limit`` different ones of the wanted size and aspect, as shares."""
        height, width = size
        _, first = np.unique(corners, axis=0, return_index=True)
        corners = corners[np.sort(first)]
        w, h = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
        share = w * h / (height * width)
        good = (share >= self.area[0]) & (share <= self.area[1])
        good &= (w <= self.aspect * h) & (h <= self.aspect * w)
        boxes: Boxes = (corners[good] / np.array([width, height, width, height])).astype(np.float32)
        if not len(boxes):
            return np.array([[0, 0, 1, 1]], np.float32)
        return boxes[suppress(boxes, np.zeros(len(boxes), np.float32), self.same)[: self.limit]]


class Regions(NamedTuple):
    """``n`` regions of one picture."""

    colour: F32  # (n, 3 · 25) histograms that sum to 1
    texture: F32  # (n, 3 · 8 · 10) the same
    size: F32  # (n,) pixels
    box: I64  # (n, 4) left, top, right, bottom in pixels
    touches: NDArray[np.bool_]  # (n, n)
    pixels: int  # of the picture


def describe(segments: NDArray[np.integer[Any]], colour: I64, texture: I64) -> Regions:
    """Histograms, sizes, boxes and neighbourhoods of regions.

    Args:
        segments: ``(H, W)`` the region of each pixel, numbered from 0.
        colour: ``(H · W, 3)`` each pixel's bins.
        texture: ``(H · W, 3 · 8)`` the same.
    """
    count = int(segments.max()) + 1
    at = segments.ravel().astype(np.int64)
    rows, columns = np.divmod(np.arange(segments.size), segments.shape[1])
    box = np.empty((count, 4), np.int64)
    for side, place in ((0, columns), (1, rows)):
        low, high = np.full(count, segments.size), np.zeros(count, np.int64)
        np.minimum.at(low, at, place)
        np.maximum.at(high, at, place + 1)
        box[:, side], box[:, side + 2] = low, high
    touches = np.zeros((count, count), np.bool_)
    for first, second in ((segments[:, 1:], segments[:, :-1]), (segments[1:], segments[:-1])):
        touches[first, second] = touches[second, first] = True
    np.fill_diagonal(touches, False)
    size = np.bincount(at, minlength=count).astype(np.float32)
    return Regions(
        _histograms(at, colour, _COLOUR_BINS, count),
        _histograms(at, texture, _TEXTURE_BINS, count),
        size,
        box,
        touches,
        segments.size,
    )


def merge(regions: Regions, measure: str) -> I64:
    """Boxes ``(2n − 1, 4)`` of all regions in the order in which they come up: the first ``n``, then every merge."""
    size, box = regions.size.copy(), regions.box.copy()
    described = [part for letter, part in (("c", regions.colour), ("t", regions.texture)) if letter in measure]
    histogram = np.hstack(described) if described else np.zeros((len(size), 0), np.float32)
    touches, total = regions.touches.copy(), float(regions.pixels)
    count = len(size)

    def similarity(one: int, others: I64) -> F32:
        """Of region ``one`` with ``others``: every term lies in [0, 1]."""
        value: F32 = np.minimum(histogram[one], histogram[others]).sum(axis=1)
        together = size[one] + size[others]
        if "s" in measure:
            value += 1 - together / total
        if "f" in measure:
            low, high = np.minimum(box[one, :2], box[others, :2]), np.maximum(box[one, 2:], box[others, 2:])
            value += 1 - ((high - low).prod(axis=1) - together) / total
        return value

    alike = np.full((count, count), -np.inf, np.float32)
    for one in range(count):
        others = np.flatnonzero(touches[one])
        alike[one, others] = similarity(one, others)
    found = [box.copy()]
    for _ in range(count - 1):
        kept, gone = divmod(int(alike.argmax()), count)
        weight = size[[kept, gone]] / (size[kept] + size[gone])
        histogram[kept] = weight @ histogram[[kept, gone]]
        size[kept] += size[gone]
        box[kept] = *np.minimum(box[kept, :2], box[gone, :2]), *np.maximum(box[kept, 2:], box[gone, 2:])
        found.append(box[kept].copy()[None])
        near = touches[kept] | touches[gone]
        near[[kept, gone]] = False
        touches[gone] = touches[:, gone] = False
        touches[kept] = touches[:, kept] = near
        others = np.flatnonzero(near)
        alike[[kept, gone]] = alike[:, [kept, gone]] = -np.inf
        alike[kept, others] = alike[others, kept] = similarity(kept, others)
    return np.concatenate(found)


def _colour(image: NDArray[np.uint8]) -> I64:
    """Bins ``(H · W, 3)`` of hue, saturation and value."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    return np.asarray(hsv.reshape(-1, 3).astype(np.int64) * _COLOUR_BINS // 256)


def _texture(image: NDArray[np.uint8]) -> I64:
    """Bins ``(H · W, 3 · 8)`` of the slope (deviation 1) of each channel in eight directions."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)
    across, down = cv2.Sobel(smooth, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(smooth, cv2.CV_32F, 0, 1) / 8
    angle = np.arange(_DIRECTIONS, dtype=np.float32) * np.float32(2 * np.pi / _DIRECTIONS)
    slope = across[..., None] * np.cos(angle) + down[..., None] * np.sin(angle)
    bins = np.clip(slope * (_TEXTURE_BINS / 40), 0, _TEXTURE_BINS - 1)  # edges of garments: up to about 40 per pixel
    return np.asarray(bins.reshape(-1, 3 * _DIRECTIONS), np.int64)


def _histograms(at: I64, bins: I64, each: int, count: int) -> F32:
    """L1-normalised histograms ``(count, columns · each)`` of ``bins (P, columns)`` by region ``at (P,)``."""
    width = bins.shape[1] * each
    place = at[:, None] * width + np.arange(bins.shape[1]) * each + bins
    histogram = np.bincount(place.ravel(), minlength=count * width).reshape(count, width)
    return np.asarray(histogram / histogram.sum(axis=1, keepdims=True), np.float32)


def _latest_first(boxes: I64) -> I64:
    return boxes[::-1]


def _alternate(parts: list[I64]) -> I64:
    """First rows of all parts, then second rows, and so on."""
    rank = np.concatenate([np.arange(len(part)) for part in parts])
    return np.concatenate(parts)[np.argsort(rank, kind="stable")]
