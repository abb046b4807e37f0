# SPDX-License-Identifier: MIT
"""Labels as real catalogues have them: long-tailed, correlated, many variations of few popular designs."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fm_bench.data.garments.vocabulary import ARCHETYPES, CATEGORY, FAVOURITES, MUTATION, SCHEMA, usual
from fm_bench.data.streams import keys, uniforms

_ZIPF_CATEGORY = 0.6
_ZIPF_ARCHETYPE = 0.9
_TAIL = 0.12
"""Share of draws that ignore what the category favours."""


def _zipf(count: int, exponent: float) -> NDArray[np.float64]:
    weights = 1.0 / np.arange(1, count + 1) ** exponent
    return np.asarray(weights / weights.sum())


@lru_cache(maxsize=1)
def conditionals() -> tuple[NDArray[np.float64], ...]:
    """Each attribute's distribution given the category, ``(categories, C_m)``; the category's own has equal rows."""
    categories = SCHEMA.values[CATEGORY]
    tables = []
    for m, attribute in enumerate(SCHEMA.names):
        size = SCHEMA.sizes[m]
        if m == CATEGORY:
            tables.append(np.tile(_zipf(size, _ZIPF_CATEGORY), (size, 1)))
            continue
        table = np.tile(_TAIL * _zipf(size, 0.5), (len(categories), 1))
        for c, category in enumerate(categories):
            liked = [SCHEMA.value(m, value) for value in usual(category, attribute)]
            table[c, liked] += (1 - _TAIL) * _zipf(len(liked), 1.0)
        tables.append(table)
    return tuple(tables)


def _draw(m: int, category: NDArray[np.intp], u: NDArray[np.float64]) -> NDArray[np.intp]:
    """Values of attribute ``m`` for rows of the given categories, by inverting the conditional distribution."""
    cumulative = np.cumsum(conditionals()[m], axis=1)
    cumulative[:, -1] = np.inf
    result = np.empty(len(u), dtype=np.intp)
    for c in range(len(cumulative)):
        rows = category == c
        result[rows] = np.searchsorted(cumulative[c], u[rows], side="right")
    return result


@lru_cache(maxsize=8)
def archetypes(seed: int) -> NDArray[np.int16]:
    """Labels of the popular designs, most popular first, ``(ARCHETYPES, A)``."""
    u = uniforms(keys(seed, "archetype", np.arange(ARCHETYPES)), SCHEMA.num_attributes)
    labels = np.empty(u.shape, dtype=np.int16)
    category = _draw(CATEGORY, np.zeros(ARCHETYPES, dtype=np.intp), u[:, CATEGORY])
    # The most popular dozen covers every category once, so that no seed makes one of them rare.
    category[: len(FAVOURITES)] = np.arange(len(FAVOURITES))
    labels[:, CATEGORY] = category
    for m in range(1, SCHEMA.num_attributes):
        labels[:, m] = _draw(m, category, u[:, m])
    return labels


def item_labels(seed: int, split: int, items: NDArray[np.int64]) -> NDArray[np.int16]:
    """True labels of items, ``(n, A)``: a popular design, with some attributes replaced by what the category also has.

    Args:
        seed: the catalogue's seed.
        split: splits have unrelated items but share the designs.
        items: ``(n,)`` item numbers within the split.
    """
    A = SCHEMA.num_attributes
    u = uniforms(keys(seed, "labels", split, items), 2 * A + 1)
    popularity = np.cumsum(_zipf(ARCHETYPES, _ZIPF_ARCHETYPE))
    popularity[-1] = np.inf
    labels = archetypes(seed)[np.searchsorted(popularity, u[:, 2 * A], side="right")].copy()
    for m, attribute in enumerate(SCHEMA.names):
        rows = np.flatnonzero(u[:, m] < MUTATION[attribute])
        labels[rows, m] = _draw(m, labels[rows, CATEGORY].astype(np.intp), u[rows, A + m])
    return labels


def disturb(labels: NDArray[np.int16], key: NDArray[np.uint64], missing: float, wrong: float) -> NDArray[np.int16]:
    """Labels as annotators leave them: each one missing or replaced by another value with the given probabilities.

    Args:
        labels: true labels ``(n, A)``.
        key: ``(n,)`` keys of the rows' random numbers.
        missing: share of labels that become −1.
        wrong: share of labels that become a wrong value.
    """
    A = SCHEMA.num_attributes
    u = uniforms(key, 2 * A)
    sizes = np.asarray(SCHEMA.sizes)
    other = (labels + 1 + np.floor(u[:, A:] * (sizes - 1)).astype(np.int64)) % sizes
    noisy = np.where(u[:, :A] < missing, -1, np.where(u[:, :A] >= 1 - wrong, other, labels))
    return noisy.astype(np.int16)
