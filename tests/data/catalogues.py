# SPDX-License-Identifier: MIT
"""Small catalogues and a picture source for tests of the data layer."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_bench.attributes import AttributeSchema
from fm_bench.catalog import Catalog, Dataset, UnreadableImageError


def schema(sizes: tuple[int, ...]) -> AttributeSchema:
    return AttributeSchema(
        tuple(f"a{m}" for m in range(len(sizes))),
        tuple(tuple(f"a{m}v{i}" for i in range(n)) for m, n in enumerate(sizes)),
    )


def catalogue(labels: Any, sizes: tuple[int, ...], split: Any = None, domain: Any = None) -> Catalog:
    labels = np.asarray(labels, dtype=np.int16).reshape(-1, len(sizes))
    index = np.arange(len(labels))
    zeros = np.zeros(len(labels), np.int8)
    split = zeros + 2 if split is None else np.asarray(split, np.int8)
    domain = zeros if domain is None else np.asarray(domain, np.int8)
    return Catalog(schema(sizes), index.astype(np.str_), labels, index, split, domain)


def values(catalog: Catalog, name: str) -> list[str | None]:
    """What each row shows of one attribute; None is missing."""
    m = catalog.schema.attribute(name)
    return [None if code < 0 else catalog.schema.values[m][code] for code in catalog.labels[:, m].tolist()]


def random_labels(rows: int, sizes: tuple[int, ...], missing: float, seed: int) -> NDArray[np.int16]:
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(size, size=rows) for size in sizes], axis=1)
    return np.where(rng.random(labels.shape) < missing, -1, labels).astype(np.int16)


@dataclass
class Noise:
    """Picture ``"7"`` is noise that is fixed by its number; remembers what was read in this process."""

    unreadable: tuple[int, ...] = ()
    digest: str = "noise"
    seen: set[int] = field(default_factory=set)

    def read(self, image: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        number = int(image)
        self.seen.add(number)
        if number in self.unreadable:
            raise UnreadableImageError("truncated JPEG")
        return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def dataset(
    counts: tuple[int, int, int] = (120, 60, 80),
    *,
    sizes: tuple[int, ...] = (3, 2, 4),
    missing: float = 0.1,
    unreadable: tuple[int, ...] = (),
    street: float = 0.0,
    seed: int = 0,
) -> Dataset:
    """Pictures of the three splits, shuffled."""
    rng = np.random.default_rng(seed)
    split = rng.permutation(np.repeat([0, 1, 2], counts))
    domain = rng.random(len(split)) < street
    labels = random_labels(len(split), sizes, missing, seed)
    return Dataset(catalogue(labels, sizes, split, domain), Noise(unreadable, digest=f"noise {unreadable}"))
