# SPDX-License-Identifier: MIT
"""What tables show of a protocol: the metric that ranks its rows, and the columns beside it."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fm_bench import recipe
from fm_bench.evaluation.sweep import RATIO, swept

HEADLINE = "accuracy@20"
TEXT = ("accuracy@1", "accuracy@10", HEADLINE, "ndcg@20", "mrr@1000")
PAGE = (*(f"accuracy@{k}" for k in (1, 5, 10, 20, 50)), "ndcg@10", "ndcg@20", "mrr@1000")
LATENCY_GALLERY = 50_000
TIMES = ("t_sum_ms", "t_repr_ms", "t_sea_ms")
PERCENTILES = ("p50", "p95", "p99")
_HEADLINES = {
    "region": "success@5",
    "detection": "ap@0.7 shop",
    "classification": "manipulated",
    "generation": "exact",
    "latency": TIMES[0],
}
_COLUMNS = {
    "instance": ("accuracy@1", "accuracy@5", HEADLINE, "accuracy@50", "ndcg@20"),
    "region": ("success@5", "accuracy@1", HEADLINE, "ndcg@20"),
    "classification": ("manipulated", "original", "difference", "kept", "kept_original"),
    "generation": ("exact", "changed", "kept", "ssim", "l1"),
    "latency": (*TIMES, *(f"{TIMES[0]}_{p}" for p in PERCENTILES)),
}
_NARROW = {"t_sum_ms_p50", "t_sum_ms_p99", "accuracy@10", "accuracy@50"}
"""What a narrow terminal has no room for."""
_TIME = re.compile(r"t_(sum|repr|sea)_ms(?:_(p\d+))?")
ABOUT = {
    "manipulate-1": "One attribute of the pictured garment is to change, all others stay.",
    "manipulate-2": "Two attributes of the pictured garment are to change, all others stay.",
    "region": "One attribute of one region is to change (“sleeves in green”), everything else stays.",
    "search": "No change is asked for: find garments with the labels of the picture.",
    "instance": "Find the very same item, photographed elsewhere.",
    "gallery-sweep": "Find the very same item while the gallery grows around one picture of it.",
    "gallery-sweep-1": "One attribute is to change, while the gallery grows around one picture that fits.",
    "detection": "Find the garment's box in the picture, and the very same item from what is inside.",
    "classification": "One attribute is to change: what classifiers of unchanged vectors read from the changed vector.",
    "generation": "One attribute is to change: the drawn prototype beside the same item, drawn again with the change; "
    "identity copies the query.",
    "latency": "From a picture and a request to the ranked list, one query at a time.",
}
PAPERS: Mapping[str, Mapping[str, Any]] = {
    name: content for name in recipe.names("protocols") if "paper" in (content := recipe.load("protocols", name))
}
"""The protocols of papers, which come after those that all methods share, as their files have them."""
ABOUT |= {name: str(content["description"]) for name, content in PAPERS.items()}


def like(protocol: str) -> str:
    """The shared protocol whose words and columns suit a paper's; every other protocol is its own."""
    content = PAPERS.get(protocol, {})
    if content.get("regions"):
        return "region"
    return str(content.get("kind", "instance" if content.get("hit") == "instance" else protocol))


def headline(protocol: str, names: Collection[str]) -> str:
    """The metric that ranks the rows, of those that their records hold (``names``)."""
    if sizes := swept(names):
        return sizes[-1][1]
    wanted = PAPERS.get(protocol, {}).get("headline") or _HEADLINES.get(protocol, HEADLINE)
    return wanted if wanted in names else next(iter(measured(names)), wanted)


def order(protocol: str) -> int:
    """Where the tables of ``protocol`` stand: what this benchmark is about comes first, and what nobody knows last."""
    known = list(ABOUT)
    return known.index(protocol) if protocol in known else len(known)


def is_lower(metric: str) -> bool:
    """Whether lower values of ``metric`` are better: times, errors, and what a growing gallery costs."""
    return metric in (RATIO, "l1") or _TIME.fullmatch(metric) is not None


def rank(metric: str, value: float | None) -> float:
    """Sorts values of ``metric`` best first, and what has none last."""
    if value is None:
        return math.inf
    return value if is_lower(metric) else -value


def unit(metric: str) -> str:
    """What ``metric`` is counted in, nothing for shares."""
    return "ms" if _TIME.fullmatch(metric) else "ratio" if metric == RATIO else ""


def number(metric: str, value: float, sign: str = "") -> str:
    """``value`` of ``metric`` as text: three decimals, and for milliseconds no more than three digits or so."""
    if unit(metric) != "ms":
        return f"{value:{sign}.3f}"
    digits = max(0, 2 - math.floor(math.log10(max(abs(value), 1.0))))
    return f"{value:{sign}.{digits}f}"


def columns(protocol: str, names: Collection[str], usual: Sequence[str]) -> list[str]:
    """The metrics that have a column, of ``names``; ``usual`` for protocols that have no columns of their own."""
    if sizes := swept(names):
        return [name for _, name in sizes] + [RATIO]
    if protocol == "detection" or (protocol in PAPERS and "kind" not in PAPERS[protocol]):
        return [name for name in measured(names) if not name.startswith("ndcg_ones@")]
    protocol = like(protocol)
    return [name for name in _COLUMNS.get(protocol, usual) if name in names]


def narrow(metrics: Sequence[str]) -> list[str]:
    """Those of ``metrics`` that a narrow terminal has room for."""
    if swept(metrics):
        return [metrics[0], *metrics[-2:]]
    return [metric for metric in metrics if metric not in _NARROW][:4]


def measured(names: Collection[str]) -> list[str]:
    """``names`` without what guessing reaches."""
    return [name for name in names if not name.startswith("chance@")]


def head(metric: str) -> str:
    """``metric`` as the head of a narrow column, in one line or two: ``@20 of`` above ``1,000``."""
    if "|" in metric:
        return "\n".join(words(metric).removeprefix("accuracy").rsplit(" ", 1))
    if _TIME.fullmatch(metric):
        return words(metric).replace(" ", "\n", 1)
    return metric.replace("_" if metric == RATIO else " ", "\n", 1)


def work(protocol: str, requests: int, gallery: int) -> str:
    """What every row was asked, e.g. ``1,500 requests, 5,000 gallery images``."""
    protocol = like(protocol)
    if protocol == "detection":
        return f"{requests:,} pictures of each domain"
    if protocol in ("classification", "generation"):
        return f"{requests:,} requests"
    if protocol == "latency":
        return f"{requests:,} queries one by one, {LATENCY_GALLERY:,} gallery vectors"
    return f"{requests:,} requests, {gallery:,} gallery images"


def words(metric: str) -> str:
    """``accuracy@20 of 1,000`` for ``accuracy@20|1000``, ``T_sum ms p95`` for ``t_sum_ms_p95``, others as they are."""
    if time := _TIME.fullmatch(metric):
        return " ".join(filter(None, (f"T_{time[1]} ms", time[2])))
    name, _, size = metric.partition("|")
    return f"{name} of {int(size):,}" if size.isdecimal() else metric
