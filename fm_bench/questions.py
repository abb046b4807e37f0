# SPDX-License-Identifier: MIT
"""What a run is asked: the requests of every protocol, mined before training if only to see that there are some."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench import recipe
from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Dataset, Domain, Split
from fm_bench.data.regions import WHOLE, Regions, regions_of
from fm_bench.data.requests import Requests, mine, same_item
from fm_bench.errors import UserError
from fm_bench.evaluation.protocol import Protocol
from fm_bench.recipe import EvaluationConfig

REQUEST_SEED = 0
"""Every run of every method and seed is asked the same requests."""


class Question(NamedTuple):
    """A protocol with the requests that it asks."""

    protocol: Protocol
    requests: Requests


def load_protocol(name: str) -> Protocol:
    """A protocol by name. Raises UserError with the nearest names if there is none."""
    recipe.load("protocols", name)
    return Protocol.from_yaml(recipe.benchmarks_dir() / "protocols" / f"{name}.yaml")


def retrieval(names: Sequence[str]) -> list[Protocol]:
    """The protocols among ``names`` that search a gallery."""
    protocols = [load_protocol(name) for name in names]
    return [protocol for protocol in protocols if protocol.kind == "retrieval"]


def ask(dataset: Dataset, gallery: NDArray[np.int64], protocol: Protocol, limit: int | None) -> Requests:
    """The requests of one protocol against a gallery.

    Args:
        dataset: whose test split is asked about.
        gallery: ``(N,)`` catalogue rows that are searched.
        protocol: what is asked.
        limit: at most this many requests, a smaller number being the beginning of a larger one; None for all.

    Raises:
        UserError: if these data cannot answer the protocol.
    """
    catalog = dataset.catalog
    queries = gallery
    attributes: Sequence[int] | None = None
    if protocol.queries == "street":
        rows = catalog.rows(Split.TEST)
        queries = rows[catalog.domain[rows] == Domain.STREET]
    if protocol.hit == "instance":
        return same_item(catalog, queries, gallery, limit=limit, seed=REQUEST_SEED)
    if protocol.regions:
        regions = regions_of(dataset)
        attributes = regions.attributes(catalog.schema)
        catalog = regions.extend(catalog)
    return mine(
        catalog,
        queries,
        gallery,
        changes=protocol.changes,
        limit=limit,
        cap=protocol.cap,
        seed=REQUEST_SEED,
        attributes=attributes,
    )


def gallery_labels(dataset: Dataset, gallery: NDArray[np.int64], protocol: Protocol) -> NDArray[np.int16]:
    """``(N, A)`` what requests of ``protocol`` are compared with: labels, and those of regions where it asks so."""
    if protocol.regions:
        return regions_of(dataset).extend(dataset.catalog).labels[gallery]
    return dataset.catalog.labels[gallery]


def wishes(
    requests: Requests, schema: AttributeSchema, regions: Regions | None
) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """What methods are told to change: attributes ``(R, 2)`` of ``schema``, and the region ``(R,)`` of each request."""
    if regions is None:
        return requests.attribute, np.full(len(requests), WHOLE)
    attribute = np.where(
        requests.attribute >= schema.num_attributes, schema.attribute(regions.attribute), requests.attribute
    )
    return attribute.astype(np.int16), regions.asked(requests, np.arange(len(requests)))[1].numpy()


def ask_all(
    dataset: Dataset, gallery: NDArray[np.int64], config: EvaluationConfig
) -> tuple[dict[str, Question], list[str]]:
    """The requests of every protocol, and a sentence for each protocol that the data cannot answer.

    Raises:
        UserError: if there are protocols that search, and none of them has a feasible request.
    """
    asked: dict[str, Question] = {}
    problems: dict[str, str] = {}
    for protocol in retrieval(config.every):
        try:
            asked[protocol.name] = Question(protocol, ask(dataset, gallery, protocol, config.requests))
        except UserError as error:
            problems[protocol.name] = f"{protocol.name}: {error}"
    if problems and not asked:
        raise UserError(next(iter(problems.values())))
    return asked, [problem for name, problem in problems.items() if name in config.protocols]


def check_protocols(config: EvaluationConfig, dataset: Dataset) -> None:
    """Raises UserError, before any training, if a protocol looks deeper than the gallery is large.

    The same holds if no protocol finds a feasible request among the labels.
    """
    rows, size = _shop(dataset), gallery_size(config, dataset)
    problems = []
    protocols = retrieval(config.every)
    for protocol in protocols:
        if protocol.depth >= size:  # the query's own picture is left out
            raise UserError(
                f"protocol {protocol.name!r} looks at k = {protocol.depth} images, but the gallery has {size}: "
                "give a larger test split or gallery."
            )
        try:
            ask(dataset, rows, protocol, limit=1)
        except UserError as error:
            problems.append(error)
    if protocols and len(problems) == len(protocols):
        raise problems[0]


def gallery_size(config: EvaluationConfig, dataset: Dataset) -> int:
    """Images of the gallery that a run searches."""
    rows = _shop(dataset)
    return len(rows) if config.gallery is None else min(len(rows), config.gallery)


def _shop(dataset: Dataset) -> NDArray[np.int64]:
    rows = dataset.catalog.rows(Split.TEST)
    shop: NDArray[np.int64] = rows[dataset.catalog.domain[rows] == Domain.SHOP]
    return shop
