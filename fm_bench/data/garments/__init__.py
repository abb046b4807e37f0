# SPDX-License-Identifier: MIT
"""The embedded default: a catalogue of garments that are drawn from numbers, so that nothing needs a download."""

from typing import ClassVar, Literal

import numpy as np

from fm_bench.catalog import Catalog, Dataset
from fm_bench.data.garments.sampling import disturb
from fm_bench.data.garments.source import GarmentSource
from fm_bench.data.garments.vocabulary import COLOUR, SCHEMA
from fm_bench.data.regions import Regions
from fm_bench.data.streams import keys
from fm_bench.errors import UserError

__all__ = ["SCHEMA", "GarmentSource", "GarmentsReader"]

_ITEMS_PER_SPLIT = 10**9  # item numbers of different splits never meet


class GarmentsReader:
    """Reads the drawn catalogue.

    Args:
        train: pictures to train on.
        val: pictures of the validation split.
        test: pictures of the test split, the gallery; growing it changes no other picture.
        seed: another seed is another catalogue.
        missing: share of labels that nobody annotated.
        wrong: share of labels that are annotated wrongly.
        street: share of pictures taken in the street.
        views: items have one to this many pictures.

    Raises:
        UserError: if a share is outside [0, 1] or a number is negative.
    """

    name: ClassVar[str] = "garments"
    aspect: ClassVar[float] = 1.0
    on_error: Literal["fail", "skip"] = "fail"

    def __init__(
        self,
        train: int = 8000,
        val: int = 500,
        test: int = 5000,
        seed: int = 0,
        missing: float = 0.0,
        wrong: float = 0.0,
        street: float = 0.0,
        views: int = 3,
    ) -> None:
        if min(missing, wrong) < 0 or missing + wrong > 1:
            raise UserError(
                f"missing {missing} and wrong {wrong} are not shares of one whole: "
                "give numbers from 0 that add up to at most 1."
            )
        self.missing, self.wrong = missing, wrong
        self.source = GarmentSource((train, val, test), seed, views, street)

    def read(self) -> Dataset:
        """The catalogue with its renderer; a few seconds for 200,000 pictures."""
        source = self.source
        labels = source.true_labels
        if self.missing or self.wrong:
            labels = disturb(
                labels, keys(source.seed, "annotation", source.split, source.item), self.missing, self.wrong
            )
        item = source.item + source.split.astype(np.int64) * _ITEMS_PER_SPLIT
        catalog = Catalog(SCHEMA, source.names(), labels, item, source.split, source.domain, source.boxes())
        regions = Regions(SCHEMA.names[COLOUR], ("sleeves", "collar"), source.region_colours())
        return Dataset(catalog, source, regions=regions)
