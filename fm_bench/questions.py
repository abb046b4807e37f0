# SPDX-License-Identifier: MIT
"""What a run is asked: the requests of every protocol, mined before training if only to see that there are some."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fm_bench import recipe
from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Dataset, Domain, Split, gallery_of
from fm_bench.data.mixed import mixed
from fm_bench.data.regions import WHOLE, Regions, regions_of
from fm_bench.data.requests import Requests, mine, same_item
from fm_bench.data.sample import Sample, role
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


def sample_of(protocols: Sequence[str], data: Sequence[str]) -> tuple[str, Sample] | None:
    """The pictures that a run is about, and the protocol that says so; None where it is about whatever the data hold.

    Args:
        protocols: of one run.
        data: what its data are called: the name of the recipe, and that of the reader.

    Raises:
        UserError: if a protocol is not defined on these data, or two are about different pictures.
    """
    found = [(name, _own_sample(load_protocol(name), data)) for name in protocols]
    (first, sample), *others = found
    for name, other in others:
        if other != sample:
            raise UserError(
                f"{first} and {name} are not about the same pictures: give --evaluation.protocols one of the two."
            )
    return None if sample is None else (first, sample)


def check_folds(protocols: Sequence[str], data: Sequence[str], cross_validated: bool) -> None:
    """Raises UserError if a protocol of the run is of a cross-validation and the run is not, or the other way round."""
    about = sample_of(protocols, data)
    if about is not None and (about[1].split == "folds") != cross_validated:
        advice = "leave --folds out" if cross_validated else "add --folds 5"
        raise UserError(f"{about[0]} needs {about[1].sizes() or 'the split of the data'}: {advice}.")


def alike(protocol: str, sample: Sample | None, data: Sequence[str]) -> bool:
    """Whether ``protocol`` is about the pictures of ``sample``."""
    try:
        return _own_sample(load_protocol(protocol), data) == sample
    except UserError:
        return False


def _own_sample(protocol: Protocol, data: Sequence[str]) -> Sample | None:
    samples = [load_protocol(name).sample for name in protocol.like] or [protocol.sample]
    known = [sample for sample in samples if sample is not None]
    for sample in known:
        if set(sample.data) & set(data):
            return sample
    if not known:
        return None
    defined = sorted({name for sample in known for name in sample.data})
    raise UserError(
        f"{protocol.name} is defined on {' and '.join(defined)}, not on {data[0]}: give --data {defined[0]}, "
        "or a protocol that asks of any data, see `fm-bench list protocols`."
    )


def needs(name: str) -> str:
    """What a paper's protocol needs, and where it is from, in a sentence."""
    protocol = load_protocol(name)
    own = [protocol.sample] if protocol.sample else []
    samples = [sample for other in protocol.like if (sample := load_protocol(other).sample)] or own
    data = " or ".join(dict.fromkeys(each for sample in samples for each in sample.data))
    sizes = [f"the images of {' or '.join(protocol.like)}"] if protocol.like else [sample.sizes() for sample in own]
    number = {None: "", "all": "every request that the gallery can answer", "published": "the published requests"}
    asked = number[protocol.requests] if not isinstance(protocol.requests, int) else f"{protocol.requests:,} requests"
    read = [f"read with {sample.read}" for sample in own if sample.read]
    return f"{protocol.paper}; needs {data}" + "".join(f"; {part}" for part in (*read, *sizes, asked) if part)


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
    if protocol.requests == "published":
        return _published(dataset, limit)
    catalog, queries = dataset.catalog, _asking(dataset, gallery, protocol)
    if protocol.hit == "instance":
        return same_item(catalog, queries, gallery, limit=limit, seed=REQUEST_SEED)
    attributes: Sequence[int] | None = None
    if protocol.regions:
        regions = regions_of(dataset)
        attributes = regions.attributes(catalog.schema)
        catalog = regions.extend(catalog)
    elif protocol.asked:
        attributes = [role(catalog.schema, name) for name in protocol.asked]
    if protocol.one_change:
        return mixed(
            catalog,
            queries,
            gallery,
            one_change=protocol.one_change,
            limit=limit,
            seed=REQUEST_SEED,
            attributes=attributes,
        )
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


def _asking(dataset: Dataset, gallery: NDArray[np.int64], protocol: Protocol) -> NDArray[np.int64]:
    """Rows of the pictures that ask."""
    catalog = dataset.catalog
    if protocol.queries == "apart":
        if dataset.queries is None:
            raise UserError(
                f"{protocol.name} asks with pictures that are kept out of the gallery, but these data name none: "
                "read data whose authors do, see `fm-bench list protocols`."
            )
        return dataset.queries
    if protocol.queries == "street":
        rows = catalog.rows(Split.TEST)
        return np.asarray(rows[catalog.domain[rows] == Domain.STREET])
    return np.asarray(gallery[catalog.split[gallery] == Split.TEST])  # a gallery may hold training pictures, too


