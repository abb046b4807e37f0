# SPDX-License-Identifier: MIT
"""What tables show of a protocol: the metric that ranks its rows, and the columns beside it."""

from collections.abc import Collection, Sequence

from fm_bench.evaluation.sweep import RATIO, swept

HEADLINE = "accuracy@20"
TEXT = ("accuracy@1", "accuracy@10", HEADLINE, "ndcg@20", "mrr@1000")
PAGE = (*(f"accuracy@{k}" for k in (1, 5, 10, 20, 50)), "ndcg@10", "ndcg@20", "mrr@1000")
_HEADLINES = {"region": "success@5", "detection": "ap@0.7 shop"}
_COLUMNS = {
    "instance": ("accuracy@1", "accuracy@5", HEADLINE, "accuracy@50", "ndcg@20"),
    "region": ("success@5", "accuracy@1", HEADLINE, "ndcg@20"),
}
ABOUT = {
    "search": "No change is asked for: find garments with the labels of the picture.",
    "manipulate-1": "One attribute of the pictured garment is to change, all others stay.",
    "manipulate-2": "Two attributes of the pictured garment are to change, all others stay.",
    "instance": "Find the very same item, photographed elsewhere.",
    "gallery-sweep": "Find the very same item while the gallery grows around one picture of it.",
    "gallery-sweep-1": "One attribute is to change, while the gallery grows around one picture that fits.",
    "region": "One attribute of one region is to change (“sleeves in green”), everything else stays.",
    "detection": "Find the garment's box in the picture, and the very same item from what is inside.",
}


def headline(protocol: str, names: Collection[str]) -> str:
    """The metric that ranks the rows, of those that their records hold (``names``)."""
    if sizes := swept(names):
        return sizes[-1][1]
    wanted = _HEADLINES.get(protocol, HEADLINE)
    return wanted if wanted in names else next(iter(measured(names)), wanted)


def columns(protocol: str, names: Collection[str], usual: Sequence[str]) -> list[str]:
    """The metrics that have a column, of ``names``; ``usual`` for protocols that have no columns of their own."""
    if sizes := swept(names):
        return [name for _, name in sizes] + [RATIO]
    if protocol == "detection":
        return measured(names)
    return [name for name in _COLUMNS.get(protocol, usual) if name in names]


def narrow(metrics: Sequence[str]) -> list[str]:
    """Those of ``metrics`` that a narrow terminal has room for."""
    if swept(metrics):
        return [metrics[0], *metrics[-2:]]
    return [metric for metric in metrics if metric not in ("accuracy@10", "accuracy@50")][:4]


def measured(names: Collection[str]) -> list[str]:
    """``names`` without what guessing reaches."""
    return [name for name in names if not name.startswith("chance@")]


def head(metric: str) -> str:
    """``metric`` as the head of a narrow column, in one line or two: ``@20 of`` above ``1,000``."""
    if "|" in metric:
        return "\n".join(words(metric).removeprefix("accuracy").rsplit(" ", 1))
    return metric.replace("_" if metric == RATIO else " ", "\n", 1)


def work(protocol: str, requests: int, gallery: int) -> str:
    """What every row was asked, e.g. ``1,500 requests, 5,000 gallery images``."""
    if protocol == "detection":
        return f"{requests:,} pictures of each domain"
    return f"{requests:,} requests, {gallery:,} gallery images"


def words(metric: str) -> str:
    """``accuracy@20 of 1,000`` for the metric ``accuracy@20|1000``, others as they are."""
    name, _, size = metric.partition("|")
    return f"{name} of {int(size):,}" if size.isdecimal() else metric
