# SPDX-License-Identifier: MIT
"""Region-specific requests: "the sleeves in green", where a catalogue knows the colours of a garment's parts.

What a part looks like becomes one more attribute of an extended catalogue ("colour of sleeves"). A request that changes
it is mined and judged like any other: a hit has the asked colour in the asked region, the same colour as before in the
other region, and every other label unchanged. What a method is told is the wanted value of the plain attribute, and
which region is meant.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Dataset
from fm_bench.data.requests import Requests
from fm_bench.errors import UserError

REGIONS = ("torso", "sleeves", "collar")
"""Regions of a garment that a request may name. The torso's colour is what the plain attribute labels."""

WHOLE = -1
"""The region of a request that speaks of the whole garment."""


@dataclass(frozen=True, eq=False)
class Regions:
    """Labels of one attribute in ``R`` regions of each of ``N`` images.

    Args:
        attribute: name of the attribute, which itself labels the torso.
        names: the regions, each one of ``REGIONS`` but not the torso.
        labels: ``(N, R)`` int16, values of the attribute; −1 where the garment has no such region.

    Raises:
        UserError: if a region is unknown or there is not one column of labels for each.
    """

    attribute: str
    names: tuple[str, ...]
    labels: NDArray[np.int16]

    def __post_init__(self) -> None:
        if not set(self.names) <= set(REGIONS[1:]) or self.labels.shape[1:] != (len(self.names),):
            raise UserError(
                f"regions {list(self.names)} came with labels of shape {self.labels.shape}: "
                f"give one column for each, and name them as in {list(REGIONS[1:])}."
            )
        self.labels.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: NDArray[np.int64]) -> "Regions":
        """The labels of the given images, in the given order."""
        return Regions(self.attribute, self.names, self.labels[rows])

    def extend(self, catalog: Catalog) -> Catalog:
        """The catalogue with one more attribute per region, after its own: "colour of sleeves", "colour of collar".

        Raises:
            UserError: if the catalogue has other images, lacks the attribute or already has the new ones.
        """
        if len(catalog) != len(self):
            raise UserError(
                f"the labels of regions are those of {len(self)} images, but the catalogue has {len(catalog)}: "
                "select the same rows of both."
            )
        schema = self.extended_schema(catalog.schema)
        labels = np.concatenate([catalog.labels, self.labels], axis=1)
        return Catalog(schema, catalog.image, labels, catalog.item, catalog.split, catalog.domain, catalog.box)

    def extended_schema(self, schema: AttributeSchema) -> AttributeSchema:
        """The schema of the extended catalogue."""
        values = schema.values[schema.attribute(self.attribute)]
        extra = tuple(f"{self.attribute} of {name}" for name in self.names)
        return AttributeSchema(schema.names + extra, schema.values + (values,) * len(extra))

    def attributes(self, schema: AttributeSchema) -> Sequence[int]:
        """Positions of the regions' attributes in the extension of ``schema``: what ``mine`` may change."""
        return range(schema.num_attributes, schema.num_attributes + len(self.names))

    def asked(self, requests: Requests, positions: Any) -> tuple[Tensor, Tensor]:
        """What a method is told of requests that are written in the extended schema.

        Args:
            requests: with at most one change each.
            positions: ``(B,)``, which of them.

        Returns:
            The indicator ``(B, C)`` in the schema without the regions, a region's value being a value of the plain
            attribute; and the region ``(B,)`` int64, its position in ``REGIONS`` or −1 for the whole garment.

        Raises:
            ValueError: if a request changes two attributes: one indicator could not tell which region gets what.
        """
        if (requests.changes[positions] > 1).any():
            raise ValueError("a region-specific request changes one attribute")
        schema = self._plain(requests.schema)
        A, plain = schema.num_attributes, schema.attribute(self.attribute)
        attribute = requests.attribute[positions, 0].astype(np.int64)
        value = requests.value[positions, 0].astype(np.int64)
        codes = np.array([REGIONS.index(name) for name in self.names])
        inside = attribute >= A
        region = np.where(inside, codes[(attribute - A).clip(min=0)], WHOLE)
        wanted = np.full((len(attribute), A), -1, dtype=np.int64)
        row = np.flatnonzero(attribute >= 0)
        wanted[row, np.where(inside, plain, attribute)[row]] = value[row]
        region[attribute == plain] = REGIONS.index("torso")
        return schema.one_hot(torch.from_numpy(wanted)), torch.from_numpy(region.astype(np.int64))

    def _plain(self, extended: AttributeSchema) -> AttributeSchema:
        """The schema before the regions were added."""
        count = extended.num_attributes - len(self.names)
        schema = AttributeSchema(extended.names[:count], extended.values[:count])
        if self.extended_schema(schema) != extended:
            raise ValueError(f"the requests' attributes {extended.names} do not end with those of {self.names}")
        return schema


def regions_of(dataset: Dataset) -> Regions:
    """What is known of parts of garments. Raises UserError if nothing is."""
    if dataset.regions is None:
        raise UserError("these data say nothing about parts of garments: ask about regions on garments.")
    return dataset.regions
