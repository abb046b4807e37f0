# SPDX-License-Identifier: MIT
"""The columns of the page's tables: heads, definitions, and what they show of a row."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
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
        name: what it is called where its group cannot be seen: no other column of its table is called so, and the head
            is a part of it.
        definition: what it means, in full.
        cell: what it shows of a row, or None where the row has no value.
        metric: its metric, if it is one.
    """

    group: str
    head: str
    small: str
    name: str
    definition: str
    cell: Callable[[Row], Shown | None]
    metric: str = ""


GROUPS = {
    "accuracy": ("accuracy@k", "share of requests with a hit, an image with every wanted attribute, among the first k"),
    "success": ("success@k", "share of hits among the first k"),
    "sweep": ("accuracy@20 by gallery size", "and its increment from the largest gallery to the smallest"),
    "detection": (
        "boxes and what they find",
        "how well they fit, at an overlap; and what is found with them, accuracy@k",
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
        "means, and percentiles of the sum, less is better; the model is warm, and queries come one at a time",
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
    "ndcg": (
        "first {k}",
        "discounted gain 2^relevance - 1 of the first {k}, divided by that of the best order of the gallery",
    ),
    "mrr": ("0 past {k}", "mean of 1 / rank of the first hit, 0 where it is beyond rank {k}"),
    "mrr_item": ("0 past {k}", "mean of 1 / rank of one designated image that fits, 0 where it is beyond rank {k}"),
}


_BOX = "the true one at an overlap (intersection over union) of at least {k}"
_BOXES = {
    "ap": f"area under precision over recall of the boxes in {{where}}; a picture's one is right if it meets {_BOX}",
    "found": f"share of {{where}} whose box of the best score meets {_BOX}",
    "recall": f"share of {{where}} where any proposal, of whatever score, meets {_BOX}",
    "accuracy": "share of street photos whose very item is among the first {k} shop photos, {where}",
}
"""What is said of detectors: family -> definition."""
_WHERE = {
    "shop": "shop photos",
    "street": "street photos",
    "detected boxes": "both cut to the boxes that the detector found",
    "true boxes": "both cut to their true boxes",
    "full images": "both uncut",
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
        "t_sum_ms": ("sum", "to the list", "T_sum, from picture and request to the ranked list"),
        "t_repr_ms": ("vector", "to a vector", "T_repr, from picture and request to the query's vector"),
        "t_sea_ms": ("search", "from a vector", "T_sea, from the query's vector to the ranked list"),
        **{
            f"t_sum_ms_{p}": (p, "of the sum", f"{p[1:]} % of the queries take no longer for T_sum")
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


def glossary(columns: Sequence[Column], ranked_by: str = "", *, folded: bool = False) -> dict[str, str]:
    """What every column of a table means, by its name and in the order of the columns.

    Args:
        columns: those behind the method, its rank and its seeds.
        ranked_by: the metric of the column of ranks; empty where there is none.
        folded: whether the rows are cross-validations.
    """
    each = "fold" if folded else "seed"
    found = {"method": "name, or name/variant"}
    if ranked_by:
        found["rank"] = (
            f"1 and the number of rows that are better beyond doubt on {shown.words(ranked_by)}; rows with a letter in "
            "common cannot be told apart"
        )
    found["seeds"] = (
        f"with how many seeds the row was run{', each in all folds' if folded else ''}; values are means over its "
        f"runs, and behind the word “{each}s” stand the lowest and the highest of them"
    )
    return found | {column.name: column.definition for column in columns}


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
        head, small, definition = named[metric]
        return Column(protocol, head, small, f"{protocol} {head}", definition, cell, metric)
    if metric == RATIO:
        definition = "(accuracy@20 in the smallest gallery - in the largest) / in the largest"
        return Column("sweep", "ratio", "lower is better", "increment ratio", definition, cell, metric)
    if "|" in metric:
        size = shown.words(metric).rpartition(" ")[2]
        definition = f"share of requests whose one kept hit is among the first 20 of {size} images"
        return Column("sweep", size, "images", shown.words(metric), definition, cell, metric)
    if family in _FAMILIES and k.isdecimal():
        small, definition = (text.format(k=k) for text in _FAMILIES[family])
        return Column(family, f"@{k}", small, metric, definition, cell, metric)
    head, _, small = metric.partition(" ")
    if family in _BOXES and small in _WHERE:
        definition = _BOXES[family].format(k=head.partition("@")[2], where=_WHERE[small])
    else:
        definition = "a metric that this version of fm-bench does not know"
    return Column("detection", head, small, metric, definition, cell, metric)


def _time(times: Times, metric: str) -> Column:
    """A column of the latency table beside the results of another protocol."""
    of_protocol = _metric(metric, "latency")

    def cell(row: Row) -> Shown | None:
        found = times.get((row.label, row.first.dim))
        return None if found is None else of_protocol.cell(found)

    symbol, _, meaning = of_protocol.definition.partition(", ")
    return Column("timed", symbol, of_protocol.small, symbol, f"milliseconds {meaning}", cell)


def _cost(
    head: str, small: str, definition: str, value: Callable[[Row], float | None], text: Callable[[float], str]
) -> Column:
    def cell(row: Row) -> Shown | None:
        found = value(row)
        return None if found is None else (found, text(found), "")

    return Column("cost", head, small, head, definition, cell)


_COSTS = (
    _cost(
        "size",
        "of a vector",
        "width of an embedding, in float32 numbers",
        lambda row: row.first.dim,
        lambda n: f"{n:.0f}",
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
