# SPDX-License-Identifier: MIT
"""The catalogue: one immutable, columnar table of images with their labels."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fm_bench.attributes import MISSING, AttributeSchema
from fm_bench.errors import UnreadableImageError as UnreadableImageError
from fm_bench.errors import UserError
from fm_bench.files import Array, digest, replacing

if TYPE_CHECKING:
    from fm_bench.data.regions import Regions
    from fm_bench.data.requests import Requests


class Split(IntEnum):
    """Which part of the protocol an image belongs to."""

    TRAIN = 0
    VAL = 1
    TEST = 2


class Domain(IntEnum):
    """Where a picture was taken: clean catalogue photo or customer's photo."""

    SHOP = 0
    STREET = 1


@dataclass(frozen=True, eq=False)
class Catalog:
    """``N`` images and what is known of them.

    Args:
        schema: the attributes.
        image: ``(N,)`` strings by which the image source finds each picture (a path below the root, say).
        labels: ``(N, A)`` int16, −1 where missing.
        item: ``(N,)`` int64; images of the same product share it.
        split: ``(N,)`` int8 of ``Split``.
        domain: ``(N,)`` int8 of ``Domain``.
        box: ``(N, 4)`` float32 of left, top, right, bottom as shares of width and height in [0, 1], or None.

    Raises:
        UserError: on columns of different lengths, labels outside the schema, or an unknown split or domain.
    """

    schema: AttributeSchema
    image: NDArray[np.str_]
    labels: NDArray[np.int16]
    item: NDArray[np.int64]
    split: NDArray[np.int8]
    domain: NDArray[np.int8]
    box: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        columns: list[Array] = [self.labels, self.item, self.split, self.domain]
        columns += [] if self.box is None else [self.box]
        lengths = {len(self.image), *(len(column) for column in columns)}
        if len(lengths) != 1:
            raise UserError(
                f"the catalogue's columns have different lengths {sorted(lengths)}: give one row per image."
            )
        if self.labels.shape[1:] != (self.schema.num_attributes,):
            raise UserError(
                f"labels have shape {self.labels.shape} but there are {self.schema.num_attributes} attributes."
            )
        for m, name in enumerate(self.schema.names):
            given = self.labels[:, m]
            if len(given) and (given.min() < MISSING or given.max() >= self.schema.sizes[m]):
                raise UserError(
                    f"attribute {name!r} has labels from {given.min()} to {given.max()}, "
                    f"but only -1 (missing) to {self.schema.sizes[m] - 1} exist."
                )
        kinds: tuple[tuple[str, type[IntEnum], NDArray[np.int8]], ...]
        kinds = (("split", Split, self.split), ("domain", Domain, self.domain))
        for name, kind, codes in kinds:
            if len(codes) and not np.isin(codes, list(kind)).all():
                raise UserError(
                    f"column {name!r} holds {sorted(set(codes.tolist()))}, but only {[int(k) for k in kind]} exist."
                )
        if self.box is not None and self.box.shape[1:] != (4,):
            raise UserError(f"boxes have shape {self.box.shape}: give left, top, right and bottom of every image.")
        for column in [self.image, *columns]:
            column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.image)

    @cached_property
    def digest(self) -> str:
        """Changes with any label, name, order, item or split."""
        return digest(
            self.schema.digest, self.image.tolist(), self.labels, self.item, self.split, self.domain, self.box
        )

    def rows(self, *splits: Split) -> NDArray[np.int64]:
        """Row numbers of the given splits, ascending."""
        return np.flatnonzero(np.isin(self.split, splits)).astype(np.int64)

    def select(self, rows: NDArray[np.int64]) -> "Catalog":
        """A catalogue of the given rows, in the given order."""
        box = None if self.box is None else self.box[rows]
        return Catalog(
            self.schema,
            self.image[rows],
            self.labels[rows],
            self.item[rows],
            self.split[rows],
            self.domain[rows],
            box,
        )

    def save(self, path: Path) -> None:
        """Writes one Parquet file, whole or not at all."""
        columns: dict[str, Any] = {"image": pa.array(self.image.tolist(), pa.string())}
        for m, name in enumerate(self.schema.names):
            columns[f"label:{name}"] = pa.array(self.labels[:, m])
        columns |= {"item": pa.array(self.item), "split": pa.array(self.split), "domain": pa.array(self.domain)}
        if self.box is not None:
            columns |= {
                f"box:{side}": pa.array(self.box[:, i]) for i, side in enumerate(("left", "top", "right", "bottom"))
            }
        table = pa.table(columns).replace_schema_metadata({"fm_bench": json.dumps(self.schema.to_dict())})
        with replacing(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def load(cls, path: Path) -> "Catalog":
        """Reads what ``save`` wrote, memory-mapped. Raises UserError if the file is missing or something else."""
        try:
            table = pq.read_table(path, memory_map=True)
            schema = AttributeSchema.from_dict(json.loads(table.schema.metadata[b"fm_bench"]))
            labels = np.stack([table[f"label:{name}"].to_numpy() for name in schema.names], axis=1).astype(np.int16)
            sides = [f"box:{side}" for side in ("left", "top", "right", "bottom")]
            box = (
                np.stack([table[side].to_numpy() for side in sides], axis=1) if sides[0] in table.column_names else None
            )
            image = np.asarray(table["image"].to_pylist(), dtype=np.str_)
            item, split, domain = (np.array(table[name].to_numpy()) for name in ("item", "split", "domain"))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:  # Arrow's own errors are ValueErrors
            raise UserError(f"{path} is not a catalogue of fm_bench ({error}): prepare the data again.") from error
        return cls(schema, image, labels, item, split, domain, box)


class ImageSource(Protocol):
    """Where pictures come from: files below a root, or a renderer."""

    digest: str
    """Changes whenever any pixel can: renderer version and seed, or the files' names, sizes and times."""

    def read(self, image: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """One picture as ``(height, width, 3)`` RGB.

        Raises:
            UnreadableImageError: if the picture is missing, damaged or not an image.
        """
        ...


class Dataset(NamedTuple):
    """What a reader gives: the catalogue, its pictures, and what was noticed while reading."""

    catalog: Catalog
    source: ImageSource
    notes: tuple[str, ...] = ()
    regions: "Regions | None" = None  # labels of parts of the garments, where they are known
    queries: NDArray[np.int64] | None = None  # rows of the test split that its authors ask with, and never search
    requests: "Requests | None" = None  # what its authors ask, where they published it
    searched: NDArray[np.int64] | None = None  # rows that are searched, where a protocol says exactly which


def gallery_of(dataset: Dataset) -> NDArray[np.int64]:
    """``(N,)`` ascending rows of the gallery: what a shop has on offer, and nobody asks with.

    Those are the shop photos of the test split that are not among ``queries``, unless ``searched`` says otherwise.
    """
    if dataset.searched is not None:
        return dataset.searched
    rows = dataset.catalog.rows(Split.TEST)
    rows = rows[dataset.catalog.domain[rows] == Domain.SHOP]
    return rows if dataset.queries is None else np.setdiff1d(rows, dataset.queries)


def check_splits(catalog: Catalog, where: str, splits: Iterable[Split] = Split) -> None:
    """Raises UserError if one of ``splits`` has no image; ``where`` names the data in the message."""
    for split in splits:
        if not (catalog.split == split).any():
            raise UserError(
                f"{where} has no image in the {split.name.lower()} split: "
                "give it images or choose another split column."
            )
