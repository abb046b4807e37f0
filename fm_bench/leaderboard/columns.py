# SPDX-License-Identifier: MIT
"""The columns of the page's tables: heads, definitions, and what they show of a row."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

from fm_bench.evaluation.sweep import RATIO
from fm_bench.leaderboard import shown
from fm_bench.leaderboard.rows import Row, Table
from fm_bench.leaderboard.table import count, duration, ends

Shown = tuple[float, str, str]
"""A number to sort by, its text, and the small print under it."""
Times = Mapping[tuple[str, int], Row]
"""Rows of a latency table by label and embedding size: vectors of another size are not searched in the same time."""


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of a result table: its head, what it means, and what it shows of a row.

    Attributes:
        group: key of the column group it stands under.
        head, small: the head and the small print under it.
        title: the definition in full.
        cell: what it shows of a row, or None where the row has no value.
        metric: its metric, if it is one.
    """

    group: str
    head: str
    small: str
    title: str
    cell: Callable[[Row], Shown | None]
    metric: str = ""


GROUPS = {
    "accuracy": ("accuracy@k", "share of requests with a hit, an image with every wanted attribute, among the first k"),
    "success": ("success@k", "share of hits among the first k"),
    "sweep": ("accuracy@20 by gallery size", "and its increment from the largest gallery to the smallest"),
    "detection": (
        "boxes and what they find",
        "ap: average precision of the boxes, at an overlap; accuracy@k of search",
    ),
    "ndcg": (
        "ndcg@k",
        "order of the first k, by the share of wanted attributes; 1 is the best order the gallery allows",
    ),
    "mrr": ("mrr@k", "mean of 1 / rank of the first hit"),
    "mrr_item": ("mrr_item@k", "mean of 1 / rank of one designated image among the hits"),
    "classification": (
        "what classifiers read",
        "linear classifiers of one attribute each, trained on unchanged vectors; share of requests they read right",
    ),
    "generation": (
        "what the prototype shows",
        "read by classifiers that no method has seen; and its likeness to the item drawn again",
    ),
    "latency": (
        "milliseconds for one query",
        "means, and percentiles of the sum; the model is warm, and queries come one at a time",
    ),
    "timed": (
        "milliseconds, one query at a time",
        f"in {shown.LATENCY_GALLERY:,} gallery vectors; of the row of this name in the latency table",
    ),
    "cost": ("size and cost", "of one run; means over seeds"),
}
_ITEM = ("accuracy@k", "share of requests with the very same item among the first k")
_FAMILIES = {
    "accuracy": ("first {k}", "share of requests with a hit among the first {k}"),
    "success": ("first {k}", "share of hits among the first {k}, mean over requests"),
    "ndcg": ("first {k}", "discounted gain 2^relevance - 1, divided by the best in the gallery"),
    "mrr": ("0 past {k}", "mean of 1 / rank of the first hit, 0 where it is beyond rank {k}"),
    "mrr_item": ("0 past {k}", "mean of 1 / rank of one designated image that fits, 0 where it is beyond rank {k}"),
}


_NAMED = {  # protocol: metric: head, small print, definition
    "classification": {
        "manipulated": ("manipulated", "asked value", "the asked value is read from the changed vector"),
        "original": ("original", "own value", "the picture's own value is read from the unchanged vector"),
        "difference": ("difference", "by attributes", "manipulated minus original, mean over attributes"),
        "kept": ("kept", "values", "the other attributes' values are read from the changed vector"),
        "kept_original": (
            "kept original",
            "values before",
            "the other attributes' values are read from the unchanged vector",
        ),
    },
    "generation": {
        "exact": ("exact", "all as wanted", "share of prototypes that show every wanted value"),
        "changed": ("changed", "asked value", "share of prototypes that show the asked value"),
        "kept": ("kept", "values", "share of the values to be kept that prototypes show"),
        "ssim": ("ssim", "to the truth", "structural similarity to the item drawn again with the change"),
        "l1": ("l1", "lower is better", "mean difference of pixels (0 to 1) to the item drawn again"),
    },
    "latency": {
        "t_sum_ms": ("sum", "lower is better", "T_sum, from picture and request to the ranked list"),
        "t_repr_ms": ("vector", "T_repr", "T_repr, from picture and request to the query's vector"),
        "t_sea_ms": ("search", "T_sea", "T_sea, from the query's vector to the ranked list"),
        **{
            f"t_sum_ms_{p}": (p, "of the sum", f"{p[1:]} % of the queries take no longer from picture to list")
            for p in shown.PERCENTILES
        },
    },
}


