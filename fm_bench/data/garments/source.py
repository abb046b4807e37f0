# SPDX-License-Identifier: MIT
"""Pictures of the garments, drawn when they are asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fm_bench.attributes import MISSING
from fm_bench.catalog import Domain, Split, UnreadableImageError
from fm_bench.data.garments import render, silhouette
from fm_bench.data.garments.canvas import Part
from fm_bench.data.garments.looks import ITEM, STREET, VIEW
from fm_bench.data.garments.sampling import item_labels
from fm_bench.data.garments.style import Style, style
from fm_bench.data.garments.tones import part_colours
from fm_bench.data.garments.vocabulary import COLLAR, COLOUR, COLOURS, SCHEMA, SLEEVE
from fm_bench.data.streams import keys, uniforms
from fm_bench.errors import UserError
from fm_bench.files import digest

_CHUNK = 20_000  # rows whose outlines are held at once


@dataclass(eq=False)
class GarmentSource:
    """The catalogue's rows and a renderer for them; small enough to send to every worker process.

    Row ``i`` of a split shows the same garment whatever the sizes of the splits are.

    Args:
        counts: number of pictures of the training, validation and test split.
        seed: another seed is another catalogue.
        views: items have one to this many pictures.
        street: share of pictures taken in the street; an item's first picture is always from the shop.

    Raises:
        UserError: if a count is negative, or ``street`` is more than there are further pictures of items.
    """

    counts: tuple[int, int, int]
    seed: int = 0
    views: int = 3
    street: float = 0.0
    split: NDArray[np.int8] = field(init=False, repr=False)
    number: NDArray[np.int64] = field(init=False, repr=False)
    item: NDArray[np.int64] = field(init=False, repr=False)
    view: NDArray[np.int64] = field(init=False, repr=False)
    domain: NDArray[np.int8] = field(init=False, repr=False)
    true_labels: NDArray[np.int16] = field(init=False, repr=False)
    """``(N, A)`` labels that the pictures are drawn from, none missing or wrong."""

    digest: str = field(init=False)
    """Changes with whatever can change a picture of a given name."""
    schema: ClassVar = SCHEMA

    def __post_init__(self) -> None:
        if min(self.counts) < 0 or self.views < 1:
            raise UserError(
                f"garments were asked with {self.counts} pictures and {self.views} views: "
                "give counts of 0 or more and at least 1 view."
            )
        later = 1 - 2 / (1 + self.views)
        if not 0 <= self.street <= later:
            raise UserError(
                f"street share {self.street} is outside 0 to {later:.2f}, the share of second and later views: "
                "ask for less or for more views."
            )
        self.digest = digest("garments", render.RENDERER, self.seed, self.views, self.street)
        chance = self.street / later if later else 0.0
        parts = [
            _layout(self.seed, split, count, self.views, chance)
            for split, count in zip(Split, self.counts, strict=True)
        ]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        for name, column in zip(("split", "number", "item", "view", "domain", "true_labels"), columns, strict=True):
            column.setflags(write=False)
            setattr(self, name, column)

    def __len__(self) -> int:
        return len(self.item)

    def name(self, index: int) -> str:
        """The picture's name in the catalogue, e.g. ``test/17``."""
        return f"{Split(int(self.split[index])).name.lower()}/{self.number[index]}"

    def names(self) -> NDArray[np.str_]:
        """All names, ``(N,)``."""
        splits = np.array([split.name.lower() for split in Split])
        return np.char.add(np.char.add(splits[self.split], "/"), self.number.astype(np.str_))

    def index(self, image: str) -> int:
        """The row of a picture's name. Raises UnreadableImageError if there is none."""
        split, _, number = image.partition("/")
        names = [s.name.lower() for s in Split]
        if split not in names or not number.isdigit() or int(number) >= self.counts[names.index(split)]:
            raise UnreadableImageError(f"there is no garment called {image!r}")
        return sum(self.counts[: names.index(split)]) + int(number)

    def read(self, image: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        """One picture, ``(height, width, 3)`` RGB, by its name. Raises UnreadableImageError if there is none."""
        return render.draw(self._subject(self.index(image)), size).picture

    def redraw(
        self, index: int | str, changes: Mapping[str, str], size: tuple[int, int] = (128, 128)
    ) -> NDArray[np.uint8]:
        """The same item in the same picture with some attributes changed, and nothing else.

        Args:
            index: row or name of the picture.
            changes: attribute name to value name.
            size: ``(height, width)``.

        Raises:
            UserError: for an unknown attribute or value, with the nearest names.
        """
        subject = self._subject(self._row(index))
        labels = subject.labels.copy()
        for attribute, value in changes.items():
            m = SCHEMA.attribute(attribute)
            labels[0, m] = SCHEMA.value(m, value)
        return render.draw(subject._replace(labels=labels), size).picture

    def parts(self, index: int | str, size: tuple[int, int]) -> dict[str, NDArray[np.bool_]]:
        """Where each part of the garment is visible: part name to ``(height, width)`` mask; masks do not overlap.

        Parts are torso, sleeves, collar, hood, pockets, trim (bands, belts, cuffs), neckline (the opening) and
        fastening; one that the garment does not have is an empty mask.
        """
        part = render.draw(self._subject(self._row(index)), size).part
        rows = np.minimum(((np.arange(size[0]) + 0.5) * len(part) / size[0]).astype(int), len(part) - 1)
        columns = np.minimum(((np.arange(size[1]) + 0.5) * len(part) / size[1]).astype(int), len(part) - 1)
        small = part[np.ix_(rows, columns)]
        return {kind.name.lower(): small == kind for kind in Part if kind is not Part.NOTHING}

    def part_colours(self, index: int | str) -> dict[str, str]:
        """Colour class of torso, sleeves and collar; the catalogue's attribute ``colour`` is the torso's."""
        row, names = self._row(index), list(COLOURS)
        sleeves, collar = self._part_colours(slice(row, row + 1))[0].tolist()
        return {
            "torso": names[int(self.true_labels[row, COLOUR])],
            "sleeves": names[sleeves],
            "collar": names[collar],
        }

    def region_colours(self) -> NDArray[np.int16]:
        """Colour labels of sleeves and collar of every picture, ``(N, 2)``; −1 where the garment has no such part.

        A sleeveless garment has no sleeves, even where it shows a raglan's yoke in their colour.
        """
        colours = [np.zeros((0, 2), np.int16)]
        colours += [self._part_colours(slice(start, start + _CHUNK)) for start in range(0, len(self), _CHUNK)]
        labels = self.true_labels
        absent = [
            labels[:, SLEEVE] == SCHEMA.value(SLEEVE, "sleeveless"),
            labels[:, COLLAR] == SCHEMA.value(COLLAR, "none"),
        ]
        return np.where(np.stack(absent, axis=1), MISSING, np.concatenate(colours)).astype(np.int16)

    def _part_colours(self, rows: slice) -> NDArray[np.int16]:
        item = style(keys(self.seed, "item", self.split[rows], self.item[rows]), ITEM)
        return np.stack(part_colours(self.true_labels[rows, COLOUR], item), axis=1)

    def boxes(self) -> NDArray[np.float32]:
        """True bounding boxes of all garments, ``(N, 4)``: left, top, right, bottom as shares of the picture."""
        boxes = [np.zeros((0, 4), np.float32)]
        for start in range(0, len(self), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            boxes.append(silhouette.boxes(self.true_labels[chunk], *self._styles(chunk)))
        return np.concatenate(boxes)

    def _row(self, index: int | str) -> int:
        if isinstance(index, str):
            return self.index(index)
        if not 0 <= index < len(self):
            raise UserError(f"garment {index} does not exist: there are rows 0 to {len(self) - 1}.")
        return int(index)

    def _styles(self, rows: slice) -> tuple[Style, Style]:
        split, item, view = self.split[rows], self.item[rows], self.view[rows]
        item_style = style(keys(self.seed, "item", split, item), ITEM)
        view_style = style(keys(self.seed, "view", split, item, view), VIEW, STREET, self.domain[rows] == Domain.STREET)
        return item_style, view_style

    def _subject(self, index: int) -> render.Subject:
        rows = slice(index, index + 1)
        clutter = keys(self.seed, "clutter", self.split[rows], self.item[rows], self.view[rows])
        street = bool(self.domain[index] == Domain.STREET)
        return render.Subject(self.true_labels[rows], *self._styles(rows), street, clutter)


def _layout(seed: int, split: int, count: int, views: int, street: float) -> tuple[NDArray[np.generic], ...]:
    """Columns of one split: split, number, item, view, domain, true labels."""
    items = np.arange(count, dtype=np.int64)
    per_item = 1 + np.floor(uniforms(keys(seed, "views", split, items), 1)[:, 0] * views).astype(np.int64)
    last = int(np.searchsorted(np.cumsum(per_item), count)) + 1
    item = np.repeat(items[:last], per_item[:last])[:count]
    first = np.repeat(np.cumsum(per_item[:last]) - per_item[:last], per_item[:last])[:count]
    view = np.arange(count, dtype=np.int64) - first
    outside = (view > 0) & (uniforms(keys(seed, "domain", split, item, view), 1)[:, 0] < street)
    domain = np.where(outside, Domain.STREET, Domain.SHOP).astype(np.int8)
    labels = item_labels(seed, split, items[:last])[item]
    return np.full(count, split, np.int8), np.arange(count, dtype=np.int64), item, view, domain, labels
