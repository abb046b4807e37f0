# SPDX-License-Identifier: MIT
"""Requests of a run that its page shows: some drawn at random, the same for every method, and the worst."""

from typing import NamedTuple

import numpy as np

from fm_bench.attributes import MISSING, AttributeSchema
from fm_bench.evaluation.failures import failures
from fm_bench.extras.pictures import Pictures
from fm_bench.leaderboard.extras import Example, Rates, Result, Wish
from fm_bench.results import Found

EACH = 6
"""Examples of each kind."""
SHOWN = 6
"""Results of an example that are shown."""
_SEED = 0


class Drawn(NamedTuple):
    """The cells of what a method drew for a request, and of the truth, where there are any."""

    prototype: int | None = None
    truth: int | None = None


def rates(found: Found) -> Rates:
    """How the requests fail in the results that a run keeps."""
    requests = found.requests
    changed = (requests.attribute[:, :, None] == np.arange(requests.target.shape[1])).any(axis=1)
    seen = failures(found.labels, found.before, requests.target, changed)
    each = dict(zip(requests.schema.names, seen.by_attribute(), strict=True))
    total = {name: rate._asdict() for name, rate in seen.rates().items()}
    return Rates(len(requests), found.rows.shape[1], total, {name: part for name, part in each.items() if part})


def choose(found: Found, each: int = EACH) -> list[tuple[str, int]]:
    """``("typical", position)`` of requests drawn at random, then ``("worst", position)`` of others.

    The worst have the fewest hits among the results that are kept; of equal ones, those whose results share the fewest
    labels with the target.
    """
    typical = np.sort(np.random.default_rng(_SEED).permutation(len(found.requests))[:each])
    target = found.requests.target[:, None]
    fits = ((found.labels == target) & (target != MISSING)).sum(axis=(1, 2))
    share = fits / np.maximum(1, (target != MISSING).sum(axis=(1, 2)))
    order = np.lexsort((share, found.hits.sum(axis=1)))
    worst = order[~np.isin(order, typical)][:each]
    return [("typical", i) for i in typical.tolist()] + [("worst", i) for i in worst.tolist()]


def example(found: Found, kind: str, at: int, same_item: bool, pictures: Pictures | None, drawn: Drawn) -> Example:
    """The request at ``at`` with its first results; ``same_item`` says that only the very item is a hit."""
    query = int(found.requests.query[at])
    ranks = [rank for rank, row in enumerate(found.rows[at, :SHOWN].tolist()) if row >= 0]
    results = tuple(_result(found, at, rank, same_item, pictures) for rank in ranks)
    return Example(
        kind,
        at,
        query,
        _wishes(found, at),
        int(found.hits[at].sum()),
        None if pictures is None else pictures.of(query),
        *drawn,
        results,
    )


def _wishes(found: Found, at: int) -> tuple[Wish, ...]:
    requests, schema = found.requests, found.requests.schema
    pairs = zip(requests.attribute[at].tolist(), requests.value[at].tolist(), strict=True)
    return tuple(
        Wish(schema.names[m], _value(schema, m, int(found.before[at, m])), schema.values[m][v])
        for m, v in pairs
        if m >= 0
    )


def _result(found: Found, at: int, rank: int, same_item: bool, pictures: Pictures | None) -> Result:
    row, hit = int(found.rows[at, rank]), bool(found.hits[at, rank])
    schema, target, labels = found.requests.schema, found.requests.target[at], found.labels[at, rank]
    differs = np.flatnonzero((target != MISSING) & (labels != target)).tolist()
    wrong = [f"{schema.names[m]}: {_value(schema, m, int(labels[m])) or 'unknown'}" for m in differs]
    if same_item and not hit:
        wrong = wrong or ["another item"]
    return Result(row, hit, () if hit else tuple(wrong), None if pictures is None else pictures.of(row))


def _value(schema: AttributeSchema, attribute: int, value: int) -> str:
    """The value's name; empty where it is unknown."""
    return "" if value == MISSING else schema.values[attribute][value]
