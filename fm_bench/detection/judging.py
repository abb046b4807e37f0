# SPDX-License-Identifier: MIT
"""The protocol ``detection`` (DARN, Table 2): how well boxes are found, and what the found boxes are good for."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from typing import Protocol as Interface

import numpy as np
import torch
from numpy.typing import NDArray

from fm_bench.catalog import Catalog, Dataset, Domain, Split
from fm_bench.config import RunConfig
from fm_bench.data.transforms import normalise
from fm_bench.detection.boxes import Boxes, aligned_iou, crop, iou
from fm_bench.detection.pictures import boxed_rows, read_pictures
from fm_bench.detection.precision import Detections, precision_interval
from fm_bench.errors import UserError
from fm_bench.evaluation.evaluator import evaluate
from fm_bench.evaluation.protocol import Protocol
from fm_bench.evaluation.significance import Estimate, bootstrap
from fm_bench.methods.base import Context, Method
from fm_bench.results import MODEL, load_model

F64 = NDArray[np.float64]

_WHOLE = np.array([0, 0, 1, 1], np.float32)
_BATCH = 256


class Finder(Interface):
    """What is judged: ``methods.detector.Detector``, or anything that finds boxes."""

    @property
    def device(self) -> torch.device:
        """Where it computes, and the retriever with it."""
        ...

    @property
    def picture_shape(self) -> tuple[int, int]:
        """Height and width of the pictures that it wants."""
        ...

    def propose(self, images: NDArray[np.uint8]) -> list[Boxes]:
        """Boxes to choose from in each of ``images (m, H, W, 3)``."""
        ...

    def detect(self, images: NDArray[np.uint8], proposals: list[Boxes]) -> Detections:
        """The boxes found in each picture, the best first."""
        ...


class Sample(NamedTuple):
    """Rows of the test split on which a detector is judged."""

    shop: NDArray[np.int64]
    """Boxes are judged on these, the first of which show the street photos' items."""
    street: NDArray[np.int64]
    others: NDArray[np.int64]
    """More shop photos, to be searched as well."""


class Found(NamedTuple):
    """What was found in some pictures."""

    rows: NDArray[np.int64]  # (m,) those that could be read
    detections: Detections
    reachable: F64  # (m,) overlap of the best proposal with the true box


def judge(
    method: Finder,
    dataset: Dataset,
    protocol: Protocol,
    *,
    seed: int = 0,
    images: int = 250,
    gallery: int = 400,
    retriever: Path | str | None = None,
) -> tuple[dict[str, Estimate], dict[str, F64]]:
    """Judges a detector on pictures of the test split.

    Args:
        method: finds boxes; it is on its device and in evaluation mode.
        dataset: whole pictures with true boxes.
        protocol: of kind ``detection``: its ``iou`` is the overlap that counts as found, its ``k`` the cut-offs.
        seed: of the choice of pictures and of resamples; give all methods the same.
        images: pictures of each domain on which boxes are judged, at most.
        gallery: shop photos that are searched, at most; never fewer than those judged.
        retriever: folder of a finished run of a retrieval method; without it boxes are judged alone.

    Returns:
        Metrics with 95 % intervals over pictures, and what each picture contributes to each (its mean is the metric).
        For both domains: ``ap@IOU``; ``found@IOU``, whether the best box is right; ``recall@IOU``, whether any
        proposal is, which bounds both but for boxes that refinement mends. With a retriever: ``accuracy@K`` of street
        photos among shop photos, both cut to ``detected boxes``, to ``true boxes``, or as ``full images``.

    Raises:
        UserError: if the data have no boxes, or the retriever's folder does not hold a finished run for these data.
    """
    sample = choose(dataset, images, gallery if retriever else 0, seed)
    metrics: dict[str, Estimate] = {}
    values: dict[str, F64] = {}
    found: dict[str, Found] = {}
    for domain, rows in (("shop", sample.shop), ("street", sample.street)):
        if not len(rows):
            continue
        found[domain] = find(method, dataset, rows)
        for name, (estimate, each) in _boxes_alone(found[domain], dataset.catalog, protocol.iou, seed).items():
            metrics[f"{name}@{protocol.iou:g} {domain}"] = estimate
            values[f"{name}@{protocol.iou:g} {domain}"] = each
    if retriever is not None:
        if "street" not in found:
            raise UserError("these data have no street photos with boxes to search with: choose garments-street.")
        shop = _join(found["shop"], find(method, dataset, sample.others)) if len(sample.others) else found["shop"]
        more, each_query = _search(shop, found["street"], dataset, protocol, Path(retriever), seed, method.device)
        metrics |= more
        values |= each_query
    return metrics, values


def choose(dataset: Dataset, images: int, gallery: int, seed: int) -> Sample:
    """Draws the pictures: street photos of different items with a shop photo of each, and further shop photos."""
    catalog = dataset.catalog
    rows = np.random.default_rng(seed).permutation(boxed_rows(dataset, Split.TEST))
    shop, street = (rows[catalog.domain[rows] == domain] for domain in Domain)
    items, first = np.unique(catalog.item[shop], return_index=True)
    street = street[np.isin(catalog.item[street], items)]
    _, one_each = np.unique(catalog.item[street], return_index=True)
    street = street[np.sort(one_each)][:images]
    partners = shop[first[np.searchsorted(items, catalog.item[street])]]
    rest = shop[~np.isin(shop, partners)]
    judged = max(0, images - len(partners))
    return Sample(
        np.concatenate([partners, rest[:judged]]), street, rest[judged:][: max(0, gallery - len(partners) - judged)]
    )


