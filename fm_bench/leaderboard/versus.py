# SPDX-License-Identifier: MIT
"""Two methods on the same requests, metric by metric and attribute by attribute: what ``fm-bench compare`` prints."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fm_bench.errors import UserError
from fm_bench.leaderboard.compare import METRICS, Run, attribute_differences, differences, load_run
from fm_bench.leaderboard.folds import fold_of
from fm_bench.leaderboard.record import FILE, find, requests_file
from fm_bench.leaderboard.resampling import Comparison
from fm_bench.leaderboard.rows import settings
from fm_bench.leaderboard.shown import headline, number, words


class Contest(NamedTuple):
    """What two sides scored under one protocol.

    Attributes:
        metrics: metric -> difference over all requests.
        headline: the metric that ranks the protocol's tables.
        attributes: attribute -> difference of the headline over the requests that change it.
        means: metric -> mean of each side.
    """

    metrics: Mapping[str, Comparison]
    headline: str
    attributes: Mapping[str, Comparison]
    means: Mapping[str, tuple[float, float]]


class Compared(NamedTuple):
    """Two sides, one run per seed, and what they scored: protocol -> contest."""

    x: list[Run]
    y: list[Run]
    contests: dict[str, Contest]


def compare(a: Path, b: Path) -> Compared:
    """The runs in ``a`` minus the runs in ``b``, on every protocol that both have answered.

    Args:
        a: folder of a run, or a folder with runs of one method that differ in their seed; or a filed record.
        b: the same of what it is compared with.

    Raises:
        UserError: if there is no run, if a side holds several methods, if the sides have no protocol in common, or if
            they were not asked the same requests.
    """
    x, y = side(a), side(b)
    protocols = [name for name in x[0].record.protocols if all(name in run.record.protocols for run in (*x, *y))]
    if not protocols:
        raise UserError(f"{a} and {b} have no protocol in common: run one of them on the protocols of the other.")
    return Compared(x, y, {protocol: _contest(x, y, protocol) for protocol in protocols})


def side(path: Path) -> list[Run]:
    """The run at ``path``, or one run per seed below it. Raises UserError if there is none, or of several methods."""
    path = Path(path)
    if not path.is_dir() or (path / FILE).exists():
        return [load_run(path)]
    runs = [load_run(found) for found in find(path) if requests_file(found).exists()]
    if not runs:
        raise UserError(f"{path} holds no run with per-request results: give a folder that `fm-bench bench` wrote.")
    if any(fold_of(run.record) is not None for run in runs):
        raise UserError(f"{path} holds folds of a cross-validation: `fm-bench bench --folds 5` compares these.")
    kinds = {(run.record.name, str(settings(run.record))) for run in runs}
    if len(kinds) > 1:
        names = sorted({name for name, _ in kinds})
        raise UserError(
            f"{path} holds runs of {', '.join(names)} with {len(kinds)} different settings: give a folder whose runs "
            "differ in nothing but their seed."
        )
    newest = {run.record.seed: run for run in sorted(runs, key=lambda run: run.record.finished)}
    if len({run.record.code["digest"] for run in newest.values()}) > 1:
        raise UserError(
            f"{path} holds seeds of {runs[0].record.name} that ran with different code, which is no one row: "
            "run the older ones again."
        )
    return [newest[seed] for seed in sorted(newest)]


def _contest(x: Sequence[Run], y: Sequence[Run], protocol: str) -> Contest:
    found = differences(x, y, protocol, METRICS)
    best = headline(protocol, list(found))
    attributes = attribute_differences(x, y, protocol, best) if best in found else {}
    return Contest(
        found, best, attributes, {metric: (_mean(x, protocol, metric), _mean(y, protocol, metric)) for metric in found}
    )


def _mean(runs: Sequence[Run], protocol: str, metric: str) -> float:
    return sum(run.record.metrics[protocol][metric]["value"] for run in runs) / len(runs)


def print_comparison(compared: Compared, console: Console) -> None:
    """Prints what ``compare`` found, within 80 columns."""
    names = [_name(compared.x), _name(compared.y)]
    for protocol, contest in compared.contests.items():
        table = _table(f"{protocol}: {names[0]} minus {names[1]}", "metric")
        for metric, found in contest.metrics.items():
            _row(table, words(metric), metric, found, contest.means[metric])
        console.print(table)
        if contest.attributes:
            table = _table(f"{protocol}: {words(contest.headline)} of the requests that change", "attribute")
            for attribute, found in contest.attributes.items():
                _row(table, attribute, contest.headline, found, None)
            console.print(table)
    console.print(
        "Intervals are 95 % intervals: a paired bootstrap over requests, and Student's t over seeds, whose variance "
        "the two sides are taken to share. Where neither side has several, it is unknown and left out."
    )


def _table(title: str, first: str) -> Table:
    table = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left", pad_edge=False, collapse_padding=True)
    means = ("A", "B") if first == "metric" else ()
    table.add_column(first, overflow="fold")
    for head in (*means, "A - B", "95 % interval", "better", "same", "worse"):
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _row(table: Table, name: str, metric: str, found: Comparison, means: tuple[float, float] | None) -> None:
    interval = f"{number(metric, found.low, '+')} to {number(metric, found.high, '+')}"
    counts = [f"{count:,}" for count in (found.wins, found.ties, found.losses)]
    shown = [number(metric, mean) for mean in means or ()]
    table.add_row(Text(name), *shown, number(metric, found.value, "+"), interval, *counts)


def _name(runs: Sequence[Run]) -> str:
    seeds = [str(run.record.seed) for run in runs]
    return f"{runs[0].record.label} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})"