def group_head(key: str, protocol: str) -> tuple[str, str]:
    """Head and definition of a column group."""
    return _ITEM if (key, shown.like(protocol)) == ("accuracy", "instance") else GROUPS[key]


def columns_of(table: Table, times: Times = MappingProxyType({})) -> tuple[Column, ...]:
    """The columns that some row of ``table`` has a value for: metrics first, then what they cost.

    ``times`` are the rows of the latency table that belongs to it.
    """
    metrics = shown.columns(table.key.protocol, table.metrics, shown.PAGE)
    timed = table.headline in shown.TIMES  # query by query, so that the mean of a batch says nothing more
    costs = [column for column in _COSTS if not (timed and column.head == "query")]
    named = [_metric(metric, shown.like(table.key.protocol)) for metric in metrics]
    every = (*named, *([] if timed else map(functools.partial(_time, times), shown.TIMES)), *costs)
    return tuple(column for column in every if any(column.cell(row) for row in table.rows))


def _metric(metric: str, protocol: str) -> Column:
    def cell(row: Row) -> Shown | None:
        found = row.cell(metric)
        return (
            None
            if found is None
            else (found.value, shown.number(metric, found.value), ends(metric, found.low, found.high))
        )

    family, _, k = metric.partition("@")
    if metric in (named := _NAMED.get(protocol, {})):
        head, small, title = named[metric]
        return Column(protocol, head, small, f"{metric}: {title}", cell, metric)
    if metric == RATIO:
        title = f"{metric}: (accuracy in the smallest gallery - in the largest) / in the largest"
        return Column("sweep", "ratio", "lower is better", title, cell, metric)
    if "|" in metric:
        size = shown.words(metric).rpartition(" ")[2]
        title = f"{metric}: share of requests whose one kept hit is among the first 20 of {size} images"
        return Column("sweep", size, "images", title, cell, metric)
    if family in _FAMILIES and k.isdecimal():
        small, title = (text.format(k=k) for text in _FAMILIES[family])
        return Column(family, f"@{k}", small, f"{metric}: {title}", cell, metric)
    head, _, small = metric.partition(" ")
    return Column("detection", head, small, metric, cell, metric)


def _time(times: Times, metric: str) -> Column:
    """A column of the latency table beside the results of another protocol."""
    of_protocol = _metric(metric, "latency")

    def cell(row: Row) -> Shown | None:
        found = times.get((row.label, row.first.dim))
        return None if found is None else of_protocol.cell(found)

    symbol, meaning = of_protocol.title.partition(": ")[2].split(", ", 1)
    return Column("timed", symbol, of_protocol.head, f"{symbol}: {meaning}", cell)


def _cost(
    head: str, small: str, title: str, value: Callable[[Row], float | None], text: Callable[[float], str]
) -> Column:
    def cell(row: Row) -> Shown | None:
        found = value(row)
        return None if found is None else (found, text(found), "")

    return Column("cost", head, small, title, cell)


_COSTS = (
    _cost(
        "size", "numbers", "width of an embedding, in float32 numbers", lambda row: row.first.dim, lambda n: f"{n:.0f}"
    ),
    _cost(
        "weights", "parameters", "number of parameters, frozen ones included", lambda row: row.first.parameters, count
    ),
    _cost("training", "wall clock", "wall-clock time of all training stages", lambda row: row.mean("train"), duration),
    _cost(
        "query",
        "ms each",
        "milliseconds from a query's picture to its ranked list, per query",
        lambda row: row.mean("query_ms"),
        lambda ms: f"{ms:.2f}",
    ),
    _cost(
        "memory",
        "peak, GiB",
        "highest resident memory of the run",
        lambda row: row.mean("peak_memory_mb"),
        lambda mb: f"{mb / 1024:.2f}",
    ),
)