def find(method: Finder, dataset: Dataset, rows: NDArray[np.int64]) -> Found:
    """Runs the detector over catalogue ``rows``, some at a time."""
    truth = _boxes(dataset.catalog)
    parts = []
    for begin in range(0, len(rows), _BATCH):
        part = rows[begin : begin + _BATCH]
        pictures, kept = read_pictures(dataset, part, method.picture_shape)
        proposals = method.propose(pictures)
        reachable = [iou(boxes, box[None]).max() for boxes, box in zip(proposals, truth[part[kept]], strict=True)]
        parts.append(Found(part[kept], method.detect(pictures, proposals), np.array(reachable, np.float64)))
    return functools.reduce(_join, parts)


def _boxes_alone(found: Found, catalog: Catalog, overlap: float, seed: int) -> dict[str, tuple[Estimate, F64]]:
    truth = _boxes(catalog)[found.rows]
    best = found.detections.best(len(truth))
    right = (aligned_iou(best, truth) >= overlap).astype(np.float64)
    reachable = (found.reachable >= overlap).astype(np.float64)
    each = bootstrap(np.column_stack([right, reachable]), seed=seed)
    precision = precision_interval(found.detections, truth, overlap, seed=seed)
    return {"ap": precision, "found": (each[0], right), "recall": (each[1], reachable)}


def _search(
    shop: Found, street: Found, dataset: Dataset, protocol: Protocol, folder: Path, seed: int, device: torch.device
) -> tuple[dict[str, Estimate], dict[str, F64]]:
    """Street photos look for their items among shop photos, cut in three ways."""
    catalog = dataset.catalog
    method, size = load_retriever(folder, catalog)
    method.to(device)
    k = tuple(k for k in protocol.k if k <= len(shop.rows))
    asked = Protocol("boxes", changes=0, hit="instance", k=k or (len(shop.rows),), ndcg=(), mrr=())
    ways: dict[str, Callable[[Found], Boxes]] = {
        "detected boxes": lambda found: found.detections.best(len(found.rows)),
        "true boxes": lambda found: _boxes(catalog)[found.rows],
        "full images": lambda found: np.tile(_WHOLE, (len(found.rows), 1)),
    }
    metrics: dict[str, Estimate] = {}
    values: dict[str, F64] = {}
    for name, boxes in ways.items():
        report = evaluate(
            _embed(method, dataset, shop.rows, boxes(shop), size, query=False),
            _embed(method, dataset, street.rows, boxes(street), size, query=True),
            protocol=asked,
            targets=catalog.labels[street.rows],
            gallery_labels=catalog.labels[shop.rows],
            gallery_items=catalog.item[shop.rows],
            query_items=catalog.item[street.rows],
            gallery_keys=shop.rows,
            query_keys=street.rows,
            seed=seed,
            infeasible="miss",  # where the only shop photo could not be read
        )
        for cut in asked.k:
            metrics[f"accuracy@{cut} {name}"] = report.metrics[f"accuracy@{cut}"]
            values[f"accuracy@{cut} {name}"] = report.per_request[f"accuracy@{cut}"]
    return metrics, values


def load_retriever(folder: Path, catalog: Catalog) -> tuple[Method, tuple[int, int]]:
    """The trained method of a finished run, and the height and width of the pictures that it was trained on.

    Raises:
        UserError: if the folder holds no finished run, or one on data with other attributes.
    """
    try:
        config = RunConfig.from_dict(json.loads((folder / "config.json").read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not the folder of a run: give --method.retriever a finished one.") from error
    method = load_model(folder / MODEL, config.method)
    if method.schema.to_dict() != catalog.schema.to_dict():
        raise UserError(f"{folder} was trained on data with other attributes: give --method.retriever another run.")
    return method, config.image_size


@torch.no_grad()
def _embed(
    method: Method, dataset: Dataset, rows: NDArray[np.int64], boxes: Boxes, size: tuple[int, int], *, query: bool
) -> NDArray[np.float32]:
    """Vectors ``(m, D)`` of pictures cut to ``boxes``; both sides in the space of searching without a request."""
    catalog, device = dataset.catalog, method.device
    nobody = np.full((1, 2), -1), np.full(1, -1)
    setting = int(method.settings(*nobody)[0])
    out = []
    for begin in range(0, len(rows), _BATCH):
        part = slice(begin, begin + _BATCH)
        pictures, _ = read_pictures(dataset, rows[part], (2 * size[0], 2 * size[1]))
        images = normalise(torch.from_numpy(crop(pictures, boxes[part], size)).permute(0, 3, 1, 2).to(device))
        labels, domain, index = (
            torch.from_numpy(np.asarray(column, np.int64)).to(device)
            for column in (catalog.labels[rows[part]], catalog.domain[rows[part]], rows[part])
        )
        context = Context(labels if method.needs_labels else None, domain, index)
        if query:
            nothing = torch.zeros(len(images), method.schema.num_values, device=device)
            regions = torch.full((len(images),), -1, device=device)
            out.append(method.embed_query(images, nothing, context._replace(region=regions)))
        else:
            out.append(method.gallery_view(method.embed_gallery(images, context), setting))
    return torch.cat(out).float().cpu().numpy()


def _join(first: Found, second: Found) -> Found:
    picture = np.concatenate([first.detections.picture, second.detections.picture + len(first.rows)])
    columns = zip(first.detections[1:], second.detections[1:], strict=True)
    detections = Detections(picture, *(np.concatenate(column) for column in columns))
    return Found(
        np.concatenate([first.rows, second.rows]), detections, np.concatenate([first.reachable, second.reachable])
    )


def _boxes(catalog: Catalog) -> Boxes:
    assert catalog.box is not None, "boxed_rows has looked"
    return catalog.box
