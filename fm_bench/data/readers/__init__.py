# SPDX-License-Identifier: MIT
"""Readers: files as their authors distribute them, to a catalogue and its pictures."""

from typing import ClassVar, Literal, Protocol

from fm_bench.catalog import Dataset
from fm_bench.data.garments import GarmentsReader
from fm_bench.data.readers.darn import DarnReader
from fm_bench.data.readers.deepfashion import DeepFashionReader
from fm_bench.data.readers.deepfashion_c2s import ConsumerToShopReader
from fm_bench.data.readers.deepfashion_inshop import InShopReader
from fm_bench.data.readers.fashion_iq import FashionIqReader
from fm_bench.data.readers.fashion_product import FashionProductReader
from fm_bench.data.readers.shopping100k import Shopping100kReader
from fm_bench.data.readers.table import TableReader


class Reader(Protocol):
    """One kind of data set; the typed ``__init__`` of a class is its command line (``--data.root PATH`` …)."""

    name: ClassVar[str]
    aspect: ClassVar[float]
    """Height over width at which its pictures are shown to methods."""

    @property
    def on_error(self) -> Literal["fail", "skip"]:
        """What happens to pictures that cannot be read."""
        ...

    def read(self) -> Dataset:
        """The catalogue, its pictures and what was noticed. Raises UserError for everything a user can mend."""
        ...


READERS: dict[str, type[Reader]] = {
    GarmentsReader.name: GarmentsReader,
    FashionProductReader.name: FashionProductReader,
    Shopping100kReader.name: Shopping100kReader,
    DarnReader.name: DarnReader,
    FashionIqReader.name: FashionIqReader,
    TableReader.name: TableReader,
    DeepFashionReader.name: DeepFashionReader,
    InShopReader.name: InShopReader,
    ConsumerToShopReader.name: ConsumerToShopReader,
}
