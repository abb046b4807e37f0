# SPDX-License-Identifier: MIT
"""The attributes of a catalogue: their values, one-hot codes, and the manipulation indicator."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_bench.errors import UserError, unknown
from fm_bench.files import digest

MISSING = -1
"""The label of an attribute that nobody annotated."""


@dataclass(frozen=True)
class AttributeSchema:
    """Ordered attributes, each with ordered values: ``A`` attributes, ``C`` values in all.

    Attribute ``m`` owns the columns ``offsets[m] : offsets[m + 1]`` of every ``(…, C)`` tensor.

    Args:
        names: attribute names, all different, in order.
        values: for each attribute its value names, all different, in order.

    Raises:
        UserError: if there is no attribute, one has no value, or a name is given twice.
    """

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.values):
            raise UserError(
                f"{len(self.names)} attribute names came with {len(self.values)} lists of values: give one list each."
            )
        if len(set(self.names)) != len(self.names):
            raise UserError(f"an attribute name is given twice in {list(self.names)}: name each attribute once.")
        for name, values in zip(self.names, self.values, strict=True):
            if not values:
                raise UserError(f"attribute {name!r} has no value left: leave it out or lower the minimum count.")
            if len(set(values)) != len(values):
                raise UserError(f"attribute {name!r} names a value twice: {list(values)}.")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each attribute, ``C_m``."""
        return tuple(len(values) for values in self.values)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First column of each attribute, and ``C`` as the last entry (length ``A + 1``)."""
        return (0, *np.cumsum(self.sizes).tolist())

    @property
    def num_attributes(self) -> int:
        """``A``."""
        return len(self.names)

    @property
    def num_values(self) -> int:
        """``C``, the number of values of all attributes together."""
        return self.offsets[-1]

    @cached_property
    def digest(self) -> str:
        """Changes with any name or order."""
        return digest(list(self.to_dict().items()))  # pairs, since the digest of a mapping forgets its order

    def to_dict(self) -> dict[str, list[str]]:
        """Plain ``{attribute: [value, …]}``, in order."""
        return {name: list(values) for name, values in zip(self.names, self.values, strict=True)}

    @classmethod
    def from_dict(cls, attributes: Mapping[str, Iterable[str]]) -> "AttributeSchema":
        """The inverse of ``to_dict``."""
        return cls(tuple(attributes), tuple(tuple(values) for values in attributes.values()))

    def attribute(self, name: str) -> int:
        """Position of an attribute. Raises UserError with the nearest names if there is none."""
        if name not in self.names:
            raise unknown("attribute", name, self.names)
        return self.names.index(name)

    def value(self, attribute: str | int, name: str) -> int:
        """Position of a value within its attribute. Raises UserError with the nearest names if there is none."""
        m = self.attribute(attribute) if isinstance(attribute, str) else attribute
        if name not in self.values[m]:
            raise unknown(f"value of {self.names[m]!r}", name, self.values[m])
        return self.values[m].index(name)

    def one_hot(self, labels: Tensor) -> Tensor:
        """``(…, A)`` integer labels to ``(…, C)`` float codes; a missing label leaves its block at zero."""
        labels = labels.long()
        columns = labels.clamp(min=0) + torch.tensor(self.offsets[:-1], device=labels.device)
        code = torch.zeros(*labels.shape[:-1], self.num_values, device=labels.device)
        return code.scatter_(-1, columns, (labels >= 0).to(code.dtype))

    def indicator(self, changes: Iterable[tuple[str | int, str | int]]) -> Tensor:
        """The manipulation indicator ``(C,)``: one at every wanted value, zero elsewhere.

        Args:
            changes: wanted ``(attribute, value)`` pairs, by name or position.

        Raises:
            UserError: if a name is unknown.
            IndexError: if a position does not exist.
        """
        indicator = torch.zeros(self.num_values)
        for attribute, value in changes:
            m = self.attribute(attribute) if isinstance(attribute, str) else attribute
            v = self.value(m, value) if isinstance(value, str) else value
            if not (0 <= m < self.num_attributes and 0 <= v < self.sizes[m]):
                raise IndexError(f"there is no value {v} of attribute {m}")
            indicator[self.offsets[m] + v] = 1
        return indicator

    def edit(self, labels: Tensor, indicator: Tensor) -> Tensor:
        """Target labels: ``labels (…, A)`` with every requested attribute set to its wanted value.

        Args:
            labels: integer labels, −1 where missing; a requested attribute is set even if it was missing.
            indicator: ``(…, C)``, at most one 1 per attribute.
        """
        blocks = torch.split(indicator, list(self.sizes), dim=-1)
        wanted = torch.stack([block.argmax(-1) for block in blocks], dim=-1)
        asked = torch.stack([block.amax(-1) > 0 for block in blocks], dim=-1)
        return torch.where(asked, wanted.to(labels.dtype), labels)

    def codes(self, labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """One integer per row of ``labels (N, A)``: equal codes mean equal label vectors, missing entries included.

        Raises:
            ValueError: if the schema has more label vectors than 64-bit integers.
        """
        if math.prod(size + 1 for size in self.sizes) > np.iinfo(np.int64).max:
            raise ValueError(
                f"{self.num_attributes} attributes of sizes {self.sizes} have more than 2^63 label vectors"
            )
        code = np.zeros(len(labels), dtype=np.int64)
        for m, size in enumerate(self.sizes):
            code *= size + 1
            code += labels[:, m].astype(np.int64) + 1
        return code
