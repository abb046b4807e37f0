# SPDX-License-Identifier: MIT
"""Requests: which picture, what to change, and what the answer must look like.

A request is feasible if the gallery holds an image, other than the query's own, that matches the target on every
labelled entry. Mining finds all feasible requests exactly and draws from them with a seed.
"""

import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.attributes import MISSING, AttributeSchema
from fm_bench.catalog import Catalog, Split
from fm_bench.data.neighbours import counting, neighbours, unique_vectors
from fm_bench.data.streams import keys
from fm_bench.errors import UserError
from fm_bench.files import digest, replacing

MAX_CHANGES = 2
"""The most attributes that one request changes."""

MIN_LABELLED = 2
"""A query needs this many labelled attributes."""

FIRST_CHUNK = 1024
"""Query images mined at once, at least; how many more are needed is guessed from the share that had a request."""

PROJECT_FROM = 32
"""From this many pictures with the same labelled attributes on, finding distinct gallery vectors pays (measured)."""


_SAME_ITEM = 3  # beside the numbers of changes 0, 1, 2 in the seed of a draw


@dataclass(frozen=True, eq=False)
class Requests:
    """``R`` requests on the pictures of one catalogue.

    Args:
        schema: the attributes.
        query: ``(R,)`` int64, catalogue row of each picture.
        attribute: ``(R, 2)`` int16, the changed attributes in ascending order, −1 where there is none.
        value: ``(R, 2)`` int16, the wanted values, −1 where there is none.
        target: ``(R, A)`` int16, the query's labels with the request applied, −1 where missing.

    Raises:
        UserError: if the arrays do not fit each other or the schema.
    """

    schema: AttributeSchema
    query: NDArray[np.int64]
    attribute: NDArray[np.int16]
    value: NDArray[np.int16]
    target: NDArray[np.int16]

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise UserError(f"the requests do not fit their schema ({problem}): mine them again.")
        for array in (self.query, self.attribute, self.value, self.target):
            array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.query)

    @property
    def changes(self) -> NDArray[np.int64]:
        """``(R,)``, the number of changed attributes of each request: 0, 1 or 2."""
        count: NDArray[np.int64] = (self.attribute >= 0).sum(axis=1)
        return count

    @property
    def changing(self) -> dict[str, NDArray[np.bool_]]:
        """Which requests change an attribute, ``(R,)``, for each attribute that some request changes."""
        found = {name: (self.attribute == m).any(axis=1) for m, name in enumerate(self.schema.names)}
        return {name: of for name, of in found.items() if of.any()}

    @cached_property
    def digest(self) -> str:
        """Changes with any request, their order, or the schema."""
        return digest(self.schema.digest, self.query, self.attribute, self.value, self.target)

    def indicator(self, positions: Any) -> Tensor:
        """The manipulation indicators ``(B, C)`` of the requests at ``positions (B,)``: ones at the wanted values."""
        attribute, value = self.attribute[positions], self.value[positions]
        wanted = np.full((len(attribute), self.schema.num_attributes), MISSING, dtype=np.int64)
        row, change = np.nonzero(attribute >= 0)
        wanted[row, attribute[row, change]] = value[row, change]
        return self.schema.one_hot(torch.from_numpy(wanted))

    def select(self, positions: Any) -> "Requests":
        """The requests at ``positions``, in that order."""
        arrays = (self.query, self.attribute, self.value, self.target)
        return Requests(self.schema, *(array[positions] for array in arrays))

    def save(self, path: Path) -> None:
        """Writes one ``.npz`` without pickles, whole or not at all, with the digest inside."""
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                schema=np.array(json.dumps(self.schema.to_dict())),
                digest=np.array(self.digest),
                query=self.query,
                attribute=self.attribute,
                value=self.value,
                target=self.target,
            )

    @classmethod
    def load(cls, path: Path) -> "Requests":
        """Reads what ``save`` wrote. Raises UserError if the file is missing, damaged or something else."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                schema = AttributeSchema.from_dict(json.loads(arrays["schema"].item()))
                columns = [arrays[name] for name in ("query", "attribute", "value", "target")]
                stated = str(arrays["digest"].item())
            requests = cls(schema, *columns)
        except (OSError, ValueError, KeyError, AttributeError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is not a request file of fm_bench ({error}): mine the requests again.") from error
        if requests.digest != stated:
            raise UserError(f"{path} was changed after it was written (its digest differs): mine the requests again.")
        return requests


def join(parts: Sequence[Requests]) -> Requests:
    """The requests of all ``parts`` (at least one, all of the same schema), one part after the other."""
    columns = zip(*((part.query, part.attribute, part.value, part.target) for part in parts), strict=True)
    return Requests(parts[0].schema, *(np.concatenate(column) for column in columns))


def mine(
    catalog: Catalog,
    queries: NDArray[np.int64],
    gallery: NDArray[np.int64],
    *,
    changes: int,
    limit: int | None,
    cap: int | None = 4,
    seed: int,
    attributes: Sequence[int] | None = None,
) -> Requests:
    """Draws feasible requests that change ``changes`` attributes.

    Queries are images with at least two labelled attributes. A target keeps all their labels but the changed ones,
    which are labelled attributes too; a gallery image without a label matches nothing. Every feasible request of a
    picture is equally likely to be drawn. The requests come in the order of drawing: first one of every picture, in
    shuffled order, then a second one of every picture that has two, and so on; so they spread over as many pictures as
    there are, and a smaller ``limit`` gives the beginning of a larger one.

    Args:
        catalog: the catalogue.
        queries: rows of the pictures that may be asked about; their order does not matter.
        gallery: rows of the images that are searched; their order does not matter.
        changes: 0 (target: the query's own labels), 1 or 2.
        limit: at most this many requests; None for all.
        cap: at most this many requests of one picture; None for all.
        seed: of the draw.
        attributes: positions of the attributes that may be changed; None for all.

    Raises:
        UserError: if no request is feasible.
        ValueError: if ``changes`` is none of 0, 1, 2.
    """
    if changes not in range(MAX_CHANGES + 1):
        raise ValueError(f"changes must be 0, 1 or 2, not {changes}")
    pool = np.unique(queries)
    pool = pool[(catalog.labels[pool] != MISSING).sum(axis=1) >= MIN_LABELLED]
    pool = np.random.default_rng([seed, changes]).permutation(pool)
    miner = _Miner(catalog, np.unique(gallery), changes, cap, seed, attributes)
    found: list[_Drawn] = []
    asked, begin, step = 0, 0, len(pool) if limit is None else max(FIRST_CHUNK, limit)
    while begin < len(pool) and (limit is None or asked < limit):
        drawn = miner.draw(pool[begin : begin + step])
        asked += int((drawn.rank == 0).sum())
        found.append(drawn._replace(query=drawn.query + begin))
        begin += step
        missing = (limit or 0) - asked
        step = max(FIRST_CHUNK, min(8 * begin, math.ceil(1.1 * missing * begin / max(asked, 1))))
    if not asked:
        raise UserError(
            f"no feasible {changes}-attribute request in {_where(catalog, gallery)} of {len(gallery)} images: "
            "give it more images or fewer attributes, so that labels repeat."
        )
    query, rank, columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    chosen = np.lexsort((*columns.T[::-1], query, rank))[:limit]
    return _requests(catalog, pool[query[chosen]], columns[chosen], changes)


def same_item(
    catalog: Catalog, queries: NDArray[np.int64], gallery: NDArray[np.int64], *, limit: int | None, seed: int
) -> Requests:
    """Requests that look for other pictures of the item they show, and change nothing.

    Args:
        catalog: the catalogue.
        queries: rows of the pictures that may be asked about; their order does not matter.
        gallery: rows of the images that are searched.
        limit: at most this many requests, a smaller number being the beginning of a larger one; None for all.
        seed: of the draw.

    Raises:
        UserError: if no query's item has another picture in the gallery.
    """
    pool, found = np.unique(queries), np.unique(gallery)
    items, pictures = np.unique(catalog.item[found], return_counts=True)
    place = np.searchsorted(items, catalog.item[pool]).clip(max=max(len(items) - 1, 0))
    others = np.zeros(len(pool), dtype=np.int64)
    if len(items):
        others = np.where(items[place] == catalog.item[pool], pictures[place], 0) - np.isin(pool, found)
    pool = np.random.default_rng([seed, _SAME_ITEM]).permutation(pool[others > 0])[:limit]
    if not len(pool):
        raise UserError(
            f"no item of {len(np.unique(queries))} query pictures has another picture among the {len(gallery)} gallery "
            "images: instance search needs data with several pictures of an item (street photos beside shop photos)."
        )
    return _requests(catalog, pool, np.full((len(pool), MAX_CHANGES), -1), 0)


def exclusions(requests: Requests, gallery_rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """``(R,)`` positions of each query's own image in ``gallery_rows (N,)``, −1 where it is not in the gallery."""
    if not len(gallery_rows):
        return np.full(len(requests), -1, dtype=np.int64)
    order = np.argsort(gallery_rows)
    place = order[np.searchsorted(gallery_rows, requests.query, sorter=order).clip(max=len(order) - 1)]
    return np.where(gallery_rows[place] == requests.query, place, -1).astype(np.int64)


class _Drawn(NamedTuple):
    """Requests of a chunk of pictures."""

    query: NDArray[np.int64]  # position of the picture
    rank: NDArray[np.int64]  # 0 for the picture's first request, 1 for its second, …
    columns: NDArray[np.int64]  # (R, 2) wanted columns of the indicator in ascending order, −1 where there is none


class _Miner:
    """Feasible requests against one gallery."""

    def __init__(
        self,
        catalog: Catalog,
        gallery: NDArray[np.int64],
        changes: int,
        cap: int | None,
        seed: int,
        attributes: Sequence[int] | None,
    ) -> None:
        self.catalog, self.changes, self.cap, self.seed = catalog, changes, cap, seed
        self.attributes = range(catalog.schema.num_attributes) if attributes is None else attributes
        self.inside = np.zeros(len(catalog), dtype=np.bool_)
        self.inside[gallery] = True
        labels, _, self.counts = unique_vectors(catalog.labels[gallery])
        self.columns = np.ascontiguousarray(labels.T)
        self.labelled = self.columns != MISSING

    def draw(self, pictures: NDArray[np.int64]) -> _Drawn:
        """Up to ``cap`` requests of every picture in ``pictures`` (catalogue rows)."""
        labels = self.catalog.labels[pictures]
        patterns, pattern, _ = unique_vectors((labels != MISSING).astype(np.int16))
        order = np.argsort(pattern, kind="stable")
        parts = [_Drawn(*(np.empty(0, np.int64),) * 2, np.empty((0, 2), np.int64))]
        for kept, members in zip(patterns, np.split(order, np.cumsum(np.bincount(pattern))[:-1]), strict=True):
            parts += self._draw_pattern(np.flatnonzero(kept), members, pictures[members], labels[members])
        return _Drawn(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _draw_pattern(
        self,
        kept: NDArray[np.int64],
        positions: NDArray[np.int64],
        pictures: NDArray[np.int64],
        labels: NDArray[np.int16],
    ) -> Iterator[_Drawn]:
        """Requests of pictures that all have exactly the attributes ``kept`` labelled."""
        gallery, counts = self._project(kept, distinct=len(pictures) >= PROJECT_FROM)
        vectors = labels[:, kept]
        free = np.flatnonzero(np.isin(kept, self.attributes)).tolist()
        for member, other in neighbours(vectors, gallery, self.changes, free):
            if self.changes == 0:  # the picture itself matches its own labels but is no answer
                matches = np.bincount(member, weights=counts[other], minlength=len(pictures))
                feasible = (matches > self.inside[pictures])[member]
                member, other = member[feasible], other[feasible]
            columns = self._columns(vectors[member], gallery[other], kept)
            rank, chosen = self._cap(pictures[member], columns)
            yield _Drawn(positions[member[chosen]], rank, columns[chosen])

    def _project(self, kept: NDArray[np.int64], distinct: bool) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
        """Gallery vectors of the attributes ``kept``, where all of these are labelled, and how often each occurs."""
        usable = np.flatnonzero(np.logical_and.reduce(self.labelled[kept]))
        vectors, counts = np.stack([self.columns[m].take(usable) for m in kept]).T, self.counts[usable]
        if not distinct:
            return vectors, counts
        vectors, vector, _ = unique_vectors(vectors)
        return vectors, np.bincount(vector, weights=counts, minlength=len(vectors)).astype(np.int64)

    def _columns(
        self, query: NDArray[np.int16], other: NDArray[np.int16], kept: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Which columns of the indicator turn each query vector into the other one: ``(P, 2)``, −1 padded."""
        columns = np.full((len(query), MAX_CHANGES), -1, dtype=np.int64)
        if self.changes:
            differs = query != other
            offsets = np.asarray(self.catalog.schema.offsets)[kept]
            last = differs.shape[1] - 1 - differs[:, ::-1].argmax(axis=1)
            pairs = np.arange(len(query))
            for i, m in enumerate((differs.argmax(axis=1), last)[: self.changes]):
                columns[:, i] = offsets[m] + other[pairs, m]
        return columns

    def _cap(
        self, pictures: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ranks each picture's distinct requests at random and keeps the first ``cap``: the ranks, and which were kept.

        The random number of a request is a hash of seed, picture and request, so that no choice depends on how the
        work was divided.
        """
        key = keys(self.seed, "requests", pictures, *columns.T)
        order = np.lexsort((*columns.T, key, pictures))
        facts = np.column_stack((pictures, columns))[order]
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = (facts[1:] != facts[:-1]).any(axis=1)
        order = order[new]
        rank = counting(np.unique(facts[new, 0], return_counts=True)[1])
        keep = rank < (len(rank) if self.cap is None else self.cap)
        return rank[keep], order[keep]


def _requests(catalog: Catalog, query: NDArray[np.int64], columns: NDArray[np.int64], changes: int) -> Requests:
    offsets = np.asarray(catalog.schema.offsets)
    asked = columns >= 0
    attribute = np.where(asked, np.searchsorted(offsets, columns, side="right") - 1, -1)
    value = np.where(asked, columns - offsets[attribute], -1)
    target = catalog.labels[query].astype(np.int16)
    row = np.arange(len(query))
    for i in range(changes):
        target[row, attribute[:, i]] = value[:, i]
    return Requests(catalog.schema, query, attribute.astype(np.int16), value.astype(np.int16), target)


def _where(catalog: Catalog, rows: NDArray[np.int64]) -> str:
    splits = np.unique(catalog.split[rows])
    return f"the {Split(int(splits[0])).name.lower()} split" if len(splits) == 1 else "the gallery"


def _problem(requests: Requests) -> str:
    """What is wrong with the arrays, or nothing."""
    count, schema = len(requests.query), requests.schema
    shapes: dict[str, tuple[NDArray[Any], tuple[int, ...], type[np.integer[Any]]]] = {
        "query": (requests.query, (count,), np.int64),
        "attribute": (requests.attribute, (count, MAX_CHANGES), np.int16),
        "value": (requests.value, (count, MAX_CHANGES), np.int16),
        "target": (requests.target, (count, schema.num_attributes), np.int16),
    }
    for name, (array, shape, dtype) in shapes.items():
        if array.shape != shape or array.dtype != dtype:
            return f"{name} is {array.dtype} of shape {array.shape}, not {np.dtype(dtype)} of shape {shape}"
    attribute, value, target = requests.attribute, requests.value, requests.target
    sizes = np.asarray(schema.sizes)
    if count == 0:
        return ""
    if requests.query.min() < 0:
        return "a query row is negative"
    if (target < MISSING).any() or (target >= sizes).any():
        return "a target label is outside its attribute's values"
    if (attribute < -1).any() or (attribute >= len(sizes)).any() or ((attribute < 0) != (value < 0)).any():
        return "a changed attribute does not exist or lacks its value"
    if ((attribute[:, 1] >= 0) & ((attribute[:, 0] < 0) | (attribute[:, 0] >= attribute[:, 1]))).any():
        return "changed attributes are not in ascending order"
    row, change = np.nonzero(attribute >= 0)
    if (target[row, attribute[row, change]] != value[row, change]).any():
        return "a target does not hold a wanted value"
    return ""