def _published(dataset: Dataset, limit: int | None) -> Requests:
    """The requests that came with the data, in their order."""
    requests = dataset.requests
    if requests is None or not len(requests):
        raise UserError(
            "no requests were published with these data: read data that come with some, see `fm-bench list protocols`."
        )
    return requests if limit is None else requests.select(np.arange(min(limit, len(requests))))


def limit_of(config: EvaluationConfig, protocol: Protocol) -> int | None:
    """At most so many requests of a protocol are asked: its own number, or that of the run's configuration."""
    own = protocol.requests
    if own is None:
        return config.requests
    number = own if isinstance(own, int) else None
    return min(number or config.requests, config.requests) if config.shrink else number


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
    dataset: Dataset,
    gallery: NDArray[np.int64],
    config: EvaluationConfig,
    readable: Callable[[Requests], Requests] | None = None,
) -> tuple[dict[str, Question], list[str]]:
    """The requests of every protocol, and a sentence for each protocol that the data cannot answer, or only partly.

    Args:
        dataset: whose test split is asked about.
        gallery: ``(N,)`` catalogue rows that are searched.
        config: what is asked.
        readable: leaves requests out whose pictures cannot be read.

    Raises:
        UserError: if there are protocols that search, and none of them has a feasible request.
    """
    asked: dict[str, Question] = {}
    problems: dict[str, str] = {}
    told: list[str] = []
    for protocol in _fitting(config, len(gallery)):
        try:
            requests = ask(dataset, gallery, protocol, limit_of(config, protocol))
        except UserError as error:
            problems[protocol.name] = f"{protocol.name}: {error}"
            continue
        kept = requests if readable is None else readable(requests)
        if len(kept) < len(requests):
            told.append(f"{protocol.name}: {len(requests) - len(kept):,} requests are on unreadable pictures.")
        if len(kept):
            asked[protocol.name] = Question(protocol, kept)
    if problems and not asked:
        raise UserError(next(iter(problems.values())))
    told = [problem for name, problem in problems.items() if name in config.protocols] + told
    if dataset.searched is not None and len(gallery) < len(dataset.searched):
        told.append(f"{len(dataset.searched) - len(gallery):,} images are unreadable and not searched.")
    return asked, told


def check_protocols(config: EvaluationConfig, dataset: Dataset) -> None:
    """Raises UserError, before any training, if a protocol looks deeper than the gallery is large.

    The same holds if no protocol finds a feasible request among the labels, or one finds fewer than it must ask.
    """
    rows, size = gallery_of(dataset), gallery_size(config, dataset)
    problems = []
    protocols = _fitting(config, size)
    for protocol in protocols:
        if protocol.depth >= size:  # the query's own picture is left out
            raise UserError(
                f"protocol {protocol.name!r} looks at k = {protocol.depth} images, but the gallery has {size}: "
                "give a larger test split or gallery."
            )
        try:
            _check_number(config, protocol, ask(dataset, rows, protocol, _probe(config, protocol)))
        except UserError as error:
            problems.append(error)
    if protocols and len(problems) == len(protocols):
        raise problems[0]


def _probe(config: EvaluationConfig, protocol: Protocol) -> int:
    """How many requests are enough to know that there are enough."""
    return protocol.requests if isinstance(protocol.requests, int) and not config.shrink else 1


def _check_number(config: EvaluationConfig, protocol: Protocol, requests: Requests) -> None:
    if len(requests) < _probe(config, protocol):
        raise UserError(
            f"{protocol.name} asks {protocol.requests:,} requests, but these data allow {len(requests):,}: get all of "
            "the data, or try it out with --profile smoke."
        )


def _fitting(config: EvaluationConfig, gallery: int) -> list[Protocol]:
    """The run's protocols that search; where it shrinks a paper's, their cut-offs end before the gallery does."""
    protocols = retrieval(config.every)
    if not config.shrink:
        return protocols
    return [protocol.within(gallery - 1) if protocol.exact else protocol for protocol in protocols]


def gallery_size(config: EvaluationConfig, dataset: Dataset) -> int:
    """Images of the gallery that a run searches."""
    rows = gallery_of(dataset)
    exactly = dataset.searched is not None or config.gallery is None
    return len(rows) if exactly else min(len(rows), config.gallery or 0)
